//! Which controls a guest runs with: one place decides, from what the processor can do.

use crate::vcpu::ApicCapability;
use crate::vcpu::vmx::capability::{Allowed, Capabilities, VmxError};
use crate::vcpu::vmx::spec::control::{EntryControls, ExitControls, PinBased, Primary, Secondary};
use crate::vcpu::vmx::spec::msr::EptVpid;
use alloc::vec::Vec;
use bitflags::Flags;

/// The controls of a guest, as they are written into its control structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based controls.
    pub pin: PinBased,
    /// Primary processor-based controls.
    pub primary: Primary,
    /// Secondary processor-based controls.
    pub secondary: Secondary,
    /// VM-exit controls.
    pub exit: ExitControls,
    /// VM-entry controls.
    pub entry: EntryControls,
}

/// What the processor can do of virtualizing the local APIC.
pub fn apic_capability(capabilities: &Capabilities) -> ApicCapability {
    let secondary = |control: Secondary| capabilities.secondary.may & control.bits() != 0;
    ApicCapability {
        tpr_shadow: capabilities.primary.may & Primary::USE_TPR_SHADOW.bits() != 0,
        virtual_interrupt_delivery: secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY),
        register_virtualization: secondary(Secondary::APIC_REGISTER_VIRTUALIZATION),
        x2apic_mode: secondary(Secondary::VIRTUALIZE_X2APIC_MODE),
        posted_interrupts: capabilities.pin.may & PinBased::PROCESS_POSTED_INTERRUPTS.bits() != 0
            && capabilities.exit.may & ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits() != 0,
    }
}

const PIN: PinBased = PinBased::EXTERNAL_INTERRUPT_EXITING.union(PinBased::NMI_EXITING).union(PinBased::VIRTUAL_NMIS);
const PRIMARY: Primary = Primary::USE_TSC_OFFSETTING
    .union(Primary::INTERRUPT_WINDOW_EXITING)
    .union(Primary::NMI_WINDOW_EXITING)
    .union(Primary::HLT_EXITING)
    .union(Primary::MWAIT_EXITING)
    .union(Primary::RDPMC_EXITING)
    .union(Primary::USE_IO_BITMAPS)
    .union(Primary::USE_MSR_BITMAPS)
    .union(Primary::MONITOR_EXITING)
    .union(Primary::ACTIVATE_SECONDARY_CONTROLS);
/// Where there is no TPR shadow.
const CR8_EXITING: Primary = Primary::CR8_LOAD_EXITING.union(Primary::CR8_STORE_EXITING);
const SECONDARY: Secondary = Secondary::ENABLE_EPT.union(Secondary::UNRESTRICTED_GUEST);
const EXIT: ExitControls = ExitControls::SAVE_DEBUG_CONTROLS
    .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER);
const ENTRY: EntryControls =
    EntryControls::LOAD_DEBUG_CONTROLS.union(EntryControls::LOAD_PAT).union(EntryControls::LOAD_EFER);
/// What a guest switches on by itself, and the engine with it.
const ENTRY_LATER: EntryControls = EntryControls::IA32E_MODE_GUEST;

/// What the extended page tables must be capable of, with the words that say so.
const EPT: [(EptVpid, &str); 3] = [
    (EptVpid::FOUR_LEVELS, "tables of four levels"),
    (EptVpid::WRITE_BACK, "tables in write-back memory"),
    (EptVpid::INVEPT, "INVEPT"),
];

impl Controls {
    /// What every guest runs with, and the names of the optional controls that this processor has not. What concerns
    /// the local APIC beyond CR8 is off.
    pub fn choose(capabilities: &Capabilities) -> Result<(Self, Vec<&'static str>), VmxError> {
        let mut left_out = Vec::new();
        let pin = essential(PIN, capabilities.pin)?;
        let tpr_shadow = apic_capability(capabilities).tpr_shadow;
        let task_priority = if tpr_shadow { Primary::USE_TPR_SHADOW } else { CR8_EXITING };
        let primary = essential(PRIMARY | task_priority, capabilities.primary)? - Primary::INTERRUPT_WINDOW_EXITING;
        if !tpr_shadow {
            left_out.push("USE_TPR_SHADOW");
        }
        let secondary = essential(SECONDARY, capabilities.secondary)?;
        let exit = essential(EXIT, capabilities.exit)?;
        let entry = essential(ENTRY | ENTRY_LATER, capabilities.entry)? - ENTRY_LATER;
        for (property, name) in EPT {
            if !capabilities.ept_vpid.contains(property) {
                return Err(VmxError::MissingEpt { name, capability: capabilities.ept_vpid.bits() });
            }
        }
        let mut controls = Self { pin, primary, secondary, exit, entry };
        let identifiers = capabilities.ept_vpid.contains(EptVpid::INVVPID)
            && capabilities.ept_vpid.intersects(EptVpid::INVVPID_SINGLE_CONTEXT | EptVpid::INVVPID_ALL_CONTEXTS);
        if identifiers && capabilities.secondary.may & Secondary::ENABLE_VPID.bits() != 0 {
            controls.secondary |= Secondary::ENABLE_VPID;
        } else {
            left_out.push("ENABLE_VPID");
        }
        if has_preemption_timer(capabilities) {
            controls.pin |= PinBased::ACTIVATE_PREEMPTION_TIMER;
            controls.exit |= ExitControls::SAVE_PREEMPTION_TIMER;
        } else {
            left_out.push("ACTIVATE_PREEMPTION_TIMER");
        }
        Ok((controls, left_out))
    }
}

