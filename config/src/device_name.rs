//! How a device is named.

use addr::{Bdf, PciAddress};
use core::fmt;

/// How a configuration names a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// By its place: `"0000:00:03.0"` or `"00:03.0"`.
    Address(PciAddress),
    /// By vendor and device id: `"8086:10d3"`, the first such function that no guest has yet.
    Id {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
}

impl DeviceName {
    /// Reads a name; `None` if it has neither form.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |digits: &str, length: usize| {
            let plain = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let mut parts = text.rsplit(':');
        let last = parts.next()?;
        let middle = parts.next()?;
        let Some((device, function)) = last.split_once('.') else {
            let id = DeviceName::Id { vendor: hex(middle, 4)?, device: hex(last, 4)? };
            return parts.next().is_none().then_some(id);
        };
        let segment = match parts.next() {
            Some(segment) => hex(segment, 4)?,
            None => 0,
        };
        let (bus, device, function) = (hex(middle, 2)?, hex(device, 2)?, hex(function, 1)?);
        let bdf = Bdf::new(bus as u8, device as u8, function as u8)?;
        parts.next().is_none().then_some(DeviceName::Address(PciAddress { segment, bdf }))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Id { vendor, device } => write!(f, "{vendor:04x}:{device:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn device_names_have_two_forms_and_no_other() {
        for text in ["8086:10d3", "0000:00:03.0", "00ff:1f:1f.7"] {
            assert_eq!(DeviceName::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(DeviceName::parse("1f:1f.7").unwrap().to_string(), "0000:1f:1f.7");
        for text in
            ["", ":", ".", "8086:10d33", "8086:10g3", "00:20.0", "00:1f.8", "0:0000:00:03.0", "00:3.0", "+086:10d3"]
        {
            assert_eq!(DeviceName::parse(text), None, "{text}");
        }
    }
}
