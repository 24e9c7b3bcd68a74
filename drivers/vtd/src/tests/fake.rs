//! A unit in software that does what the driver's tests need: one-shot commands, a queue that executes descriptors, and
//! a record of everything that the driver did, in order. What is not written back is not there for it when its walks
//! are not coherent.

use super::std::cell::{Cell, RefCell};
use super::std::collections::BTreeMap;
use super::std::rc::Rc;
use super::std::vec::Vec;
use crate::spec::registers::*;
use crate::{Clock, Configuration, DestinationMode, DmaMemory, Handover, Platform, Registers, Unit};
use addr::{HostPhys, PAGE_SIZE};
use paging::TableMemory;

/// CAP of QEMU's unit, and ECAP with C = 1 and EIM.
pub const CAP: u64 = 0x00d2_008c_222f_0606;
pub const ECAP: u64 = 0xf0_0f5b;
pub const FAULT_RECORDS: u16 = 0x220;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Write32(u16, u32),
    Write64(u16, u64),
    Store(u64, u64),
    Exchange(u64),
    Executed(u64, u64),
    /// A descriptor that hardware would not execute.
    Refused(u64, u64),
    /// A device did not answer.
    Silent(u16),
}

pub struct Inner {
    pub cap: u64,
    pub ecap: u64,
    pub ver: u32,
    pub gsts: u32,
    pub fsts: u32,
    pub fectl: u32,
    pub pmen: u32,
    pub iqh: u64,
    pub iqt: u64,
    pub iqa: u64,
    pub iqercd: u64,
    pub others: BTreeMap<u16, u64>,
    pub records: Vec<(u64, u64)>,
    /// Bits of the global command that hardware does not act on.
    pub ignored: u32,
    pub pmen_stuck: bool,
    /// The queue executes nothing.
    pub stalled: bool,
    /// So many descriptors are executed and no more.
    pub steps: Option<usize>,
    /// Each time that it is told of the tail, the queue rests for so many looks at FSTS; the last first.
    pub rests: Vec<usize>,
    pub resting: usize,
    /// Descriptors whose low half is so under the mask are refused with IQE.
    pub refused: Option<(u64, u64)>,
    /// Fetches only when the tail is written, and not when an error is cleared, as QEMU does.
    pub wants_tail: bool,
    /// FSTS bits to set, once, instead of executing the next wait that writes a status.
    pub device_error: u32,
    /// So many waits are executed before that.
    pub waits_before_error: usize,
    /// So many times more.
    pub more_errors: usize,
    /// The status of a wait that was dropped is written when hardware is next told of the tail.
    pub writes_dropped: bool,
    pub dropped: Option<(u64, u32)>,
    /// So often, when ITE is cleared, it is set again at once, for the device after the one before.
    pub names_another: usize,
    /// Devices that do not answer invalidations of their device-TLB, and what IQERCD then says of them.
    pub silent: Vec<u16>,
    pub names_silent: bool,
    /// What an invalidation by register reports as done: granularities as asked, or nothing.
    pub performs: bool,
    /// Waits are executed, but their status writes are held back here.
    pub late: Option<Vec<(u64, u32)>>,
    pub memory: BTreeMap<u64, u64>,
    /// What has reached memory.
    pub written_back: BTreeMap<u64, u64>,
    pub next_frame: u64,
    pub frames_left: usize,
    pub exchanges: bool,
    /// Loads of the driver.
    pub reads: usize,
    pub log: Vec<Event>,
    pub max_in_flight: u64,
    pub new_fault_after_clear: usize,
}

#[derive(Clone)]
pub struct Fake(pub Rc<RefCell<Inner>>);

pub struct FakeClock(Cell<u64>);

impl Clock for FakeClock {
    fn now_us(&self) -> u64 {
        self.0.get()
    }
    fn relax(&self) {
        self.0.set(self.0.get() + 1000);
    }
}

pub type TestUnit = Unit<Fake, FakeClock>;

impl Fake {
    pub fn new() -> Self {
        Self::with(CAP, ECAP)
    }

