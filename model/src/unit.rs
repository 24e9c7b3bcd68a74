//! One remapping unit: its registers come to life here (chapter 11.4).

use crate::caches::{Caches, ContextScope, Eviction, InterruptScope, PageScope, PasidScope};
use crate::configuration::Configuration;
use crate::descriptor::{Descriptor, Drain, PageResponse};
use crate::device_tlb::DeviceTlbs;
use crate::memory::Memory;
use crate::registers::*;
use crate::violation::Violation;
use crate::work::{Latency, Work, WorkList};

/// A message-signalled interrupt of the unit itself (fault event, invalidation completion event).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Upper and lower address registers.
    pub address: u64,
    /// Data register.
    pub data: u32,
}

/// A request that was translated and has not arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
struct InFlight {
    address: u64,
    /// What is written; a read has nothing.
    bytes: Option<Vec<u8>>,
}

/// Global invalidations that software owes.
#[derive(Clone, Copy, Default, Debug)]
struct Due {
    contexts: bool,
    pasids: bool,
    pages: bool,
    interrupts: bool,
}

/// A remapping unit.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) configuration: Configuration,
    pub(crate) registers: RegisterFile,
    pub(crate) caches: Caches,
    /// RTADDR as SRTP latched it.
    pub(crate) root_table: u64,
    /// IRTA as SIRTP latched it.
    pub(crate) interrupt_table: u64,
    /// The fault record that the next fault goes into.
    pub(crate) next_record: u16,
    pub(crate) messages: Vec<Message>,
    /// The unit is only asked what it would do: nothing of memory changes.
    pub(crate) traceless: bool,
    latency: Latency,
    looks: u32,
    work: WorkList,
    /// Pieces of work done since the unit was made.
    done: u64,
    pub(crate) device_tlbs: DeviceTlbs,
    pub(crate) page_responses: Vec<PageResponse>,
    /// The descriptor that is refused, by how many are fetched before it.
    pub(crate) refuse_after: Option<u32>,
    /// Requests that were translated and have not arrived: where, and what is written or read.
    in_flight: Vec<InFlight>,
    /// What must be invalidated globally since the last SRTP (contexts, pages, in scalable mode PASIDs) and SIRTP.
    due: Due,
    violations: Vec<Violation>,
}

impl Unit {
    /// A unit at reset: everything off, work done at once, caches that forget nothing.
    pub fn new(configuration: Configuration) -> Self {
        let registers = RegisterFile::new(
            configuration.cap(),
            configuration.ecap(),
            configuration.iotlb_offset,
            configuration.fault_offset,
            configuration.fault_records,
        );
        Self {
            configuration,
            registers,
            caches: Caches::new(Eviction::Never),
            root_table: 0,
            interrupt_table: 0,
            next_record: 0,
            messages: Vec::new(),
            traceless: false,
            latency: Latency::Immediate,
            looks: 0,
            work: WorkList::default(),
            done: 0,
            device_tlbs: DeviceTlbs::default(),
            page_responses: Vec::new(),
            refuse_after: None,
            in_flight: Vec::new(),
            due: Due::default(),
            violations: Vec::new(),
        }
    }

    /// What the unit can do.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// From now on, work is done so. Work that is waiting stays.
    pub fn set_latency(&mut self, latency: Latency) {
        self.latency = latency;
        self.looks = 0;
    }

    /// From now on, cached entries are lost so.
    pub fn set_eviction(&mut self, eviction: Eviction) {
        self.caches.eviction = eviction;
    }

    /// What software did and must not have done.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// A register's value, without time passing as it does when software reads.
    pub fn peek(&self, register: u16) -> u64 {
        self.registers.get(register)
    }

    /// The messages sent since the last call.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    /// The same unit with nothing cached, as hardware that has forgotten everything.
    pub fn cold(&self) -> Self {
        Self {
            configuration: self.configuration.clone(),
            registers: self.registers.clone(),
            caches: Caches::new(Eviction::Never),
            device_tlbs: DeviceTlbs::default(),
            traceless: true,
            messages: Vec::new(),
            work: WorkList::default(),
            page_responses: Vec::new(),
            in_flight: Vec::new(),
            violations: Vec::new(),
            ..*self
        }
    }

    pub(crate) fn violation(&mut self, violation: Violation) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    /// Software reads 32 bits.
    pub fn read32(&mut self, memory: &mut Memory, offset: u16) -> u32 {
        self.read(memory, offset, 4) as u32
    }

    /// Software reads 64 bits.
    pub fn read64(&mut self, memory: &mut Memory, offset: u16) -> u64 {
        self.read(memory, offset, 8)
    }

    /// Software writes 32 bits.
    pub fn write32(&mut self, memory: &mut Memory, offset: u16, value: u32) {
        self.write(memory, offset, 4, value.into());
    }

