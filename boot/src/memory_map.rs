//! From a firmware memory map to `MemoryRegion`s: sorted, without overlaps, whole pages.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::error::Error;

/// Most entries of a firmware memory map. QEMU reports about 10; UEFI machines behind GRUB up to about 100.
pub(crate) const MAX_AREAS: usize = 256;
/// Most ranges that the loader and the image occupy.
pub(crate) const MAX_OCCUPIED: usize = 36;
/// Most regions that [`build`] can make: each of its two kinds of input has two borders, and a region ends at a border.
pub(crate) const MAX_REGIONS: usize = 2 * (MAX_AREAS + MAX_OCCUPIED);

/// E820 type of usable memory; the same number in PVH and Multiboot2 (ACPI 6.5, table 15.4).
const E820_USABLE: u32 = 1;
const PAGE: u64 = 4096;

/// A piece of physical memory, `start` inclusive, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    /// The span of `length` bytes at `start`, cut at the end of the address space.
    pub(crate) const fn new(start: u64, length: u64) -> Self {
        Self { start, end: start.saturating_add(length) }
    }

    /// The pages that it touches.
    fn pages_touched(self) -> Self {
        Self { start: self.start & !(PAGE - 1), end: self.end.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1)) }
    }

    /// The pages that lie whole in it; `start >= end` when there is none.
    fn pages_inside(self) -> Self {
        Self { start: self.start.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1)), end: self.end & !(PAGE - 1) }
    }

    const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// A list with room for `N`, in place of an allocation.
pub(crate) struct List<T, const N: usize> {
    items: [T; N],
    length: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    pub(crate) const fn new(filler: T) -> Self {
        Self { items: [filler; N], length: 0 }
    }

    /// Appends `item`, or reports `full`.
    pub(crate) fn push(&mut self, item: T, full: Error) -> Result<(), Error> {
        *self.items.get_mut(self.length).ok_or(full)? = item;
        self.length += 1;
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        self.items.get(..self.length).unwrap_or(&[])
    }
}

/// A firmware memory map as the loader gave it: any order, overlaps allowed.
pub(crate) struct FirmwareMap {
    areas: List<(Span, u32), MAX_AREAS>,
}

impl FirmwareMap {
    pub(crate) const fn new() -> Self {
        Self { areas: List::new((Span { start: 0, end: 0 }, 0)) }
    }

    /// Adds one entry with its E820 type. Empty entries are left out.
    pub(crate) fn add(&mut self, start: u64, length: u64, e820_type: u32) -> Result<(), Error> {
        let span = Span::new(start, length);
        // A page that is usable only in part is not usable; a page that is reserved in part is reserved.
        let pages = if e820_type == E820_USABLE { span.pages_inside() } else { span.pages_touched() };
        if length == 0 || pages.start >= pages.end {
            return Ok(());
        }
        self.areas.push((pages, e820_type), Error::MemoryMapTooLong)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.areas.as_slice().is_empty()
    }

    /// What memory is at `span`, between whose ends no border lies. `None` where the map says nothing.
    fn kind(&self, span: Span, occupied: &[Span]) -> Option<MemoryRegionKind> {
        let mut covering = self.areas.as_slice().iter().filter(|(area, _)| area.covers(span)).map(|(_, kind)| *kind);
        let first = covering.next()?;
        // Where entries contradict each other, memory that one of them reserves is reserved.
        if let Some(reserved) = core::iter::once(first).chain(covering).find(|kind| *kind != E820_USABLE) {
            return Some(MemoryRegionKind::UnknownBios(reserved));
        }
        Some(if occupied.iter().any(|taken| taken.pages_touched().covers(span)) {
            MemoryRegionKind::Bootloader
        } else {
            MemoryRegionKind::Usable
        })
    }

