//! What an unmap costs a remapping unit, counted between driver and unit: the unit in software of `model/`.

use crate::arena;
use addr::{Bdf, DomainId, HostPhys, Iova, PageSize};
use model::{Configuration, Machine};
use paging::{PageTable, Permissions, SecondStage, SecondStageAttributes, TableMemory};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;
use vtd::{Clock, DestinationMode, DmaMemory, Registers, Unit};

/// Memory of the machine: tables for 1 GiB of small pages, and what the driver needs.
const MEMORY: u64 = 16 << 20;

/// IQT_REG and IQA_REG (VT-d specification, 11.4.9.2 and 11.4.9.3).
const TAIL: u16 = 0x88;
const QUEUE_ADDRESS: u16 = 0x90;
/// Bit 11 of IQA_REG: descriptors of 256 bits.
const WIDE: u64 = 1 << 11;
/// Bits 3:0 of a descriptor: its type, whose bits 6:4 are 11:9. A wait is 5.
const WAIT: u64 = 5;

/// How the unit is set up. The interrupt table plays no part here, and must be there.
const SETTINGS: vtd::Configuration = vtd::Configuration {
    interrupt_entries: Some(256),
    destination_mode: DestinationMode::X2Apic,
    fault_interrupt: None,
    handover: vtd::Handover::Stop,
    platform: vtd::Platform { dma_control_opt_in: false, x2apic_opt_out: false },
};

/// What went to the unit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Descriptors, waits among them.
    pub descriptors: u64,
    pub waits: u64,
    /// Writes to the queue's tail register.
    pub tail_writes: u64,
    /// Writes to all registers.
    pub register_writes: u64,
}

/// The machine's memory, as the driver uses it.
struct Memory {
    machine: Machine,
    next: u64,
}

impl TableMemory for Memory {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.allocate_contiguous(1, 4096)
    }

    fn free_table(&mut self, _: HostPhys) {}

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.machine.load(table.as_u64() + 8 * index as u64)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.machine.store_u64(table.as_u64() + 8 * index as u64, value);
    }
}

impl DmaMemory for Memory {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let start = self.next.next_multiple_of(alignment);
        self.next = start + 4096 * pages as u64;
        for word in (start..self.next).step_by(8) {
            self.machine.store_u64(word, 0);
        }
        (self.next <= MEMORY).then_some(HostPhys::new(start))
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        self.machine.load(address.as_u64())
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        self.machine.store_u64(address.as_u64(), value);
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        self.machine.flush(address.as_u64(), bytes);
    }
}

/// The unit's registers, with everything that is written to them counted.
struct Window {
    machine: Machine,
    counts: Rc<Cell<Counts>>,
    tail: u64,
}

impl Window {
    fn wrote(&mut self, offset: u16, value: u64) {
        let mut counts = self.counts.get();
        counts.register_writes += 1;
        if offset == TAIL {
            counts.tail_writes += 1;
            let queue = self.machine.read64(0, QUEUE_ADDRESS);
            let bytes = if queue & WIDE != 0 { 32 } else { 16 };
            // Bits 2:0: a queue of 4 KiB times a power of two.
            let size = 4096 << (queue & 7);
            while self.tail != value {
                let low = self.machine.load((queue & !0xfff) + self.tail);
                counts.descriptors += 1;
                counts.waits += u64::from(low & 0xf == WAIT);
                self.tail = (self.tail + bytes) % size;
            }
        }
        self.counts.set(counts);
    }
}

impl Registers for Window {
    fn read32(&self, offset: u16) -> u32 {
        self.machine.read32(0, offset)
    }

    fn read64(&self, offset: u16) -> u64 {
        self.machine.read64(0, offset)
    }

    fn write32(&mut self, offset: u16, value: u32) {
        self.wrote(offset, value.into());
        self.machine.write32(0, offset, value);
    }

    fn write64(&mut self, offset: u16, value: u64) {
        self.wrote(offset, value);
        self.machine.write64(0, offset, value);
    }
}