    /// Software writes 64 bits.
    pub fn write64(&mut self, memory: &mut Memory, offset: u16, value: u64) {
        self.write(memory, offset, 8, value);
    }

    fn read(&mut self, memory: &mut Memory, offset: u16, width: u8) -> u64 {
        self.look(memory);
        self.registers.read(offset, width).unwrap_or_else(|()| {
            self.violation(Violation::RegisterAccess { offset, width });
            u64::MAX >> (64 - 8 * u32::from(width))
        })
    }

    /// Software looks, at a register or in memory: time passes for the unit.
    pub(crate) fn look(&mut self, memory: &mut Memory) {
        match &mut self.latency {
            Latency::Looks(every) => {
                self.looks += 1;
                if self.looks >= (*every).max(1) {
                    self.looks = 0;
                    self.step(memory);
                }
            }
            Latency::Disorder { seed, one_in } => {
                *seed ^= *seed << 13;
                *seed ^= *seed >> 7;
                *seed ^= *seed << 17;
                let choice = *seed;
                if choice.is_multiple_of((*one_in).max(1))
                    && let Some(work) = self.work.any(choice >> 8)
                {
                    self.perform(memory, work);
                }
            }
            Latency::Immediate | Latency::Steps => {}
        }
    }

    /// Does one piece of waiting work; `false` if there was none.
    pub fn step(&mut self, memory: &mut Memory) -> bool {
        let Some(work) = self.work.first() else { return false };
        self.perform(memory, work);
        true
    }

    fn perform(&mut self, memory: &mut Memory, work: Work) {
        self.done += 1;
        match work {
            Work::Command(bits) => self.complete_command(memory, bits),
            Work::ContextRegister => self.complete_context_register(memory),
            Work::IotlbRegister => self.complete_iotlb_register(memory),
            Work::Descriptor(descriptor) => self.execute(memory, descriptor),
            Work::Status { address, data } => {
                memory.device_write(address, &data.to_le_bytes());
            }
        }
    }

    /// Pieces of work done since the unit was made.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// A wait is complete: its status goes to memory, some time.
    pub(crate) fn write_status(&mut self, memory: &mut Memory, address: u64, data: u32) {
        match self.latency {
            Latency::Disorder { .. } => self.work.push(Work::Status { address, data }),
            _ => {
                memory.device_write(address, &data.to_le_bytes());
            }
        }
    }

    /// A request that was translated is on its way: a write of `bytes`, or a read.
    pub(crate) fn send(&mut self, address: u64, bytes: Option<&[u8]>) {
        self.in_flight.push(InFlight { address, bytes: bytes.map(<[u8]>::to_vec) });
    }

    /// How many requests are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// An IOTLB invalidation waits for requests that were translated before.
    pub(crate) fn drain(&mut self, memory: &mut Memory, drain: Drain) {
        if self.configuration.draining {
            self.land(memory, drain);
        }
    }

    /// Requests on their way arrive.
    pub fn arrive(&mut self, memory: &mut Memory) {
        self.land(memory, Drain { writes: true, reads: true });
    }

    fn land(&mut self, memory: &mut Memory, drain: Drain) {
        self.in_flight.retain(|request| match &request.bytes {
            Some(bytes) if drain.writes => {
                memory.device_write(request.address, bytes);
                false
            }
            None if drain.reads => false,
            _ => true,
        });
    }

    fn give(&mut self, memory: &mut Memory, work: Work) {
        self.work.push(work);
        self.settle(memory);
    }

    fn settle(&mut self, memory: &mut Memory) {
        while self.latency == Latency::Immediate && self.step(memory) {}
    }

    pub(crate) fn queue_work(&mut self, descriptor: Descriptor) {
        self.work.push(Work::Descriptor(descriptor));
    }

    pub(crate) fn drop_descriptors(&mut self) {
        self.work.drop_descriptors();
    }

