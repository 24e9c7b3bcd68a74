//! The driver at work on a machine: what a test asks of it in one call.

use crate::edu::Edu;
use crate::glue::{Hidden, WallClock, Window};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::trace::Events;
use addr::{Bdf, DomainId, HostPhys, Iova, PAGE_SIZE};
use paging::{Flush, PageTable, Permissions, SecondStage, SecondStageAttributes};
use vtd::{
    Configuration, DestinationMode, FaultDrain, FaultKind, FaultReason, FaultRecord, HandleBlock, Handover, Levels,
    Platform, Unit,
};

/// A machine, its unit in the driver's hands, and its edu devices.
#[derive(Debug)]
pub struct Bench {
    /// The machine.
    pub machine: Machine,
    /// Its memory.
    pub memory: Memory,
    /// The driver.
    pub unit: Unit<Window, WallClock>,
    /// The edu devices on the root bus, in the order of their numbers.
    pub edus: Vec<Edu>,
    next_domain: u16,
}

/// A second-stage table, and the domain id under which it is cached.
#[derive(Debug)]
pub struct Space {
    /// The table.
    pub table: PageTable<SecondStage>,
    /// The id.
    pub domain: DomainId,
    /// How many levels the table has.
    pub levels: Levels,
    /// What its leaves say beside permissions.
    pub attributes: SecondStageAttributes,
}

/// What has happened since the last look: what the driver drained, and what QEMU wrote down.
#[derive(Debug)]
pub struct Outcome {
    /// The driver's records.
    pub faults: Vec<FaultRecord>,
    /// What the driver says of the drain.
    pub drain: FaultDrain,
    /// QEMU's events.
    pub events: Events,
}

/// The configuration that most tests want.
pub const CONFIGURATION: Configuration = Configuration {
    interrupt_entries: Some(256),
    destination_mode: DestinationMode::XApic,
    fault_interrupt: None,
    handover: Handover::TakeOver,
    platform: Platform { dma_control_opt_in: false, x2apic_opt_out: false },
};

impl Bench {
    /// A machine with its unit as QEMU starts it, and filled edu devices.
    pub fn new(machine: &Machine) -> Self {
        Self::hiding(machine, Hidden::default())
    }

    /// The same, where the driver is not shown all that the unit can do.
    pub fn hiding(machine: &Machine, hidden: Hidden) -> Self {
        let mut memory = Memory::new(machine.clone());
        let edus = Edu::on(machine, 0);
        let page = memory.take_pages(PAGE_SIZE, PAGE_SIZE);
        edus.iter().for_each(|edu| edu.fill_buffer(page));
        let unit = Unit::probe(Window::new(machine, hidden), WallClock::default()).expect("the unit answers");
        // What QEMU's own start has left in the trace is nobody's.
        machine.events();
        Self { machine: machine.clone(), memory, unit, edus, next_domain: 1 }
    }

    /// And the unit brought up.
    pub fn up(machine: &Machine) -> Self {
        let mut bench = Self::new(machine);
        bench.bring_up(&CONFIGURATION);
        bench
    }

    /// The same, where the driver is not shown all that the unit can do; without interrupt remapping if it is not shown.
    pub fn up_hiding(machine: &Machine, hidden: Hidden) -> Self {
        let mut bench = Self::hiding(machine, hidden);
        let remaps = bench.unit.capabilities().interrupt_remapping();
        let interrupt_entries = CONFIGURATION.interrupt_entries.filter(|_| remaps);
        bench.bring_up(&Configuration { interrupt_entries, ..CONFIGURATION });
        bench
    }

    /// Forgets the driver, as when another kernel comes: the unit stays as it is, and so does the memory.
    pub fn probe_again(&mut self) {
        self.unit = Unit::probe(self.unit.registers().clone(), WallClock::default()).expect("the unit answers");
    }

    /// Brings the unit up.
    pub fn bring_up(&mut self, configuration: &Configuration) {
        self.unit.bring_up(&mut self.memory, configuration).expect("the unit is brought up");
    }

    /// An empty address space with a domain id of its own.
    pub fn space(&mut self, levels: Levels) -> Space {
        let largest = self.unit.capabilities().largest_page();
        let table = PageTable::new(levels.count(), largest, &mut self.memory).expect("memory for a table");
        let domain = DomainId(self.next_domain);
        self.next_domain += 1;
        Space { table, domain, levels, attributes: SecondStageAttributes::default() }
    }

    /// An empty address space of as many levels as the driver prefers.
    pub fn preferred_space(&mut self) -> Space {
        let levels = self.unit.capabilities().second_stage_levels().expect("the unit has a second stage");
        self.space(levels)
    }

    /// Gives a device an address space.
    pub fn assign(&mut self, source: Bdf, space: &Space) {
        let outcome = self.unit.assign(&mut self.memory, source, space.domain, space.table.root(), space.levels);
        outcome.expect("the device is assigned");
    }

    /// Takes everything from a device.
    pub fn clear(&mut self, source: Bdf) {
        self.unit.clear(&mut self.memory, source).expect("the device is cleared");
    }

    /// Maps, and lets the unit know.
    pub fn map(&mut self, space: &mut Space, iova: u64, host: HostPhys, bytes: u64, permissions: Permissions) {
        let flush = self.map_only(space, iova, host, bytes, permissions);
        self.flush(space, flush);
    }

