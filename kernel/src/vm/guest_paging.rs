//! The guest's own page tables, walked as the processor would: from the linear address of an instruction to the
//! guest-physical address where its bytes are.

use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use addr::GuestPhys;

/// The control state that says how a guest translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Why a linear address has no guest-physical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// An entry is not present.
    NotPresent,
    /// A table is outside the guest's memory.
    Table(OutOfRange),
}

impl From<OutOfRange> for WalkError {
    fn from(error: OutOfRange) -> Self {
        WalkError::Table(error)
    }
}

/// Translates a linear address (SDM vol. 3, chapter 5). Permissions are not looked at: the processor has already
/// executed the access that this is about.
pub fn translate(linear: u64, paging: &Paging, memory: &impl GuestMemoryAccess) -> Result<GuestPhys, WalkError> {
    if paging.cr0 & CR0_PG == 0 {
        return Ok(GuestPhys::new(linear & 0xffff_ffff));
    }
    if paging.cr4 & CR4_PAE == 0 {
        return translate_32_bit(linear & 0xffff_ffff, paging, memory);
    }
    let long = paging.efer & EFER_LMA != 0;
    let levels = match (long, paging.cr4 & CR4_LA57 != 0) {
        (true, true) => 5,
        (true, false) => 4,
        (false, _) => 3,
    };
    let linear = if long { linear } else { linear & 0xffff_ffff };
    // The root of PAE paging is a table of four entries at a multiple of 32.
    let mut table = if long { paging.cr3 & ADDRESS } else { paging.cr3 & 0xffff_ffe0 };
    for level in (1..=levels).rev() {
        let shift = 12 + 9 * (level - 1);
        let index = linear >> shift & 0x1ff;
        let entry = memory.read_u64(GuestPhys::new(table + index * 8))?;
        if entry & PRESENT == 0 {
            return Err(WalkError::NotPresent);
        }
        let leaf = level == 1 || (level <= 3 && entry & LARGE != 0 && (long || level == 2));
        if leaf {
            let offset = (1u64 << shift) - 1;
            return Ok(GuestPhys::new(entry & ADDRESS & !offset | linear & offset));
        }
        table = entry & ADDRESS;
    }
    Err(WalkError::NotPresent)
}

/// Two levels of 1024 entries of 32 bits, with 4 MiB pages.
fn translate_32_bit(linear: u64, paging: &Paging, memory: &impl GuestMemoryAccess) -> Result<GuestPhys, WalkError> {
    let directory = paging.cr3 & 0xffff_f000;
    let entry = u64::from(memory.read_u32(GuestPhys::new(directory + (linear >> 22) * 4))?);
    if entry & PRESENT == 0 {
        return Err(WalkError::NotPresent);
    }
    if entry & LARGE != 0 && paging.cr4 & CR4_PSE != 0 {
        let high = (entry >> 13 & 0xff) << 32;
        return Ok(GuestPhys::new(high | entry & 0xffc0_0000 | linear & 0x3f_ffff));
    }
    let table = entry & 0xffff_f000;
    let entry = u64::from(memory.read_u32(GuestPhys::new(table + (linear >> 12 & 0x3ff) * 4))?);
    if entry & PRESENT == 0 {
        return Err(WalkError::NotPresent);
    }
    Ok(GuestPhys::new(entry & 0xffff_f000 | linear & 0xfff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn put(memory: &mut alloc::vec::Vec<u8>, at: u64, value: u64) {
        memory.write(GuestPhys::new(at), &value.to_le_bytes()).unwrap();
    }

    const LONG: Paging = Paging { cr0: CR0_PG | 1, cr3: 0x1000, cr4: CR4_PAE, efer: EFER_LMA };

    #[test]
    fn long_mode_pages_of_every_size() {
        let mut memory = vec![0; 0x10000];
        put(&mut memory, 0x1000 + 0x1ff * 8, 0x2003);
        put(&mut memory, 0x2000 + 0x1fe * 8, 0x3003);
        put(&mut memory, 0x2000 + 8, 0x8_4000_0083);
        put(&mut memory, 0x3000, 0x4003);
        put(&mut memory, 0x3000 + 8, 0x8000_0000_0020_0083);
        put(&mut memory, 0x4000 + 5 * 8, 0x8000_0000_0000_9003);
        let at = |linear| translate(linear, &LONG, &memory);
        assert_eq!(at(0xffff_ffff_8000_5123), Ok(GuestPhys::new(0x9123)));
        assert_eq!(at(0xffff_ffff_8020_5123), Ok(GuestPhys::new(0x20_5123)));
        assert_eq!(at(0xffff_ff80_4000_5123), Ok(GuestPhys::new(0x8_4000_5123)));
        assert_eq!(at(0), Err(WalkError::NotPresent));
    }

    #[test]
    fn paging_off_pae_and_32_bit() {
        let mut memory = vec![0; 0x10000];
        assert_eq!(translate(0x1_0000_1234, &Paging::default(), &memory), Ok(GuestPhys::new(0x1234)));
        put(&mut memory, 0x1020 + 8, 0x2001);
        put(&mut memory, 0x2000 + 8, 0x60_0083);
        let pae = Paging { cr3: 0x1020, efer: 0, ..LONG };
        assert_eq!(translate(0x4020_0777, &pae, &memory), Ok(GuestPhys::new(0x60_0777)));
        let legacy = Paging { cr0: CR0_PG, cr3: 0x5000, cr4: CR4_PSE, efer: 0 };
        memory.write(GuestPhys::new(0x5004), &0x00c0_0083u32.to_le_bytes()).unwrap();
        memory.write(GuestPhys::new(0x5008), &0x6003u32.to_le_bytes()).unwrap();
        memory.write(GuestPhys::new(0x600c), &0x7003u32.to_le_bytes()).unwrap();
        assert_eq!(translate(0x0040_0001, &legacy, &memory), Ok(GuestPhys::new(0xc0_0001)));
        assert_eq!(translate(0x0080_3002, &legacy, &memory), Ok(GuestPhys::new(0x7002)));
        assert_eq!(translate(0x0080_4002, &legacy, &memory), Err(WalkError::NotPresent));
    }

    #[test]
    fn tables_outside_the_guest_are_an_error() {
        let memory = vec![0; 0x1000];
        assert!(matches!(translate(0, &LONG, &memory), Err(WalkError::Table(_))));
        let far = Paging { cr3: ADDRESS, ..LONG };
        assert!(matches!(translate(u64::MAX, &far, &memory), Err(WalkError::Table(_))));
    }
}
