//! Which ports and model-specific registers a guest reaches without an exit.

use crate::vcpu::svm::spec::msr;

/// The I/O permission map (APM vol. 2, 15.10.1): one bit a port, set to exit. Three frames, because an access at
/// port FFFFh reaches into the third.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct IoPermissionMap([u8; 3 * 4096]);

impl IoPermissionMap {
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

/// The MSR permission map (APM vol. 2, 15.11): two bits a register, read below write, set to exit. Two frames.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct MsrPermissionMap([u8; 2 * 4096]);

impl MsrPermissionMap {
    /// Every access exits but those to registers that entry and exit switch. EFER is not one of them: the guest must
    /// not see EFER.SVME, let alone clear it.
    pub fn intercept_all_but_switched(&mut self) {
        self.0.fill(0xff);
        for register in msr::SWITCHED {
            if let Some(bit) = Self::read_bit(register) {
                set(&mut self.0, bit, false);
                set(&mut self.0, bit + 1, false);
            }
        }
    }

    /// Whether the guest reads and writes the register without an exit.
    #[cfg(test)]
    pub fn is_passed(&self, register: u32) -> (bool, bool) {
        match Self::read_bit(register) {
            Some(bit) => (!get(&self.0, bit), !get(&self.0, bit + 1)),
            None => (false, false),
        }
    }

    /// The number of the register's read bit, or `None` for a register that the map does not cover: those exit.
    const fn read_bit(register: u32) -> Option<usize> {
        let (start, base) = match register {
            0..=0x1fff => (0, 0),
            0xc000_0000..=0xc000_1fff => (0x800, 0xc000_0000),
            0xc001_0000..=0xc001_1fff => (0x1000, 0xc001_0000),
            _ => return None,
        };
        Some(start * 8 + (register - base) as usize * 2)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_bit_and_opening_one_opens_no_other() {
        let mut map = IoPermissionMap([0; 3 * 4096]);
        map.intercept_all();
        assert!(map.0.iter().all(|byte| *byte == 0xff));
        map.set_passed(0x3fb, true);
        assert_eq!(map.0[0x3fb / 8], !(1 << 3));
        assert!(map.is_passed(0x3fb) && !map.is_passed(0x3fa) && !map.is_passed(0x3fc));
        map.set_passed(0xffff, true);
        assert_eq!((map.0[0x1fff], map.0[0x2000]), (0x7f, 0xff));
        map.set_passed(0x3fb, false);
        assert!(!map.is_passed(0x3fb));
    }

    #[test]
    fn switched_registers_pass_and_all_others_exit() {
        let mut map = MsrPermissionMap([0; 2 * 4096]);
        map.intercept_all_but_switched();
        for register in msr::SWITCHED {
            assert_eq!(map.is_passed(register), (true, true), "{register:#x}");
        }
        for register in [0x10, 0x1b, 0x173, 0x177, 0x277, 0x830, msr::EFER, 0xc000_0085, 0xc000_0103, msr::VM_CR] {
            assert_eq!(map.is_passed(register), (false, false), "{register:#x}");
        }
        assert_eq!(map.0.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 2 * msr::SWITCHED.len() as u32);
    }

    #[test]
    fn registers_have_their_places_in_the_three_ranges() {
        assert_eq!(MsrPermissionMap::read_bit(0x174), Some(0x5d * 8));
        assert_eq!(MsrPermissionMap::read_bit(0xc000_0080), Some(0x820 * 8));
        assert_eq!(MsrPermissionMap::read_bit(0xc001_0117), Some(0x1045 * 8 + 6));
        assert_eq!(MsrPermissionMap::read_bit(0x2000), None);
        assert_eq!(MsrPermissionMap::read_bit(0xbfff_ffff), None);
    }
}