    pub fn with(cap: u64, ecap: u64) -> Self {
        let records = (cap >> 40 & 0xff) as usize + 1;
        Self(Rc::new(RefCell::new(Inner {
            cap,
            ecap,
            ver: 0x10,
            gsts: 0,
            fsts: 0,
            fectl: EVENT_CONTROL_MASKED,
            pmen: 0,
            iqh: 0,
            iqt: 0,
            iqa: 0,
            iqercd: 0,
            others: BTreeMap::new(),
            records: super::std::vec![(0, 0); records],
            ignored: 0,
            pmen_stuck: false,
            stalled: false,
            steps: None,
            rests: Vec::new(),
            resting: 0,
            refused: None,
            wants_tail: false,
            device_error: 0,
            waits_before_error: 0,
            more_errors: 0,
            writes_dropped: false,
            dropped: None,
            names_another: 0,
            silent: Vec::new(),
            names_silent: true,
            performs: true,
            late: None,
            memory: BTreeMap::new(),
            written_back: BTreeMap::new(),
            next_frame: 0x10_0000,
            frames_left: usize::MAX,
            exchanges: false,
            reads: 0,
            log: Vec::new(),
            max_in_flight: 0,
            new_fault_after_clear: 0,
        })))
    }

    pub fn probe(&self) -> Result<TestUnit, crate::Error> {
        Unit::probe(self.clone(), FakeClock(Cell::new(0)))
    }

    /// A unit that has been brought up with 256 interrupt entries.
    pub fn up(&self) -> (TestUnit, Fake) {
        let mut unit = self.probe().unwrap();
        let mut memory = self.clone();
        unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
        self.0.borrow_mut().log.clear();
        (unit, memory)
    }

    pub fn inner<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.borrow_mut())
    }

    pub fn take_log(&self) -> Vec<Event> {
        core::mem::take(&mut self.0.borrow_mut().log)
    }

    /// The descriptors executed since the log was last taken, by their low halves, without waits.
    pub fn executed(log: &[Event]) -> Vec<u64> {
        log.iter()
            .filter_map(|event| match event {
                Event::Executed(low, _) if low & 0xf != 5 => Some(*low),
                _ => None,
            })
            .collect()
    }

    /// The stores to the 16 bytes at `entry`, as (half, value).
    pub fn stores(log: &[Event], entry: u64) -> Vec<(u64, u64)> {
        log.iter()
            .filter_map(|event| match event {
                Event::Store(address, value) if address & !15 == entry => Some((address - entry, *value)),
                _ => None,
            })
            .collect()
    }
}

pub const CONFIGURATION: Configuration = Configuration {
    interrupt_entries: Some(256),
    destination_mode: DestinationMode::X2Apic,
    fault_interrupt: None,
    handover: Handover::Stop,
    platform: Platform { dma_control_opt_in: false, x2apic_opt_out: false },
};

impl Inner {
    fn hardware_read(&self, address: u64) -> u64 {
        let source = if self.ecap & 1 != 0 { &self.memory } else { &self.written_back };
        // What nobody wrote back is whatever was in memory before.
        *source.get(&address).unwrap_or(&0xdead_beef_dead_beef)
    }

    /// Hardware is about to look: everything that it may read has been written back, where that is needed. All that the
    /// driver keeps for itself is the map of given interrupt entries, behind their table.
    pub fn check_written_back(&self) {
        if self.ecap & 1 != 0 {
            return;
        }
        let table = self.others.get(&0xb8).copied().unwrap_or(0);
        let map = (table & !0xfff) + (32 << (table & 0xf));
        let own = |address: u64| table != 0 && (map..map + PAGE_SIZE).contains(&address);
        for (address, value) in &self.memory {
            let written = self.written_back.get(address);
            assert!(written == Some(value) || own(*address), "{address:#x}: {value:#x}, in memory {written:x?}");
        }
    }

    fn command(&mut self, value: u32) {
        const ONE_SHOT: u32 = 1 << 30 | 1 << 29 | 1 << 24;
        let lasting = 1 << 31 | 1 << 26 | 1 << 25 | 1 << 23;
        let acted = !self.ignored;
        self.gsts |= value & ONE_SHOT & acted;
        if self.ignored & 1 << 27 != 0 {
            self.gsts |= value & 1 << 27;
        }
        let change = (self.gsts ^ value) & lasting & acted;
        self.gsts ^= change;
        if change & 1 << 26 != 0 {
            self.iqh = 0;
        }
    }

