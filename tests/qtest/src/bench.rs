//! The driver at work on a machine: what a test asks of it in one call.

use crate::edu::Edu;
use crate::glue::{Hidden, WallClock, Window};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::{Mode, Space};
use crate::trace::Events;
use addr::{Bdf, DomainId, HostPhys, Iova, PAGE_SIZE, PageSize};
use paging::{Flush, Invalidation, Permissions};
use vtd::{
    Configuration, DestinationMode, FaultDrain, FaultKind, FaultReason, FaultRecord, HandleBlock, Handover,
    IotlbInvalidated, Levels, Pasid, Platform, Translation, Unit,
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
    /// In which mode it is, or will be brought up.
    pub mode: Mode,
    next_domain: u16,
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

/// Why QEMU refuses what most tests try.
///
/// In scalable mode hardware would say 0x39 and 0x41 of missing root and context entries, and 0x79 of what the second stage
/// does not permit. QEMU gives the codes of legacy mode, so there the number is no proof of anything; that something
/// was refused, of whom and at which address, is.
#[derive(Clone, Copy, Debug)]
pub struct Reasons {
    /// No root entry for the bus.
    pub no_root: u8,
    /// No context entry for the device.
    pub no_context: u8,
    /// A write where nothing is mapped.
    pub no_write: u8,
    /// A read where nothing is mapped.
    pub no_read: u8,
    /// A write where something may only be read.
    pub read_only: u8,
    /// An address beyond the table.
    pub beyond: u8,
}

const LEGACY_REASONS: Reasons =
    Reasons { no_root: 0x01, no_context: 0x02, no_write: 0x05, no_read: 0x06, read_only: 0x05, beyond: 0x04 };
const FIRST_STAGE_REASONS: Reasons =
    Reasons { no_write: 0x71, no_read: 0x71, read_only: 0x85, beyond: 0x80, ..LEGACY_REASONS };

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
        Self { machine: machine.clone(), memory, unit, edus, mode: Mode::Legacy, next_domain: 1 }
    }

    /// And the unit brought up.
    pub fn up(machine: &Machine) -> Self {
        let mut bench = Self::new(machine);
        bench.bring_up(&CONFIGURATION);
        bench
    }

    /// The same in another mode, and where the driver is not shown all that the unit can do; without interrupt remapping if
    /// it is not shown.
    pub fn up_in(machine: &Machine, mode: Mode, hidden: Hidden) -> Self {
        let mut bench = Self::hiding(machine, hidden);
        bench.mode = mode;
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
        if self.mode != Mode::Legacy {
            self.unit.use_scalable_mode(Pasid::ZERO).expect("the unit has scalable mode");
        }
        self.unit.bring_up(&mut self.memory, configuration).expect("the unit is brought up");
    }

    /// An empty address space with a domain id of its own.
    pub fn space(&mut self, levels: Levels) -> Space {
        let largest = match self.mode {
            Mode::ScalableFirst => PageSize::Size1G,
            _ => self.unit.capabilities().largest_page(),
        };
        let domain = DomainId(self.next_domain);
        self.next_domain += 1;
        Space::new(self.mode, levels, largest, domain, &mut self.memory)
    }

    /// An empty address space of as many levels as the driver prefers; of the first stage always 4.
    pub fn preferred_space(&mut self) -> Space {
        let levels = match self.mode {
            Mode::ScalableFirst => Some(Levels::Four),
            _ => self.unit.capabilities().second_stage_levels(),
        };
        self.space(levels.expect("the unit has a second stage"))
    }

    /// Gives a device an address space.
    pub fn assign(&mut self, source: Bdf, space: &Space) {
        let (memory, table, levels) = (&mut self.memory, space.root(), space.levels);
        let outcome = if space.is_first_stage() {
            self.unit.attach(memory, source, None, space.domain, Translation::FirstStage { table, levels })
        } else {
            self.unit.assign(memory, source, space.domain, table, levels)
        };
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
        space.map(&mut self.memory, Iova::new(iova), host, bytes, permissions).expect("the range can be mapped")
    }

    /// Unmaps, and lets the unit know.
    pub fn unmap(&mut self, space: &mut Space, iova: u64, bytes: u64) {
        let flush = self.unmap_only(space, iova, bytes);
        self.flush(space, flush);
    }

    /// Unmaps, and leaves the unit as it is.
    pub fn unmap_only(&mut self, space: &mut Space, iova: u64, bytes: u64) -> Flush<Iova> {
        space.unmap(&mut self.memory, Iova::new(iova), bytes).expect("the range can be unmapped")
    }

    /// Lets the unit know of a change.
    pub fn flush(&mut self, space: &Space, flush: Flush<Iova>) {
        let Some(change) = flush.invalidation() else { return };
        let proof = self.invalidate(space, change).expect("the invalidation completes");
        flush.complete(&proof, &mut self.memory).expect("the proof covers the change");
    }

    /// Lets the unit know of a change, and answers what the driver does.
    ///
    /// # Errors
    /// The driver's.
    pub fn invalidate(&mut self, space: &Space, change: &Invalidation<Iova>) -> Result<IotlbInvalidated, vtd::Error> {
        if space.is_first_stage() {
            self.unit.invalidate_first_stage(&mut self.memory, space.domain, None, change)
        } else {
            self.unit.invalidate(&mut self.memory, space.domain, change)
        }
    }

    /// The reasons that QEMU gives in this mode.
    pub fn reasons(&self) -> Reasons {
        match self.mode {
            Mode::Legacy | Mode::ScalableSecond => LEGACY_REASONS,
            Mode::ScalableFirst => FIRST_STAGE_REASONS,
        }
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
        let found: Vec<_> = outcome.faults.iter().map(|f| (f.source, f.kind, f.address, f.reason)).collect();
        assert_eq!(found, [(source, kind, page, FaultReason(reason))]);
        // In scalable mode QEMU says that a request without PASID had one, RID_PASID.
        let no_pasid = [None, Some(0).filter(|_| self.mode != Mode::Legacy)];
        assert!(outcome.faults.iter().all(|fault| no_pasid.contains(&fault.pasid)), "{:?}", outcome.faults);
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
