//! Memory, units, software and devices together, and the hook by which a test looks at every step.

use crate::configuration::Configuration;
use crate::fault::{Access, Fault};
use crate::interrupt::Interrupt;
use crate::memory::{Memory, View};
use crate::request::Request;
use crate::unit::{Message, Unit};
use crate::violation::Violation;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Something that software did and hardware can see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A store to memory, one atomic piece.
    Store {
        /// Where.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// Cache lines were written back.
    Flush {
        /// Where.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// A unit has done a piece of work at a look of software.
    Work {
        /// Which unit.
        unit: usize,
    },
    /// Time has passed while software waits, where [`Machine::watch_time`] asks for it.
    Time,
    /// A write to a register, after it took effect.
    Register {
        /// Of which unit.
        unit: usize,
        /// Offset.
        offset: u16,
    },
}

type Hook = Box<dyn FnMut(&Machine, Event)>;

struct State {
    memory: RefCell<Memory>,
    units: RefCell<Vec<Unit>>,
    hook: RefCell<Option<Hook>>,
    time_us: Cell<u64>,
    time_is_watched: Cell<bool>,
}

/// A machine with memory and remapping units. Clones are handles to the same machine: one for the driver's memory,
/// one for its registers, one for the test.
#[derive(Clone)]
pub struct Machine {
    state: Rc<State>,
}

impl Machine {
    /// A machine with `memory` bytes from address 0 and no unit. Memory that nobody has written reads as 0xa5 in
    /// every byte: a table that was not cleared shows.
    pub fn new(memory: u64) -> Self {
        Self {
            state: Rc::new(State {
                memory: RefCell::new(Memory::new(memory, 0xa5)),
                units: RefCell::new(Vec::new()),
                hook: RefCell::new(None),
                time_us: Cell::new(0),
                time_is_watched: Cell::new(false),
            }),
        }
    }

    /// A machine with one unit, which is unit 0.
    pub fn with_unit(memory: u64, configuration: Configuration) -> Self {
        let machine = Self::new(memory);
        machine.add_unit(configuration);
        machine
    }

    /// Adds a unit; answers its number.
    pub fn add_unit(&self, configuration: Configuration) -> usize {
        let mut units = self.state.units.borrow_mut();
        units.push(Unit::new(configuration));
        units.len() - 1
    }

    /// From now on, `hook` runs after every store, flush and register write of software. What it does itself does
    /// not call it again.
    pub fn on_event(&self, hook: impl FnMut(&Machine, Event) + 'static) {
        *self.state.hook.borrow_mut() = Some(Box::new(hook));
    }

    /// The hook no longer runs.
    pub fn clear_hook(&self) {
        *self.state.hook.borrow_mut() = None;
    }

    fn event(&self, event: Event) {
        let Some(mut hook) = self.state.hook.borrow_mut().take() else { return };
        hook(self, event);
        self.state.hook.borrow_mut().get_or_insert(hook);
    }

    /// Runs `f` on one unit and memory. `unit` is a number that [`Machine::add_unit`] gave.
    pub fn unit<T>(&self, unit: usize, f: impl FnOnce(&mut Unit, &mut Memory) -> T) -> T {
        f(&mut self.state.units.borrow_mut()[unit], &mut self.state.memory.borrow_mut())
    }

    /// Software looks at a unit, and the hook at what the unit has done meanwhile.
    fn looking<T>(&self, number: usize, f: impl FnOnce(&mut Unit, &mut Memory) -> T) -> T {
        let (value, worked) = self.unit(number, |unit, memory| {
            let before = unit.done();
            let value = f(unit, memory);
            (value, unit.done() != before)
        });
        if worked {
            self.event(Event::Work { unit: number });
        }
        value
    }

    /// Software reads a 32-bit register.
    pub fn read32(&self, unit: usize, offset: u16) -> u32 {
        self.looking(unit, |unit, memory| unit.read32(memory, offset))
    }

    /// Software reads a 64-bit register.
    pub fn read64(&self, unit: usize, offset: u16) -> u64 {
        self.looking(unit, |unit, memory| unit.read64(memory, offset))
    }

    /// Software writes a 32-bit register.
    pub fn write32(&self, unit: usize, offset: u16, value: u32) {
        self.unit(unit, |unit, memory| unit.write32(memory, offset, value));
        self.event(Event::Register { unit, offset });
    }

    /// Software writes a 64-bit register.
    pub fn write64(&self, unit: usize, offset: u16, value: u64) {
        self.unit(unit, |unit, memory| unit.write64(memory, offset, value));
        self.event(Event::Register { unit, offset });
    }

    /// Software loads a 64-bit word. Panics outside memory: the code under test has gone astray.
    pub fn load(&self, address: u64) -> u64 {
        let units = self.state.units.borrow().len();
        (0..units).for_each(|number| self.looking(number, |unit, memory| unit.look(memory)));
        let word = self.state.memory.borrow().read_u64(address, View::COHERENT);
        word.unwrap_or_else(|| panic!("software loads from {address:#x}, which is no memory"))
    }

    /// Software stores one atomic piece of 1 to 16 bytes. Panics outside memory.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let stored = self.state.memory.borrow_mut().store(address, bytes);
        assert!(stored, "software stores to {address:#x}, which is no memory");
        self.event(Event::Store { address, len: bytes.len() as u64 });
    }

    /// Software stores a 64-bit word.
    pub fn store_u64(&self, address: u64, value: u64) {
        self.store(address, &value.to_le_bytes());
    }

    /// Software stores a 128-bit word in one piece (CMPXCHG16B).
    pub fn store_u128(&self, address: u64, value: u128) {
        self.store(address, &value.to_le_bytes());
    }

    /// Software writes the lines that these bytes touch back to memory.
    pub fn flush(&self, address: u64, len: u64) {
        self.state.memory.borrow_mut().flush(address, len);
        self.event(Event::Flush { address, len });
    }

    /// A device asks for memory: every part of the request as (host-physical address, bytes), or the fault that
    /// blocked it. What the unit learns stays in its caches; a fault is recorded.
    pub fn dma(
        &self,
        unit: usize,
        source: u16,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Vec<(u64, u64)>, Fault> {
        self.request(unit, &Request::new(source, access), address, len)
    }

    /// The same asked of a unit that has nothing cached, and without a trace. With [`Machine::dma`] this is the range
    /// of what hardware may do: any mixture of remembering and reading anew.
    pub fn dma_cold(
        &self,
        unit: usize,
        source: u16,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Vec<(u64, u64)>, Fault> {
        self.request_cold(unit, &Request::new(source, access), address, len)
    }

    /// As [`Machine::dma`], with all that a device may say.
    pub fn request(&self, unit: usize, request: &Request, address: u64, len: u64) -> Result<Vec<(u64, u64)>, Fault> {
        self.unit(unit, |unit, memory| unit.remap(memory, request, address, len))
    }

    /// As [`Machine::dma_cold`], with all that a device may say.
    pub fn request_cold(
        &self,
        unit: usize,
        request: &Request,
        address: u64,
        len: u64,
    ) -> Result<Vec<(u64, u64)>, Fault> {
        self.unit(unit, |unit, memory| unit.cold().remap(memory, request, address, len))
    }

    /// The same asked of a unit that has nothing cached and fetches each 128-bit entry by halves, the lower some stores
    /// ago and the other now: an answer for every store since the last wait that completed. For a driver that does not
    /// exchange 128 bits, and units that snoop.
    pub fn dma_torn(
        &self,
        unit: usize,
        source: u16,
        address: u64,
        len: u64,
        access: Access,
    ) -> Vec<Result<Vec<(u64, u64)>, Fault>> {
        self.request_torn(unit, &Request::new(source, access), address, len)
    }

    /// As [`Machine::dma_torn`], with all that a device may say.
    pub fn request_torn(
        &self,
        unit: usize,
        request: &Request,
        address: u64,
        len: u64,
    ) -> Vec<Result<Vec<(u64, u64)>, Fault>> {
        self.torn(unit, |unit, memory| unit.remap(memory, request, address, len))
    }

    /// As [`Machine::dma_torn`], for an interrupt.
    pub fn interrupt_torn(&self, unit: usize, source: u16, address: u64, data: u32) -> Vec<Interrupt> {
        self.torn(unit, |unit, memory| unit.interrupt(memory, source, address, data))
    }

    fn torn<T>(&self, unit: usize, ask: impl Fn(&mut Unit, &mut Memory) -> T) -> Vec<T> {
        self.unit(unit, |unit, memory| {
            let answers = (1..=memory.stores()).map(|ago| {
                memory.torn = ago;
                ask(&mut unit.cold(), memory)
            });
            let answers = answers.collect();
            memory.torn = 0;
            answers
        })
    }

    /// A device with a device-TLB accesses a page: the host address by what it was told before, or by what it is told
    /// now and keeps.
    pub fn device_access(&self, unit: usize, source: u16, address: u64, access: Access) -> Result<u64, Fault> {
        self.device_request(unit, &Request::new(source, access), address)
    }

    /// As [`Machine::device_access`], with all that a device may say.
    pub fn device_request(&self, unit: usize, request: &Request, address: u64) -> Result<u64, Fault> {
        self.unit(unit, |unit, memory| unit.device_access(memory, request, address))
    }

    /// A device's write is translated, and on its way until [`Unit::arrive`] or an invalidation that waits for it.
    pub fn start_write(&self, unit: usize, source: u16, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let parts = self.dma(unit, source, address, bytes.len() as u64, Access::Write)?;
        self.unit(unit, |unit, _| parts.iter().for_each(|&(at, _)| unit.send(at, Some(bytes))));
        Ok(())
    }

    /// A device's read is translated, and on its way.
    pub fn start_read(&self, unit: usize, source: u16, address: u64) -> Result<(), Fault> {
        let parts = self.dma(unit, source, address, 4, Access::Read)?;
        self.unit(unit, |unit, _| parts.iter().for_each(|&(at, _)| unit.send(at, None)));
        Ok(())
    }

    /// A device reads no byte of a page, to flush its writes (3.5.1): passes where the page may be read and, with CAP.ZLR,
    /// where it may be written.
    pub fn read_nothing(&self, unit: usize, source: u16, address: u64) -> Result<(), Fault> {
        let writable = self.unit(unit, |unit, _| unit.configuration().zero_length_reads)
            && self.dma_cold(unit, source, address, 1, Access::Write).is_ok();
        if writable { Ok(()) } else { self.dma(unit, source, address, 1, Access::Read).map(drop) }
    }

    /// A device writes bytes: `Ok` with what became of an interrupt request, `Ok(None)` for memory.
    pub fn device_write(
        &self,
        unit: usize,
        source: u16,
        address: u64,
        bytes: &[u8],
    ) -> Result<Option<Interrupt>, Fault> {
        if let (0xfee0_0000..=0xfeef_ffff, &[a, b, c, d]) = (address, bytes) {
            return Ok(Some(self.interrupt(unit, source, address, u32::from_le_bytes([a, b, c, d]))));
        }
        let parts = self.dma(unit, source, address, bytes.len() as u64, Access::Write)?;
        let mut rest = bytes;
        for (at, len) in parts {
            let (now, later) = rest.split_at(len as usize);
            self.state.memory.borrow_mut().device_write(at, now);
            rest = later;
        }
        Ok(None)
    }

    /// A device writes `data` to an address of the interrupt range.
    pub fn interrupt(&self, unit: usize, source: u16, address: u64, data: u32) -> Interrupt {
        self.unit(unit, |unit, memory| unit.interrupt(memory, source, address, data))
    }

    /// The same asked of a unit that has nothing cached, and without a trace (nothing is posted either).
    pub fn interrupt_cold(&self, unit: usize, source: u16, address: u64, data: u32) -> Interrupt {
        self.unit(unit, |unit, memory| unit.cold().interrupt(memory, source, address, data))
    }

    /// Every unit does one piece of waiting work; `false` if none had any.
    pub fn step(&self) -> bool {
        let mut memory = self.state.memory.borrow_mut();
        self.state.units.borrow_mut().iter_mut().fold(false, |any, unit| unit.step(&mut memory) | any)
    }

    /// The messages that a unit has sent since the last call.
    pub fn take_messages(&self, unit: usize) -> Vec<Message> {
        self.unit(unit, |unit, _| unit.take_messages())
    }

    /// What software did to a unit and must not have done.
    pub fn violations(&self, unit: usize) -> Vec<Violation> {
        self.unit(unit, |unit, _| unit.violations().to_vec())
    }

    /// Microseconds since the machine was made: they pass by [`Machine::pass_time`] only.
    pub fn now_us(&self) -> u64 {
        self.state.time_us.get()
    }

    /// Time passes.
    pub fn pass_time(&self, microseconds: u64) {
        self.state.time_us.set(self.state.time_us.get().saturating_add(microseconds));
        if self.state.time_is_watched.get() {
            self.event(Event::Time);
        }
    }

    /// From now on the hook also runs while software waits: between any two descriptors of a batch, where the unit does
    /// its work in pieces ([`crate::Latency::Looks`]).
    pub fn watch_time(&self) {
        self.state.time_is_watched.set(true);
    }
}