    /// Fills `regions` from its beginning and returns how many there are: sorted by address, whole pages, without
    /// overlaps, neighbours of one kind joined. Usable memory that an `occupied` range touches is
    /// [`MemoryRegionKind::Bootloader`]; memory that firmware reserves stays what firmware says.
    pub(crate) fn regions(&self, occupied: &[Span], regions: &mut [MemoryRegion]) -> Result<usize, Error> {
        let mut borders = List::<u64, MAX_REGIONS>::new(u64::MAX);
        let areas = self.areas.as_slice().iter().map(|(area, _)| *area);
        for span in areas.chain(occupied.iter().map(|taken| taken.pages_touched())) {
            borders.push(span.start, Error::TooManyModules)?;
            borders.push(span.end, Error::TooManyModules)?;
        }
        // From each border to the next one above it: there are few, and the image has no other use for a sort.
        let above = |border: u64| borders.as_slice().iter().copied().filter(move |other| *other > border).min();
        let first = borders.as_slice().iter().copied().min();
        let starts = core::iter::successors(first, |border| above(*border));

        let mut filled: usize = 0;
        for span in starts.filter_map(|start| Some(Span { start, end: above(start)? })) {
            let Some(kind) = self.kind(span, occupied) else { continue };
            let previous = filled.checked_sub(1).and_then(|last| regions.get_mut(last));
            match previous {
                Some(last) if last.end == span.start && last.kind == kind => last.end = span.end,
                _ => {
                    let free = regions.get_mut(filled).ok_or(Error::MemoryMapTooLong)?;
                    *free = MemoryRegion { start: span.start, end: span.end, kind };
                    filled += 1;
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use MemoryRegionKind::{Bootloader, UnknownBios, Usable};

    fn regions(entries: &[(u64, u64, u32)], occupied: &[Span]) -> Vec<(u64, u64, MemoryRegionKind)> {
        let mut map = FirmwareMap::new();
        for (start, end, kind) in entries {
            map.add(*start, end - start, *kind).unwrap();
        }
        let mut regions = vec![MemoryRegion::empty(); MAX_REGIONS];
        let count = map.regions(occupied, &mut regions).unwrap();
        regions[..count].iter().map(|region| (region.start, region.end, region.kind)).collect()
    }

    #[test]
    fn entries_are_sorted_and_neighbours_of_one_kind_joined() {
        assert_eq!(
            regions(&[(0x3000, 0x5000, 1), (0x0, 0x1000, 2), (0x1000, 0x3000, 1)], &[]),
            [(0x0, 0x1000, UnknownBios(2)), (0x1000, 0x5000, Usable)]
        );
    }

    #[test]
    fn holes_stay_holes() {
        assert_eq!(
            regions(&[(0, 0x1000, 1), (0x8000, 0x9000, 1)], &[Span { start: 0x4000, end: 0x5000 }]),
            [(0, 0x1000, Usable), (0x8000, 0x9000, Usable)]
        );
    }

    #[test]
    fn what_one_entry_reserves_no_other_entry_makes_usable() {
        for entries in [[(0x0, 0x9000, 1), (0x4000, 0x5000, 2)], [(0x4000, 0x5000, 2), (0x0, 0x9000, 1)]] {
            assert_eq!(
                regions(&entries, &[]),
                [(0, 0x4000, Usable), (0x4000, 0x5000, UnknownBios(2)), (0x5000, 0x9000, Usable)]
            );
        }
    }

    #[test]
    fn a_page_that_is_usable_in_part_is_not_usable() {
        assert_eq!(
            regions(&[(0x0, 0x9fc00, 1), (0x9fc00, 0xa0000, 2)], &[]),
            [(0, 0x9f000, Usable), (0x9f000, 0xa0000, UnknownBios(2))]
        );
        assert_eq!(regions(&[(0x1001, 0x1fff, 1)], &[]), []);
    }

    #[test]
    fn occupied_pages_are_cut_out_of_usable_memory() {
        let image = Span { start: 0x2000, end: 0x4000 };
        let module = Span { start: 0x5800, end: 0x5801 };
        assert_eq!(
            regions(&[(0x0, 0x8000, 1)], &[image, module]),
            [
                (0, 0x2000, Usable),
                (0x2000, 0x4000, Bootloader),
                (0x4000, 0x5000, Usable),
                (0x5000, 0x6000, Bootloader),
                (0x6000, 0x8000, Usable),
            ]
        );
    }

    #[test]
    fn occupied_memory_that_firmware_reserves_stays_reserved() {
        assert_eq!(
            regions(&[(0, 0x4000, 2), (0x4000, 0x8000, 1)], &[Span { start: 0x3000, end: 0x5000 }]),
            [(0, 0x4000, UnknownBios(2)), (0x4000, 0x5000, Bootloader), (0x5000, 0x8000, Usable)]
        );
    }

    #[test]
    fn an_entry_up_to_the_end_of_the_address_space_does_not_wrap() {
        assert_eq!(
            regions(&[(0x1000, 0x2000, 1), (u64::MAX - 0x1800, u64::MAX, 2)], &[]),
            [(0x1000, 0x2000, Usable), (u64::MAX - 0x1fff, u64::MAX - 0xfff, UnknownBios(2))]
        );
        let mut map = FirmwareMap::new();
        map.add(u64::MAX - 0x2fff, u64::MAX, 1).unwrap();
        let mut out = [MemoryRegion::empty(); 4];
        assert_eq!(map.regions(&[], &mut out), Ok(1));
        assert!(out[0].start < out[0].end);
    }

    #[test]
    fn a_map_with_too_many_entries_is_refused_and_not_cut() {
        let mut map = FirmwareMap::new();
        for index in 0..MAX_AREAS as u64 {
            map.add(index * 0x2000, 0x1000, 1).unwrap();
        }
        assert_eq!(map.add(1 << 40, 0x1000, 2), Err(Error::MemoryMapTooLong));
    }

    #[test]
    fn the_longest_map_fits() {
        let mut map = FirmwareMap::new();
        for index in 0..MAX_AREAS as u64 {
            map.add(index * 0x10000, 0x8000, 1).unwrap();
        }
        let occupied: Vec<Span> =
            (0..MAX_OCCUPIED as u64).map(|index| Span::new(index * 0x10000 + 0x2000, 0x1000)).collect();
        let mut out = vec![MemoryRegion::empty(); MAX_REGIONS];
        assert_eq!(map.regions(&occupied, &mut out), Ok(MAX_AREAS + 2 * MAX_OCCUPIED));
    }
}
