//! All remapping units of the machine, brought up in step.
//!
//! One unit's interrupts, and the firmware's devices behind it, may concern another: so every unit takes a step
//! before any takes the next. A unit that fails a step is left as denying as it then is, and its devices are not
//! assignable; the others go on.

use crate::cpu::local_apic;
use crate::machine::device_memory::DeviceMemory;
use crate::machine::unit_registers::{HypervisorClock, UnitRegisters};
use crate::memory::address_space::MappingError;
use crate::memory::tables::Tables;
use addr::{HostPhys, PciAddress, Vector};
use alloc::vec::Vec;
use core::fmt;
use dmar::{Dmar, Drhd, Topology};
use vtd::{DestinationMode, FaultInterrupt, Global, Platform, Unit};

/// Entries of each unit's interrupt remapping table: 4096 messages, 64 KiB.
const INTERRUPT_ENTRIES: usize = 4096;
/// Units that a machine can have here. A DMAR table that names more is not of this world.
const MAXIMUM_UNITS: usize = 64;

/// Why a unit is out of use.
#[derive(Debug)]
pub enum UnitFailure {
    /// Its registers could not be mapped.
    Mapping(MappingError),
    /// It failed a step.
    Step(vtd::Error),
    /// It cannot remap interrupts, so that a device behind it could send any interrupt to any processor.
    NoInterruptRemapping,
}

impl fmt::Display for UnitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping(error) => write!(f, "its registers: {error}"),
            Self::Step(error) => write!(f, "{error}"),
            Self::NoInterruptRemapping => f.write_str("it cannot remap interrupts"),
        }
    }
}

/// One remapping unit that answers.
#[derive(Debug)]
pub struct RemappingUnit {
    /// The driver.
    pub unit: Unit<UnitRegisters, HypervisorClock>,
    /// Where its tables are allocated.
    pub tables: Tables,
    /// Its registers' address: what the DMAR table knows it by.
    pub base: HostPhys,
    /// Why it is out of use, if it is.
    pub failure: Option<UnitFailure>,
    /// Why it works, and yet no device behind it may be assigned.
    pub unassignable: Option<UnitFailure>,
}

/// All remapping units that answer.
#[derive(Debug, Default)]
pub struct Units {
    units: Vec<RemappingUnit>,
    destination_mode: Option<DestinationMode>,
}

impl Units {
    /// Maps and probes the units that the table names. Nothing is changed yet.
    pub fn probe(dmar: &Dmar<'_>) -> Self {
        let mut units: Vec<RemappingUnit> = Vec::new();
        for drhd in dmar.drhds().take(MAXIMUM_UNITS) {
            if units.iter().any(|known| known.base == drhd.register_base) {
                log::warn!("the DMAR table names the unit at {} twice", drhd.register_base);
                continue;
            }
            match Self::probe_one(&drhd) {
                Ok(unit) => units.push(unit),
                Err(failure) => log::error!("unit at {}: left out: {failure}", drhd.register_base),
            }
        }
        Self { units, destination_mode: None }
    }

    fn probe_one(drhd: &Drhd<'_>) -> Result<RemappingUnit, UnitFailure> {
        let registers =
            UnitRegisters(DeviceMemory::map(drhd.register_base, drhd.register_size).map_err(UnitFailure::Mapping)?);
        let unit = Unit::probe(registers, HypervisorClock).map_err(UnitFailure::Step)?;
        let capabilities = unit.capabilities();
        let version = unit.read_version();
        log::info!(
            "unit at {}: version {}.{}, CAP {:#018x}, ECAP {:#018x}{}",
            drhd.register_base,
            version >> 4 & 0xf,
            version & 0xf,
            capabilities.cap,
            capabilities.ecap,
            if capabilities.caching_mode() { ", caching mode" } else { "" },
        );
        let left_on =
            unit.firmware_state() & (Global::TRANSLATION | Global::INTERRUPT_REMAPPING | Global::QUEUED_INVALIDATION);
        if !left_on.is_empty() {
            log::warn!("unit at {}: firmware left on {left_on:?}", drhd.register_base);
        }
        let tables = Tables { coherent: capabilities.coherent() };
        Ok(RemappingUnit { unit, tables, base: drhd.register_base, failure: None, unassignable: None })
    }

    /// How many units answer and work.
    pub fn working(&self) -> usize {
        self.units.iter().filter(|unit| unit.failure.is_none()).count()
    }

    /// Whether every unit that answers can name 32-bit APIC ids: x2APIC mode is only safe then.
    pub fn all_have_extended_interrupt_mode(&self) -> bool {
        self.units.iter().all(|unit| {
            unit.unit.capabilities().interrupt_remapping() && unit.unit.capabilities().extended_interrupt_mode()
        })
    }

    /// The form of APIC ids in interrupt remapping entries, once interrupts are remapped.
    pub fn destination_mode(&self) -> Option<DestinationMode> {
        self.destination_mode
    }

