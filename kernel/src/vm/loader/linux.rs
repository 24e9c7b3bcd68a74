//! The Linux/x86 boot protocol, 64-bit: a bzImage, entered in 64-bit mode 0x200 bytes behind its start, which finds
//! `boot_params` (the "zero page") at the address in RSI (Documentation/arch/x86/boot.rst and zero-page.rst).

use super::{Images, LoadError, Start, TYPE_MEMORY, TYPE_RESERVED};
use crate::vcpu::{LONG_CODE_SELECTOR, LONG_DATA_SELECTOR};
use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use crate::vm::memory_map::{self, ACPI_TABLES};
use crate::vm::rom;
use addr::{GuestPhys, PAGE_SIZE};

/// The setup header, by its offsets in the image, which are also those in `boot_params`.
mod layout {
    /// `setup_sects`: sectors of 512 bytes before the kernel proper, less one; 0 stands for 4. The header begins here.
    pub const SETUP_SECTORS: usize = 0x1f1;
    /// The offset of a jump whose operand, at the next byte, says where the header ends.
    pub const JUMP: usize = 0x200;
    /// `header`: "HdrS".
    pub const MAGIC: usize = 0x202;
    pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"HdrS");
    /// `version`: of the protocol.
    pub const VERSION: usize = 0x206;
    /// `type_of_loader`: 0xff is "undefined".
    pub const TYPE_OF_LOADER: usize = 0x210;
    /// `ramdisk_image` and `ramdisk_size`.
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    /// `cmd_line_ptr`.
    pub const COMMAND_LINE: usize = 0x228;
    /// `initrd_addr_max`: the highest address of the ramdisk's last byte.
    pub const RAMDISK_LAST: usize = 0x22c;
    /// `kernel_alignment`.
    pub const ALIGNMENT: usize = 0x230;
    /// `relocatable_kernel`.
    pub const RELOCATABLE: usize = 0x234;
    /// `xloadflags`, bit 0: it has the 64-bit entry.
    pub const LOAD_FLAGS: usize = 0x236;
    pub const HAS_64_BIT_ENTRY: u16 = 1;
    /// `cmdline_size`: the longest command line, without its final zero byte.
    pub const COMMAND_LINE_SIZE: usize = 0x238;
    /// `pref_address`: where the kernel likes to be.
    pub const PREFERRED_ADDRESS: usize = 0x258;
    /// `init_size`: bytes from its start that the kernel uses before it knows its memory.
    pub const INITIAL_SIZE: usize = 0x260;
    /// The last byte that a header may have: `boot_params` goes on with something else.
    pub const END: usize = 0x290;

    /// `acpi_rsdp_addr` in `boot_params`.
    pub const RSDP: u32 = 0x70;
    /// `e820_entries` and `e820_table` in `boot_params`: start, length and type, 20 bytes each.
    pub const E820_ENTRIES: u32 = 0x1e8;
    pub const E820_TABLE: u32 = 0x2d0;
    pub const E820_BYTES: u32 = 20;

    /// Version 2.12, the first with `xloadflags`.
    pub const OLDEST: u16 = 0x20c;
    /// Where the 64-bit entry is, from the kernel's start.
    pub const ENTRY_64: u64 = 0x200;
}

/// Low memory that the kernel finds in use, and may use when it has read it.
mod place {
    /// `boot_params`.
    pub const PARAMETERS: u32 = 0x7000;
    /// The descriptor table.
    pub const DESCRIPTOR_TABLE: u32 = 0x8000;
    /// The page tables: one page of the highest level, one of the next, and one for each GiB of four.
    pub const PAGE_TABLES: u32 = 0x9000;
    /// The command line.
    pub const COMMAND_LINE: u32 = 0x2_0000;
}

/// A PC's memory up to 640 KiB, less the last KiB, where its extended BIOS data is.
const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Flat descriptors: 64-bit code, and data.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
/// Present and writable.
const TABLE: u64 = 3;
/// The same, and the entry maps a large page.
const LARGE: u64 = TABLE | 1 << 7;

