//! What the unit is, and what it does when it is told to.

use super::*;

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

    pub fn command(&mut self, value: u32) {
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
