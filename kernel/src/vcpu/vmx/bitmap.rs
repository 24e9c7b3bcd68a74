//! Which ports and model-specific registers a guest reaches without an exit (SDM vol. 3, 25.6.4 and 25.6.9).

use crate::vcpu::vmx::spec::msr;
#[cfg(test)]
use alloc::vec::Vec;
use core::mem::offset_of;

/// The I/O bitmaps A and B, one after the other: one bit a port, set to exit.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct IoBitmaps([u8; 2 * 4096]);

impl IoBitmaps {
    /// Every access exits.
    pub fn intercept_all(&mut self) {
        self.0.fill(0xff);
    }

    /// Lets the guest reach `port`, or not. An access exits if any of its ports does.
    pub fn set_passed(&mut self, port: u16, passed: bool) {
        set(&mut self.0, port.into(), !passed);
    }

    /// Whether the guest reaches `port`.
    #[cfg(test)]
    pub fn is_passed(&self, port: u16) -> bool {
        !get(&self.0, port.into())
    }
}

/// The MSR bitmaps: one bit a register, set to exit; reads of low and of high registers, then writes of them.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct MsrBitmaps([u8; 4096]);

/// The writes' half, in bits.
const WRITES: usize = 0x800 * 8;

impl MsrBitmaps {
    /// Every access exits but those to registers that entry and exit switch. IA32_EFER and IA32_PAT are not among
    /// them: what the guest writes there is checked, or its next entry fails.
    pub fn intercept_all_but_switched(&mut self) {
        self.0.fill(0xff);
        for register in msr::IN_CONTROL_STRUCTURE.into_iter().chain(msr::IN_AREA) {
            self.set_passed(register, true, true);
        }
    }

    /// Lets the guest read and write a register without an exit, or not. A register that the bitmaps do not cover
    /// exits always.
    pub fn set_passed(&mut self, register: u32, read: bool, write: bool) {
        if let Some(bit) = Self::read_bit(register) {
            set(&mut self.0, bit, !read);
            set(&mut self.0, bit + WRITES, !write);
        }
    }

    /// Whether the guest reads and writes the register without an exit.
    #[cfg(test)]
    pub fn is_passed(&self, register: u32) -> (bool, bool) {
        Self::read_bit(register).map_or((false, false), |bit| (!get(&self.0, bit), !get(&self.0, bit + WRITES)))
    }

    const fn read_bit(register: u32) -> Option<usize> {
        match register {
            0..=0x1fff => Some(register as usize),
            0xc000_0000..=0xc000_1fff => Some(0x400 * 8 + (register - 0xc000_0000) as usize),
            _ => None,
        }
    }
}

fn set(map: &mut [u8], bit: usize, value: bool) {
    if let Some(byte) = map.get_mut(bit / 8) {
        let mask = 1 << (bit % 8);
        if value { *byte |= mask } else { *byte &= !mask }
    }
}

#[cfg(test)]
fn get(map: &[u8], bit: usize) -> bool {
    map.get(bit / 8).is_none_or(|byte| byte & 1 << (bit % 8) != 0)
}

/// An entry of an MSR-load or MSR-store area (SDM vol. 3, 25.7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MsrEntry {
    /// The register's number.
    pub index: u32,
    reserved: u32,
    /// Its value.
    pub value: u64,
}

/// The registers that have no field: entry loads the guest's from here, exit stores them here, and loads the host's.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct MsrArea {
    guest: [MsrEntry; msr::IN_AREA.len()],
    /// Behind them, because it is switched only for a guest that uses it.
    guest_speculation_control: MsrEntry,
    host_speculation_control: MsrEntry,
}

impl MsrArea {
    /// Where the host's are.
    pub const HOST_OFFSET: u64 = offset_of!(Self, host_speculation_control) as u64;

