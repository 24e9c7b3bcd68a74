//! Multiboot2: the boot information (Multiboot2 Specification 2.0, section 3.6).
//!
//! The crate `multiboot2` is not used: it asserts on lengths that the loader chose (an empty module or a map entry of
//! another size stops the machine without a word), and it does not tell where the copy of the RSDP lies.

use crate::boot_info::Handover;
use crate::bytes::{Physical, u32_at, u64_at};
use crate::error::Error;
use crate::memory_map::Span;

/// Offset 0 of the boot information, `total_size`, this header included; 4 bytes reserved follow.
const TOTAL_SIZE: usize = 0;
/// Bytes before the first tag.
const HEADER: usize = 8;
/// Tag type 0: the last tag.
const END: u32 = 0;
/// Tag type 3, a module: at 8 `mod_start`, at 12 `mod_end`, both 32 bits.
const MODULE: u32 = 3;
/// Tag type 6, the memory map: at 8 `entry_size`, at 12 `entry_version`, entries from 16.
const MEMORY_MAP: u32 = 6;
/// Tag type 14: a copy of the RSDP of ACPI 1.0 from 8.
const ACPI_OLD_RSDP: u32 = 14;
/// Tag type 15: a copy of the RSDP of ACPI 2.0 or later from 8.
const ACPI_NEW_RSDP: u32 = 15;
/// Bytes before the data of a tag: `type` and `size`, the size without padding. Tags begin at multiples of 8.
const TAG_HEADER: usize = 8;
/// Bytes of a memory map entry that are known: base and length of 64 bits, type and reserved of 32. New fields may follow.
const MAP_ENTRY: usize = 24;

/// Reads the boot information at physical address `information`. The command line is not read.
pub(crate) fn parse(memory: &impl Physical, information: u64) -> Result<Handover, Error> {
    let mut handover = Handover::new();
    let total = memory.bytes(information, HEADER).ok_or(Error::Truncated).and_then(|head| u32_at(head, TOTAL_SIZE))?;
    let total = usize::try_from(total).map_err(|_| Error::Truncated)?;
    let bytes = memory.bytes(information, total).ok_or(Error::Truncated)?;
    // The RSDP is read from here later.
    handover.occupy(Span::new(information, total as u64))?;

    let mut old_rsdp = None;
    let mut offset = HEADER;
    // Each round moves on by at least 8 bytes of `bytes`, so this ends.
    loop {
        let kind = u32_at(bytes, offset)?;
        let size = usize::try_from(u32_at(bytes, offset + 4)?).map_err(|_| Error::Truncated)?;
        let end = offset.checked_add(size).ok_or(Error::Truncated)?;
        let tag = bytes.get(offset..end).filter(|tag| tag.len() >= TAG_HEADER).ok_or(Error::Truncated)?;
        let data_address = information + (offset + TAG_HEADER) as u64;
        match kind {
            END => break,
            MODULE => {
                let (start, end) = (u64::from(u32_at(tag, 8)?), u64::from(u32_at(tag, 12)?));
                handover.module(Span { start, end })?;
            }
            MEMORY_MAP => memory_map(tag, &mut handover)?,
            ACPI_OLD_RSDP => old_rsdp = Some(data_address),
            ACPI_NEW_RSDP => handover.rsdp = Some(data_address),
            _ => {}
        }
        offset = end.checked_next_multiple_of(8).ok_or(Error::Truncated)?;
    }
    handover.rsdp = handover.rsdp.or(old_rsdp);
    Ok(handover)
}

