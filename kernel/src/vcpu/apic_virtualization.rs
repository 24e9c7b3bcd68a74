//! How an engine offers APIC virtualization: what the processor does with a guest's local APIC by itself.
//!
//! The registers are in the virtual-APIC page and nowhere else. The processor changes them while the guest runs, the
//! hypervisor between an exit and the next entry; both do so on the same processor, so neither ever sees the other
//! in the middle. Besides the page, the processor keeps two vectors of its own (the guest interrupt status) and looks
//! at bitmaps that say what exits.
//!
//! Section numbers are those of the revisions of the SDM, volume 3, in which "APIC virtualization and virtual
//! interrupts" is chapter 31.

use addr::{HostPhys, Vector};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Who does what for a guest's local APIC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ApicWay {
    /// The hypervisor does everything, and injects: SVM, and VMX without virtual-interrupt delivery.
    Software,
    /// The processor evaluates and delivers what is requested in the page; the hypervisor puts the requests there.
    VirtualDelivery,
    /// As before, and a notification makes the processor take requests out of the posted-interrupt descriptor while
    /// the guest runs.
    Posted,
}

/// What the processor can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApicCapability {
    /// "Use TPR shadow": without it nothing else is allowed (28.2.1.1).
    pub tpr_shadow: bool,
    /// "Virtual-interrupt delivery".
    pub virtual_interrupt_delivery: bool,
    /// "APIC-register virtualization": most registers are read without an exit.
    pub register_virtualization: bool,
    /// "Virtualize x2APIC mode": RDMSR and WRMSR reach the page.
    pub x2apic_mode: bool,
    /// "Process posted interrupts", with "acknowledge interrupt on exit", which it needs.
    pub posted_interrupts: bool,
}

impl ApicCapability {
    /// The best way that there is.
    pub const fn way(self) -> ApicWay {
        match self {
            Self { tpr_shadow: true, virtual_interrupt_delivery: true, posted_interrupts: true, .. } => ApicWay::Posted,
            Self { tpr_shadow: true, virtual_interrupt_delivery: true, .. } => ApicWay::VirtualDelivery,
            _ => ApicWay::Software,
        }
    }
}

/// The guest interrupt status (26.4.2): 0 in the field stands for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterruptStatus {
    /// RVI: the highest vector that is requested (in VIRR).
    pub requesting: Option<Vector>,
    /// SVI: the highest vector in service (in VISR).
    pub servicing: Option<Vector>,
}

impl InterruptStatus {
    /// The 16-bit VMCS field: RVI in bits 7:0, SVI in bits 15:8.
    pub const fn field(self) -> u16 {
        const fn byte(vector: Option<Vector>) -> u16 {
            match vector {
                Some(vector) => vector.0 as u16,
                None => 0,
            }
        }
        byte(self.requesting) | byte(self.servicing) << 8
    }
}

/// MSRs of the x2APIC that a guest reaches without an exit; bit `i % 64` of word `i / 64` stands for MSR 0x800 + i.
/// All others must exit, for behind them is the physical APIC, or a read that hardware answers where #GP is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassedMsrs {
    /// RDMSR.
    pub reads: [u64; 4],
    /// WRMSR.
    pub writes: [u64; 4],
}

/// TPR as the number of an MSR above 0x800.
const TPR: u8 = 0x08;
/// EOI.
const EOI: u8 = 0x0b;
/// SELF IPI.
const SELF_IPI: u8 = 0x3f;
/// Registers whose value is in the page as RDMSR shows it: first and last. Not here: EOI and SELF IPI, which cannot be
/// read; the ICR, whose halves are 16 bytes apart in the page while RDMSR takes 8 adjacent bytes; the timer's current
/// count, which changes with time; and what does not exist, where hardware would read the page and not raise #GP.
const READABLE: [(u8, u8); 10] = [
    (0x02, 0x03), // ID, version
    (0x08, 0x08), // TPR
    (0x0a, 0x0a), // PPR
    (0x0d, 0x0d), // LDR
    (0x0f, 0x0f), // SVR
    (0x10, 0x27), // ISR, TMR, IRR
    (0x28, 0x28), // ESR
    (0x32, 0x37), // LVT
    (0x38, 0x38), // initial count
    (0x3e, 0x3e), // divide configuration
];

impl PassedMsrs {
    /// All exit.
    pub const NONE: Self = Self { reads: [0; 4], writes: [0; 4] };

    /// What a processor virtualizes (31.5) of a guest's APIC in x2APIC mode; in any other mode it is [`Self::NONE`].
    pub const fn of(capability: ApicCapability) -> Self {
        let mut passed = Self::NONE;
        if !capability.tpr_shadow || !capability.x2apic_mode {
            return passed;
        }
        set(&mut passed.reads, TPR);
        set(&mut passed.writes, TPR);
        if capability.virtual_interrupt_delivery {
            set(&mut passed.writes, EOI);
            set(&mut passed.writes, SELF_IPI);
        }
        let mut range = 0;
        while capability.register_virtualization && range < READABLE.len() {
            let (mut number, last) = READABLE[range];
            while number <= last {
                set(&mut passed.reads, number);
                number += 1;
            }
            range += 1;
        }
        passed
    }
}

const fn set(words: &mut [u64; 4], number: u8) {
    words[number as usize / 64] |= 1 << (number % 64);
}

