//! What becomes of the faults that the units record.

use crate::cpu::serving::{self, Served};
use crate::machine::config_space::MachineConfigSpace;
use crate::passthrough::assignment::Passthrough;
use crate::passthrough::fault_watch::Action;
use addr::{Bdf, PciAddress};
use alloc::vec::Vec;
use vtd::FaultRecord;

/// Rounds of draining one unit before its fault interrupt is left for later: a storm must not keep the processor.
const MAXIMUM_ROUNDS: usize = 4;

impl Passthrough {
    /// Drains the faults of all units; `seen` is shown each one with the number of the guest whose device it was.
    /// Devices that fault too often are taken out of service, and returned: their guests' view of them must follow.
    pub fn serve_faults(
        &mut self,
        config: &mut MachineConfigSpace,
        now_us: u64,
        mut seen: impl FnMut(&FaultRecord, Option<u8>),
    ) -> Vec<PciAddress> {
        let mut ended: Vec<Bdf> = Vec::new();
        for unit in self.units.iter_mut() {
            for _ in 0..MAXIMUM_ROUNDS {
                let mut last = None;
                let (devices, watch, faults) = (&self.devices, &mut self.watch, &mut self.faults);
                let drained = unit.unit.drain_faults(|record| {
                    let served = serving::replace(Served::Device(record.source));
                    *faults += 1;
                    last = Some(record.source);
                    let device = devices.iter().find(|device| device.requester_ids.as_slice().contains(&record.source));
                    seen(&record, device.map(|device| device.guest));
                    match watch.note(record.source, now_us) {
                        Action::Log => log::warn!("blocked: {record}"),
                        Action::LogLast => log::warn!("blocked: {record} (more within this second are only counted)"),
                        Action::Count => {}
                        Action::Quarantine => ended.push(record.source),
                    }
                    serving::set(served);
                });
                if let (true, Some(source)) = (drained.overflow, last) {
                    watch.overflowed(source, now_us);
                }
                if !drained.more {
                    break;
                }
            }
        }
        let mut quarantined = Vec::new();
        for source in ended {
            self.quarantine(config, source, &mut quarantined);
        }
        quarantined
    }

    /// Takes the device behind a requester id out of service for good, and the virtual functions that it has: it reaches
    /// nothing, and may not even try.
    fn quarantine(&mut self, config: &mut MachineConfigSpace, source: Bdf, ended: &mut Vec<PciAddress>) {
        let mut known = self.devices.iter();
        let Some(device) = known.find(|device| device.requester_ids.as_slice().contains(&source)) else {
            log::error!("{source}: a storm of faults from a device that nobody was given");
            return;
        };
        let meant = device.address();
        // Virtual functions stand behind their physical one.
        for device in self.devices.iter_mut().rev() {
            let address = device.address();
            let is_its = device.physical == Some(meant) && !device.absent;
            if device.quarantined || address != meant && !is_its {
                continue;
            }
            device.quarantined = true;
            self.quarantined += 1;
            let silent = device.absent || pci::disable_bus_mastering(config, address);
            if let Some(unit) = self.units.at(device.unit) {
                for source in device.requester_ids.as_slice() {
                    if let Err(error) = unit.unit.clear(&mut unit.tables, *source) {
                        log::error!("device {address}: {error}");
                    }
                }
                device.release_messages(unit);
            }
            let how = if silent { "bus mastering off" } else { "bus mastering cannot be turned off" };
            log::error!("device {address}: too many faults: quarantined ({how}, context entry cleared)");
            ended.push(address);
        }
    }

    /// Faults that the units have recorded so far.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// How many devices were quarantined so far.
    pub fn quarantined_so_far(&self) -> usize {
        self.quarantined
    }
}
