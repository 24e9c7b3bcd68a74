//! What a guest's devices reach behind one remapping unit: the guest's memory, at its guest-physical addresses, and
//! nothing else.

use crate::passthrough::units::RemappingUnit;
use crate::vm::memory::GuestMemory;
use addr::{DomainId, HostPhys, Iova};
use alloc::format;
use alloc::string::{String, ToString};
use paging::{PageTable, Permissions, SecondStage, SecondStageAttributes};
use vtd::Levels;

/// The second stage of one guest's devices behind one unit.
#[derive(Debug)]
pub struct Domain {
    /// The unit's registers' address: what it is known by.
    pub unit: HostPhys,
    /// The tag under which the unit caches its translations.
    pub id: DomainId,
    /// The number of levels of the table.
    pub levels: Levels,
    table: PageTable<SecondStage>,
}

impl Domain {
    /// Builds the second stage for `memory` behind `unit`.
    pub fn new(unit: &mut RemappingUnit, id: DomainId, memory: &GuestMemory) -> Result<Self, String> {
        let capabilities = unit.unit.capabilities();
        let levels = capabilities.second_stage_levels().ok_or("the unit has no second stage")?;
        if memory.bytes() > 1 << capabilities.maximum_guest_address_width().min(levels.width()) {
            return Err("the guest's memory is beyond the unit's address width".to_string());
        }
        let mut table = PageTable::new(levels.count(), capabilities.largest_page(), &mut unit.tables)
            .map_err(|error| format!("{error}"))?;
        let attributes = SecondStageAttributes { snoop: capabilities.snoop_control() };
        let (start, bytes) = (Iova::new(0), memory.bytes());
        let flush = table
            .map(&mut unit.tables, start, memory.start(), bytes, Permissions::READ_WRITE, attributes)
            .map_err(|error| format!("{error}"))?;
        // The unit may cache under this id what it found absent, if it has caching mode and the id was used before.
        if let Some(change) = flush.invalidation() {
            let proof = unit.unit.invalidate(&mut unit.tables, id, change).map_err(|error| format!("{error}"))?;
            if flush.complete(&proof, &mut unit.tables).is_err() {
                return Err("an invalidation did not cover the change it was for".to_string());
            }
        }
        Ok(Self { unit: unit.base, id, levels, table })
    }

    /// Takes the tables down, after the last device of the domain was cleared: what the unit still holds of them is
    /// invalidated before their frames go back.
    pub fn destroy(self, unit: &mut RemappingUnit) -> Result<(), String> {
        let flush = self.table.destroy(&mut unit.tables);
        let Some(change) = flush.invalidation().copied() else { return Ok(()) };
        let proof = unit.unit.invalidate(&mut unit.tables, self.id, &change).map_err(|error| error.to_string())?;
        let lost = "an invalidation did not cover the change it was for";
        flush.complete(&proof, &mut unit.tables).map_err(|_| lost.to_string())
    }

    /// The table's root.
    pub fn root(&self) -> HostPhys {
        self.table.root()
    }

    /// Calls `visit` with the start and size of each piece of memory that the devices reach.
    pub fn for_each_reachable(&self, unit: &RemappingUnit, mut visit: impl FnMut(HostPhys, u64)) {
        self.table.for_each_leaf(&unit.tables, |leaf| visit(leaf.page.host, leaf.page.size.bytes()));
    }
}
