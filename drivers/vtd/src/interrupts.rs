//! The interrupt remapping table: entries given away and taken back, and what they route.
//!
//! Which entries are given away is written in the table itself, in a bit that hardware ignores: the table has up to
//! 65536 entries, and a second list of them could disagree. Entry 0 is never given away, so that a message of
//! zeros, the easiest to forge, finds nothing.

use crate::error::{Error, Step};
use crate::memory::{at, publish, store};
use crate::spec::interrupt::{
    ALLOCATED, DestinationMode, ENTRY_BYTES, Entry, PRESENT, Polarity, Trigger, io_apic_entry as encode_io_apic_entry,
    message_address,
};
use crate::spec::invalidation::Descriptor;
use crate::spec::registers::IRTA_EIME;
use crate::wait::Clock;
use crate::{DmaMemory, Registers, Unit};
use addr::{ApicId, Bdf, HostPhys, PAGE_SIZE, Vector};

/// An allocated entry of a unit's interrupt remapping table, by its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(pub(crate) u16);

impl Handle {
    /// The index into the table, as fault records name it.
    pub const fn index(self) -> u16 {
        self.0
    }

    /// The message that a device sends to use this one entry.
    pub const fn message(self) -> Message {
        Message { address: message_address(self.0, false), data: 0 }
    }
}

/// What a device writes where to raise an interrupt: the contents of its MSI capability or MSI-X table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The address.
    pub address: u64,
    /// The data.
    pub data: u32,
}

/// Consecutive entries, as many as a power of two and aligned to it: what a device with multi-message MSI needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandleBlock {
    first: u16,
    count: u16,
}

impl HandleBlock {
    /// How many entries.
    pub const fn count(self) -> usize {
        self.count as usize
    }

    /// The `number`th entry.
    pub const fn get(self, number: usize) -> Option<Handle> {
        if number < self.count as usize { Some(Handle(self.first + number as u16)) } else { None }
    }

    /// All entries.
    pub fn handles(self) -> impl Iterator<Item = Handle> {
        (0..self.count).map(move |number| Handle(self.first + number))
    }

    /// The message of a device with multi-message MSI, which replaces low bits of the data by the message's number: the
    /// unit adds them to the handle. With one entry, the message of that entry alone.
    pub const fn message(self) -> Message {
        Message { address: message_address(self.first, self.count > 1), data: 0 }
    }
}

/// An I/O APIC redirection entry, unmasked, that refers to `handle`. `vector` and `trigger` must be those of the
/// handle's [`Route`]: the I/O APIC compares the vector of an EOI broadcast with its own entry, and would never send
/// a level-triggered interrupt again.
pub const fn io_apic_entry(handle: Handle, vector: Vector, trigger: Trigger, polarity: Polarity) -> u64 {
    encode_io_apic_entry(handle.0, vector, trigger, polarity)
}

/// Where an interrupt goes, and who may send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The vector, 16 to 255.
    pub vector: Vector,
    /// The processor.
    pub destination: ApicId,
    /// Edge for MSI and MSI-X.
    pub trigger: Trigger,
    /// The requester id that the message carries: the function's own, or that of the bridge or alias before it; for an
    /// I/O APIC or HPET the one in its DMAR scope.
    pub source: Bdf,
}

/// Which posted-interrupt descriptor an interrupt is written to, and who may send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PostedRoute {
    /// The virtual vector that is set in the descriptor, 16 to 255.
    pub vector: Vector,
    /// The 64-byte aligned [`crate::PostedInterruptDescriptor`].
    pub descriptor: HostPhys,
    /// Notifies even while the descriptor suppresses notification.
    pub urgent: bool,
    /// As in [`Route`].
    pub source: Bdf,
}

/// The table of one unit.
#[derive(Debug)]
pub(crate) struct InterruptTable {
    base: HostPhys,
    entries: u32,
    mode: DestinationMode,
}

impl InterruptTable {
    /// Pages of a table of so many entries, or `None` for an impossible number: IRTA.S gives 2 to the power of S + 1,
    /// and the table is whole pages.
    pub(crate) const fn pages(entries: usize) -> Option<usize> {
        if entries.is_power_of_two() && entries >= 256 && entries <= 1 << 16 {
            Some(entries * ENTRY_BYTES as usize / PAGE_SIZE as usize)
        } else {
            None
        }
    }