    fn write(&mut self, memory: &mut Memory, offset: u16, width: u8, value: u64) {
        let status = self.registers.get32(GSTS);
        let written = match self.registers.write(offset, width, value) {
            Err(()) => return self.violation(Violation::RegisterAccess { offset, width }),
            Ok(None) => return,
            Ok(Some(written)) => written,
        };
        let Written { register, old, raw, upper } = written;
        let iotlb = self.configuration.iotlb_offset + 8;
        match register {
            GCMD => self.command(memory, raw as u32),
            _ if register == CCMD || register == iotlb => {
                self.registers.update(register, 0, BUSY);
                if old & BUSY != 0 {
                    self.registers.set(register, old);
                    self.violation(Violation::CommandInProgress(register));
                } else if upper && raw & BUSY != 0 {
                    if status & QIE != 0 {
                        // Ignored; whether the busy bit shows is up to the unit. Here nothing shows.
                        return self.violation(Violation::RegisterInvalidationWithQueue(register));
                    }
                    self.registers.update(register, BUSY, 0);
                    let work = if register == CCMD { Work::ContextRegister } else { Work::IotlbRegister };
                    self.give(memory, work);
                }
            }
            FSTS => {
                self.fault_status_written();
                self.fetch_descriptors(memory);
                self.settle(memory);
            }
            FECTL => self.fault_control_written(),
            ICS => self.completion_status_written(),
            IECTL => self.completion_control_written(),
            PECTL => self.page_control_written(),
            PRS => self.page_status_written(),
            PLMBASE | PLMLIMIT | PHMBASE | PHMLIMIT if self.registers.get32(PMEN) & 1 != 0 => {
                self.registers.set(register, old);
                self.violation(Violation::RegisterLocked(register));
            }
            PMEN if self.configuration.protected_regions => {
                let enabled = self.registers.get(PMEN) >> 31;
                self.registers.set(PMEN, enabled << 31 | enabled);
            }
            PMEN => self.registers.set(PMEN, 0),
            IQA | IQT if !self.configuration.queued_invalidation => {
                self.registers.set(register, 0);
                self.violation(Violation::NotSupported(register));
            }
            IQA if status & QIE != 0 => {
                self.registers.set(IQA, old);
                self.violation(Violation::RegisterLocked(IQA));
            }
            IQT => {
                self.fetch_descriptors(memory);
                self.settle(memory);
            }
            IRTA if !self.configuration.interrupt_remapping => {
                self.registers.set(IRTA, 0);
                self.violation(Violation::NotSupported(IRTA));
            }
            _ if register >= self.configuration.fault_offset => self.fault_status_written(),
            _ => {}
        }
    }

    /// A write to GCMD (11.4.4.1): bits of state are compared with GSTS, one-shot bits act when 1.
    fn command(&mut self, memory: &mut Memory, value: u32) {
        if self.work.iter().any(|work| matches!(work, Work::Command(_))) {
            return self.violation(Violation::CommandInProgress(GCMD));
        }
        let status = self.registers.get32(GSTS);
        let states = TE | QIE | IRE | CFI;
        let one_shot = value & (SRTP | WBF | SIRTP);
        let bits = (value ^ status) & states | one_shot;
        let unknown = value & !(states | SRTP | WBF | SIRTP);
        let remapping = if self.configuration.interrupt_remapping { 0 } else { IRE | SIRTP | CFI };
        let queue = if self.configuration.queued_invalidation { 0 } else { QIE };
        if unknown != 0 || bits & (remapping | queue) != 0 {
            self.violation(Violation::NotSupported(GCMD));
        }
        let bits = bits & !(remapping | queue);
        if bits.count_ones() > 1 {
            self.violation(Violation::SeveralCommands(bits));
        }
        if bits & (SRTP | SIRTP) != 0 {
            self.registers.update(GSTS, 0, (bits & (SRTP | SIRTP)).into());
        }
        if bits & WBF != 0 {
            self.registers.update(GSTS, WBF.into(), 0);
        }
        for bit in (0..32).map(|bit| 1u32 << bit).filter(|bit| bits & bit != 0) {
            self.work.push(Work::Command(bit));
        }
        self.settle(memory);
    }

    fn complete_command(&mut self, memory: &mut Memory, bit: u32) {
        let status = self.registers.get32(GSTS);
        match bit {
            SRTP => {
                let old = self.root_table;
                self.root_table = self.registers.get(RTADDR);
                if status & TE != 0 && (old ^ self.root_table) & 3 << 10 != 0 {
                    self.violation(Violation::TableModeChanged);
                }
                let owed = !self.configuration.srtp_invalidates;
                let scalable = self.root_table >> 10 & 3 == 1;
                self.due = Due { contexts: owed, pasids: owed && scalable, pages: owed, ..self.due };
                if !owed {
                    self.caches.invalidate_contexts(ContextScope::Global);
                    self.caches.invalidate_pasids(PasidScope::Global);
                    self.caches.invalidate_pages(PageScope::Global);
                }
                self.registers.update(GSTS, SRTP.into(), 0);
            }
            SIRTP => {
                self.interrupt_table = self.registers.get(IRTA);
                if self.interrupt_table & 0x800 != 0 && !self.configuration.extended_interrupt_mode {
                    self.interrupt_table &= !0x800;
                    self.violation(Violation::NotSupported(IRTA));
                }
                self.due.interrupts = !self.configuration.sirtp_invalidates;
                if !self.due.interrupts {
                    self.caches.invalidate_interrupts(InterruptScope::Global);
                }
                self.registers.update(GSTS, SIRTP.into(), 0);
            }
            WBF => {
                memory.drain_write_buffer();
                self.registers.update(GSTS, 0, WBF.into());
            }
            _ => {
                let turns_on = status & bit == 0;
                self.check_switch(bit, turns_on);
                self.registers.set(GSTS, (status ^ bit).into());
                if bit == QIE {
                    // The head starts at 0 whenever the queue does.
                    self.registers.set(IQH, 0);
                    self.fetch_descriptors(memory);
                }
            }
        }
    }

