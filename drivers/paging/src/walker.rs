//! The one walker: a tree of tables whatever its format, with addresses and entries as plain numbers.

use crate::{Flush, Invalidation, Limits, MapError, address::Input, list::Tree, shape::Shape};
use addr::{HostPhys, PAGE_SIZE};

/// A tree of tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walker {
    pub(crate) root: HostPhys,
    pub(crate) limits: Limits,
    /// The first input and the first host address that are out of range.
    pub(crate) input_end: u64,
    pub(crate) host_end: u64,
    pub(crate) shape: &'static Shape,
}

impl Walker {
    /// The whole tree.
    pub(crate) fn tree(&self) -> Tree {
        Tree { table: self.root, level: self.limits.levels }
    }

    /// What asks for an invalidation of a range.
    #[inline]
    pub(crate) fn invalidation<I>(&self, start: I, len: u64, only_added: bool) -> Invalidation<I> {
        Invalidation { root: self.root, start, len, tables_changed: false, only_added }
    }

    /// The end of the range of `len` bytes from `start`, if it is one that the tree can hold.
    pub(crate) fn end(&self, start: u64, len: u64) -> Result<u64, MapError<Input>> {
        match start.checked_add(len) {
            _ if len == 0 => Err(MapError::Empty),
            _ if (start | len) & (PAGE_SIZE - 1) != 0 => Err(MapError::Misaligned),
            Some(end) if end <= self.input_end => Ok(end),
            _ => Err(MapError::InputOutOfRange { bits: self.input_end.ilog2() }),
        }
    }

    /// Refuses host addresses that no entry can hold.
    pub(crate) fn check_host(&self, host: u64, len: u64) -> Result<(), MapError<Input>> {
        match host.checked_add(len) {
            _ if host & (PAGE_SIZE - 1) != 0 => Err(MapError::Misaligned),
            Some(end) if end <= self.host_end => Ok(()),
            _ => Err(MapError::HostOutOfRange { bits: self.host_end.ilog2() }),
        }
    }

    /// Nothing changed yet.
    pub(crate) fn unchanged(&self) -> Flush<Input> {
        Flush::none(self.root)
    }
}
