//! What of a function the guest reaches through the hypervisor only: the pages of its MSI-X table, and ranges that share
//! their page with something else.

use super::super::bars::HostRange;
use super::super::{EffectSink, Refusal};
use super::{AssignedFunction, Msix, in_function};
use addr::{GuestPhys, HostPhys};

/// What a guest's read there gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrappedRead {
    /// This value.
    Value(u64),
    /// What the real function answers at this address: it is not in the table.
    Forward(HostPhys),
}

/// What is left to do for a guest's write there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrappedWrite {
    /// Nothing.
    Done,
    /// The write, to the real function at this address: it is not in the table.
    Forward(HostPhys),
}

/// Where an access in the trapped pages falls.
enum Place {
    /// In the table, at this offset.
    Table(u64),
    /// Over an end of the table, from this offset.
    Across(i64),
    /// Elsewhere in the function.
    Beside(HostPhys),
}

impl AssignedFunction {
    /// The real pages that hold the MSI-X table: first byte, and length in bytes. They are in no guest's tables.
    pub fn trapped_pages(&self) -> Option<(HostPhys, u64)> {
        let range = self.bars.range(self.msix.as_ref()?.capability.table.bar)?;
        let HostRange::Memory(host) = range.host else { return None };
        let offsets = self.trapped_offsets(range.register)?;
        Some((host.checked_add(offsets.start)?, offsets.end - offsets.start))
    }

    /// A guest's read of `bytes` bytes at `address`, or `None` where that is not in the [`Self::trapped_pages`] or in a range
    /// that shares its page.
    pub fn read_trapped(&self, address: GuestPhys, bytes: usize, effects: &mut EffectSink<'_>) -> Option<TrappedRead> {
        Some(match self.place(address, bytes)? {
            Place::Table(offset) => TrappedRead::Value(self.msix_table()?.read(offset, bytes).unwrap_or_else(|| {
                self.refuse_table_access(offset as i64, bytes, effects);
                u64::MAX
            })),
            Place::Across(offset) => {
                self.refuse_table_access(offset, bytes, effects);
                TrappedRead::Value(u64::MAX)
            }
            Place::Beside(address) => TrappedRead::Forward(address),
        })
    }

    /// A guest's write of `bytes` bytes at `address`; see [`Self::read_trapped`].
    pub fn write_trapped(
        &mut self,
        address: GuestPhys,
        bytes: usize,
        value: u64,
        effects: &mut EffectSink<'_>,
    ) -> Option<TrappedWrite> {
        let host = self.host;
        let refused = match self.place(address, bytes)? {
            Place::Table(offset) => {
                let table = &mut self.msix.as_mut()?.table;
                let done = table.write(offset, bytes, value, &mut in_function(host, effects));
                if done { None } else { Some(offset as i64) }
            }
            Place::Across(offset) => Some(offset),
            Place::Beside(address) => return Some(TrappedWrite::Forward(address)),
        };
        if let Some(offset) = refused {
            self.refuse_table_access(offset, bytes, effects);
        }
        Some(TrappedWrite::Done)
    }

    /// Where an access falls, by where the guest reaches the ranges now.
    fn place(&self, address: GuestPhys, bytes: usize) -> Option<Place> {
        let in_table_pages = self.msix.as_ref().and_then(|msix| self.place_in_table_pages(msix, address, bytes));
        in_table_pages.or_else(|| {
            self.ranges().find_map(|range| {
                let host = range.shares_page()?;
                let start = address.as_u64().checked_sub(range.decoded?)?;
                let inside = start.checked_add(bytes as u64)? <= range.size;
                if inside { host.checked_add(start).map(Place::Beside) } else { None }
            })
        })
    }

    fn place_in_table_pages(&self, msix: &Msix, address: GuestPhys, bytes: usize) -> Option<Place> {
        let range = self.bars.range(msix.capability.table.bar)?;
        let trapped = self.trapped_offsets(range.register)?;
        let HostRange::Memory(host) = range.host else { return None };
        let start = address.as_u64().checked_sub(range.decoded?)?;
        let end = start.checked_add(bytes as u64)?;
        if start < trapped.start || end > trapped.end {
            return None;
        }
        let table = u64::from(msix.capability.table.offset);
        let table_end = table.checked_add(msix.table.length())?;
        Some(if end <= table || start >= table_end {
            Place::Beside(host.checked_add(start)?)
        } else if start >= table && end <= table_end {
            Place::Table(start - table)
        } else {
            Place::Across(start.wrapping_sub(table) as i64)
        })
    }

    fn refuse_table_access(&self, offset: i64, bytes: usize, effects: &mut EffectSink<'_>) {
        self.refuse(Refusal::MsixTableAccess { offset, bytes }, effects);
    }
}
