//! A processor that does what the SDM says of virtual interrupts (section numbers of volume 3), and nothing else: written
//! from there, and not from the code that it tests.

extern crate std;

use addr::Vector;
use std::boxed::Box;
use std::vec::Vec;

use super::super::ApicProcessor;
use crate::vcpu::notification::{Mailbox, Steps};
use crate::vcpu::{
    ApicCapability, ApicVirtualization, ApicWay, InterruptStatus, PassedMsrs, PostedProcessing, VirtualApicPage,
};

pub const ALL: ApicCapability = ApicCapability {
    tpr_shadow: true,
    virtual_interrupt_delivery: true,
    register_virtualization: true,
    x2apic_mode: true,
    posted_interrupts: true,
};

/// Why the guest was left.
pub enum Exit {
    WriteMsr,
    EndOfInterrupt(Vector),
    ApicWrite(u16),
}

pub struct FakeHardware {
    capability: ApicCapability,
    page: &'static VirtualApicPage,
    requesting: u8,
    servicing: u8,
    eoi_exits: [u64; 4],
    pub passed: PassedMsrs,
    pub posted: Option<PostedProcessing>,
    /// How often anything was set.
    pub told: u32,
}

impl FakeHardware {
    pub fn new(capability: ApicCapability) -> Self {
        Self {
            capability,
            page: Box::leak(Box::default()),
            requesting: 0,
            servicing: 0,
            eoi_exits: [0; 4],
            passed: PassedMsrs::NONE,
            posted: None,
            told: 0,
        }
    }

    fn bit(base: u16, vector: u8) -> (u16, u32) {
        (base + u16::from(vector >> 5) * 16, 1 << (vector & 31))
    }

    fn set(&self, base: u16, vector: u8, value: bool) {
        let (offset, bit) = Self::bit(base, vector);
        let old = self.page.read(offset);
        self.page.write(offset, if value { old | bit } else { old & !bit });
    }

    fn highest(&self, base: u16) -> u8 {
        let is_set = |vector: &u8| {
            let (offset, bit) = Self::bit(base, *vector);
            self.page.read(offset) & bit != 0
        };
        (0..=255).rev().find(is_set).unwrap_or(0)
    }

    /// PPR virtualization (31.1.3).
    fn virtualize_ppr(&self) {
        let (task, servicing) = (self.page.read(0x80) & 0xff, u32::from(self.servicing));
        self.page.write(0xa0, if task & 0xf0 >= servicing & 0xf0 { task } else { servicing & 0xf0 });
    }

    /// Evaluation (31.2.1) and delivery (31.2.2).
    fn deliver(&mut self, interrupts_enabled: &mut bool, taken: &mut Vec<u8>) {
        if *interrupts_enabled && u32::from(self.requesting >> 4) > self.page.read(0xa0) >> 4 & 0xf {
            let vector = self.requesting;
            self.set(0x100, vector, true);
            self.servicing = vector;
            self.page.write(0xa0, u32::from(vector & 0xf0));
            self.set(0x200, vector, false);
            self.requesting = self.highest(0x200);
            *interrupts_enabled = false;
            taken.push(vector);
        }
    }
}

impl ApicVirtualization for FakeHardware {
    fn capability(&self) -> ApicCapability {
        self.capability
    }

    fn page(&self) -> &'static VirtualApicPage {
        self.page
    }

    fn set_interrupt_status(&mut self, status: InterruptStatus) {
        self.told += 1;
        [self.requesting, self.servicing] = status.field().to_le_bytes();
    }

    fn set_eoi_exits(&mut self, vectors: [u64; 4]) {
        self.told += 1;
        self.eoi_exits = vectors;
    }

    fn set_passed_msrs(&mut self, passed: PassedMsrs) {
        self.told += 1;
        self.passed = passed;
    }

    fn set_posted_processing(&mut self, posted: Option<PostedProcessing>) {
        assert!(self.capability.posted_interrupts || posted.is_none());
        self.told += 1;
        self.posted = posted;
    }
}

/// A processor in a guest whose handlers begin with interrupts disabled.
pub struct FakeProcessor {
    pub hardware: FakeHardware,
    pub interrupts_enabled: bool,
    pub cr8: u8,
    /// The next write of CR8 exits.
    pub priority_exit: bool,
    pub taken: Vec<u8>,
    pub entries: u32,
    /// It delivers by itself what is offered (APM vol. 2, 15.21.4).
    pub offers: bool,
    offer: Option<u8>,
    offer_taken: bool,
    injected: Option<u8>,
    window: bool,
}

impl FakeProcessor {
    pub fn new(hardware: FakeHardware) -> Self {
        Self {
            hardware,
            interrupts_enabled: false,
            cr8: 0,
            priority_exit: false,
            taken: Vec::new(),
            entries: 0,
            offers: false,
            offer: None,
            offer_taken: false,
            injected: None,
            window: false,
        }
    }

    fn is_software(&self) -> bool {
        self.hardware.capability.way() == ApicWay::Software
    }

