//! The interrupt remapping table: entries given away and taken back, and what they route.
//!
//! Entry 0 is never given away, so that a message of zeros, the easiest to forge, finds nothing.

use crate::error::{Error, Step};
use crate::interrupt_table::{self, InterruptTable};
use crate::memory::DmaMemory;
use crate::memory::{at, publish, store};
use crate::registers::Registers;
use crate::spec::interrupt::{
    ENTRY_BYTES, Entry, PRESENT, Polarity, Trigger, io_apic_entry as encode_io_apic_entry, message_address,
};
use crate::spec::invalidation::Descriptor;
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{ApicId, Bdf, HostPhys, Vector};

const NO_TABLE: Error = Error::OutOfOrder { step: Step::Route, needs: "the interrupt remapping table" };

/// An allocated entry of a unit's interrupt remapping table, by its index. It is a number: to another unit it names another
/// entry, and once its block is free, an entry of whoever has it next.
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

impl Message {
    /// The message as a timer of the HPET takes it: its FSB Interrupt Route register, the data in bits 31:0 and the address in
    /// bits 63:32 (IA-PC HPET specification, 2.3.10). The source of the [`Route`] is the one that the DMAR table names for
    /// the HPET.
    pub const fn hpet_route(self) -> u64 {
        self.address << 32 | self.data as u64
    }
}

/// Consecutive entries, as many as a power of two and aligned to it: what a device with multi-message MSI needs. Give it
/// back to the unit that it is from, once ([`Unit::free_interrupts`]).
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

/// What hardware must be told after an entry has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// Nothing.
    None,
    /// That it is to look into its write buffers, if it has such.
    WriteBuffer,
    /// That it is to forget this entry.
    Entry(Handle),
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
        let first = table.map.take(memory, count.ilog2()).ok_or(Error::NoInterruptEntries(count))?;
        Ok(HandleBlock { first, count: count as u16 })
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
        self.route_interrupts(memory, [(handle, *route)])
    }

    /// Routes several entries, as [`Self::route_interrupt`] does one, with one wait for all: when a virtual processor
    /// moves, all of its interrupts do.
    ///
    /// # Errors
    /// Those of [`Self::route_interrupt`]. Entries before the one that failed have their new routes, and hardware has been
    /// told of them.
    pub fn route_interrupts<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        routes: impl IntoIterator<Item = (Handle, Route)>,
    ) -> Result<(), Error> {
        // Hardware is told of so many entries at once.
        let mut notices = [Notice::None; 32];
        let mut count = 0;
        let mut outcome = Ok(());
        for (handle, route) in routes {
            if count == notices.len() {
                self.tell_of_entries(memory, &notices)?;
                count = 0;
            }
            match self.encode(&route).and_then(|entry| self.write_entry(memory, handle, entry)) {
                Ok(notice) => {
                    if let Some(place) = notices.get_mut(count) {
                        *place = notice;
                        count += 1;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.tell_of_entries(memory, notices.get(..count).unwrap_or(&notices))?;
        outcome
    }

    fn encode(&mut self, route: &Route) -> Result<Entry, Error> {
        let mode = self.table()?.mode();
        check_vector(route.vector)?;
        let destination = mode.field(route.destination).ok_or(Error::DestinationOutOfRange(route.destination))?;
        Ok(Entry::remapped(route.vector, destination, route.trigger, route.source))
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
        let entry = Entry::posted(route.vector, route.descriptor, route.urgent, route.source);
        let notice = self.write_entry(memory, handle, entry)?;
        self.tell_of_entries(memory, &[notice])
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
                store(memory, self.capabilities, place, 0);
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
        }
        self.table()?.map.give_back(memory, block.first, block.count.ilog2());
        Ok(())
    }

    /// The two halves of an allocated entry, low first, for a console or a test.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::OutOfOrder`].
    pub fn read_interrupt_entry<M: DmaMemory>(&self, memory: &M, handle: Handle) -> Result<(u64, u64), Error> {
        let entry = interrupt_table::read(memory, self.allocated_entry(memory, handle)?);
        Ok((entry.low, entry.high))
    }

    fn table(&mut self) -> Result<&mut InterruptTable, Error> {
        self.interrupt_table.as_mut().ok_or(NO_TABLE)
    }

    fn allocated_entry<M: DmaMemory>(&self, memory: &M, handle: Handle) -> Result<HostPhys, Error> {
        self.interrupt_table.as_ref().ok_or(NO_TABLE)?.given(memory, handle.0)
    }

    /// Writes an entry; answers what hardware must be told.
    fn write_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle, new: Entry) -> Result<Notice, Error> {
        self.refuse_if_poisoned()?;
        let place = self.allocated_entry(memory, handle)?;
        let old = interrupt_table::read(memory, place);
        if old == new {
            return Ok(Notice::None);
        }
        if old.is_present() && old.high == new.high {
            // The half that says who may use the entry and, of a posted one, half of the descriptor's address, is the
            // same: one store takes the entry from one valid state to the other.
            store(memory, self.capabilities, place, new.low);
            return Ok(Notice::Entry(handle));
        }
        if old.is_present() && memory.exchange_u128(place, [old.low, old.high], [new.low, new.high]) {
            publish(memory, self.capabilities, place, ENTRY_BYTES);
            return Ok(Notice::Entry(handle));
        }
        self.withdraw_entry(memory, handle, place)?;
        // Who may use the entry is there before the entry is: a reader of a torn one must find it not present.
        store(memory, self.capabilities, at(place, 8), new.high);
        store(memory, self.capabilities, place, new.low);
        Ok(if self.capabilities.caching_mode() { Notice::Entry(handle) } else { Notice::WriteBuffer })
    }

    /// Tells hardware of changed entries, and waits until it has forgotten the old ones.
    fn tell_of_entries<M: DmaMemory>(&mut self, memory: &mut M, notices: &[Notice]) -> Result<(), Error> {
        let forget = |notice: &Notice| match notice {
            Notice::Entry(handle) => Some(Descriptor::interrupt_entry_cache_index(handle.0, 0)),
            _ => None,
        };
        let submitted = self.begin(memory, &mut notices.iter().filter_map(forget))?;
        self.complete(memory, submitted)?;
        if notices.contains(&Notice::WriteBuffer) {
            self.flush_write_buffer()?;
        }
        Ok(())
    }

    fn withdraw_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle, place: HostPhys) -> Result<(), Error> {
        if memory.read_u64(place) & PRESENT == 0 {
            // Not present is not forgotten, if it was an invalidation that failed before.
            return if self.poisoned { self.invalidate_entry(memory, handle) } else { Ok(()) };
        }
        store(memory, self.capabilities, place, 0);
        self.invalidate_entry(memory, handle)
    }

    fn invalidate_entry<M: DmaMemory>(&mut self, memory: &mut M, handle: Handle) -> Result<(), Error> {
        self.submit(memory, &[Descriptor::interrupt_entry_cache_index(handle.0, 0)])
    }
}

fn check_vector(vector: Vector) -> Result<(), Error> {
    if vector.0 < 16 { Err(Error::BadVector(vector)) } else { Ok(()) }
}