/// Time that passes by waiting only.
struct Ticks(Machine);

impl Clock for Ticks {
    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    fn relax(&self) {
        self.0.pass_time(1);
    }
}

/// What unmapping `pages` pages of 4 KiB and making the unit forget them takes.
pub fn count_unmap(pages: u64) -> Counts {
    let machine = Machine::with_unit(MEMORY, Configuration::default());
    let counts = Rc::new(Cell::new(Counts::default()));
    let mut memory = Memory { machine: machine.clone(), next: 1 << 20 };
    let window = Window { machine: machine.clone(), counts: counts.clone(), tail: 0 };
    let mut unit = Unit::probe(window, Ticks(machine.clone())).expect("the unit in software is usable");
    unit.bring_up(&mut memory, &SETTINGS).expect("it comes up");

    let levels = unit.capabilities().second_stage_levels().expect("it translates");
    let mut table: PageTable<SecondStage> =
        PageTable::new(levels.count(), PageSize::Size4K, &mut memory).expect("there is memory");
    let (domain, start, len) = (DomainId(1), Iova::new(1 << 30), pages * 4096);
    let attributes = SecondStageAttributes::default();
    let flush = table
        .map(&mut memory, start, HostPhys::new(0), len, Permissions::READ_WRITE, attributes)
        .expect("there is memory for tables");
    flush.complete(&paging::NeverLoaded, &mut memory).expect("nobody has looked");
    unit.assign(&mut memory, Bdf::from_u16(0x18), domain, table.root(), levels).expect("the device is there");

    let before = counts.get();
    let flush = table.unmap(&mut memory, start, len).expect("it is mapped");
    let change = flush.invalidation().copied().expect("something was mapped");
    let proof = unit.invalidate(&mut memory, domain, &change).expect("the unit answers");
    flush.complete(&proof, &mut memory).expect("the proof covers the change");
    let after = counts.get();
    assert_eq!(machine.violations(0), [], "the driver broke a rule");
    Counts {
        descriptors: after.descriptors - before.descriptors,
        waits: after.waits - before.waits,
        tail_writes: after.tail_writes - before.tail_writes,
        register_writes: after.register_writes - before.register_writes,
    }
}

/// Frames of the stock, for the driver's tables that no unit looks at yet.
struct Stock {
    pages: usize,
}

impl TableMemory for Stock {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.pages += 1;
        arena::Frames.allocate_table()
    }

    fn free_table(&mut self, table: HostPhys) {
        arena::Frames.free_table(table);
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        arena::Frames.read_entry(table, index)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        arena::Frames.write_entry(table, index, value);
    }
}

impl DmaMemory for Stock {
    fn allocate_contiguous(&mut self, pages: usize, _: u64) -> Option<HostPhys> {
        if pages == 1 { self.allocate_table() } else { None }
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        self.read_entry(address.align_down(4096), address.as_u64() as usize % 4096 / 8)
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        self.write_entry(address.align_down(4096), address.as_u64() as usize % 4096 / 8, value);
    }

    fn write_back(&mut self, _: HostPhys, _: u64) {}
}

/// The tables (pages of 4 KiB) and the nanoseconds for giving each of `devices` requester ids a context entry.
pub fn assign_devices(devices: u32) -> (usize, f64) {
    let machine = Machine::with_unit(MEMORY, Configuration::default());
    let window = Window { machine: machine.clone(), counts: Rc::default(), tail: 0 };
    let mut unit = Unit::probe(window, Ticks(machine)).expect("the unit in software is usable");
    arena::provide(512);
    let mut memory = Stock { pages: 0 };
    unit.create_root_table(&mut memory).expect("there is memory");
    let levels = unit.capabilities().second_stage_levels().expect("it translates");
    let start = Instant::now();
    for device in 0..devices {
        let source = Bdf::from_u16(device as u16);
        unit.assign(&mut memory, source, DomainId(1), HostPhys::new(0x1000), levels).expect("there is memory");
    }
    (memory.pages, start.elapsed().as_nanos() as f64)
}
