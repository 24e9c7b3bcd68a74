//! The MSI-X table that the guest writes; the real one is the hypervisor's.

extern crate alloc;

use super::{GuestMessage, MsixEffect};
use ::pci::spec::msi::{ENTRY_ADDRESS, ENTRY_ADDRESS_HIGH, ENTRY_DATA, ENTRY_MASKED, ENTRY_SIZE, ENTRY_VECTOR_CONTROL};
use alloc::vec;
use alloc::vec::Vec;

/// What the real entry does, as far as effects have said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    Masked,
    Live(GuestMessage),
    /// Masked, because of this message.
    Unroutable {
        address: u64,
        data: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    address: u64,
    data: u32,
    vector_control: u32,
    route: Route,
}

/// A guest's MSI-X table.
///
/// An entry gets a route when it becomes live (MSI-X enabled, neither function nor entry masked), not when it is
/// written: guests write address and data one after the other, and a route made of one half would be of nobody's
/// wish. While an entry is masked the real one is too, so that the device's own pending bits, which the guest reads
/// straight from the device, are right, and the interrupt that waits there comes when the entry is live again.
#[derive(Debug)]
pub struct MsixTable {
    entries: Vec<Entry>,
    enabled: bool,
    function_masked: bool,
}

impl MsixTable {
    /// A table as after a reset: `entries` of them (1 to 2048), all masked, MSI-X disabled.
    pub fn new(entries: u16) -> Self {
        let masked = Entry { address: 0, data: 0, vector_control: ENTRY_MASKED, route: Route::Masked };
        Self { entries: vec![masked; usize::from(entries)], enabled: false, function_masked: false }
    }

    /// Length of the table, in bytes.
    pub fn length(&self) -> u64 {
        self.entries.len() as u64 * ENTRY_SIZE
    }

    /// Whether the guest enabled MSI-X.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the guest masked the function.
    pub fn function_masked(&self) -> bool {
        self.function_masked
    }

    /// The message of a live entry.
    pub fn route(&self, entry: u16) -> Option<GuestMessage> {
        match self.entries.get(usize::from(entry))?.route {
            Route::Live(message) => Some(message),
            Route::Masked | Route::Unroutable { .. } => None,
        }
    }

    /// Reads 4 or 8 bytes at an offset that is a multiple of them, or `None` for any other access, which a PCI function need
    /// not answer with sense (PCI Express Base section 6.1.4.2).
    pub fn read(&self, offset: u64, bytes: usize) -> Option<u64> {
        match bytes {
            4 if offset.is_multiple_of(4) => self.read_dword(offset).map(u64::from),
            8 if offset.is_multiple_of(8) => {
                Some(u64::from(self.read_dword(offset)?) | u64::from(self.read_dword(offset + 4)?) << 32)
            }
            _ => None,
        }
    }

    /// Writes 4 or 8 bytes at an offset that is a multiple of them. Returns whether it did: any other access changes
    /// nothing.
    pub fn write(&mut self, offset: u64, bytes: usize, value: u64, effects: &mut dyn FnMut(MsixEffect)) -> bool {
        let Some((index, within)) = self.locate(offset) else { return false };
        let aligned = matches!(bytes, 4 | 8) && offset.is_multiple_of(bytes as u64);
        let Some(entry) = self.entries.get_mut(usize::from(index)).filter(|_| aligned) else { return false };
        entry.write_dword(within, value as u32);
        if bytes == 8 {
            entry.write_dword(within + 4, (value >> 32) as u32);
        }
        self.update(index, effects);
        true
    }

    /// Sets what the guest wrote into message control.
    pub fn set_control(&mut self, enabled: bool, function_masked: bool, effects: &mut dyn FnMut(MsixEffect)) {
        self.enabled = enabled;
        self.function_masked = function_masked;
        for index in 0..self.entries.len() {
            // The table has 2048 entries at most.
            self.update(index as u16, effects);
        }
    }

    /// The number of the entry at `offset`, and the offset in it.
    fn locate(&self, offset: u64) -> Option<(u16, u64)> {
        let index = u16::try_from(offset / ENTRY_SIZE).ok()?;
        (usize::from(index) < self.entries.len()).then_some((index, offset % ENTRY_SIZE))
    }

    fn read_dword(&self, offset: u64) -> Option<u32> {
        let (index, within) = self.locate(offset)?;
        let entry = self.entries.get(usize::from(index))?;
        match within {
            ENTRY_ADDRESS => Some(entry.address as u32),
            ENTRY_ADDRESS_HIGH => Some((entry.address >> 32) as u32),
            ENTRY_DATA => Some(entry.data),
            ENTRY_VECTOR_CONTROL => Some(entry.vector_control),
            _ => None,
        }
    }

    /// Says what has to change for the real entry to do what the guest's says.
    fn update(&mut self, index: u16, effects: &mut dyn FnMut(MsixEffect)) {
        let live = self.enabled && !self.function_masked;
        let Some(entry) = self.entries.get_mut(usize::from(index)) else { return };
        let Entry { address, data, vector_control, route: before } = *entry;
        let decoded = GuestMessage::decode(address, data);
        entry.route = match decoded {
            _ if !live || vector_control & ENTRY_MASKED != 0 => Route::Masked,
            Ok(message) => Route::Live(message),
            Err(_) => Route::Unroutable { address, data },
        };
        if entry.route == before {
            return;
        }
        if let Route::Live(message) = entry.route {
            effects(MsixEffect::Route { entry: index, message });
            return;
        }
        if let Route::Live(_) = before {
            effects(MsixEffect::Mask { entry: index });
        }
        if let (Route::Unroutable { .. }, Err(reason)) = (entry.route, decoded) {
            effects(MsixEffect::Unroutable { entry: index, address, data, reason });
        }
    }
}

impl Entry {
    fn write_dword(&mut self, within: u64, value: u32) {
        match within {
            // Bits 1:0 are reserved: the address is a multiple of 4.
            ENTRY_ADDRESS => self.address = self.address & !0xFFFF_FFFF | u64::from(value & !3),
            ENTRY_ADDRESS_HIGH => self.address = self.address & 0xFFFF_FFFF | u64::from(value) << 32,
            ENTRY_DATA => self.data = value,
            ENTRY_VECTOR_CONTROL => self.vector_control = value & ENTRY_MASKED,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