    pub fn run_queue(&mut self) {
        let (ring, bytes) = (4096 << (self.iqa & 7), if self.iqa & 0x800 != 0 { 32 } else { 16 });
        let in_flight = (self.iqt + ring - self.iqh % ring) % ring / bytes;
        self.max_in_flight = self.max_in_flight.max(in_flight);
        assert!(self.iqt < ring && self.iqt.is_multiple_of(bytes), "bad tail {:#x}", self.iqt);
        while !self.stalled
            && self.resting == 0
            && self.gsts & 1 << 26 != 0
            && self.fsts & 0x50 == 0
            && self.iqh != self.iqt
        {
            if let Some(steps) = &mut self.steps {
                let Some(left) = steps.checked_sub(1) else { return };
                *steps = left;
            }
            let at = (self.iqa & !0xfff) + self.iqh;
            let (low, high) = (self.hardware_read(at), self.hardware_read(at + 8));
            if bytes == 32 {
                assert_eq!((self.hardware_read(at + 16), self.hardware_read(at + 24)), (0, 0), "reserved");
            }
            let refused = self.refused.is_some_and(|(mask, value)| low & mask == value);
            if refused || !matches!(low & 0xf, 1..=9) {
                self.log.push(Event::Refused(low, high));
                self.iqercd = self.iqercd & !0xf | 4;
                self.fsts |= 1 << 4;
                return;
            }
            let is_wait = low & 0xf == 5 && self.device_error != 0;
            if is_wait && self.waits_before_error > 0 {
                self.waits_before_error -= 1;
            } else if is_wait {
                self.fsts |= self.device_error;
                match self.more_errors.checked_sub(1) {
                    Some(left) => self.more_errors = left,
                    None => self.device_error = 0,
                }
                if self.fsts & 1 << 6 != 0 {
                    self.dropped = self.writes_dropped.then_some((high, (low >> 32) as u32));
                    self.iqh = (self.iqh + bytes) % ring;
                    return;
                }
            }
            // SID of a device-TLB descriptor, and of a PASID-based one.
            let device = match low & 0xf {
                3 => Some((low >> 32) as u16),
                8 => Some((low >> 16) as u16),
                _ => None,
            };
            if let Some(device) = device.filter(|device| self.silent.contains(device)) {
                self.log.push(Event::Silent(device));
                self.iqercd &= !(0xffff << 32);
                if self.names_silent {
                    self.iqercd |= u64::from(device) << 32;
                }
                self.fsts |= 1 << 6;
                self.iqh = (self.iqh + bytes) % ring;
                return;
            }
            self.log.push(Event::Executed(low, high));
            if low & 0xf == 5 {
                assert_eq!(low & 0x30, 0x20, "a wait writes status and does not interrupt");
                let data = (low >> 32) as u32;
                match &mut self.late {
                    Some(late) => late.push((high, data)),
                    None => self.status_write(high, data),
                }
            }
            self.iqh = (self.iqh + bytes) % ring;
        }
    }

    pub fn status_write(&mut self, address: u64, data: u32) {
        assert_eq!(address % 8, 0);
        self.memory.insert(address, data.into());
        self.written_back.insert(address, data.into());
    }

    pub fn record(&mut self, index: usize, low: u64, high: u64) {
        self.records[index] = (low, high | 1 << 63);
        if self.fsts & 2 == 0 {
            self.fsts = self.fsts & !0xff00 | (index as u32) << 8 | 2;
        }
    }
}

impl Registers for Fake {
    fn read32(&self, offset: u16) -> u32 {
        let mut inner = self.0.borrow_mut();
        if offset == 0x34 && inner.resting > 0 {
            inner.resting -= 1;
            inner.run_queue();
        }
        match offset {
            0x00 => inner.ver,
            0x1c => inner.gsts,
            0x34 => inner.fsts,
            0x38 => inner.fectl,
            0x64 => inner.pmen,
            0x3c | 0x40 | 0x44 | 0x68 | 0x6c | 0xdc..=0xec => *inner.others.get(&offset).unwrap_or(&0) as u32,
            _ => panic!("32-bit read of {offset:#x}"),
        }
    }

    fn read64(&self, offset: u16) -> u64 {
        let inner = self.0.borrow();
        match offset {
            0x08 => inner.cap,
            0x10 => inner.ecap,
            0x80 => inner.iqh,
            0x88 => inner.iqt,
            0xb0 => inner.iqercd,
            0x20 | 0xb8 | 0x28 | 0xf8 | 0x70 | 0x78 | 0xc0 | 0xc8 => inner.others.get(&offset).copied().unwrap_or(0),
            FAULT_RECORDS.. => {
                let record = inner.records[usize::from(offset - FAULT_RECORDS) / 16];
                if offset.is_multiple_of(16) { record.0 } else { record.1 }
            }
            _ => panic!("64-bit read of {offset:#x}"),
        }
    }