    /// VM entry; whether the guest stays.
    pub fn enter(&mut self) -> bool {
        self.entries += 1;
        if let Some(vector) = self.injected.take() {
            assert!(self.interrupts_enabled, "injected into a guest that cannot take it");
            self.taken.push(vector);
            self.interrupts_enabled = false;
        }
        if !self.is_software() {
            self.hardware.virtualize_ppr();
        }
        self.evaluate()
    }

    /// What happens when the guest could take an interrupt; whether it stays.
    pub fn evaluate(&mut self) -> bool {
        if self.is_software() {
            if self.window && self.interrupts_enabled {
                return false;
            }
            if self.interrupts_enabled
                && let Some(vector) = self.offer.take_if(|vector| *vector >> 4 > self.cr8)
            {
                self.taken.push(vector);
                (self.interrupts_enabled, self.offer_taken) = (false, true);
            }
            return true;
        }
        self.hardware.deliver(&mut self.interrupts_enabled, &mut self.taken);
        true
    }

    /// The notification vector comes: posted-interrupt processing (31.6). False: it takes the guest out.
    pub fn process_notification(&mut self, mailbox: &Mailbox) -> bool {
        if self.is_software() || self.hardware.posted.is_none() {
            return false;
        }
        mailbox.clear_outstanding();
        let mut highest = 0;
        for vector in 0..=255u8 {
            let word = usize::from(vector >> 6);
            if mailbox.word(word) >> (vector & 63) & 1 != 0 {
                self.hardware.set(0x200, vector, true);
                highest = vector;
            }
        }
        for word in 0..4 {
            let _ = mailbox.take_word(word);
        }
        self.hardware.requesting = self.hardware.requesting.max(highest);
        self.evaluate()
    }

    fn passes(words: &[u64; 4], msr: u32) -> bool {
        (0x800..0x900).contains(&msr) && words[(msr - 0x800) as usize / 64] >> (msr % 64) & 1 != 0
    }

    /// RDMSR; `None`: it exits.
    pub fn read_msr(&mut self, msr: u32) -> Option<u64> {
        Self::passes(&self.hardware.passed.reads, msr).then(|| {
            let offset = (msr & 0xff) as u16 * 16;
            u64::from(self.hardware.page.read(offset + 4)) << 32 | u64::from(self.hardware.page.read(offset))
        })
    }

    /// WRMSR (31.5); `Some`: it exits, before or after it was done.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Option<Exit> {
        if !Self::passes(&self.hardware.passed.writes, msr) {
            return Some(Exit::WriteMsr);
        }
        let hardware = &mut self.hardware;
        hardware.page.write((msr & 0xff) as u16 * 16, value as u32);
        match msr {
            // TPR virtualization (31.1.2).
            0x808 => hardware.virtualize_ppr(),
            // EOI virtualization (31.1.4).
            0x80b => {
                let vector = hardware.servicing;
                if vector != 0 {
                    hardware.set(0x100, vector, false);
                }
                hardware.servicing = hardware.highest(0x100);
                hardware.virtualize_ppr();
                if hardware.eoi_exits[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0 {
                    return Some(Exit::EndOfInterrupt(Vector(vector)));
                }
            }
            // Self-IPI virtualization (31.1.5).
            0x83f if value >= 16 => {
                hardware.set(0x200, value as u8, true);
                hardware.requesting = hardware.requesting.max(value as u8);
            }
            0x83f => return Some(Exit::ApicWrite(0x3f0)),
            _ => panic!("MSR {msr:#x} must not pass"),
        }
        self.evaluate();
        None
    }

    pub fn set_cr8(&mut self, class: u8) {
        if self.is_software() {
            self.cr8 = class;
            self.evaluate();
        } else {
            self.hardware.page.write(0x80, u32::from(class) << 4);
            self.hardware.virtualize_ppr();
            self.evaluate();
        }
    }
}

impl ApicProcessor for FakeProcessor {
    fn apic_virtualization(&mut self) -> Option<&mut dyn ApicVirtualization> {
        if self.is_software() { None } else { Some(&mut self.hardware) }
    }

    fn task_priority(&self) -> u8 {
        self.cr8
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.cr8 = priority;
    }

    fn can_take_interrupt(&self) -> bool {
        self.interrupts_enabled && self.injected.is_none()
    }

    fn inject(&mut self, vector: Vector) {
        assert!(self.injected.replace(vector.0).is_none());
    }

    fn offer_interrupt(&mut self, vector: Vector) -> bool {
        assert!(!self.can_take_interrupt() && !self.offer_taken);
        self.offer = self.offers.then_some(vector.0);
        self.offers
    }

    fn took_offer(&mut self) -> bool {
        self.offer = None;
        core::mem::take(&mut self.offer_taken)
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    fn request_priority_exit(&mut self, wanted: bool) {
        self.priority_exit = wanted;
    }

    fn takes_interrupts(&self) -> bool {
        self.interrupts_enabled
    }
}
