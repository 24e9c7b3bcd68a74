//! PVH: the `hvm_start_info` of the x86/HVM direct boot ABI (Xen, `public/arch-x86/hvm/start_info.h`).

use crate::boot_info::Handover;
use crate::bytes::{Physical, u32_at, u64_at};
use crate::error::Error;
use crate::memory_map::{MAX_AREAS, MAX_OCCUPIED, Span};

/// Offset 0, `magic`: "xEn3" with bit 7 of the first character set.
const MAGIC: u32 = 0x336e_c578;
/// Offset 4, `version`: from 1 on there is a memory map.
const VERSION: usize = 4;
/// Offset 12, `nr_modules`.
const NR_MODULES: usize = 12;
/// Offset 16, `modlist_paddr`.
const MODLIST_PADDR: usize = 16;
/// Offset 24, `cmdline_paddr`; 0 means none.
const CMDLINE_PADDR: usize = 24;
/// Offset 32, `rsdp_paddr`; 0 means none.
const RSDP_PADDR: usize = 32;
/// Bytes of version 0.
const LENGTH_VERSION_0: usize = 40;
/// Offset 40, `memmap_paddr`, version 1.
const MEMMAP_PADDR: usize = 40;
/// Offset 48, `memmap_entries`, version 1.
const MEMMAP_ENTRIES: usize = 48;
/// Bytes of version 1.
const LENGTH_VERSION_1: usize = 56;

/// `hvm_modlist_entry`: paddr, size, cmdline_paddr, reserved, 64 bits each.
const MODLIST_ENTRY: usize = 32;
/// `hvm_memmap_table_entry`: addr and size of 64 bits, type and reserved of 32.
const MEMMAP_ENTRY: usize = 24;

/// The longest command line that is read, in bytes, with the zero that ends it.
pub(crate) const MAX_COMMAND_LINE: usize = 4096;

/// The command line that the `hvm_start_info` at physical address `start_info` names, without the zero that ends it;
/// `None` if there is none, or it does not end within [`MAX_COMMAND_LINE`].
pub(crate) fn command_line(memory: &impl Physical, start_info: u64) -> Option<&[u8]> {
    let info = memory.bytes(start_info, LENGTH_VERSION_0)?;
    if u32_at(info, 0) != Ok(MAGIC) {
        return None;
    }
    let address = u64_at(info, CMDLINE_PADDR).ok().filter(|address| *address != 0)?;
    // Byte by byte: memory may end right behind the line.
    for length in 0..MAX_COMMAND_LINE {
        let last = memory.bytes(address.checked_add(length as u64)?, 1)?;
        if last == [0] {
            return memory.bytes(address, length);
        }
    }
    None
}

/// Reads the `hvm_start_info` at physical address `start_info`, but for the command line, see [`command_line`].
pub(crate) fn parse(memory: &impl Physical, start_info: u64) -> Result<Handover, Error> {
    let mut handover = Handover::new();
    let info = memory.bytes(start_info, LENGTH_VERSION_0).ok_or(Error::Truncated)?;
    if u32_at(info, 0)? != MAGIC {
        return Err(Error::Magic);
    }
    let rsdp = u64_at(info, RSDP_PADDR)?;
    handover.rsdp = (rsdp != 0).then_some(rsdp);

    let modules = usize::try_from(u32_at(info, NR_MODULES)?).unwrap_or(usize::MAX);
    if modules > MAX_OCCUPIED {
        return Err(Error::TooManyModules);
    }
    let list = table(memory, &mut handover, u64_at(info, MODLIST_PADDR)?, modules, MODLIST_ENTRY)?;
    for entry in list.chunks_exact(MODLIST_ENTRY) {
        handover.module(Span::new(u64_at(entry, 0)?, u64_at(entry, 8)?))?;
    }

    if u32_at(info, VERSION)? == 0 {
        return Err(Error::NoMemoryMap);
    }
    let info = memory.bytes(start_info, LENGTH_VERSION_1).ok_or(Error::Truncated)?;
    handover.occupy(Span::new(start_info, LENGTH_VERSION_1 as u64))?;
    let entries = usize::try_from(u32_at(info, MEMMAP_ENTRIES)?).unwrap_or(usize::MAX);
    if entries > MAX_AREAS {
        return Err(Error::MemoryMapTooLong);
    }
    let map = table(memory, &mut handover, u64_at(info, MEMMAP_PADDR)?, entries, MEMMAP_ENTRY)?;
    for entry in map.chunks_exact(MEMMAP_ENTRY) {
        handover.memory.add(u64_at(entry, 0)?, u64_at(entry, 8)?, u32_at(entry, 16)?)?;
    }
    Ok(handover)
}

