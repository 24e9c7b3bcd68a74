//! Puts a guest's kernel into its memory and tells how to start it: the PVH boot protocol (an ELF image with a Xen
//! note that names a 32-bit entry; the guest finds an `hvm_start_info` structure at the address in EBX).

use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use addr::GuestPhys;
use core::fmt;
use elf::ElfBytes;
use elf::abi::{ELFCLASS64, EM_X86_64, ET_EXEC, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;

/// `hvm_start_info` (Xen, include/public/arch-x86/hvm/start_info.h): the layout.
mod start_info {
    /// The first word: "xEn3" with the high bit of the "E" set.
    pub const MAGIC: u32 = 0x336e_c578;
    /// Version 1 is the first with a memory map.
    pub const VERSION: u32 = 1;
    /// Memory map entry types are those of the ACPI system address map.
    pub const MEMORY_TYPE_RAM: u32 = 1;
}

/// The note's type that names the physical address of the 32-bit entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// Where `hvm_start_info` goes: below 1 MiB, where kernels do not load themselves.
const START_INFO: GuestPhys = GuestPhys::new(0x6000);
const MEMORY_MAP: GuestPhys = GuestPhys::new(0x6100);
const COMMAND_LINE: GuestPhys = GuestPhys::new(0x7000);
/// Room for the command line, its final zero byte included.
const COMMAND_LINE_BYTES: usize = 0x1000;
/// A kernel may not load itself over the structures above.
const RESERVED_END: u64 = COMMAND_LINE.as_u64() + COMMAND_LINE_BYTES as u64;

/// How to start the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Where its first instruction is.
    pub entry: GuestPhys,
    /// Where its `hvm_start_info` is.
    pub start_info: GuestPhys,
}

/// Why a kernel cannot be loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is not an ELF image, or a damaged one.
    NotElf,
    /// It is an ELF image, but not an x86-64 executable.
    WrongKind,
    /// It has no PVH entry.
    NoEntry,
    /// A segment does not fit in the guest's memory.
    DoesNotFit {
        /// Where the segment wants to be.
        address: u64,
        /// Its size in memory, in bytes.
        bytes: u64,
    },
    /// The command line is longer than 4095 bytes.
    CommandLineTooLong,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("the kernel is not a sound ELF image"),
            Self::WrongKind => f.write_str("the kernel is not an x86-64 ELF executable"),
            Self::NoEntry => f.write_str("the kernel has no PVH entry (no Xen PHYS32_ENTRY note)"),
            Self::DoesNotFit { address, bytes } => {
                write!(f, "the kernel's segment at {address:#x} of {bytes} bytes does not fit in the guest's memory")
            }
            Self::CommandLineTooLong => f.write_str("the command line is longer than 4095 bytes"),
        }
    }
}

impl From<elf::ParseError> for LoadError {
    fn from(_: elf::ParseError) -> Self {
        LoadError::NotElf
    }
}

impl From<OutOfRange> for LoadError {
    fn from(OutOfRange(address): OutOfRange) -> Self {
        LoadError::DoesNotFit { address: address.as_u64(), bytes: 0 }
    }
}

/// Loads the ELF image `kernel` into `memory`, which is clear and `memory_bytes` long.
pub fn load(
    kernel: &[u8],
    command_line: &str,
    memory: &mut impl GuestMemoryAccess,
    memory_bytes: u64,
) -> Result<Start, LoadError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(kernel)?;
    let header = &elf.ehdr;
    if header.e_machine != EM_X86_64 || header.e_type != ET_EXEC || header.class != elf::file::Class::ELF64 {
        return Err(LoadError::WrongKind);
    }
    // The class is checked as the file has it, too: the crate's constant and type are two names of one thing.
    debug_assert_eq!(kernel.get(4), Some(&ELFCLASS64));
    let segments = elf.segments().ok_or(LoadError::NotElf)?;
    let mut entry = None;
    for segment in segments.iter() {
        if segment.p_type == PT_LOAD && segment.p_memsz > 0 {
            let data = elf.segment_data(&segment)?;
            let end = segment.p_paddr.checked_add(segment.p_memsz);
            let fits = end.is_some_and(|end| end <= memory_bytes)
                && segment.p_paddr >= RESERVED_END
                && data.len() as u64 <= segment.p_memsz;
            if !fits {
                return Err(LoadError::DoesNotFit { address: segment.p_paddr, bytes: segment.p_memsz });
            }
            memory.write(GuestPhys::new(segment.p_paddr), data)?;
        }
        if segment.p_type == PT_NOTE {
            entry = entry.or(entry_note(&elf, &segment)?);
        }
    }
    let entry = entry.ok_or(LoadError::NoEntry)?;
    if u64::from(entry) >= memory_bytes {
        return Err(LoadError::DoesNotFit { address: entry.into(), bytes: 0 });
    }
    write_start_info(command_line, memory, memory_bytes)?;
    Ok(Start { entry: GuestPhys::new(entry.into()), start_info: START_INFO })
}

fn entry_note(
    elf: &ElfBytes<'_, LittleEndian>,
    segment: &elf::segment::ProgramHeader,
) -> Result<Option<u32>, LoadError> {
    for note in elf.segment_data_as_notes(segment)? {
        if let Note::Unknown(note) = note
            && note.n_type == XEN_ELFNOTE_PHYS32_ENTRY
            && note.name == b"Xen\0"
        {
            // The descriptor has the size of an address of the kernel: 4 or 8 bytes, of which the low 4 count.
            let low = note.desc.first_chunk::<4>().ok_or(LoadError::NoEntry)?;
            return Ok(Some(u32::from_le_bytes(*low)));
        }
    }
    Ok(None)
}

