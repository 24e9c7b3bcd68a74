//! Puts a guest's kernel into its memory and tells how to start it, by the protocol that the kernel is made for: that of
//! Linux (a bzImage), PVH (an ELF image with a Xen note that names a 32-bit entry), or else Multiboot 1.
//!
//! What a kernel is told by PVH and Multiboot is in the guest's [ROM](crate::vm::rom): no kernel is loaded there, and
//! none is told that its own memory is there.

mod linux;
mod multiboot;
mod pvh;
#[cfg(test)]
mod tests;

use crate::vcpu::Start;
use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use crate::vm::rom;
use addr::{GuestPhys, PAGE_SIZE};
use core::fmt;
use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, ET_EXEC, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;

/// Where in the ROM the protocol's structure is, the map of the guest's memory, and the list of its modules.
const INFORMATION: u32 = rom::START.as_u64() as u32;
const MEMORY_MAP: u32 = INFORMATION + 0x100;
const MODULE_LIST: u32 = INFORMATION + 0x200;
/// The names of the modules, one every [`NAME_BYTES`], each ended by a zero byte.
const MODULE_NAMES: u32 = INFORMATION + 0x400;
const NAME_BYTES: u32 = 0x80;
const COMMAND_LINE: u32 = INFORMATION + 0x1000;
/// Room for the command line, its final zero byte included.
const COMMAND_LINE_BYTES: usize = 0x1000;
/// Most modules of a guest: as many as there is room for their names.
pub const MAXIMUM_MODULES: usize = 8;

/// The kinds of memory that a kernel is told of: those of the ACPI system address map, in both protocols.
const TYPE_MEMORY: u32 = 1;
const TYPE_RESERVED: u32 = 2;
/// How many ranges there are.
const RANGES: u32 = 3;

/// What is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The kernel's image.
    pub kernel: &'a [u8],
    /// Its command line, at most 4095 bytes.
    pub command_line: &'a str,
    /// What it gets beside, by name, at most [`MAXIMUM_MODULES`].
    pub modules: &'a [(&'a str, &'a [u8])],
}

/// Why a kernel cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is not an ELF image, or a damaged one, and no Multiboot header says how to load it nevertheless.
    NotElf,
    /// It is an ELF image, but not an x86 executable.
    WrongKind,
    /// It has neither a PVH entry nor a Multiboot header.
    NoEntry,
    /// Its Multiboot header asks for what is not offered: these bits of its flags.
    MultibootFlags(u32),
    /// Its Multiboot header contradicts itself.
    MultibootAddresses,
    /// It is a bzImage of an older boot protocol (this version of it), or of a 32-bit kernel.
    LinuxTooOld(u16),
    /// It is a bzImage whose header makes no sense, or a truncated one.
    LinuxHeader,
    /// A segment or a module does not fit in the guest's memory.
    DoesNotFit {
        /// Where it goes.
        address: u64,
        /// Its size in memory, in bytes.
        bytes: u64,
    },
    /// The command line is longer than the kernel takes (at most 4095 bytes by PVH and Multiboot), or there are too many
    /// modules (Linux takes one, its initial ramdisk) or too long a name.
    TooMuch,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("the kernel is neither a bzImage nor a sound ELF image"),
            Self::WrongKind => f.write_str("the kernel is not an x86 ELF executable"),
            Self::NoEntry => {
                f.write_str("the kernel has no PVH entry (a Xen PHYS32_ENTRY note) and no Multiboot header")
            }
            Self::MultibootFlags(flags) => {
                write!(f, "the kernel's Multiboot header asks for what is not offered: flags {flags:#x}")
            }
            Self::MultibootAddresses => f.write_str("the addresses in the kernel's Multiboot header make no sense"),
            Self::LinuxTooOld(version) => write!(
                f,
                "the kernel is a bzImage without a 64-bit entry (boot protocol {}.{:02}; 2.12 of a 64-bit kernel is needed)",
                version >> 8,
                version & 0xff
            ),
            Self::LinuxHeader => f.write_str("the kernel is a bzImage with a header that makes no sense, or truncated"),
            Self::DoesNotFit { address, bytes } => {
                write!(f, "a segment or module at {address:#x} of {bytes} bytes does not fit in the guest's memory")
            }
            Self::TooMuch => f.write_str("the command line, or the list of modules or a name in it, is too long"),
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

/// What differs between the protocols in what a kernel is told. Lists and structures are of 32-bit words.
struct Protocol {
    /// What EAX is.
    rax: u32,
    /// A range of the memory map, from start, end and type.
    range: fn(u32, u32, u32) -> [u32; 6],
    /// How many words a module has in the list, and which, from its start, its end and where its name is.
    module_words: u32,
    module: fn(u32, u32, u32) -> [u32; 8],
    /// The structure that EBX points to, from the number of modules, the number of ranges, and the bytes above 1 MiB.
    information: fn(u32, u32, u32) -> [u32; 13],
}