    fn write32(&mut self, offset: u16, value: u32) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Write32(offset, value));
        match offset {
            0x18 => {
                if value & 1 << 27 == 0 {
                    inner.check_written_back();
                }
                inner.command(value);
            }
            0x34 => {
                inner.fsts &= !(value & 0xfd);
                if value & 1 << 6 != 0 && inner.names_another > 0 {
                    inner.names_another -= 1;
                    inner.iqercd += 8 << 32;
                    inner.fsts |= 1 << 6;
                }
                if !inner.wants_tail {
                    inner.run_queue();
                }
            }
            0x38 => inner.fectl = inner.fectl & 1 << 30 | value & !(1 << 30),
            0x68 | 0x6c => {
                assert_eq!(inner.pmen & 1, 0, "not while they are on");
                inner.others.insert(offset, (value & !0x1f_ffff).into());
            }
            0xdc => {
                let status = inner.others.entry(offset).or_default();
                *status &= !u64::from(value);
            }
            0x3c | 0x40 | 0x44 | 0xe0..=0xec => drop(inner.others.insert(offset, value.into())),
            0x64 => {
                let stuck = inner.pmen & u32::from(inner.pmen_stuck);
                inner.pmen = value & 1 << 31 | value >> 31 | stuck;
            }
            _ => panic!("32-bit write of {offset:#x}"),
        }
    }

    fn write64(&mut self, offset: u16, value: u64) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Write64(offset, value));
        match offset {
            0x20 | 0xb8 | 0xc0 | 0xc8 | 0xd0 => drop(inner.others.insert(offset, value)),
            0x88 => {
                inner.check_written_back();
                inner.iqt = value;
                inner.resting = inner.rests.pop().unwrap_or(0);
                if let Some((address, data)) = inner.dropped.take() {
                    inner.status_write(address, data);
                }
                inner.run_queue();
            }
            0x90 => inner.iqa = value,
            0x70 | 0x78 => {
                assert_eq!(inner.pmen & 1, 0, "not while they are on");
                inner.others.insert(offset, value & 0x7f_ffff_ffff & !0x1f_ffff);
            }
            0xf0 => drop(inner.others.insert(offset, value)),
            0x28 | 0xf8 => {
                assert_eq!(inner.gsts & 1 << 26, 0, "ignored while the queue is on");
                assert_ne!(value >> 63, 0, "nothing is asked");
                let (busy, done) =
                    (u64::from(inner.stalled) << 63, u64::from(inner.performs) << if offset == 0x28 { 59 } else { 57 });
                inner.others.insert(offset, value & !(1 << 63) | busy | done);
            }
            FAULT_RECORDS.. => {
                assert_eq!(offset % 16, 8, "the low half of a record is read-only");
                let index = usize::from(offset - FAULT_RECORDS) / 16;
                if value >> 63 != 0 {
                    inner.records[index].1 &= !(1 << 63);
                }
                if inner.new_fault_after_clear > 0 {
                    inner.new_fault_after_clear -= 1;
                    inner.records[index].1 |= 1 << 63;
                }
                let pending = inner.records.iter().position(|record| record.1 >> 63 != 0);
                inner.fsts &= !2;
                if let Some(first) = pending {
                    inner.fsts = inner.fsts & !0xff00 | (first as u32) << 8 | 2;
                }
            }
            _ => panic!("64-bit write of {offset:#x}"),
        }
    }
}

impl TableMemory for Fake {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.allocate_contiguous(1, PAGE_SIZE)
    }
    fn free_table(&mut self, _: HostPhys) {
        panic!("the driver's tables are for ever");
    }
    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.read_u64(HostPhys::new(table.as_u64() + index as u64 * 8))
    }
    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.write_u64(HostPhys::new(table.as_u64() + index as u64 * 8), value);
    }
}

impl DmaMemory for Fake {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let mut inner = self.0.borrow_mut();
        inner.frames_left = inner.frames_left.checked_sub(pages)?;
        assert!(pages > 0 && alignment.is_power_of_two() && alignment >= PAGE_SIZE, "{pages} pages at {alignment:#x}");
        let base = inner.next_frame.next_multiple_of(alignment);
        inner.next_frame = base + pages as u64 * PAGE_SIZE;
        for word in (base..inner.next_frame).step_by(8) {
            inner.memory.insert(word, 0);
        }
        Some(HostPhys::new(base))
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.reads += 1;
        *inner.memory.get(&address.as_u64()).expect("memory that was allocated")
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Store(address.as_u64(), value));
        *inner.memory.get_mut(&address.as_u64()).expect("memory that was allocated") = value;
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        let mut inner = self.0.borrow_mut();
        let low = address.as_u64();
        if !inner.exchanges || [inner.memory[&low], inner.memory[&(low + 8)]] != old {
            return false;
        }
        inner.log.push(Event::Exchange(low));
        inner.memory.insert(low, new[0]);
        inner.memory.insert(low + 8, new[1]);
        true
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        let mut inner = self.0.borrow_mut();
        let first = address.align_down(64).as_u64();
        for word in (first..address.as_u64() + bytes).step_by(8) {
            let value = inner.memory[&word];
            inner.written_back.insert(word, value);
        }
    }
}
