//! The driver's traits on a machine of the model.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod firmware;
pub mod random;
pub mod scalable;

use addr::{ApicId, Bdf, DomainId, HostPhys, Iova, PageSize, Vector};
use model::{Access, Configuration, Interrupt, Latency, Machine, Reason};
use paging::{Flush, PageTable, Permissions, SecondStage, SecondStageAttributes, TableMemory};
use std::cell::RefCell;
use std::rc::Rc;
use vtd::{Capabilities, Clock, DestinationMode, DmaMemory, FaultInterrupt, Levels, Registers, Unit};

/// Host memory of the machine: 64 MiB.
pub const MEMORY: u64 = 64 << 20;
/// A page that no device may ever reach. Freed tables are filled with entries that lead there, so that hardware
/// which still walks one gives itself away.
pub const SECRET: u64 = MEMORY - 0x1000;
/// Tables are allocated from here.
const FRAMES: u64 = 1 << 20;
/// Guests' memory begins here.
pub const GUESTS: u64 = 16 << 20;

pub const NIC: Bdf = Bdf::from_u16(0x0018);
pub const OTHER: Bdf = Bdf::from_u16(0x0020);

#[derive(Default)]
struct Frames {
    next: u64,
    free: Vec<u64>,
    allocated: usize,
    limit: Option<usize>,
}

/// Tables and what hardware reads besides.
#[derive(Clone)]
pub struct Memory {
    pub machine: Machine,
    frames: Rc<RefCell<Frames>>,
    /// Whether walks of page tables snoop.
    pub coherent: bool,
    /// Whether a 128-bit compare-exchange is offered.
    pub exchange: bool,
}

impl Memory {
    pub fn new(machine: &Machine, coherent: bool) -> Self {
        let frames = Rc::new(RefCell::new(Frames { next: FRAMES, ..Frames::default() }));
        Self { machine: machine.clone(), frames, coherent, exchange: false }
    }

    /// Tables in use.
    pub fn allocated(&self) -> usize {
        self.frames.borrow().allocated
    }

    /// Where memory begins that was never handed out.
    pub fn end(&self) -> u64 {
        self.frames.borrow().next
    }

    fn fill(&mut self, page: u64, value: u64) {
        // Not a store that hardware may watch entry by entry: nobody points to the page.
        let word = value.to_le_bytes();
        self.machine.unit(0, |_, memory| {
            for at in (page..page + 4096).step_by(8) {
                assert!(memory.store(at, &word));
            }
        });
    }
}

impl TableMemory for Memory {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        let page = {
            let mut frames = self.frames.borrow_mut();
            if let Some(limit) = &mut frames.limit {
                *limit = limit.checked_sub(1)?;
            }
            frames.allocated += 1;
            match frames.free.pop() {
                Some(page) => page,
                None => {
                    frames.next += 4096;
                    frames.next - 4096
                }
            }
        };
        self.fill(page, 0);
        if !self.coherent {
            self.machine.flush(page, 4096);
        }
        Some(HostPhys::new(page))
    }

    fn free_table(&mut self, table: HostPhys) {
        // Present in the format of either stage, accessed and dirty.
        self.fill(table.as_u64(), SECRET | 0x67);
        self.machine.flush(table.as_u64(), 4096);
        let mut frames = self.frames.borrow_mut();
        frames.allocated -= 1;
        frames.free.push(table.as_u64());
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.machine.load(table.as_u64() + 8 * index as u64)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        let at = table.as_u64() + 8 * index as u64;
        self.machine.store_u64(at, value);
        if !self.coherent {
            self.machine.flush(at, 8);
        }
    }
}

impl DmaMemory for Memory {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let start = {
            let mut frames = self.frames.borrow_mut();
            let start = frames.next.next_multiple_of(alignment);
            frames.next = start + 4096 * pages as u64;
            start
        };
        for page in 0..pages as u64 {
            self.fill(start + 4096 * page, 0);
        }
        Some(HostPhys::new(start))
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        self.machine.load(address.as_u64())
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        self.machine.store_u64(address.as_u64(), value);
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        let at = address.as_u64();
        if !self.exchange || [self.machine.load(at), self.machine.load(at + 8)] != old {
            return false;
        }
        self.machine.store_u128(at, u128::from(new[0]) | u128::from(new[1]) << 64);
        true
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        self.machine.flush(address.as_u64(), bytes);
    }
}