/// What hardware needs to take requests out of the posted-interrupt descriptor by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PostedProcessing {
    /// The vCPU's descriptor, 64-byte aligned.
    pub descriptor: HostPhys,
    /// The vector that makes the processor look into it. Not 0xff: some processors drop it as the spurious vector.
    pub notification: Vector,
}

/// The 4 KiB virtual-APIC page: a 32-bit register at every multiple of 16.
///
/// Atomics, because the processor writes here behind the compiler's back; relaxed, because it is the same processor.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct VirtualApicPage([AtomicU32; 1024]);

const _: () = assert!(size_of::<VirtualApicPage>() == 4096);

impl VirtualApicPage {
    /// A page of zeros, which is also what a zeroed frame is.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 1024])
    }

    /// The 32 bits at an offset; 0 beyond the page. Bits 1:0 of the offset are ignored.
    pub fn read(&self, offset: u16) -> u32 {
        self.0.get(usize::from(offset / 4)).map_or(0, |register| register.load(Relaxed))
    }

    /// Writes the 32 bits at an offset; nothing beyond the page. Bits 1:0 of the offset are ignored.
    pub fn write(&self, offset: u16, value: u32) {
        if let Some(register) = self.0.get(usize::from(offset / 4)) {
            register.store(value, Relaxed);
        }
    }
}

impl Default for VirtualApicPage {
    fn default() -> Self {
        Self::new()
    }
}

/// What an engine's virtual CPU does for its guest's local APIC. All of it takes effect at the next entry; none of it
/// is called while the guest runs.
///
/// Behind it, a VMCS: "use TPR shadow" is on with a TPR threshold of 0, "virtual-interrupt delivery" and "APIC-register
/// virtualization" where there are, "virtualize APIC accesses" off (the xAPIC page is emulated).
pub trait ApicVirtualization {
    /// What is switched on; it does not change. Its [way](ApicCapability::way) is not [`ApicWay::Software`]: then
    /// there is no `ApicVirtualization`.
    fn capability(&self) -> ApicCapability;

    /// The page to which the VMCS's virtual-APIC address points.
    fn page(&self) -> &'static VirtualApicPage;

    /// Sets RVI and SVI. Must be called when software has changed VIRR or VISR: the processor evaluates these two, and
    /// not the page.
    fn set_interrupt_status(&mut self, status: InterruptStatus);

    /// The EOI-exit bitmap: the guest's EOI of these vectors exits; vector `v` is bit `v % 64` of word `v / 64`.
    fn set_eoi_exits(&mut self, vectors: [u64; 4]);

    /// The MSRs 0x800 to 0x8ff that do not exit. "Virtualize x2APIC mode" is on if and only if there are any: without
    /// it a passed access would reach the physical APIC.
    fn set_passed_msrs(&mut self, passed: PassedMsrs);

    /// Turns "process posted interrupts" on, or off: then the notification vector takes the guest out like any other.
    /// Called with `Some` only where the capability is there.
    fn set_posted_processing(&mut self, posted: Option<PostedProcessing>);
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    const ALL: ApicCapability = ApicCapability {
        tpr_shadow: true,
        virtual_interrupt_delivery: true,
        register_virtualization: true,
        x2apic_mode: true,
        posted_interrupts: true,
    };

    fn contains(words: &[u64; 4], number: u32) -> bool {
        words[number as usize / 64] >> (number % 64) & 1 != 0
    }

    #[test]
    fn the_way_is_the_best_that_the_processor_has() {
        assert_eq!(ALL.way(), ApicWay::Posted);
        assert_eq!(ApicCapability { posted_interrupts: false, ..ALL }.way(), ApicWay::VirtualDelivery);
        assert_eq!(ApicCapability { virtual_interrupt_delivery: false, ..ALL }.way(), ApicWay::Software);
        assert_eq!(ApicCapability { tpr_shadow: false, ..ALL }.way(), ApicWay::Software);
    }

    #[test]
    fn only_the_writes_that_the_processor_virtualizes_do_not_exit() {
        let writes: Vec<u32> = (0..0x100).filter(|number| contains(&PassedMsrs::of(ALL).writes, *number)).collect();
        assert_eq!(writes, [0x08, 0x0b, 0x3f]);
        let without = ApicCapability { virtual_interrupt_delivery: false, register_virtualization: false, ..ALL };
        assert_eq!(PassedMsrs::of(without), PassedMsrs { reads: [1 << 8, 0, 0, 0], writes: [1 << 8, 0, 0, 0] });
    }

    #[test]
    fn without_virtualized_x2apic_mode_everything_exits() {
        assert_eq!(PassedMsrs::of(ApicCapability { x2apic_mode: false, ..ALL }), PassedMsrs::NONE);
    }

    #[test]
    fn the_status_field_has_the_requested_vector_below() {
        let status = InterruptStatus { requesting: Some(Vector(0x31)), servicing: Some(Vector(0xe2)) };
        assert_eq!(status.field(), 0xe231);
        assert_eq!(InterruptStatus::default().field(), 0);
    }

    #[test]
    fn the_page_has_no_registers_beyond_it() {
        let page = VirtualApicPage::new();
        page.write(0xffc, 7);
        page.write(0x1000, 9);
        assert_eq!((page.read(0xffc), page.read(0x1000), page.read(0)), (7, 0, 0));
    }
}
