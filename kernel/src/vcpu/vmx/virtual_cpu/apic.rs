//! What the processor does of the guest's local APIC.

use super::*;
use crate::vcpu::vmx::spec::control::Secondary;
use crate::vcpu::{ApicVirtualization, ApicWay, InterruptStatus, PassedMsrs, PostedProcessing};

/// The first model-specific register of the local APIC in x2APIC mode.
const FIRST_MSR: u32 = 0x800;

impl<P: Processor> VmxVirtualCpu<P> {
    /// Switches "virtual-interrupt delivery" and what goes with it on; `None` where the processor does not have it.
    /// From then on the guest's interrupts are requested in the virtual-APIC page, and not injected.
    pub(super) fn virtualize_apic(&mut self) -> Option<&mut Self> {
        let capability = self.capability();
        if capability.way() == ApicWay::Software {
            return None;
        }
        let secondary = &mut self.controls.secondary;
        secondary.insert(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
        secondary.set(Secondary::APIC_REGISTER_VIRTUALIZATION, capability.register_virtualization);
        Some(self)
    }
}

impl<P: Processor> ApicVirtualization for VmxVirtualCpu<P> {
    fn capability(&self) -> ApicCapability {
        self.apic_capability
    }

    fn page(&self) -> &'static VirtualApicPage {
        self.virtual_apic
    }

    fn set_interrupt_status(&mut self, status: InterruptStatus) {
        self.vmcs.set(GUEST_INTERRUPT_STATUS, status.field());
    }

    fn set_eoi_exits(&mut self, vectors: [u64; 4]) {
        let fields = [EOI_EXIT_BITMAP_0, EOI_EXIT_BITMAP_1, EOI_EXIT_BITMAP_2, EOI_EXIT_BITMAP_3];
        for (field, word) in fields.into_iter().zip(vectors) {
            self.vmcs.set(field, word);
        }
    }

    fn set_passed_msrs(&mut self, passed: PassedMsrs) {
        let bit = |words: &[u64; 4], number: u32| {
            words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
        };
        for number in 0..0x100 {
            let (read, write) = (bit(&passed.reads, number), bit(&passed.writes, number));
            self.msr_bitmaps.set_passed(FIRST_MSR + number, read, write);
        }
        self.controls.secondary.set(Secondary::VIRTUALIZE_X2APIC_MODE, passed != PassedMsrs::NONE);
    }

    fn set_posted_processing(&mut self, posted: Option<PostedProcessing>) {
        if let Some(PostedProcessing { descriptor, notification }) = posted {
            self.vmcs.set(POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, descriptor.as_u64());
            self.vmcs.set(POSTED_INTERRUPT_NOTIFICATION_VECTOR, notification.0.into());
        }
        self.controls.pin.set(PinBased::PROCESS_POSTED_INTERRUPTS, posted.is_some());
        // The processor wants both or neither: it must see the vector of an interrupt to know the notification.
        self.controls.exit.set(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT, posted.is_some());
    }
}