/// Unit 0's registers.
pub struct Window(pub Machine);

impl Registers for Window {
    fn read32(&self, offset: u16) -> u32 {
        self.0.read32(0, offset)
    }
    fn read64(&self, offset: u16) -> u64 {
        self.0.read64(0, offset)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.0.write32(0, offset, value);
    }
    fn write64(&mut self, offset: u16, value: u64) {
        self.0.write64(0, offset, value);
    }
}

/// The registers of one of several units.
pub struct UnitWindow(pub Machine, pub usize);

impl Registers for UnitWindow {
    fn read32(&self, offset: u16) -> u32 {
        self.0.read32(self.1, offset)
    }
    fn read64(&self, offset: u16) -> u64 {
        self.0.read64(self.1, offset)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.0.write32(self.1, offset, value);
    }
    fn write64(&mut self, offset: u16, value: u64) {
        self.0.write64(self.1, offset, value);
    }
}

/// Time that passes by waiting only.
pub struct Ticks(pub Machine);

impl Clock for Ticks {
    fn now_us(&self) -> u64 {
        self.0.now_us()
    }
    fn relax(&self) {
        self.0.pass_time(1);
    }
}

/// A driver and the unit that it drives.
pub struct Board {
    pub machine: Machine,
    pub memory: Memory,
    pub unit: Unit<Window, Ticks>,
}

/// A guest's second stage, with the id that it is cached under.
pub struct Domain {
    pub id: DomainId,
    pub table: PageTable<SecondStage>,
}

pub const SETTINGS: vtd::Configuration = vtd::Configuration {
    interrupt_entries: Some(256),
    destination_mode: DestinationMode::X2Apic,
    fault_interrupt: Some(FaultInterrupt { vector: Vector(0x31), destination: ApicId(1) }),
    handover: vtd::Handover::Stop,
    platform: vtd::Platform { dma_control_opt_in: false, x2apic_opt_out: false },
};

impl Board {
    /// A driver that has not touched anything yet. The unit answers after a few looks, not at once.
    pub fn probe(configuration: Configuration) -> Self {
        let coherent = configuration.coherent;
        let machine = Machine::with_unit(MEMORY, configuration);
        machine.unit(0, |unit, memory| {
            unit.set_latency(Latency::Looks(2));
            memory.flush_all();
        });
        let memory = Memory::new(&machine, coherent);
        let unit = Unit::probe(Window(machine.clone()), Ticks(machine.clone())).expect("the unit is usable");
        Self { machine, memory, unit }
    }

    /// A driver that has taken every step.
    pub fn up(configuration: Configuration) -> Self {
        let mut board = Self::probe(configuration);
        let settings = board.settings();
        board.unit.bring_up(&mut board.memory, &settings).expect("the unit comes up");
        assert_eq!(board.machine.violations(0), []);
        board
    }

    /// The same without interrupt remapping, for units that may have no queue.
    pub fn up_without_interrupts(configuration: Configuration) -> Self {
        let mut board = Self::probe(configuration);
        let settings = vtd::Configuration { interrupt_entries: None, ..board.settings() };
        board.unit.bring_up(&mut board.memory, &settings).expect("the unit comes up");
        board
    }

    /// What the unit is brought up with: destinations of the form that it has.
    pub fn settings(&self) -> vtd::Configuration {
        match self.capabilities().extended_interrupt_mode() {
            true => SETTINGS,
            false => vtd::Configuration { destination_mode: DestinationMode::XApic, ..SETTINGS },
        }
    }

    pub fn capabilities(&self) -> Capabilities {
        self.unit.capabilities()
    }

    pub fn levels(&self) -> Levels {
        self.capabilities().second_stage_levels().unwrap()
    }

    /// An empty domain.
    pub fn domain(&mut self, id: u16) -> Domain {
        let largest: PageSize = self.capabilities().largest_page();
        let table = PageTable::new(self.levels().count(), largest, &mut self.memory).unwrap();
        Domain { id: DomainId(id), table }
    }

    pub fn map(&mut self, domain: &mut Domain, iova: u64, host: u64, len: u64) {
        let flush = self.map_unflushed(domain, iova, host, len);
        self.flush(domain, flush);
    }

