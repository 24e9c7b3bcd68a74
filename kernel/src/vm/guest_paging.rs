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

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u8 = 1 << 5;
const DIRTY: u8 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page fault's error code, bit 1: a store.
const FAULT_WRITE: u32 = 1 << 1;
/// Bit 2: at privilege level 3.
const FAULT_USER: u32 = 1 << 2;

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

/// A load or store of data that the processor has not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAccess {
    /// A store.
    pub write: bool,
    /// The privilege level is 3.
    pub user: bool,
    /// RFLAGS.AC, with which a supervisor may reach user pages in spite of SMAP.
    pub alignment_check: bool,
}

/// Why an access cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// It is a page fault with this error code.
    PageFault(u32),
    /// A table is outside the guest's memory.
    Table(OutOfRange),
}

/// Translates a linear address (SDM vol. 3, chapter 5). Permissions are not looked at: the processor has already
/// executed the access that this is about.
pub fn translate(linear: u64, paging: &Paging, memory: &impl GuestMemoryAccess) -> Result<GuestPhys, WalkError> {
    walk(linear, paging, memory, &mut |_, _| {})
}

/// Translates the linear address of an access that the processor did not make, with its checks of permissions, and sets
/// the accessed and dirty flags as it does (SDM vol. 3, 5.6 and 5.8). Reserved bits and protection keys are not looked
/// at: a guest is shown no protection keys.
pub fn translate_access(
    linear: u64,
    access: DataAccess,
    paging: &Paging,
    memory: &mut impl GuestMemoryAccess,
) -> Result<GuestPhys, AccessError> {
    let fault = |present| {
        AccessError::PageFault(
            present | if access.write { FAULT_WRITE } else { 0 } | if access.user { FAULT_USER } else { 0 },
        )
    };
    let mut entries = [(GuestPhys::new(0), 0); 5];
    let mut count = 0;
    let mut rights = WRITABLE | USER;
    let address = walk(linear, paging, memory, &mut |at, entry| {
        rights &= entry;
        if let Some(slot) = entries.get_mut(count) {
            *slot = (at, entry as u8);
            count += 1;
        }
    })
    .map_err(|error| match error {
        WalkError::NotPresent => fault(0),
        WalkError::Table(out) => AccessError::Table(out),
    })?;
    let user_page = rights & USER != 0;
    let reachable = match access.user {
        true => user_page,
        false => !user_page || paging.cr4 & CR4_SMAP == 0 || access.alignment_check,
    };
    let needs_writable = access.write && (access.user || paging.cr0 & CR0_WP != 0);
    // Without paging there are no entries, and everything may be done.
    if count > 0 && (!reachable || needs_writable && rights & WRITABLE == 0) {
        return Err(fault(PRESENT as u32));
    }
    for (number, (at, entry)) in entries.into_iter().take(count).enumerate() {
        let dirty = if access.write && number + 1 == count { DIRTY } else { 0 };
        let marked = entry | ACCESSED | dirty;
        if marked != entry {
            memory.write(at, &[marked]).map_err(AccessError::Table)?;
        }
    }
    Ok(address)
}

