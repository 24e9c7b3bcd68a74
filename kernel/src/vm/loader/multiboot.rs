//! Multiboot (the first version, 0.6.96): a header in the image's first 8 KiB says what the kernel wants, and an
//! information structure at the address in EBX tells it what it has.

use super::{COMMAND_LINE, LoadError, Loader, MEMORY_MAP, MODULE_LIST, Protocol};
use crate::vm::memory::GuestMemoryAccess;

/// The header (section 3.1) and the information structure (section 3.3): the layout.
mod layout {
    /// The header's first word.
    pub const HEADER_MAGIC: u32 = 0x1bad_b002;
    /// How far into the image the header may reach, and at multiples of what it is.
    pub const SEARCHED: usize = 8192;
    pub const ALIGNMENT: usize = 4;
    /// Header flags: modules at pages of their own, and information about memory: both are always given.
    pub const PAGE_ALIGN: u32 = 1;
    pub const MEMORY_INFORMATION: u32 = 1 << 1;
    /// Header flags that a loader must obey or refuse.
    pub const REQUIRED: u32 = 0xffff;
    /// Header flag: the header says where the image is loaded.
    pub const ADDRESSES: u32 = 1 << 16;

    /// What EAX is.
    pub const LOADED_MAGIC: u32 = 0x2bad_b002;
    /// What lower memory is at most, in KiB; a guest has more.
    pub const LOWER_MEMORY_KIB: u32 = 640;
    /// Information flags: the sizes of memory, the command line, the modules, and the memory map are there.
    pub const HAS_SIZES: u32 = 1;
    pub const HAS_COMMAND_LINE: u32 = 1 << 2;
    pub const HAS_MODULES: u32 = 1 << 3;
    pub const HAS_MEMORY_MAP: u32 = 1 << 6;
    /// Bytes of a memory map entry, which has the size of the rest of it in front.
    pub const RANGE_BYTES: u32 = 24;
}

/// A kernel's header.
pub(super) struct Header {
    /// Where in the image it is.
    offset: usize,
    flags: u32,
    /// Header, load, load end, bss end and entry address; meaningful if the flags say so.
    addresses: [u32; 5],
}

impl Header {
    /// Looks for the header.
    pub(super) fn find(image: &[u8]) -> Option<Self> {
        let searched = image.get(..layout::SEARCHED).unwrap_or(image);
        let word = |at: usize| {
            let bytes = searched.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes))
        };
        (0..searched.len()).step_by(layout::ALIGNMENT).find_map(|offset| {
            let (magic, flags, checksum) = (word(offset)?, word(offset + 4)?, word(offset + 8)?);
            if magic != layout::HEADER_MAGIC || magic.wrapping_add(flags).wrapping_add(checksum) != 0 {
                return None;
            }
            let mut addresses = [0; 5];
            if flags & layout::ADDRESSES != 0 {
                for (number, address) in addresses.iter_mut().enumerate() {
                    *address = word(offset + 12 + 4 * number)?;
                }
            }
            Some(Self { offset, flags, addresses })
        })
    }

    /// Whether the header says where the image is loaded, whatever the image's format says.
    pub(super) fn has_addresses(&self) -> bool {
        self.flags & layout::ADDRESSES != 0
    }

    /// Whether the kernel gets what it cannot do without.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        match self.flags & layout::REQUIRED & !(layout::PAGE_ALIGN | layout::MEMORY_INFORMATION) {
            0 => Ok(()),
            flags => Err(LoadError::MultibootFlags(flags)),
        }
    }

    /// Loads the image as the header says. Returns where it is entered.
    pub(super) fn load<M: GuestMemoryAccess>(
        &self,
        image: &[u8],
        loader: &mut Loader<'_, M>,
    ) -> Result<u64, LoadError> {
        let [header, load, load_end, bss_end, entry] = self.addresses.map(|address| address as usize);
        let absurd = LoadError::MultibootAddresses;
        // What comes before the header is loaded before it.
        let before = header.checked_sub(load).filter(|before| *before <= self.offset);
        let Some(before) = before else { return Err(absurd) };
        let data = image.get(self.offset - before..);
        // Zero means: to the end of the image, and no bss.
        let data = match load_end {
            0 => data,
            _ => load_end.checked_sub(load).and_then(|bytes| data?.get(..bytes)),
        };
        let Some(data) = data else { return Err(absurd) };
        let bytes = match bss_end {
            0 => Some(data.len()),
            _ => bss_end.checked_sub(load).filter(|bytes| *bytes >= data.len()),
        };
        let Some(bytes) = bytes else { return Err(absurd) };
        loader.put(load as u64, data, bytes as u64)?;
        Ok(entry as u64)
    }
}

/// How a kernel is told.
pub(super) const PROTOCOL: Protocol = Protocol {
    rax: layout::LOADED_MAGIC,
    range: |start, end, kind| [layout::RANGE_BYTES - 4, start, 0, end - start, 0, kind],
    module_words: 4,
    module: |start, end, name| [start, end, name, 0, 0, 0, 0, 0],
    information: |modules, ranges, upper_bytes| {
        [
            layout::HAS_SIZES | layout::HAS_COMMAND_LINE | layout::HAS_MODULES | layout::HAS_MEMORY_MAP,
            layout::LOWER_MEMORY_KIB,
            upper_bytes >> 10,
            // The boot device: not given.
            0,
            COMMAND_LINE,
            modules,
            MODULE_LIST,
            // The kernel's symbols, four words: not given.
            0,
            0,
            0,
            0,
            ranges * layout::RANGE_BYTES,
            MEMORY_MAP,
        ]
    },
};