    /// Maps in a table that hardware has not been pointed to.
    pub fn map_fresh(&mut self, domain: &mut Domain, iova: u64, host: u64, len: u64) {
        let flush = self.map_unflushed(domain, iova, host, len);
        flush.complete(&paging::NeverLoaded, &mut self.memory).unwrap();
    }

    pub fn map_unflushed(&mut self, domain: &mut Domain, iova: u64, host: u64, len: u64) -> Flush<Iova> {
        let attributes = SecondStageAttributes::default();
        domain
            .table
            .map(&mut self.memory, Iova::new(iova), HostPhys::new(host), len, Permissions::READ_WRITE, attributes)
            .unwrap()
    }

    pub fn unmap_unflushed(&mut self, domain: &mut Domain, iova: u64, len: u64) -> Flush<Iova> {
        domain.table.unmap(&mut self.memory, Iova::new(iova), len).unwrap()
    }

    pub fn unmap(&mut self, domain: &mut Domain, iova: u64, len: u64) {
        let flush = self.unmap_unflushed(domain, iova, len);
        self.flush(domain, flush);
    }

    pub fn flush(&mut self, domain: &Domain, flush: Flush<Iova>) {
        self.unit.finish(&mut self.memory, domain.id, flush).expect("the invalidation completes");
    }

    pub fn assign(&mut self, source: Bdf, domain: &Domain) {
        let levels = self.levels();
        self.unit.assign(&mut self.memory, source, domain.id, domain.table.root(), levels).expect("the assignment");
    }

    /// Where a device's write ends up.
    pub fn write(&self, source: Bdf, iova: u64) -> Result<u64, Reason> {
        write(&self.machine, source, iova)
    }

    /// Where a device's write ends up if the unit remembers nothing.
    pub fn write_cold(&self, source: Bdf, iova: u64) -> Result<u64, Reason> {
        write_cold(&self.machine, source, iova)
    }

    /// Ends a test: the driver broke no rule.
    pub fn done(self) {
        assert_eq!(self.machine.violations(0), []);
    }
}

/// Where a device's write ends up, by what the unit remembers.
pub fn write(machine: &Machine, source: Bdf, iova: u64) -> Result<u64, Reason> {
    let parts = machine.dma(0, source.as_u16(), iova, 4, Access::Write);
    parts.map(|parts| parts[0].0).map_err(|fault| fault.reason)
}

/// Where a device's write ends up if the unit remembers nothing.
pub fn write_cold(machine: &Machine, source: Bdf, iova: u64) -> Result<u64, Reason> {
    let parts = machine.dma_cold(0, source.as_u16(), iova, 4, Access::Write);
    parts.map(|parts| parts[0].0).map_err(|fault| fault.reason)
}

pub fn interrupt(machine: &Machine, source: Bdf, message: vtd::Message) -> Interrupt {
    machine.interrupt(0, source.as_u16(), message.address, message.data)
}

/// Units of every kind that makes a driver behave otherwise.
pub fn kinds() -> Vec<(&'static str, Configuration)> {
    let base = Configuration::default;
    let qemu = Configuration::qemu();
    vec![
        ("server", base()),
        ("minimal", Configuration::minimal()),
        ("QEMU's", qemu.clone()),
        ("QEMU's with caching mode", Configuration { caching_mode: true, ..qemu }),
        ("caching mode", Configuration { caching_mode: true, ..base() }),
        ("not coherent", Configuration { coherent: false, ..base() }),
        ("write buffer", Configuration { write_buffer: true, srtp_invalidates: false, ..base() }),
        ("write buffer, not coherent", Configuration { write_buffer: true, coherent: false, ..base() }),
        ("owes invalidations", Configuration { srtp_invalidates: false, sirtp_invalidates: false, ..base() }),
        ("no page-selective invalidation", Configuration { page_selective: false, max_address_mask: 0, ..base() }),
        ("caching, not coherent, 39 bits", Configuration { caching_mode: true, ..Configuration::minimal() }),
        ("five levels", Configuration { sagaw: 0b1000, guest_address_width: 57, ..base() }),
        ("no snoop control", Configuration { snoop_control: false, ..base() }),
        ("no draining, no reads of nothing", Configuration { draining: false, zero_length_reads: false, ..base() }),
    ]
}