/// Whether the VMX-preemption timer can be used: counting, and its value kept over exits.
const fn has_preemption_timer(capabilities: &Capabilities) -> bool {
    capabilities.pin.may & PinBased::ACTIVATE_PREEMPTION_TIMER.bits() != 0
        && capabilities.exit.may & ExitControls::SAVE_PREEMPTION_TIMER.bits() != 0
}

/// `wanted`, with the bits that the processor forces. An error names a control that it lacks, or one that it forces
/// and that is not wanted. Forced bits without a name are the reserved bits whose setting is 1.
fn essential<F: Flags<Bits = u32> + Copy>(wanted: F, allowed: Allowed) -> Result<F, VmxError> {
    let first_of = |bits: u32| F::from_bits_retain(bits).iter_names().next().map(|(name, _)| name);
    if let Some(name) = first_of(wanted.bits() & !allowed.may) {
        return Err(VmxError::MissingControl { name });
    }
    if let Some(name) = first_of(allowed.must & !wanted.bits()) {
        return Err(VmxError::ForcedControl { name });
    }
    Ok(F::from_bits_retain(wanted.bits() | allowed.must))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::ApicWay;
    use crate::vcpu::vmx::fake::SKYLAKE;

    #[test]
    fn every_bit_of_the_controls_is_one_that_the_processor_permits() {
        let (controls, left_out) = Controls::choose(&SKYLAKE).unwrap();
        for (bits, allowed) in [
            (controls.pin.bits(), SKYLAKE.pin),
            (controls.primary.bits(), SKYLAKE.primary),
            (controls.secondary.bits(), SKYLAKE.secondary),
            (controls.exit.bits(), SKYLAKE.exit),
            (controls.entry.bits(), SKYLAKE.entry),
        ] {
            assert_eq!((bits & !allowed.may, allowed.must & !bits), (0, 0), "{bits:#x} {allowed:x?}");
        }
        assert!(left_out.is_empty(), "{left_out:?}");
        assert!(controls.secondary.contains(Secondary::ENABLE_VPID | SECONDARY));
        assert!(!controls.primary.contains(Primary::INTERRUPT_WINDOW_EXITING));
        assert!(!controls.entry.contains(EntryControls::IA32E_MODE_GUEST));
        assert!(!controls.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT));
    }

    fn without(change: impl FnOnce(&mut Capabilities)) -> Result<(Controls, Vec<&'static str>), VmxError> {
        let mut capabilities = SKYLAKE;
        change(&mut capabilities);
        Controls::choose(&capabilities)
    }

    #[test]
    fn a_missing_essential_control_is_refused_by_name() {
        type Lose = fn(&mut Capabilities);
        let table: [(&str, Lose); 9] = [
            ("NMI_EXITING", |c| c.pin.may &= !PinBased::NMI_EXITING.bits()),
            ("HLT_EXITING", |c| c.primary.may &= !Primary::HLT_EXITING.bits()),
            ("USE_IO_BITMAPS", |c| c.primary.may &= !Primary::USE_IO_BITMAPS.bits()),
            ("USE_MSR_BITMAPS", |c| c.primary.may &= !Primary::USE_MSR_BITMAPS.bits()),
            ("ENABLE_EPT", |c| c.secondary.may &= !Secondary::ENABLE_EPT.bits()),
            ("UNRESTRICTED_GUEST", |c| c.secondary.may &= !Secondary::UNRESTRICTED_GUEST.bits()),
            ("SAVE_EFER", |c| c.exit.may &= !ExitControls::SAVE_EFER.bits()),
            ("LOAD_PAT", |c| c.entry.may &= !EntryControls::LOAD_PAT.bits()),
            ("IA32E_MODE_GUEST", |c| c.entry.may &= !EntryControls::IA32E_MODE_GUEST.bits()),
        ];
        for (name, lose) in table {
            assert_eq!(without(lose), Err(VmxError::MissingControl { name }));
        }
    }

    #[test]
    fn a_control_that_cannot_be_switched_off_is_refused_by_name() {
        let forced = without(|c| c.primary.must |= Primary::CR3_LOAD_EXITING.bits());
        assert_eq!(forced, Err(VmxError::ForcedControl { name: "CR3_LOAD_EXITING" }));
    }

    #[test]
    fn page_tables_that_cannot_be_used_are_refused_in_words() {
        let error = without(|c| c.ept_vpid.remove(EptVpid::WRITE_BACK)).unwrap_err();
        assert!(matches!(error, VmxError::MissingEpt { name: "tables in write-back memory", .. }));
    }

    #[test]
    fn optional_controls_are_left_out_by_name() {
        let (controls, left_out) = without(|c| {
            c.ept_vpid.remove(EptVpid::INVVPID);
            c.primary.may &= !Primary::USE_TPR_SHADOW.bits();
            c.pin.may &= !PinBased::ACTIVATE_PREEMPTION_TIMER.bits();
        })
        .unwrap();
        assert_eq!(left_out, ["USE_TPR_SHADOW", "ENABLE_VPID", "ACTIVATE_PREEMPTION_TIMER"]);
        assert!(controls.primary.contains(CR8_EXITING));
        assert!(!controls.secondary.contains(Secondary::ENABLE_VPID));
    }

    #[test]
    fn what_the_processor_does_of_the_local_apic_is_known() {
        assert_eq!(apic_capability(&SKYLAKE).way(), ApicWay::Posted);
        let mut capabilities = SKYLAKE;
        capabilities.exit.may &= !ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits();
        assert_eq!(apic_capability(&capabilities).way(), ApicWay::VirtualDelivery);
        capabilities.secondary.may &= !Secondary::VIRTUAL_INTERRUPT_DELIVERY.bits();
        let some = apic_capability(&capabilities);
        assert_eq!(some.way(), ApicWay::Software);
        assert!(some.register_virtualization && some.x2apic_mode);
    }
}