fn memory_map(tag: &[u8], handover: &mut Handover) -> Result<(), Error> {
    let entry_size = usize::try_from(u32_at(tag, 8)?).map_err(|_| Error::Truncated)?;
    if entry_size < MAP_ENTRY {
        return Err(Error::Truncated);
    }
    for entry in tag.get(16..).unwrap_or(&[]).chunks_exact(entry_size) {
        handover.memory.add(u64_at(entry, 0)?, u64_at(entry, 8)?, u32_at(entry, 16)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::bytes::FakeMemory;

    const AT: u64 = 0x9000;

    fn tag(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut tag: Vec<u8> = [kind, 8 + data.len() as u32].iter().flat_map(|v| v.to_le_bytes()).collect();
        tag.extend(data);
        tag.resize(tag.len().next_multiple_of(8), 0);
        tag
    }

    fn map_tag(entry_size: u32, entries: &[(u64, u64, u32)]) -> Vec<u8> {
        let mut data: Vec<u8> = [entry_size, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (start, length, kind) in entries {
            let mut entry: Vec<u8> = [*start, *length, u64::from(*kind)].iter().flat_map(|v| v.to_le_bytes()).collect();
            entry.resize(entry_size as usize, 0xff);
            data.extend(entry);
        }
        tag(MEMORY_MAP, &data)
    }

    fn module_tag(start: u32, end: u32) -> Vec<u8> {
        let mut data: Vec<u8> = [start, end].iter().flat_map(|v| v.to_le_bytes()).collect();
        data.extend(b"ramdisk\0");
        tag(MODULE, &data)
    }

    fn information(tags: &[Vec<u8>]) -> FakeMemory {
        let mut bytes = vec![0; 8];
        tags.iter().for_each(|tag| bytes.extend(tag));
        bytes.extend(tag(END, &[]));
        let total = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        FakeMemory { pieces: vec![(AT, bytes)] }
    }

    #[test]
    fn map_modules_and_rsdp_are_read() {
        let tags = [
            tag(1, b"command line\0"),
            module_tag(0x40_0000, 0x40_0123),
            module_tag(0x50_0000, 0x50_0001),
            map_tag(24, &[(0, 0x9_fc00, 1), (0x10_0000, 0x100_0000, 1)]),
            tag(ACPI_OLD_RSDP, &[0; 20]),
        ];
        let memory = information(&tags);
        let handover = parse(&memory, AT).unwrap();
        assert_eq!(handover.ramdisk, Some(Span { start: 0x40_0000, end: 0x40_0123 }));
        let before: usize = 8 + tags[..4].iter().map(Vec::len).sum::<usize>();
        assert_eq!(handover.rsdp, Some(AT + before as u64 + 8));
        let occupied = handover.occupied.as_slice();
        assert!(occupied.contains(&Span::new(AT, memory.pieces[0].1.len() as u64)));
        assert!(occupied.contains(&Span { start: 0x50_0000, end: 0x50_0001 }));
        let mut regions = vec![bootloader_api::info::MemoryRegion::empty(); 8];
        assert_eq!(handover.memory.regions(&[], &mut regions), Ok(2));
        assert_eq!((regions[1].start, regions[1].end), (0x10_0000, 0x110_0000));
    }

    #[test]
    fn the_new_rsdp_wins_over_the_old_in_either_order() {
        let (old, new) = (tag(ACPI_OLD_RSDP, &[0; 20]), tag(ACPI_NEW_RSDP, &[0; 36]));
        let first = parse(&information(&[new.clone(), old.clone()]), AT).unwrap();
        assert_eq!(first.rsdp, Some(AT + 16));
        let second = parse(&information(&[old.clone(), new]), AT).unwrap();
        assert_eq!(second.rsdp, Some(AT + 8 + old.len() as u64 + 8));
    }

    #[test]
    fn larger_map_entries_are_stepped_over_by_their_size() {
        let handover = parse(&information(&[map_tag(32, &[(0, 0x1000, 1), (0x8000, 0x1000, 1)])]), AT).unwrap();
        let mut regions = vec![bootloader_api::info::MemoryRegion::empty(); 8];
        assert_eq!(handover.memory.regions(&[], &mut regions), Ok(2));
        assert_eq!(regions[1].start, 0x8000);
    }

    #[test]
    fn map_entries_that_are_too_small_are_refused() {
        for size in [0u32, 16, 23] {
            let mut tag = map_tag(24, &[(0, 0x1000, 1)]);
            tag[8..12].copy_from_slice(&size.to_le_bytes());
            assert_eq!(parse(&information(&[tag]), AT).map(|_| ()), Err(Error::Truncated), "{size}");
        }
    }

    #[test]
    fn a_tag_without_length_does_not_loop_for_ever() {
        for size in [0u32, 7, u32::MAX] {
            let mut tag = tag(1, b"x");
            tag[4..8].copy_from_slice(&size.to_le_bytes());
            assert_eq!(parse(&information(&[tag]), AT).map(|_| ()), Err(Error::Truncated), "{size}");
        }
    }

    #[test]
    fn information_cut_anywhere_is_refused_without_a_panic() {
        let whole = information(&[map_tag(24, &[(0, 0x1000, 1)]), module_tag(0x1000, 0x2000)]);
        for length in 0..whole.pieces[0].1.len() {
            let mut bytes = whole.pieces[0].1.clone();
            bytes.truncate(length);
            if length >= 4 {
                bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
            }
            let memory = FakeMemory { pieces: vec![(AT, bytes)] };
            assert_eq!(parse(&memory, AT).map(|_| ()), Err(Error::Truncated), "{length}");
        }
    }

    #[test]
    fn an_empty_module_is_not_the_ramdisk() {
        let handover = parse(&information(&[module_tag(0x1000, 0x1000), module_tag(0x2000, 0x3000)]), AT).unwrap();
        assert_eq!(handover.ramdisk, Some(Span { start: 0x2000, end: 0x3000 }));
    }
}