/// Walks the tables; `visit` gets each entry that has permissions, and where it is, the leaf last.
fn walk(
    linear: u64,
    paging: &Paging,
    memory: &impl GuestMemoryAccess,
    visit: &mut dyn FnMut(GuestPhys, u64),
) -> Result<GuestPhys, WalkError> {
    if paging.cr0 & CR0_PG == 0 {
        return Ok(GuestPhys::new(linear & 0xffff_ffff));
    }
    if paging.cr4 & CR4_PAE == 0 {
        return walk_32_bit(linear & 0xffff_ffff, paging, memory, visit);
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
        let at = GuestPhys::new(table + index * 8);
        let entry = memory.read_u64(at)?;
        if entry & PRESENT == 0 {
            return Err(WalkError::NotPresent);
        }
        // The four entries of PAE paging's root say nothing of permissions.
        if long || level < 3 {
            visit(at, entry);
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
fn walk_32_bit(
    linear: u64,
    paging: &Paging,
    memory: &impl GuestMemoryAccess,
    visit: &mut dyn FnMut(GuestPhys, u64),
) -> Result<GuestPhys, WalkError> {
    let directory = paging.cr3 & 0xffff_f000;
    let at = GuestPhys::new(directory + (linear >> 22) * 4);
    let entry = u64::from(memory.read_u32(at)?);
    if entry & PRESENT == 0 {
        return Err(WalkError::NotPresent);
    }
    visit(at, entry);
    if entry & LARGE != 0 && paging.cr4 & CR4_PSE != 0 {
        let high = (entry >> 13 & 0xff) << 32;
        return Ok(GuestPhys::new(high | entry & 0xffc0_0000 | linear & 0x3f_ffff));
    }
    let table = entry & 0xffff_f000;
    let at = GuestPhys::new(table + (linear >> 12 & 0x3ff) * 4);
    let entry = u64::from(memory.read_u32(at)?);
    if entry & PRESENT == 0 {
        return Err(WalkError::NotPresent);
    }
    visit(at, entry);
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
    /// Every combination of rights at both levels, of privilege and of the control bits, against the rules in words.
    #[test]
    fn accesses_are_permitted_as_the_processor_does() {
        for case in 0..1 << 11 {
            let bit = |number: u32| case >> number & 1 != 0;
            let entry = |present, writable, user| {
                u64::from(present) | if writable { WRITABLE } else { 0 } | if user { USER } else { 0 }
            };
            let mut memory = vec![0; 0x10000];
            put(&mut memory, 0x1000, 0x2007);
            put(&mut memory, 0x2000, 0x3007);
            put(&mut memory, 0x3000, 0x4000 | entry(true, bit(0), bit(1)));
            put(&mut memory, 0x4000 + 8, 0x9000 | entry(bit(2), bit(3), bit(4)));
            let cr0 = CR0_PG | 1 | if bit(5) { CR0_WP } else { 0 };
            let cr4 = CR4_PAE | if bit(6) { CR4_SMAP } else { 0 };
            let access = DataAccess { write: bit(7), user: bit(8), alignment_check: bit(9) };
            let paging = Paging { cr0, cr4, ..LONG };
            let (writable, user_page) = (bit(0) && bit(3), bit(1) && bit(4));
            let permitted = if access.user {
                user_page && (!access.write || writable)
            } else {
                (!user_page || !bit(6) || access.alignment_check) && (!access.write || writable || !bit(5))
            };
            let code = u32::from(bit(2)) | u32::from(access.write) << 1 | u32::from(access.user) << 2;
            let expected =
                if bit(2) && permitted { Ok(GuestPhys::new(0x9123)) } else { Err(AccessError::PageFault(code)) };
            let before = memory.clone();
            assert_eq!(translate_access(0x1123, access, &paging, &mut memory), expected, "{case:#x} {access:?}");
            for (at, dirty) in [(0x1000, 0), (0x2000, 0), (0x3000, 0), (0x4008, if access.write { DIRTY } else { 0 })] {
                let marks = if expected.is_ok() { ACCESSED | dirty } else { 0 };
                assert_eq!(memory[at], before[at] | marks, "{case:#x} {at:#x}");
            }
        }
    }

    #[test]
    fn accesses_by_every_kind_of_tables() {
        let write = DataAccess { write: true, user: true, alignment_check: false };
        let mut memory = vec![0; 0x10000];
        assert_eq!(translate_access(0x1234, write, &Paging::default(), &mut memory), Ok(GuestPhys::new(0x1234)));
        // PAE: what its root says of permissions is reserved.
        put(&mut memory, 0x1020, 0x2001);
        put(&mut memory, 0x2000, 0x60_0087);
        let pae = Paging { cr3: 0x1020, efer: 0, ..LONG };
        assert_eq!(translate_access(0x777, write, &pae, &mut memory), Ok(GuestPhys::new(0x60_0777)));
        assert_eq!((memory[0x1020], memory[0x2000]), (1, 0x87 | ACCESSED | DIRTY));
        let legacy = Paging { cr0: CR0_PG, cr3: 0x5000, cr4: 0, efer: 0 };
        memory.write(GuestPhys::new(0x5000), &0x6007u32.to_le_bytes()).unwrap();
        memory.write(GuestPhys::new(0x6004), &0x7005u32.to_le_bytes()).unwrap();
        assert_eq!(translate_access(0x1002, write, &legacy, &mut memory), Err(AccessError::PageFault(7)));
        let read = DataAccess { write: false, ..write };
        assert_eq!(translate_access(0x1002, read, &legacy, &mut memory), Ok(GuestPhys::new(0x7002)));
        assert_eq!((memory[0x5000], memory[0x6004]), (7 | ACCESSED, 5 | ACCESSED));
        let far = Paging { cr3: 0x5_0000_0000, ..LONG };
        assert!(matches!(translate_access(0, read, &far, &mut memory), Err(AccessError::Table(_))));
    }
}
