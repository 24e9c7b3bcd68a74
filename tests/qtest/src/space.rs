//! An address space of a device: a table of either stage, and the domain id under which it is cached.

use crate::memory::Memory;
use addr::{DomainId, HostPhys, Iova, PageSize};
use paging::{FirstStage, Flush, MapError, PageTable, Permissions, SecondStage, SecondStageAttributes};
use vtd::Levels;

/// By which tables the unit translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Legacy mode.
    Legacy,
    /// Scalable mode, the second stage.
    ScalableSecond,
    /// Scalable mode, the first stage.
    ScalableFirst,
}

/// A table.
#[derive(Debug)]
enum Table {
    Second(PageTable<SecondStage>),
    First(PageTable<FirstStage>),
}

/// An address space.
#[derive(Debug)]
pub struct Space {
    table: Table,
    /// The domain id.
    pub domain: DomainId,
    /// How many levels the table has.
    pub levels: Levels,
    /// Whether leaves of the second stage say that accesses snoop.
    pub snoop: bool,
}

impl Space {
    /// An empty one.
    pub fn new(mode: Mode, levels: Levels, largest: PageSize, domain: DomainId, memory: &mut Memory) -> Self {
        let none = "memory for a table";
        let table = match mode {
            Mode::ScalableFirst => Table::First(PageTable::new(levels.count(), largest, memory).expect(none)),
            _ => Table::Second(PageTable::new(levels.count(), largest, memory).expect(none)),
        };
        Self { table, domain, levels, snoop: false }
    }

    /// The table at the top.
    pub fn root(&self) -> HostPhys {
        match &self.table {
            Table::Second(table) => table.root(),
            Table::First(table) => table.root(),
        }
    }

    /// Whether the table is one of the first stage.
    pub fn is_first_stage(&self) -> bool {
        matches!(self.table, Table::First(_))
    }

    /// The sizes of all pages that are mapped, in the order of their addresses.
    pub fn page_sizes(&self, memory: &Memory) -> Vec<u64> {
        let mut sizes = Vec::new();
        match &self.table {
            Table::Second(table) => table.for_each_leaf(memory, |leaf| sizes.push(leaf.page.size.bytes())),
            Table::First(table) => table.for_each_leaf(memory, |leaf| sizes.push(leaf.page.size.bytes())),
        }
        sizes
    }

    /// Maps a range.
    ///
    /// # Errors
    /// Those of [`PageTable::map`].
    pub fn map(
        &mut self,
        memory: &mut Memory,
        iova: Iova,
        host: HostPhys,
        bytes: u64,
        permissions: Permissions,
    ) -> Result<Flush<Iova>, MapError<Iova>> {
        let attributes = SecondStageAttributes { snoop: self.snoop };
        match &mut self.table {
            Table::Second(table) => table.map(memory, iova, host, bytes, permissions, attributes),
            Table::First(table) => table.map(memory, iova, host, bytes, permissions, ()),
        }
    }

    /// Unmaps a range.
    ///
    /// # Errors
    /// Those of [`PageTable::unmap`].
    pub fn unmap(&mut self, memory: &mut Memory, iova: Iova, bytes: u64) -> Result<Flush<Iova>, MapError<Iova>> {
        match &mut self.table {
            Table::Second(table) => table.unmap(memory, iova, bytes),
            Table::First(table) => table.unmap(memory, iova, bytes),
        }
    }
    /// Gives what is mapped of a range other permissions.
    ///
    /// # Errors
    /// Those of [`PageTable::protect`].
    pub fn protect(
        &mut self,
        memory: &mut Memory,
        iova: Iova,
        bytes: u64,
        permissions: Permissions,
    ) -> Result<Flush<Iova>, MapError<Iova>> {
        let attributes = SecondStageAttributes { snoop: self.snoop };
        match &mut self.table {
            Table::Second(table) => table.protect(memory, iova, bytes, permissions, attributes),
            Table::First(table) => table.protect(memory, iova, bytes, permissions, ()),
        }
    }

    /// Takes out all tables that have become empty.
    pub fn release_empty_tables(&mut self, memory: &mut Memory) -> Flush<Iova> {
        match &mut self.table {
            Table::Second(table) => table.release_empty_tables(memory),
            Table::First(table) => table.release_empty_tables(memory),
        }
    }
}