fn write_start_info(
    command_line: &str,
    memory: &mut impl GuestMemoryAccess,
    memory_bytes: u64,
) -> Result<(), LoadError> {
    if command_line.len() >= COMMAND_LINE_BYTES {
        return Err(LoadError::CommandLineTooLong);
    }
    memory.write(COMMAND_LINE, command_line.as_bytes())?;
    let mut entry = [0u8; 24];
    entry[8..16].copy_from_slice(&memory_bytes.to_le_bytes());
    entry[16..20].copy_from_slice(&start_info::MEMORY_TYPE_RAM.to_le_bytes());
    memory.write(MEMORY_MAP, &entry)?;
    let mut info = [0u8; 56];
    info[0..4].copy_from_slice(&start_info::MAGIC.to_le_bytes());
    info[4..8].copy_from_slice(&start_info::VERSION.to_le_bytes());
    info[24..32].copy_from_slice(&COMMAND_LINE.as_u64().to_le_bytes());
    info[40..48].copy_from_slice(&MEMORY_MAP.as_u64().to_le_bytes());
    info[48..52].copy_from_slice(&1u32.to_le_bytes());
    memory.write(START_INFO, &info)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const MEMORY: u64 = 4 << 20;

    /// An ELF image with one segment of `file` bytes at `paddr`, `memsz` long in memory, and a note for `entry`.
    fn image(paddr: u64, file: &[u8], memsz: u64, entry: Option<u32>) -> Vec<u8> {
        let mut note = Vec::new();
        if let Some(entry) = entry {
            for word in [4u32, 4, XEN_ELFNOTE_PHYS32_ENTRY as u32] {
                note.extend_from_slice(&word.to_le_bytes());
            }
            note.extend_from_slice(b"Xen\0");
            note.extend_from_slice(&entry.to_le_bytes());
        }
        let mut elf = vec![0u8; 64];
        elf[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        elf[16..18].copy_from_slice(&ET_EXEC.to_le_bytes());
        elf[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        elf[20] = 1;
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[52..54].copy_from_slice(&64u16.to_le_bytes());
        elf[54..56].copy_from_slice(&56u16.to_le_bytes());
        elf[56..58].copy_from_slice(&2u16.to_le_bytes());
        let data = 64 + 2 * 56u64;
        let mut header = |kind: u32, offset: u64, address: u64, filesz: u64, memsz: u64| {
            elf.extend_from_slice(&kind.to_le_bytes());
            elf.extend_from_slice(&[0; 4]);
            for field in [offset, address, address, filesz, memsz, 4] {
                elf.extend_from_slice(&field.to_le_bytes());
            }
        };
        header(PT_LOAD, data, paddr, file.len() as u64, memsz);
        header(PT_NOTE, data + file.len() as u64, 0, note.len() as u64, note.len() as u64);
        elf.extend_from_slice(file);
        elf.extend_from_slice(&note);
        elf
    }

    fn load_into(image: &[u8]) -> (Result<Start, LoadError>, Vec<u8>) {
        let mut memory = vec![0u8; MEMORY as usize];
        (load(image, "hello world", &mut memory, MEMORY), memory)
    }

    #[test]
    fn a_kernel_is_loaded_and_told_what_it_has() {
        let (start, memory) = load_into(&image(0x20_0000, b"code", 0x1000, Some(0x20_0000)));
        assert_eq!(start, Ok(Start { entry: GuestPhys::new(0x20_0000), start_info: GuestPhys::new(0x6000) }));
        assert_eq!(&memory[0x20_0000..0x20_0005], b"code\0");
        assert_eq!(memory.read_u32(GuestPhys::new(0x6000)), Ok(0x336e_c578));
        let command_line = memory.read_u64(GuestPhys::new(0x6018)).unwrap() as usize;
        assert_eq!(&memory[command_line..command_line + 12], b"hello world\0");
        let map = memory.read_u64(GuestPhys::new(0x6028)).unwrap();
        assert_eq!(memory.read_u32(GuestPhys::new(0x6030)), Ok(1));
        assert_eq!(memory.read_u64(GuestPhys::new(map + 8)), Ok(MEMORY));
    }

    #[test]
    fn segments_outside_the_guest_are_refused() {
        for (paddr, memsz) in
            [(MEMORY, 4), (MEMORY - 4, 5), (u64::MAX - 2, 4), (0x6000, 4), (0x20_0000, 3), (0x20_0000, u64::MAX)]
        {
            let (result, _) = load_into(&image(paddr, b"code", memsz, Some(0x20_0000)));
            assert_eq!(result, Err(LoadError::DoesNotFit { address: paddr, bytes: memsz }));
        }
        let (result, _) = load_into(&image(0x20_0000, b"code", 4, Some(MEMORY as u32)));
        assert!(matches!(result, Err(LoadError::DoesNotFit { .. })));
        let (result, _) = load_into(&image(0x20_0000, b"code", 4, None));
        assert_eq!(result, Err(LoadError::NoEntry));
    }

    #[test]
    fn damaged_images_are_errors_and_never_a_panic() {
        let good = image(0x20_0000, b"code", 0x1000, Some(0x20_0000));
        for length in 0..good.len() - 1 {
            assert!(load_into(&good[..length]).0.is_err(), "cut at {length}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = load_into(&bad);
            }
        }
        let long = "x".repeat(4096);
        let mut memory = vec![0u8; MEMORY as usize];
        assert_eq!(load(&good, &long, &mut memory, MEMORY), Err(LoadError::CommandLineTooLong));
    }
}