/// Loads `images` into `memory`, which is clear and `memory_bytes` long: 2 MiB to 2 GiB.
pub fn load(images: &Images<'_>, memory: &mut impl GuestMemoryAccess, memory_bytes: u64) -> Result<Start, LoadError> {
    if let Some(header) = linux::Header::find(images.kernel) {
        return header.load(images, memory, memory_bytes);
    }
    let mut loader = Loader { memory, memory_bytes, end: 0 };
    let header = multiboot::Header::find(images.kernel);
    let entry = match &header {
        Some(header) if header.has_addresses() => header.load(images.kernel, &mut loader)?,
        _ => match loader.load_elf(images.kernel)? {
            ElfEntry::Pvh(entry) => return loader.tell(images, entry, &pvh::PROTOCOL),
            ElfEntry::Plain(entry) => entry,
        },
    };
    header.ok_or(LoadError::NoEntry)?.check()?;
    loader.tell(images, entry, &multiboot::PROTOCOL)
}

/// Where an ELF image is entered: a physical address.
enum ElfEntry {
    /// By its PVH note.
    Pvh(u64),
    /// By its header.
    Plain(u64),
}

/// A guest's memory while it is filled.
struct Loader<'a, M> {
    memory: &'a mut M,
    memory_bytes: u64,
    /// Where what was loaded so far ends.
    end: u64,
}

impl<M: GuestMemoryAccess> Loader<'_, M> {
    /// Puts `data` at `address`, with `bytes` in all that are the kernel's.
    fn put(&mut self, address: u64, data: &[u8], bytes: u64) -> Result<(), LoadError> {
        let end = address.checked_add(bytes).filter(|end| {
            let in_rom = address < rom::END.as_u64() && *end > rom::START.as_u64();
            *end <= self.memory_bytes && !in_rom && data.len() as u64 <= bytes
        });
        let end = end.ok_or(LoadError::DoesNotFit { address, bytes })?;
        self.memory.write(GuestPhys::new(address), data)?;
        self.end = self.end.max(end);
        Ok(())
    }

    /// Loads an ELF image's segments.
    fn load_elf(&mut self, image: &[u8]) -> Result<ElfEntry, LoadError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(image)?;
        if !matches!(elf.ehdr.e_machine, EM_386 | EM_X86_64) || elf.ehdr.e_type != ET_EXEC {
            return Err(LoadError::WrongKind);
        }
        let (mut entry, mut pvh) = (elf.ehdr.e_entry, None);
        for segment in elf.segments().ok_or(LoadError::NotElf)?.iter() {
            if segment.p_type == PT_LOAD && segment.p_memsz > 0 {
                self.put(segment.p_paddr, elf.segment_data(&segment)?, segment.p_memsz)?;
                // The header has the address at which the kernel is linked.
                if let Some(offset) = elf.ehdr.e_entry.checked_sub(segment.p_vaddr)
                    && offset < segment.p_memsz
                {
                    entry = segment.p_paddr + offset;
                }
            }
            if segment.p_type == PT_NOTE {
                pvh = pvh.or(pvh::entry(&elf, &segment)?);
            }
        }
        Ok(pvh.map_or(ElfEntry::Plain(entry), ElfEntry::Pvh))
    }

    /// Writes `words` from `address` on.
    fn put_words(&mut self, address: u32, words: &[u32]) -> Result<(), OutOfRange> {
        for (word, number) in words.iter().zip(0..) {
            self.memory.write(GuestPhys::new(u64::from(address) + 4 * number), &word.to_le_bytes())?;
        }
        Ok(())
    }

    /// Tells the loaded kernel what it has, and puts its modules behind it, each at a page of its own.
    fn tell(&mut self, images: &Images<'_>, entry: u64, protocol: &Protocol) -> Result<Start, LoadError> {
        if entry >= self.memory_bytes {
            return Err(LoadError::DoesNotFit { address: entry, bytes: 0 });
        }
        if images.command_line.len() >= COMMAND_LINE_BYTES || images.modules.len() > MAXIMUM_MODULES {
            return Err(LoadError::TooMuch);
        }
        rom::write(self.memory)?;
        self.memory.write(GuestPhys::new(COMMAND_LINE.into()), images.command_line.as_bytes())?;
        // No address has more than 32 bits: a guest's memory ends at 2 GiB.
        let mut count = 0;
        for (name, data) in images.modules {
            if name.len() >= NAME_BYTES as usize {
                return Err(LoadError::TooMuch);
            }
            let place = MODULE_NAMES + count * NAME_BYTES;
            self.memory.write(GuestPhys::new(place.into()), name.as_bytes())?;
            let start = self.end.max(rom::END.as_u64()).next_multiple_of(PAGE_SIZE);
            self.put(start, data, data.len() as u64)?;
            let module = (protocol.module)(start as u32, self.end as u32, place);
            self.put_words(MODULE_LIST + 4 * count * protocol.module_words, &module)?;
            count += 1;
        }
        let (rom, rom_end, end) = (rom::START.as_u64() as u32, rom::END.as_u64() as u32, self.memory_bytes as u32);
        let mut at = MEMORY_MAP;
        for (start, end, kind) in [(0, rom, TYPE_MEMORY), (rom, rom_end, TYPE_RESERVED), (rom_end, end, TYPE_MEMORY)] {
            let range = (protocol.range)(start, end, kind);
            self.put_words(at, &range)?;
            at += 4 * range.len() as u32;
        }
        self.put_words(INFORMATION, &(protocol.information)(count, RANGES, end - rom_end))?;
        Ok(Start::Protected { entry: entry as u32, rax: protocol.rax, information: INFORMATION })
    }
}