/// A bzImage's header.
pub(super) struct Header<'a> {
    image: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header, if `image` has one.
    pub(super) fn find(image: &'a [u8]) -> Option<Self> {
        let header = Self { image };
        (header.u32(layout::MAGIC) == Some(layout::MAGIC_VALUE)).then_some(header)
    }

    /// Loads the kernel with the ramdisk, and tells it what it has.
    pub(super) fn load<M: GuestMemoryAccess>(
        &self,
        images: &Images<'_>,
        memory: &mut M,
        memory_bytes: u64,
    ) -> Result<Start, LoadError> {
        let absurd = LoadError::LinuxHeader;
        let version = self.u16(layout::VERSION).ok_or(absurd)?;
        let flags = self.u16(layout::LOAD_FLAGS).ok_or(absurd)?;
        if version < layout::OLDEST || flags & layout::HAS_64_BIT_ENTRY == 0 {
            return Err(LoadError::LinuxTooOld(version));
        }
        let longest = self.u32(layout::COMMAND_LINE_SIZE).ok_or(absurd)? as usize;
        let ramdisk = match images.modules {
            [] => &[][..],
            [(_, ramdisk)] => ramdisk,
            _ => return Err(LoadError::TooMuch),
        };
        if images.command_line.len() > longest.min(0xffff) {
            return Err(LoadError::TooMuch);
        }

        let kernel = self.kernel().ok_or(absurd)?;
        let start = self.place(kernel.len() as u64, memory_bytes)?;
        memory.write(GuestPhys::new(start.start), kernel)?;
        let ramdisk_at = self.place_ramdisk(ramdisk.len() as u64, start.end, memory_bytes)?;
        memory.write(GuestPhys::new(ramdisk_at), ramdisk)?;
        rom::write(memory)?;

        self.write_parameters(memory, memory_bytes, ramdisk_at as u32, ramdisk.len() as u32)?;
        memory.write(GuestPhys::new(place::COMMAND_LINE.into()), images.command_line.as_bytes())?;
        memory.write(GuestPhys::new(u64::from(place::COMMAND_LINE) + images.command_line.len() as u64), &[0])?;
        write_tables(memory)?;
        Ok(Start::Long {
            entry: start.start + layout::ENTRY_64,
            information: place::PARAMETERS.into(),
            page_tables: place::PAGE_TABLES.into(),
            descriptor_table: place::DESCRIPTOR_TABLE.into(),
            descriptor_table_limit: LONG_DATA_SELECTOR + 7,
        })
    }

    /// The kernel proper, without the part for real mode.
    fn kernel(&self) -> Option<&'a [u8]> {
        let sectors = match *self.image.get(layout::SETUP_SECTORS)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        self.image.get((sectors + 1) * 512..).filter(|kernel| kernel.len() as u64 > layout::ENTRY_64)
    }

    /// Where the kernel goes, with all that it uses at first: where it likes to be, or else as low as it may.
    fn place(&self, bytes: u64, memory_bytes: u64) -> Result<core::ops::Range<u64>, LoadError> {
        let absurd = LoadError::LinuxHeader;
        let wanted = self.u32(layout::INITIAL_SIZE).map(u64::from).ok_or(absurd)?.max(bytes);
        let preferred = self.u64(layout::PREFERRED_ADDRESS).ok_or(absurd)?;
        let alignment = self.u32(layout::ALIGNMENT).filter(|alignment| alignment.is_power_of_two()).ok_or(absurd)?;
        let relocatable = *self.image.get(layout::RELOCATABLE).ok_or(absurd)? != 0;
        let lowest = memory_map::HIGH_MEMORY.next_multiple_of(alignment.into());
        let fits = |start: &u64| {
            let end = start.checked_add(wanted);
            *start >= memory_map::HIGH_MEMORY && end.is_some_and(|end| end <= memory_bytes)
        };
        let start = Some(preferred).filter(fits).or(Some(lowest).filter(|start| relocatable && fits(start)));
        let start = start.ok_or(LoadError::DoesNotFit { address: preferred, bytes: wanted })?;
        Ok(start..start + wanted)
    }

    /// Where the ramdisk goes: as high as it may.
    fn place_ramdisk(&self, bytes: u64, above: u64, memory_bytes: u64) -> Result<u64, LoadError> {
        let last = self.u32(layout::RAMDISK_LAST).ok_or(LoadError::LinuxHeader)?;
        let end = memory_bytes.min(u64::from(last) + 1);
        let start = end.checked_sub(bytes).map(|start| start / PAGE_SIZE * PAGE_SIZE);
        start.filter(|start| *start >= above).ok_or(LoadError::DoesNotFit { address: above, bytes })
    }

    /// Writes `boot_params`: the image's own header with what a loader fills in, and the memory map.
    fn write_parameters<M: GuestMemoryAccess>(
        &self,
        memory: &mut M,
        memory_bytes: u64,
        ramdisk: u32,
        ramdisk_bytes: u32,
    ) -> Result<(), LoadError> {
        let end = self.image.get(layout::JUMP + 1).map(|length| layout::MAGIC + usize::from(*length));
        let end = end.ok_or(LoadError::LinuxHeader)?.min(layout::END);
        let header = self.image.get(layout::SETUP_SECTORS..end).ok_or(LoadError::LinuxHeader)?;
        let at = |offset: u32| GuestPhys::new(u64::from(place::PARAMETERS) + u64::from(offset));
        memory.write(at(layout::SETUP_SECTORS as u32), header)?;
        memory.write(at(layout::TYPE_OF_LOADER as u32), &[0xff])?;
        for (offset, value) in [
            (layout::RAMDISK_IMAGE, if ramdisk_bytes == 0 { 0 } else { ramdisk }),
            (layout::RAMDISK_SIZE, ramdisk_bytes),
            (layout::COMMAND_LINE, place::COMMAND_LINE),
        ] {
            memory.write(at(offset as u32), &value.to_le_bytes())?;
        }
        memory.write(at(layout::RSDP), &ACPI_TABLES.start.as_u64().to_le_bytes())?;
        let reserved = memory_map::reserved();
        let ranges = [
            (0, LOW_MEMORY_END, TYPE_MEMORY),
            (rom::START.as_u64(), rom::END.as_u64(), TYPE_RESERVED),
            (memory_map::HIGH_MEMORY, memory_bytes, TYPE_MEMORY),
            (reserved.start.as_u64(), reserved.end.as_u64(), TYPE_RESERVED),
        ];
        for (number, (start, end, kind)) in ranges.into_iter().enumerate() {
            let entry = at(layout::E820_TABLE + number as u32 * layout::E820_BYTES);
            memory.write(entry, &start.to_le_bytes())?;
            memory.write(GuestPhys::new(entry.as_u64() + 8), &(end - start).to_le_bytes())?;
            memory.write(GuestPhys::new(entry.as_u64() + 16), &kind.to_le_bytes())?;
        }
        memory.write(at(layout::E820_ENTRIES), &[ranges.len() as u8])?;
        Ok(())
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.image.get(at..)?.first_chunk().copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

/// Writes the descriptor table, and page tables that map the first 4 GiB to themselves.
fn write_tables(memory: &mut impl GuestMemoryAccess) -> Result<(), OutOfRange> {
    let at = |address: u32, entry: u64| GuestPhys::new(u64::from(address) + entry * 8);
    for (selector, descriptor) in [(LONG_CODE_SELECTOR, CODE_64), (LONG_DATA_SELECTOR, DATA)] {
        let place = at(place::DESCRIPTOR_TABLE, u64::from(selector / 8));
        memory.write(place, &descriptor.to_le_bytes())?;
    }
    const PAGE: u64 = PAGE_SIZE;
    let (top, middle) = (place::PAGE_TABLES, place::PAGE_TABLES + PAGE as u32);
    memory.write(at(top, 0), &(u64::from(middle) | TABLE).to_le_bytes())?;
    for gib in 0..4u64 {
        let low = u64::from(middle) + PAGE * (gib + 1);
        memory.write(at(middle, gib), &(low | TABLE).to_le_bytes())?;
        for entry in 0..512 {
            let large = (gib * 512 + entry) << 21 | LARGE;
            memory.write(at(low as u32, entry), &large.to_le_bytes())?;
        }
    }
    Ok(())
}
