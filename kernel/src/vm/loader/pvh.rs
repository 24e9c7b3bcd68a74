//! The PVH boot protocol: the guest finds an `hvm_start_info` structure at the address in EBX.

use super::{COMMAND_LINE, LoadError, MEMORY_MAP, MODULE_LIST, Protocol};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;

/// `hvm_start_info` (Xen, include/public/arch-x86/hvm/start_info.h).
mod start_info {
    /// The first word: "xEn3" with the high bit of the "E" set.
    pub const MAGIC: u32 = 0x336e_c578;
    /// Version 1 is the first with a memory map.
    pub const VERSION: u32 = 1;
}

/// The note's type that names the physical address of the 32-bit entry.
pub(super) const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// The entry that a segment of notes names; `None` if it names none.
pub(super) fn entry(elf: &ElfBytes<'_, LittleEndian>, segment: &ProgramHeader) -> Result<Option<u64>, LoadError> {
    for note in elf.segment_data_as_notes(segment)? {
        if let Note::Unknown(note) = note
            && note.n_type == XEN_ELFNOTE_PHYS32_ENTRY
            && note.name == b"Xen\0"
        {
            // The descriptor has the size of an address of the kernel: 4 or 8 bytes, of which the low 4 count.
            let low = note.desc.first_chunk::<4>().ok_or(LoadError::NoEntry)?;
            return Ok(Some(u32::from_le_bytes(*low).into()));
        }
    }
    Ok(None)
}

/// How a kernel is told. Addresses and sizes have 64 bits, of which the upper half is zero here.
pub(super) const PROTOCOL: Protocol = Protocol {
    rax: 0,
    range: |start, end, kind| [start, 0, end - start, 0, kind, 0],
    module_words: 8,
    module: |start, end, name| [start, 0, end - start, 0, name, 0, 0, 0],
    information: |modules, ranges, _| {
        [
            start_info::MAGIC,
            start_info::VERSION,
            // Flags, of which there are none.
            0,
            modules,
            MODULE_LIST,
            0,
            COMMAND_LINE,
            0,
            // No ACPI tables.
            0,
            0,
            MEMORY_MAP,
            0,
            ranges,
        ]
    },
};
