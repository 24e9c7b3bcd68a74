//! What a loader handed over, and the `BootInfo` that is made of it.

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, Optional};

use crate::error::Error;
use crate::memory_map::{FirmwareMap, List, MAX_OCCUPIED, Span};
use crate::{LINK_BASE, MAPPED_PHYSICAL_MEMORY, PHYSICAL_MEMORY_OFFSET};

/// Ranges of [`MAX_OCCUPIED`] that stay free for the image.
const FOR_THE_IMAGE: usize = 1;

/// What both protocols say, in one form.
pub(crate) struct Handover {
    /// Memory as firmware reported it.
    pub(crate) memory: FirmwareMap,
    /// Physical address of the ACPI RSDP.
    pub(crate) rsdp: Option<u64>,
    /// The first module.
    pub(crate) ramdisk: Option<Span>,
    /// What the loader left in memory and somebody may still read: all modules and the loader's structures.
    pub(crate) occupied: List<Span, MAX_OCCUPIED>,
}

impl Handover {
    pub(crate) const fn new() -> Self {
        Self { memory: FirmwareMap::new(), rsdp: None, ramdisk: None, occupied: List::new(Span { start: 0, end: 0 }) }
    }

    /// Notes that `span` is in use.
    pub(crate) fn occupy(&mut self, span: Span) -> Result<(), Error> {
        if self.occupied.as_slice().len() + FOR_THE_IMAGE >= MAX_OCCUPIED {
            return Err(Error::TooManyModules);
        }
        self.occupied.push(span, Error::TooManyModules)
    }

    /// Takes a module: the first that is not empty is the ramdisk.
    pub(crate) fn module(&mut self, span: Span) -> Result<(), Error> {
        if span.start >= span.end {
            return Ok(());
        }
        if span.end > MAPPED_PHYSICAL_MEMORY {
            return Err(Error::Truncated);
        }
        self.ramdisk.get_or_insert(span);
        self.occupy(span)
    }
}

/// Where the image stands: `physical` is everything that its program headers occupy.
pub(crate) struct Placement {
    pub(crate) physical: Span,
    /// Virtual address of the first byte of the image above [`LINK_BASE`].
    pub(crate) image_start: u64,
    /// Virtual addresses of the stack.
    pub(crate) stack: Span,
}

/// Makes the `BootInfo`. `regions` is where its memory regions live.
pub(crate) fn build(
    mut handover: Handover,
    placement: &Placement,
    regions: &'static mut [MemoryRegion],
) -> Result<BootInfo, Error> {
    if handover.memory.is_empty() {
        return Err(Error::NoMemoryMap);
    }
    handover.occupied.push(placement.physical, Error::TooManyModules)?;
    let count = handover.memory.regions(handover.occupied.as_slice(), regions)?;
    let regions = regions.get_mut(..count).unwrap_or(&mut []);

    let mut info = BootInfo::new(regions.into());
    info.physical_memory_offset = Optional::Some(PHYSICAL_MEMORY_OFFSET);
    info.rsdp_addr = handover.rsdp.into();
    if let Some(ramdisk) = handover.ramdisk {
        info.ramdisk_addr = Optional::Some(PHYSICAL_MEMORY_OFFSET + ramdisk.start);
        info.ramdisk_len = ramdisk.end - ramdisk.start;
    }
    // rust-osdev's bootloader keeps the ELF file in memory and reports it; PVH and Multiboot2 loaders do not. The loaded
    // image takes its place: `kernel_addr` is a physical address in both cases, but there is no ELF header at it here.
    info.kernel_addr = placement.physical.start;
    info.kernel_len = placement.physical.end - placement.physical.start;
    info.kernel_image_offset = placement.image_start.max(LINK_BASE);
    info.kernel_stack_bottom = placement.stack.start;
    info.kernel_stack_len = placement.stack.end - placement.stack.start;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use std::{boxed::Box, vec};

    use bootloader_api::info::MemoryRegionKind::{Bootloader, Usable};

    use super::*;
    use crate::memory_map::MAX_REGIONS;

    fn placement() -> Placement {
        Placement {
            physical: Span { start: 0x20_0000, end: 0x24_0000 },
            image_start: LINK_BASE + 0x20_1000,
            stack: Span { start: LINK_BASE + 0x23_0000, end: LINK_BASE + 0x24_0000 },
        }
    }

    fn room() -> &'static mut [MemoryRegion] {
        Box::leak(vec![MemoryRegion::empty(); MAX_REGIONS].into_boxed_slice())
    }

    #[test]
    fn the_image_and_the_first_module_are_taken_out_of_usable_memory() {
        let mut handover = Handover::new();
        handover.memory.add(0x10_0000, 0xf0_0000, 1).unwrap();
        handover.rsdp = Some(0xf_5a00);
        handover.module(Span { start: 0x80_0000, end: 0x80_0000 }).unwrap();
        handover.module(Span { start: 0x80_0000, end: 0x80_1234 }).unwrap();
        handover.module(Span { start: 0x90_0000, end: 0x90_1000 }).unwrap();
        let info = build(handover, &placement(), room()).unwrap();

        let found: std::vec::Vec<_> = info.memory_regions.iter().map(|r| (r.start, r.end, r.kind)).collect();
        assert_eq!(
            found,
            [
                (0x10_0000, 0x20_0000, Usable),
                (0x20_0000, 0x24_0000, Bootloader),
                (0x24_0000, 0x80_0000, Usable),
                (0x80_0000, 0x80_2000, Bootloader),
                (0x80_2000, 0x90_0000, Usable),
                (0x90_0000, 0x90_1000, Bootloader),
                (0x90_1000, 0x100_0000, Usable),
            ]
        );
        assert_eq!(info.ramdisk_addr.into_option(), Some(PHYSICAL_MEMORY_OFFSET + 0x80_0000));
        assert_eq!(info.ramdisk_len, 0x1234);
        assert_eq!(info.rsdp_addr.into_option(), Some(0xf_5a00));
        assert_eq!((info.kernel_addr, info.kernel_len), (0x20_0000, 0x4_0000));
        assert_eq!(info.kernel_image_offset, LINK_BASE + 0x20_1000);
        assert_eq!((info.kernel_stack_bottom, info.kernel_stack_len), (LINK_BASE + 0x23_0000, 0x1_0000));
    }

    #[test]
    fn without_a_memory_map_nothing_starts() {
        assert_eq!(build(Handover::new(), &placement(), room()).map(|_| ()), Err(Error::NoMemoryMap));
    }

    #[test]
    fn a_module_beyond_the_mapped_memory_is_refused() {
        let mut handover = Handover::new();
        let end = MAPPED_PHYSICAL_MEMORY + 1;
        assert_eq!(handover.module(Span { start: 0x1000, end }), Err(Error::Truncated));
    }

    #[test]
    fn there_is_always_room_for_the_image() {
        let mut handover = Handover::new();
        handover.memory.add(0x10_0000, 0xf0_0000, 1).unwrap();
        while handover.occupy(Span::new(0x70_0000, 0x1000)).is_ok() {}
        let info = build(handover, &placement(), room()).unwrap();
        assert!(info.memory_regions.iter().any(|r| r.start == 0x20_0000 && r.kind == Bootloader));
    }
}