    /// Maps, and leaves the unit as it is.
    pub fn map_only(
        &mut self,
        space: &mut Space,
        iova: u64,
        host: HostPhys,
        bytes: u64,
        permissions: Permissions,
    ) -> Flush<Iova> {
        let outcome = space.table.map(&mut self.memory, Iova::new(iova), host, bytes, permissions, space.attributes);
        outcome.expect("the range can be mapped")
    }

    /// Unmaps, and lets the unit know.
    pub fn unmap(&mut self, space: &mut Space, iova: u64, bytes: u64) {
        let flush = self.unmap_only(space, iova, bytes);
        self.flush(space, flush);
    }

    /// Unmaps, and leaves the unit as it is.
    pub fn unmap_only(&mut self, space: &mut Space, iova: u64, bytes: u64) -> Flush<Iova> {
        space.table.unmap(&mut self.memory, Iova::new(iova), bytes).expect("the range can be unmapped")
    }

    /// Lets the unit know of a change.
    pub fn flush(&mut self, space: &Space, flush: Flush<Iova>) {
        let Some(change) = flush.invalidation() else { return };
        let proof = self.unit.invalidate(&mut self.memory, space.domain, change).expect("the invalidation completes");
        flush.complete(&proof, &mut self.memory).expect("the proof covers the change");
    }

    /// Entries of the interrupt table, not present.
    pub fn interrupts(&mut self, count: usize) -> HandleBlock {
        self.unit.allocate_interrupts(&mut self.memory, count).expect("there are entries")
    }

    /// 8 bytes of memory as they are.
    pub fn at(&self, host: HostPhys, offset: u64) -> u64 {
        self.machine.read64(host.as_u64() + offset)
    }

    /// Drains the faults, and takes QEMU's events. What the driver reports must be what QEMU recorded, no more and no
    /// less.
    pub fn outcome(&mut self) -> Outcome {
        let mut faults = Vec::new();
        let drain = self.unit.drain_faults(|record| faults.push(record));
        let events = self.machine.events();
        let recorded: Vec<_> = events.fault_records().iter().map(|(high, low)| decode(*high, *low)).collect();
        let drained: Vec<_> = faults.iter().map(as_recorded).collect();
        assert_eq!(drained, recorded, "the driver's records, and QEMU's");
        assert_eq!(drain.records as usize, faults.len());
        Outcome { faults, drain, events }
    }

    /// The one fault of a device's DMA since the last look. QEMU must have seen it as the driver reports it.
    pub fn expect_dma_fault(&mut self, source: Bdf, kind: FaultKind, address: u64, reason: u8) -> Outcome {
        let outcome = self.outcome();
        let page = address & !0xfff;
        let expected = FaultRecord { source, address: page, kind, reason: FaultReason(reason), pasid: None };
        assert_eq!(outcome.faults, [expected]);
        assert!(!outcome.drain.overflow && !outcome.drain.more, "{:?}", outcome.drain);
        let first = outcome.events.dma_faults().first().copied().expect("QEMU saw a fault");
        let seen = (first.source, first.reason, first.address, first.write);
        assert_eq!(seen, (source.as_u16(), reason, address, kind == FaultKind::Write));
        outcome
    }

    /// Nothing was refused since the last look.
    pub fn expect_no_fault(&mut self) -> Outcome {
        let outcome = self.outcome();
        assert_eq!(outcome.faults, [], "the driver's records");
        assert_eq!(outcome.events.dma_faults(), [], "QEMU's faults");
        assert!(!outcome.drain.overflow);
        outcome
    }

    /// `edu` writes to `iova`, and that arrives at `host` and nowhere else that it was refused.
    pub fn expect_write(&mut self, edu: usize, iova: u64, host: HostPhys) -> Outcome {
        let value = self.edus[edu].write(Iova::new(iova));
        assert_eq!(self.at(host, 0), value, "the DMA write at {iova:#x} arrives at {host}");
        self.expect_no_fault()
    }

    /// `edu` writes to `iova`, in vain: the fault, and `host` as it was.
    pub fn expect_no_write(&mut self, edu: usize, iova: u64, host: HostPhys, reason: u8) -> Outcome {
        let before = self.at(host, 0);
        self.edus[edu].write(Iova::new(iova));
        assert_eq!(self.at(host, 0), before, "the refused DMA write at {iova:#x} does not reach {host}");
        self.expect_dma_fault(self.edus[edu].bdf(), FaultKind::Write, iova, reason)
    }
}

/// Source, reason, kind and address of a record, by the bits that QEMU sets: FI in 63:12 of the low half, or the index in
/// 63:48; SID in 15:0, FR in 39:32 and T1 in 62 of the high half.
fn decode(high: u64, low: u64) -> (u16, u8, &'static str, u64) {
    let reason = (high >> 32) as u8;
    let (kind, address) = match (reason & 0xf0, high >> 62 & 1) {
        (0x20, _) => ("interrupt", low >> 48),
        (_, 0) => ("write", low),
        _ => ("read", low),
    };
    (high as u16, reason, kind, address)
}

fn as_recorded(record: &FaultRecord) -> (u16, u8, &'static str, u64) {
    let (kind, address) = match record.kind {
        FaultKind::Interrupt { index } => ("interrupt", index.into()),
        FaultKind::Write => ("write", record.address),
        FaultKind::Read => ("read", record.address),
        FaultKind::Atomic => ("atomic", record.address),
        FaultKind::PageRequest => ("page request", record.address),
    };
    (record.source.as_u16(), record.reason.0, kind, address)
}