    /// A table in zeroed memory of [`Self::pages`].
    pub(crate) fn new(base: HostPhys, entries: usize, mode: DestinationMode) -> Self {
        Self { base, entries: entries as u32, mode }
    }

    pub(crate) fn mode(&self) -> DestinationMode {
        self.mode
    }

    /// The value for IRTA_REG: address, EIME, size.
    pub(crate) fn address_register(&self) -> u64 {
        let extended = if self.mode == DestinationMode::X2Apic { IRTA_EIME } else { 0 };
        self.base.as_u64() | extended | u64::from(self.entries.ilog2() - 1)
    }

    fn place(&self, index: u32) -> HostPhys {
        at(self.base, u64::from(index) * ENTRY_BYTES)
    }

    fn is_free<M: DmaMemory>(&self, memory: &M, index: u32) -> bool {
        memory.read_u64(self.place(index)) & (ALLOCATED | PRESENT) == 0
    }
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Takes `count` consecutive entries (a power of two, 1 to 32) out of the table, aligned to their number, all not
    /// present.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] without a table; [`Error::NoInterruptEntries`].
    pub fn allocate_interrupts<M: DmaMemory>(&mut self, memory: &mut M, count: usize) -> Result<HandleBlock, Error> {
        let table = self.table()?;
        if !count.is_power_of_two() || count > 32 {
            return Err(Error::NoInterruptEntries(count));
        }
        let block = count as u32;
        // Entry 0 is nobody's, and with it no block that begins there.
        let first = (0..table.entries)
            .step_by(count)
            .skip(1)
            .find(|&first| (first..first + block).all(|index| table.is_free(memory, index)))
            .ok_or(Error::NoInterruptEntries(count))?;
        let places = (first..first + block).map(|index| table.place(index));
        for place in places {
            store(memory, self.capabilities, place, ALLOCATED);
        }
        Ok(HandleBlock { first: first as u16, count: count as u16 })
    }