    /// How many are the guest's, and the host's, with IA32_SPEC_CTRL or without.
    pub const fn counts(speculation_control: bool) -> (u32, u32) {
        (msr::IN_AREA.len() as u32 + speculation_control as u32, speculation_control as u32)
    }

    /// As after reset: all zero. The host's IA32_SPEC_CTRL is `host_speculation_control`.
    pub fn reset(&mut self, host_speculation_control: u64) {
        for (entry, index) in self.guest.iter_mut().zip(msr::IN_AREA) {
            *entry = MsrEntry { index, ..MsrEntry::default() };
        }
        let entry = MsrEntry { index: msr::SPEC_CTRL, ..MsrEntry::default() };
        self.guest_speculation_control = entry;
        self.host_speculation_control = MsrEntry { value: host_speculation_control, ..entry };
    }

    /// The entries: the guest's, with IA32_SPEC_CTRL, then the host's.
    #[cfg(test)]
    pub fn entries(&self) -> Vec<MsrEntry> {
        [&self.guest[..], &[self.guest_speculation_control, self.host_speculation_control]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_bit_and_opening_one_opens_no_other() {
        let mut map = IoBitmaps([0; 2 * 4096]);
        map.intercept_all();
        map.set_passed(0x3fb, true);
        assert_eq!(map.0[0x3fb / 8], !(1 << 3));
        assert!(map.is_passed(0x3fb) && !map.is_passed(0x3fa) && !map.is_passed(0x3fc));
        map.set_passed(0x8000, true);
        map.set_passed(0xffff, true);
        assert_eq!((map.0[0x1000], map.0[0x1fff]), (0xfe, 0x7f), "the second bitmap begins at port 8000h");
        map.set_passed(0x3fb, false);
        assert!(!map.is_passed(0x3fb));
    }

    #[test]
    fn switched_registers_pass_and_all_others_exit() {
        let mut map = MsrBitmaps([0; 4096]);
        map.intercept_all_but_switched();
        let passed = msr::IN_CONTROL_STRUCTURE.into_iter().chain(msr::IN_AREA);
        for register in passed.clone() {
            assert_eq!(map.is_passed(register), (true, true), "{register:#x}");
        }
        for register in [0x10, 0x1b, 0x3a, 0x173, 0x177, 0x277, 0x480, 0x830, msr::EFER, 0xc000_0085, 0xc000_0103] {
            assert_eq!(map.is_passed(register), (false, false), "{register:#x}");
        }
        assert_eq!(map.0.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 2 * passed.count() as u32);
    }

    #[test]
    fn the_area_names_each_switched_register_once_and_begins_with_zeros() {
        let dirt = MsrEntry { index: 7, reserved: 7, value: 7 };
        let mut area = MsrArea {
            guest: [dirt; msr::IN_AREA.len()],
            guest_speculation_control: dirt,
            host_speculation_control: dirt,
        };
        area.reset(5);
        let mut expected = msr::IN_AREA.map(|index| MsrEntry { index, reserved: 0, value: 0 }).to_vec();
        expected.push(MsrEntry { index: 0x48, reserved: 0, value: 0 });
        expected.push(MsrEntry { index: 0x48, reserved: 0, value: 5 });
        assert_eq!(area.entries(), expected);
        assert_eq!((MsrArea::counts(false), MsrArea::counts(true)), ((5, 0), (6, 1)));
        assert_eq!((size_of::<MsrEntry>(), MsrArea::HOST_OFFSET), (16, 96));
    }

    #[test]
    fn registers_have_their_places_in_the_four_parts() {
        let mut map = MsrBitmaps([0xff; 4096]);
        map.set_passed(0x174, true, false);
        map.set_passed(0xc000_0080, false, true);
        assert_eq!((map.0[0x2e], map.0[0x82e]), (!(1 << 4), 0xff));
        assert_eq!((map.0[0x410], map.0[0xc10]), (0xff, 0xfe));
        map.set_passed(0x2000, true, true);
        assert_eq!(map.0.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 2);
    }
}
