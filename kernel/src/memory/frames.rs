//! Every 4 KiB frame of the machine's memory, and who owns it.
//!
//! One byte a frame. That is more than a bitmap, and it is what lets the hypervisor prove, frame by frame, that
//! nothing of its own is reachable by a guest or by a device, and count what it keeps for itself.

use addr::{HostPhys, PAGE_SIZE};

/// Who a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody: it can be allocated.
    Free,
    /// Firmware, devices, or nothing at all: never allocated.
    Reserved,
    /// The hypervisor: its image, tables, stacks and whatever hardware reads on its behalf.
    Hypervisor,
    /// The guest with this number.
    Guest(u8),
}

/// The number of guests that the encoding has room for.
pub const MAXIMUM_GUESTS: u8 = 0xf0;

impl Owner {
    const fn encode(self) -> u8 {
        match self {
            Owner::Reserved => 0,
            Owner::Free => 1,
            Owner::Hypervisor => 2,
            Owner::Guest(number) => 0x10 + if number < MAXIMUM_GUESTS { number } else { MAXIMUM_GUESTS - 1 },
        }
    }

    const fn decode(byte: u8) -> Self {
        match byte {
            1 => Owner::Free,
            2 => Owner::Hypervisor,
            0x10.. => Owner::Guest(byte - 0x10),
            _ => Owner::Reserved,
        }
    }
}

/// The table of owners, from frame 0 up to the highest usable one.
pub struct FrameTable<'a> {
    owners: &'a mut [u8],
    /// No frame below this index is free: where the search for a single frame begins.
    lowest_free: usize,
}

impl<'a> FrameTable<'a> {
    /// A table in which every frame is reserved. `owners` holds one byte for each frame from physical address 0.
    pub fn new(owners: &'a mut [u8]) -> Self {
        owners.fill(Owner::Reserved.encode());
        let lowest_free = owners.len();
        Self { owners, lowest_free }
    }

    /// Bytes of owner table that a machine needs whose highest usable address is `end`.
    pub const fn bytes_for(end: HostPhys) -> u64 {
        end.as_u64().div_ceil(PAGE_SIZE)
    }

    /// Hands over the whole frames inside `start..end` to the allocator. Partial frames at either end are left out.
    pub fn add_usable(&mut self, start: HostPhys, end: HostPhys) {
        let first = start.as_u64().div_ceil(PAGE_SIZE) as usize;
        let last = (end.as_u64().div_ceil(PAGE_SIZE) as usize).min(self.owners.len());
        if first < last {
            self.owners[first..last].fill(Owner::Free.encode());
            self.lowest_free = self.lowest_free.min(first);
        }
    }

    /// Gives every frame that `start..end` touches to `owner`, whatever it was before: for what was in place before
    /// the table was.
    pub fn claim(&mut self, start: HostPhys, end: HostPhys, owner: Owner) {
        let first = (start.as_u64() / PAGE_SIZE) as usize;
        let last = (end.as_u64().div_ceil(PAGE_SIZE) as usize).min(self.owners.len());
        if first < last {
            self.owners[first..last].fill(owner.encode());
            if owner == Owner::Free {
                self.lowest_free = self.lowest_free.min(first);
            }
        }
    }

    /// `count` contiguous free frames at a multiple of `alignment` bytes (a power of two, at least 4096), which then
    /// belong to `owner`. `None` when there is no such place. The contents are whatever they were.
    pub fn allocate(&mut self, count: usize, alignment: u64, owner: Owner) -> Option<HostPhys> {
        let step = (alignment / PAGE_SIZE).max(1) as usize;
        let free = Owner::Free.encode();
        let mut first = self.lowest_free.next_multiple_of(step);
        while count > 0 && first.checked_add(count)? <= self.owners.len() {
            // From the end, so that a taken frame lets the search skip everything up to it.
            match self.owners[first..first + count].iter().rposition(|owner| *owner != free) {
                None => {
                    self.owners[first..first + count].fill(owner.encode());
                    if first == self.lowest_free {
                        self.lowest_free += count;
                    }
                    return Some(HostPhys::new(first as u64 * PAGE_SIZE));
                }
                Some(taken) => {
                    let next = (first + taken + 1).next_multiple_of(step);
                    if count == 1 && step == 1 && first == self.lowest_free {
                        self.lowest_free = next;
                    }
                    first = next;
                }
            }
        }
        None
    }

    /// Frees `count` frames from `start` on if all of them belong to `owner`; says whether it did.
    #[must_use = "frames of somebody else are not freed"]
    pub fn free(&mut self, start: HostPhys, count: usize, owner: Owner) -> bool {
        let first = (start.as_u64() / PAGE_SIZE) as usize;
        let Some(frames) = first.checked_add(count).and_then(|end| self.owners.get_mut(first..end)) else {
            return false;
        };
        if frames.iter().any(|byte| *byte != owner.encode()) {
            return false;
        }
        frames.fill(Owner::Free.encode());
        self.lowest_free = self.lowest_free.min(first);
        true
    }