/// The bytes of a table of `count` entries, noted as occupied.
fn table<'a>(
    memory: &'a impl Physical,
    handover: &mut Handover,
    address: u64,
    count: usize,
    entry: usize,
) -> Result<&'a [u8], Error> {
    if count == 0 {
        return Ok(&[]);
    }
    let length = count.checked_mul(entry).ok_or(Error::Truncated)?;
    let bytes = memory.bytes(address, length).ok_or(Error::Truncated)?;
    handover.occupy(Span::new(address, length as u64))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::bytes::FakeMemory;

    fn words(values: &[u64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// A start info at 0x1000 with modules listed at 0x2000 and a memory map at 0x3000.
    fn start_info(version: u32, modules: &[(u64, u64)], rsdp: u64, map: &[(u64, u64, u32)]) -> FakeMemory {
        let mut info: Vec<u8> =
            [MAGIC, version, 0, modules.len() as u32].iter().flat_map(|v| v.to_le_bytes()).collect();
        info.extend(words(&[0x2000, 0, rsdp, 0x3000, map.len() as u64]));
        let modules = modules.iter().flat_map(|(start, size)| words(&[*start, *size, 0, 0])).collect();
        let map = map.iter().flat_map(|(start, size, kind)| words(&[*start, *size, u64::from(*kind)])).collect();
        FakeMemory { pieces: vec![(0x1000, info), (0x2000, modules), (0x3000, map)] }
    }

    #[test]
    fn map_module_and_rsdp_are_read() {
        let memory = start_info(1, &[(0x50_0000, 0x800)], 0xf_0000, &[(0, 0x9_fc00, 1), (0x10_0000, 0xf0_0000, 1)]);
        let handover = parse(&memory, 0x1000).unwrap();
        assert_eq!(handover.rsdp, Some(0xf_0000));
        assert_eq!(handover.ramdisk, Some(Span { start: 0x50_0000, end: 0x50_0800 }));
        let occupied = handover.occupied.as_slice();
        for span in [(0x50_0000, 0x50_0800), (0x1000, 0x1038), (0x2000, 0x2020), (0x3000, 0x3030)] {
            assert!(occupied.contains(&Span { start: span.0, end: span.1 }), "{span:x?} in {occupied:x?}");
        }
        let mut regions = vec![bootloader_api::info::MemoryRegion::empty(); 8];
        assert_eq!(handover.memory.regions(&[], &mut regions), Ok(2));
        assert_eq!((regions[1].start, regions[1].end), (0x10_0000, 0x100_0000));
    }

    #[test]
    fn the_command_line_ends_before_its_zero() {
        let mut memory = start_info(1, &[], 0, &[(0, 0x10_0000, 1)]);
        assert_eq!(command_line(&memory, 0x1000), None);
        memory.pieces[0].1[CMDLINE_PADDR..CMDLINE_PADDR + 8].copy_from_slice(&0x4000u64.to_le_bytes());
        assert_eq!(command_line(&memory, 0x1000), None, "an address where no memory is");
        memory.pieces.push((0x4000, b"attack image=1\0".to_vec()));
        assert_eq!(command_line(&memory, 0x1000), Some(&b"attack image=1"[..]));
        memory.pieces[0].1[0] ^= 1;
        assert_eq!(command_line(&memory, 0x1000), None, "not a start info");
    }

    #[test]
    fn a_command_line_without_an_end_is_refused() {
        let mut memory = start_info(1, &[], 0, &[(0, 0x10_0000, 1)]);
        memory.pieces[0].1[CMDLINE_PADDR..CMDLINE_PADDR + 8].copy_from_slice(&0x4000u64.to_le_bytes());
        memory.pieces.push((0x4000, vec![b'a'; MAX_COMMAND_LINE - 1]));
        assert_eq!(command_line(&memory, 0x1000), None, "cut off by the end of memory");
        memory.pieces[3].1.push(0);
        assert_eq!(command_line(&memory, 0x1000).map(<[u8]>::len), Some(MAX_COMMAND_LINE - 1));
        memory.pieces[3].1 = vec![b'a'; MAX_COMMAND_LINE + 1];
        assert_eq!(command_line(&memory, 0x1000), None, "longer than is read");
    }

    #[test]
    fn no_module_and_no_rsdp_are_no_error() {
        let handover = parse(&start_info(1, &[], 0, &[(0, 0x10_0000, 1)]), 0x1000).unwrap();
        assert_eq!((handover.rsdp, handover.ramdisk), (None, None));
    }

    #[test]
    fn a_wrong_magic_number_is_refused() {
        let mut memory = start_info(1, &[], 0, &[(0, 0x10_0000, 1)]);
        memory.pieces[0].1[0] ^= 1;
        assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(Error::Magic));
    }

    #[test]
    fn version_0_has_no_memory_map() {
        let memory = start_info(0, &[], 0, &[(0, 0x10_0000, 1)]);
        assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(Error::NoMemoryMap));
    }

    #[test]
    fn counts_that_the_tables_do_not_hold_are_refused() {
        for (offset, expected) in [(NR_MODULES, Error::TooManyModules), (MEMMAP_ENTRIES, Error::MemoryMapTooLong)] {
            let mut memory = start_info(1, &[(0x50_0000, 0x800)], 0, &[(0, 0x10_0000, 1)]);
            memory.pieces[0].1[offset..offset + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(expected));
            memory.pieces[0].1[offset..offset + 4].copy_from_slice(&2u32.to_le_bytes());
            assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(Error::Truncated));
        }
    }

    #[test]
    fn a_start_info_cut_anywhere_is_refused_without_a_panic() {
        for length in 0..LENGTH_VERSION_1 {
            let mut memory = start_info(1, &[], 0, &[(0, 0x10_0000, 1)]);
            memory.pieces[0].1.truncate(length);
            assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(Error::Truncated), "{length}");
        }
    }

    #[test]
    fn an_address_at_the_end_of_the_address_space_is_refused() {
        let mut memory = start_info(1, &[], 0, &[(0, 0x10_0000, 1)]);
        memory.pieces[0].1[MEMMAP_PADDR..MEMMAP_PADDR + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse(&memory, 0x1000).map(|_| ()), Err(Error::Truncated));
        assert_eq!(parse(&memory, u64::MAX).map(|_| ()), Err(Error::Truncated));
    }
}
