//! Which functions there are.

use crate::{ConfigSpace, DevicePortType, FunctionInfo};
use addr::{Bdf, PciAddress};

/// The functions of a segment, found from its root buses down through bridges, whose bus numbers are taken as the
/// firmware gave them.
///
/// Every bus is visited once at most, so the walk ends whatever the bridges say. Right below a PCI Express port only device
/// 0 is asked: a link has one device, and some answer for all 32 numbers.
pub struct Functions<'a> {
    config: &'a dyn ConfigSpace,
    segment: u16,
    /// One bit a bus: found, not yet visited; with whether only device 0 can be there.
    waiting: [u64; 4],
    visited: [u64; 4],
    link: [u64; 4],
    bus: Option<u8>,
    next_devfn: u16,
}

impl<'a> Functions<'a> {
    /// The functions of `segment` that are found from `root_bus`.
    pub fn new(config: &'a dyn ConfigSpace, segment: u16, root_bus: u8) -> Self {
        Self { config, segment, waiting: [0; 4], visited: [0; 4], link: [0; 4], bus: None, next_devfn: 0 }
            .with_root(root_bus)
    }

    /// And from another root bus: a segment has several where there are several host bridges.
    pub fn with_root(mut self, root_bus: u8) -> Self {
        set(&mut self.waiting, root_bus);
        self
    }

    fn next_bus(&mut self) -> Option<u8> {
        let bus = (0..=u8::MAX).find(|bus| is_set(&self.waiting, *bus) && !is_set(&self.visited, *bus))?;
        set(&mut self.visited, bus);
        Some(bus)
    }

    fn descend(&mut self, bridge: &FunctionInfo) {
        let Some(secondary) = bridge.secondary_bus() else { return };
        // A bridge that the firmware left alone has 0 there; bus 0 is the root's in any case.
        if secondary == 0 || is_set(&self.visited, secondary) {
            return;
        }
        set(&mut self.waiting, secondary);
        if matches!(bridge.port_type, Some(DevicePortType::RootPort | DevicePortType::DownstreamPort)) {
            set(&mut self.link, secondary);
        }
    }
}

impl Iterator for Functions<'_> {
    type Item = FunctionInfo;

    fn next(&mut self) -> Option<FunctionInfo> {
        loop {
            let Some(bus) = self.bus else {
                self.bus = Some(self.next_bus()?);
                self.next_devfn = 0;
                continue;
            };
            let end = if is_set(&self.link, bus) { 8 } else { 256 };
            if self.next_devfn >= end {
                self.bus = None;
                continue;
            }
            let devfn = self.next_devfn;
            self.next_devfn += 1;
            let address = PciAddress { segment: self.segment, bdf: Bdf::from_u16(u16::from(bus) << 8 | devfn) };
            let Some(found) = FunctionInfo::read(self.config, address) else {
                // Without function 0 there is no device, whatever the others answer.
                if address.bdf.function() == 0 {
                    self.next_devfn += 7;
                }
                continue;
            };
            if address.bdf.function() == 0 && !found.multi_function {
                self.next_devfn += 7;
            }
            self.descend(&found);
            return Some(found);
        }
    }
}

fn set(bits: &mut [u64; 4], bus: u8) {
    if let Some(word) = bits.get_mut(usize::from(bus / 64)) {
        *word |= 1 << (bus % 64);
    }
}

fn is_set(bits: &[u64; 4], bus: u8) -> bool {
    bits.get(usize::from(bus / 64)).is_some_and(|word| word & 1 << (bus % 64) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn scan(config: &Fake) -> Vec<String> {
        Functions::new(config, 0, 0).map(|found| found.address.bdf.to_string()).collect()
    }

    #[test]
    fn functions_behind_bridges_are_found_and_ghosts_are_not() {
        let mut config = Fake::new();
        config.add(at(0, 0, 0)).header(0x8086, 0x29C0, 0x06_0000, 0);
        // Function 1 answers, but function 0 says that the device has one function only.
        config.add(at(0, 0, 1)).header(0x8086, 1, 0, 0);
        config.add(at(0, 31, 0)).header(0x8086, 2, 0, 0x80);
        config.add(at(0, 31, 3)).header(0x8086, 3, 0, 0);
        // No function 0: no device.
        config.add(at(0, 5, 2)).header(0x8086, 4, 0, 0);
        config.add(at(0, 1, 0)).header(0x8086, 5, 0x06_0400, 1).buses(0, 2, 3).express(4);
        for device in 0..32 {
            config.add(at(2, device, 0)).header(0x8086, 6, 0, 0);
        }
        config.add(at(0, 2, 0)).header(0x1B36, 7, 0x06_0400, 1).buses(0, 9, 9);
        config.add(at(9, 4, 0)).header(0x8086, 8, 0, 0);
        assert_eq!(scan(&config), ["00:00.0", "00:01.0", "00:02.0", "00:1f.0", "00:1f.3", "02:00.0", "09:04.0"]);
    }

    #[test]
    fn bridges_that_loop_are_visited_once() {
        let mut config = Fake::new();
        config.add(at(0, 1, 0)).header(1, 1, 0x06_0400, 1).buses(0, 2, 255);
        config.add(at(2, 1, 0)).header(1, 1, 0x06_0400, 1).buses(2, 2, 2);
        config.add(at(2, 2, 0)).header(1, 1, 0x06_0400, 1).buses(2, 0, 0);
        config.add(at(2, 3, 0)).header(1, 1, 0x06_0400, 1).buses(2, 255, 255);
        assert_eq!(scan(&config).len(), 4);
    }

    #[test]
    fn a_bus_that_answers_all_zeros_or_all_ones_is_empty() {
        let mut config = Fake::new();
        assert_eq!(scan(&config).len(), 0);
        config.nothing = 0;
        assert_eq!(scan(&config).len(), 0);
    }

    #[test]
    fn several_roots_are_scanned() {
        let mut config = Fake::new();
        config.add(at(0, 1, 0)).header(1, 1, 0, 0);
        config.add(at(0x80, 1, 0)).header(1, 1, 0, 0);
        assert_eq!(Functions::new(&config, 0, 0).with_root(0x80).count(), 2);
    }
}