    /// Routes an entry. Where the entry already routes interrupts of the same source, or the memory can exchange 128
    /// bits, it changes by one store and no interrupt is lost; otherwise it passes through not present, and what
    /// arrives meanwhile is lost with fault 0x22: mask the source first.
    ///
    /// # Errors
    /// [`Error::BadVector`], [`Error::DestinationOutOfRange`], [`Error::BadHandle`], [`Error::Poisoned`],
    /// [`Error::OutOfOrder`]: nothing has changed. [`Error::Invalidation`]: the old route may still be in use.
    pub fn route_interrupt<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        handle: Handle,
        route: &Route,
    ) -> Result<(), Error> {
        let mode = self.table()?.mode;
        check_vector(route.vector)?;
        let destination = mode.field(route.destination).ok_or(Error::DestinationOutOfRange(route.destination))?;
        self.write_entry(memory, handle, Entry::remapped(route.vector, destination, route.trigger, route.source))
    }

    /// Lets hardware post an entry's interrupts. See [`Self::route_interrupt`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] without CAP.PI, [`Error::BadDescriptor`], and those of [`Self::route_interrupt`].
    pub fn post_interrupt<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        handle: Handle,
        route: &PostedRoute,
    ) -> Result<(), Error> {
        if !self.capabilities.posted_interrupts() {
            return Err(Error::Unsupported { capability: "posted interrupts (CAP.PI)" });
        }
        check_vector(route.vector)?;
        if !route.descriptor.is_aligned(64) || route.descriptor.as_u64() >> 52 != 0 {
            return Err(Error::BadDescriptor(route.descriptor));
        }
        self.write_entry(memory, handle, Entry::posted(route.vector, route.descriptor, route.urgent, route.source))
    }

    /// Stops routing an entry, which stays allocated: its messages fault with 0x22 when the call returns.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::OutOfOrder`]; [`Error::Invalidation`]: the old route may still be in use.
    pub fn disable_interrupt<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle) -> Result<(), Error> {
        let place = self.allocated_entry(memory, handle)?;
        self.withdraw_entry(memory, handle, place)
    }

    /// Gives entries back. They are free again only after hardware has forgotten them.
    ///
    /// # Errors
    /// As [`Self::disable_interrupt`]; entries that were not given back stay allocated.
    pub fn free_interrupts<M: DmaMemory>(&mut self, memory: &mut M, block: HandleBlock) -> Result<(), Error> {
        // Not present is not forgotten, if it was an invalidation that failed before.
        let mut withdrawn = self.poisoned;
        for handle in block.handles() {
            let place = self.allocated_entry(memory, handle)?;
            if memory.read_u64(place) & PRESENT != 0 {
                store(memory, self.capabilities, place, ALLOCATED);
                withdrawn = true;
            }
        }
        let index_mask = block.count.ilog2() as u8;
        if withdrawn && index_mask <= self.capabilities.maximum_handle_mask() {
            self.submit(memory, &[Descriptor::interrupt_entry_cache_index(block.first, index_mask)])?;
        } else if withdrawn {
            self.submit(memory, &[Descriptor::interrupt_entry_cache_global()])?;
        }
        for handle in block.handles() {
            let place = self.allocated_entry(memory, handle)?;
            store(memory, self.capabilities, at(place, 8), 0);
            store(memory, self.capabilities, place, 0);
        }
        Ok(())
    }

    /// The two halves of an allocated entry, low first, for a console or a test.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::OutOfOrder`].
    pub fn read_interrupt_entry<M: DmaMemory>(&self, memory: &M, handle: Handle) -> Result<(u64, u64), Error> {
        let place = self.allocated_entry(memory, handle)?;
        Ok((memory.read_u64(place), memory.read_u64(at(place, 8))))
    }

    fn table(&self) -> Result<&InterruptTable, Error> {
        self.interrupt_table
            .as_ref()
            .ok_or(Error::OutOfOrder { step: Step::Route, needs: "the interrupt remapping table" })
    }

    fn allocated_entry<M: DmaMemory>(&self, memory: &M, handle: Handle) -> Result<HostPhys, Error> {
        let table = self.table()?;
        let place = table.place(handle.0.into());
        if u32::from(handle.0) >= table.entries || memory.read_u64(place) & ALLOCATED == 0 {
            return Err(Error::BadHandle(handle.0));
        }
        Ok(place)
    }

    fn write_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle, new: Entry) -> Result<(), Error> {
        self.refuse_if_poisoned()?;
        let place = self.allocated_entry(memory, handle)?;
        let old = Entry { low: memory.read_u64(place), high: memory.read_u64(at(place, 8)) };
        let new = Entry { low: new.low | ALLOCATED, ..new };
        if old == new {
            return Ok(());
        }
        if old.is_present() && old.high == new.high {
            // The half that says who may use the entry and, of a posted one, half of the descriptor's address, is the
            // same: one store takes the entry from one valid state to the other.
            store(memory, self.capabilities, place, new.low);
            return self.invalidate_entry(memory, handle);
        }
        if old.is_present() && memory.exchange_u128(place, [old.low, old.high], [new.low, new.high]) {
            publish(memory, self.capabilities, place, ENTRY_BYTES);
            return self.invalidate_entry(memory, handle);
        }
        self.withdraw_entry(memory, handle, place)?;
        // Who may use the entry is there before the entry is: a reader of a torn one must find it not present.
        store(memory, self.capabilities, at(place, 8), new.high);
        store(memory, self.capabilities, place, new.low);
        if self.capabilities.caching_mode() { self.invalidate_entry(memory, handle) } else { self.flush_write_buffer() }
    }

    fn withdraw_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle, place: HostPhys) -> Result<(), Error> {
        if memory.read_u64(place) & PRESENT == 0 {
            // Not present is not forgotten, if it was an invalidation that failed before.
            return if self.poisoned { self.invalidate_entry(memory, handle) } else { Ok(()) };
        }
        store(memory, self.capabilities, place, ALLOCATED);
        self.invalidate_entry(memory, handle)
    }

    fn invalidate_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle) -> Result<(), Error> {
        self.submit(memory, &[Descriptor::interrupt_entry_cache_index(handle.0, 0)])
    }
}

fn check_vector(vector: Vector) -> Result<(), Error> {
    if vector.0 < 16 { Err(Error::BadVector(vector)) } else { Ok(()) }
}