    /// Takes one step on every unit that still works.
    fn step(&mut self, name: &str, mut step: impl FnMut(&mut RemappingUnit) -> Result<(), UnitFailure>) {
        for unit in self.units.iter_mut().filter(|unit| unit.failure.is_none()) {
            if let Err(failure) = step(unit) {
                log::error!("unit at {}: out of use: {name}: {failure}", unit.base);
                unit.failure = Some(failure);
            }
        }
    }

    /// Takes over what firmware left on, and starts queue, root table and interrupt remapping. `prepare` fills the root
    /// table with what must stand from the first moment: the reserved memory of firmware's devices.
    pub fn start_remapping(
        &mut self,
        mode: DestinationMode,
        platform: Platform,
        mut prepare: impl FnMut(&mut RemappingUnit),
    ) {
        let step = UnitFailure::Step;
        self.step("taking over what firmware left on", |unit| {
            let handover = unit.unit.suggest_handover(false, mode);
            unit.unit.take_over(handover, platform).map_err(step)
        });
        self.step("clearing faults", |unit| unit.unit.mask_and_clear_faults().map_err(step));
        self.step("the invalidation queue", |unit| unit.unit.enable_queue(&mut unit.tables).map_err(step));
        self.step("the root table", |unit| {
            unit.unit.create_root_table(&mut unit.tables).map_err(step)?;
            prepare(unit);
            unit.unit.set_root_table(&mut unit.tables).map_err(step)
        });
        self.step("the interrupt remapping table", |unit| {
            if !unit.unit.capabilities().interrupt_remapping() {
                // It can still deny DMA to the devices behind it, which nobody will be given.
                log::warn!("unit at {}: no interrupt remapping; no device behind it will be assigned", unit.base);
                unit.unassignable = Some(UnitFailure::NoInterruptRemapping);
                return Ok(());
            }
            unit.unit.set_interrupt_table(&mut unit.tables, INTERRUPT_ENTRIES, mode).map_err(step)
        });
        self.step("interrupt remapping", |unit| match unit.unassignable {
            Some(_) => Ok(()),
            None => unit.unit.enable_interrupt_remapping().map_err(step),
        });
        self.destination_mode = Some(mode);
    }

    /// Turns translation on, firmware's protected regions off, and lets the units report faults to this processor.
    /// Comes after the local APIC is in its final mode.
    pub fn start_translation(&mut self, fault_vector: Option<Vector>) {
        let step = UnitFailure::Step;
        self.step("translation", |unit| unit.unit.enable_translation().map_err(step));
        self.step("protected memory regions", |unit| unit.unit.disable_protected_memory().map_err(step));
        let Some(vector) = fault_vector else { return };
        let destination = local_apic::id();
        self.step("the fault interrupt", |unit| {
            unit.unit.enable_fault_interrupt(FaultInterrupt { vector, destination }).map_err(step)
        });
    }

    /// Makes units that have failed an invalidation usable again, if they can be: they must forget all that they have
    /// cached.
    pub fn recover(&mut self) {
        for RemappingUnit { unit, tables, base, .. } in self.iter_mut().filter(|unit| unit.unit.is_poisoned()) {
            match unit.recover(tables) {
                Ok(()) => log::info!("unit at {base}: it has forgotten everything, and is used again"),
                Err(error) => log::error!("unit at {base}: {error}"),
            }
        }
    }

    /// The working unit with registers at `base`.
    pub fn at(&mut self, base: HostPhys) -> Option<&mut RemappingUnit> {
        self.units.iter_mut().find(|unit| unit.base == base && unit.failure.is_none())
    }

    /// Why no device behind the unit at `base` can be assigned.
    fn failure_of(&self, base: HostPhys) -> Option<&UnitFailure> {
        let unit = self.units.iter().find(|unit| unit.base == base)?;
        unit.failure.as_ref().or(unit.unassignable.as_ref())
    }

    /// The working unit that serves `device`, or the reason in words why there is none.
    pub fn serving(
        &self,
        dmar: &Dmar<'_>,
        device: PciAddress,
        topology: &impl Topology,
    ) -> Result<HostPhys, alloc::string::String> {
        use alloc::format;
        let drhd = dmar.unit_for(device, topology).map_err(|error| format!("{error}"))?;
        if let Some(failure) = self.failure_of(drhd.register_base) {
            return Err(format!("its remapping unit at {} cannot be used: {failure}", drhd.register_base));
        }
        match self.units.iter().find(|unit| unit.base == drhd.register_base) {
            Some(unit) if unit.unit.is_poisoned() => {
                Err(format!("its remapping unit at {} has failed an invalidation", drhd.register_base))
            }
            Some(_) => Ok(drhd.register_base),
            None => Err(format!("its remapping unit at {} does not answer", drhd.register_base)),
        }
    }

    /// Whether `start..end` covers registers of a unit.
    pub fn overlap(&self, start: u64, end: u64) -> bool {
        self.units.iter().any(|unit| {
            let base = unit.base.as_u64();
            start < base + unit.unit.registers().0.bytes() && base < end
        })
    }

    /// All units that work.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut RemappingUnit> {
        self.units.iter_mut().filter(|unit| unit.failure.is_none())
    }
}