    /// Who owns the frame that holds `address`; everything beyond the table is reserved.
    pub fn owner(&self, address: HostPhys) -> Owner {
        self.owners.get((address.as_u64() / PAGE_SIZE) as usize).map_or(Owner::Reserved, |byte| Owner::decode(*byte))
    }

    /// Whether every frame that has a byte from `start` to before `end` is reserved. Takes no longer than the table is long,
    /// however far apart the two are: a device may have chosen them.
    pub fn is_reserved(&self, start: HostPhys, end: HostPhys) -> bool {
        let first = (start.as_u64() / PAGE_SIZE) as usize;
        let frames = end.as_u64().div_ceil(PAGE_SIZE) as usize;
        let reserved = Owner::Reserved.encode();
        self.owners.iter().take(frames).skip(first).all(|byte| *byte == reserved)
    }

    /// How many frames belong to `owner`.
    pub fn count(&self, owner: Owner) -> usize {
        let encoded = owner.encode();
        self.owners.iter().filter(|byte| **byte == encoded).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn frame(number: u64) -> HostPhys {
        HostPhys::new(number * PAGE_SIZE)
    }

    #[test]
    fn what_is_allocated_belongs_to_its_owner_until_freed() {
        let mut owners = [0; 64];
        let mut table = FrameTable::new(&mut owners);
        assert_eq!(table.allocate(1, PAGE_SIZE, Owner::Hypervisor), None, "a new table has nothing to give");
        table.add_usable(HostPhys::new(0x1800), frame(40));
        assert_eq!(table.owner(frame(1)), Owner::Reserved, "a frame that is usable in part is not");
        let one = table.allocate(1, PAGE_SIZE, Owner::Hypervisor).unwrap();
        assert_eq!(one, frame(2));
        let aligned = table.allocate(16, 16 * PAGE_SIZE, Owner::Guest(3)).unwrap();
        assert_eq!(aligned, frame(16));
        assert_eq!(table.owner(frame(31)), Owner::Guest(3));
        assert_eq!(table.owner(frame(32)), Owner::Free);
        assert_eq!((table.count(Owner::Guest(3)), table.count(Owner::Hypervisor)), (16, 1));
        assert!(!table.free(frame(15), 2, Owner::Guest(3)), "the first of them is not the guest's");
        assert!(table.free(aligned, 16, Owner::Guest(3)));
        assert!(!table.free(aligned, 16, Owner::Guest(3)), "not twice");
        assert_eq!(table.owner(frame(16)), Owner::Free);
    }

    #[test]
    fn what_touches_memory_is_not_reserved_and_a_range_of_any_length_is_looked_at_at_once() {
        let mut owners = [0; 64];
        let mut table = FrameTable::new(&mut owners);
        table.add_usable(frame(20), frame(30));
        let byte = |address: HostPhys, offset: u64| HostPhys::new(address.as_u64().wrapping_add(offset));
        for (start, end, expected) in [
            (frame(10), frame(20), true),
            (frame(10), byte(frame(20), 1), false),
            (byte(frame(29), 0xfff), frame(40), false),
            (frame(30), frame(40), true),
            (frame(25), frame(25), true),
            (frame(30), HostPhys::new(u64::MAX), true),
            (frame(0), HostPhys::new(u64::MAX), false),
            (HostPhys::new(u64::MAX), HostPhys::new(u64::MAX), true),
        ] {
            assert_eq!(table.is_reserved(start, end), expected, "{start} to {end}");
        }
    }

    #[test]
    fn every_free_frame_is_found_and_none_twice() {
        let mut owners = [0; 64];
        let mut table = FrameTable::new(&mut owners);
        table.add_usable(frame(1), frame(10));
        table.add_usable(frame(20), frame(30));
        table.claim(frame(5), frame(6), Owner::Reserved);
        let mut seen = [false; 64];
        while let Some(address) = table.allocate(1, PAGE_SIZE, Owner::Hypervisor) {
            let index = (address.as_u64() / PAGE_SIZE) as usize;
            assert!(!core::mem::replace(&mut seen[index], true));
        }
        assert_eq!(seen.iter().filter(|seen| **seen).count(), 18);
        assert!(table.free(frame(7), 1, Owner::Hypervisor));
        assert_eq!(table.allocate(1, PAGE_SIZE, Owner::Hypervisor), Some(frame(7)));
    }

    #[test]
    fn requests_that_cannot_be_met_are_refused() {
        let mut owners = [0; 16];
        let mut table = FrameTable::new(&mut owners);
        table.add_usable(frame(0), frame(100));
        assert_eq!(table.allocate(17, PAGE_SIZE, Owner::Hypervisor), None);
        assert_eq!(table.allocate(usize::MAX, PAGE_SIZE, Owner::Hypervisor), None);
        assert_eq!(table.allocate(0, PAGE_SIZE, Owner::Hypervisor), None);
        assert!(!table.free(frame(15), usize::MAX, Owner::Free));
        assert_eq!(table.owner(frame(16)), Owner::Reserved);
    }
}