    /// What must be so when a state bit changes.
    fn check_switch(&mut self, bit: u32, turns_on: bool) {
        let status = self.registers.get32(GSTS);
        match (bit, turns_on) {
            (TE, true) => {
                if status & SRTP == 0 {
                    self.violation(Violation::TranslationWithoutRootTable);
                }
                if self.due.contexts || self.due.pasids || self.due.pages {
                    self.violation(Violation::InvalidationDue(RTADDR));
                }
            }
            (IRE, true) => {
                if status & SIRTP == 0 {
                    self.violation(Violation::RemappingWithoutTable);
                }
                if status & QIE == 0 {
                    self.violation(Violation::RemappingWithoutQueue);
                }
                if self.due.interrupts {
                    self.violation(Violation::InvalidationDue(IRTA));
                }
            }
            (QIE, true) if self.registers.get(IQT) != 0 => self.violation(Violation::QueueNotEmpty),
            (QIE, false) => {
                let busy = self.work.iter().any(|work| matches!(work, Work::Descriptor(_)));
                if busy || self.registers.get(IQH) != self.registers.get(IQT) {
                    self.violation(Violation::QueueNotEmpty);
                }
            }
            _ => {}
        }
    }

    /// CCMD (11.4.6.1): ICC 63, CIRG 62:61, CAIG 60:59, FM 33:32, SID 31:16, DID 15:0.
    fn complete_context_register(&mut self, memory: &mut Memory) {
        let command = self.registers.get(CCMD);
        memory.drain_write_buffer();
        let granularity = command >> 61 & 3;
        let scope = match granularity {
            1 => Some(ContextScope::Global),
            2 => Some(ContextScope::Domain(command as u16)),
            3 => Some(ContextScope::Device {
                domain: command as u16,
                source: (command >> 16) as u16,
                function_mask: (command >> 32) as u8 & 3,
            }),
            _ => None,
        };
        if let Some(scope) = scope {
            self.contexts_invalidated(scope);
        }
        self.registers.update(CCMD, granularity << 59, BUSY | 3 << 59);
    }

    /// IOTLB (11.4.6.2): IVT 63, IIRG 61:60, IAIG 58:57, DR 49, DW 48, DID 47:32; the pages are in IVA.
    fn complete_iotlb_register(&mut self, memory: &mut Memory) {
        let register = self.configuration.iotlb_offset + 8;
        let command = self.registers.get(register);
        memory.drain_write_buffer();
        let domain = (command >> 32) as u16;
        let granularity = command >> 60 & 3;
        let scope = match granularity {
            1 => Some(PageScope::Global),
            2 => Some(PageScope::Domain(domain)),
            3 => self.page_scope(domain, self.registers.get(register - 8)),
            _ => None,
        };
        // IAIG 0 says that the request was not understood and nothing was invalidated.
        let done = if scope.is_some() { granularity } else { 0 };
        if let Some(scope) = scope {
            self.pages_invalidated(scope);
            self.drain(memory, Drain { writes: command >> 48 & 1 != 0, reads: command >> 49 & 1 != 0 });
        }
        self.registers.update(register, done << 57, BUSY | 3 << 57);
    }

    pub(crate) fn contexts_invalidated(&mut self, scope: ContextScope) {
        self.due.contexts &= scope != ContextScope::Global;
        self.caches.invalidate_contexts(scope);
    }

    pub(crate) fn pasids_invalidated(&mut self, scope: PasidScope) {
        // PASIDs invalidated before contexts can be cached again under the old context.
        self.due.pasids &= scope != PasidScope::Global || self.due.contexts;
        self.caches.invalidate_pasids(scope);
    }

    pub(crate) fn pages_invalidated(&mut self, scope: PageScope) {
        // Pages invalidated before contexts can be cached again under the old context (6.6): the order is owed too.
        self.due.pages &= scope != PageScope::Global || self.due.contexts || self.due.pasids;
        self.caches.invalidate_pages(scope);
    }

    pub(crate) fn interrupts_invalidated(&mut self, scope: InterruptScope) {
        self.due.interrupts &= scope != InterruptScope::Global;
        self.caches.invalidate_interrupts(scope);
    }
}
