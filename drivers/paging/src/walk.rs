//! Reading the tree: what hardware would find.

use crate::{ENTRIES, Entry, Format, InputAddress, PageTable, Permissions, TableMemory, entry::leaf_size, geometry};
use addr::{HostPhys, PageSize};

/// What an input address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation<A> {
    /// Where the byte is.
    pub host: HostPhys,
    /// The size of the page that it is in.
    pub size: PageSize,
    /// What may be done with it.
    pub permissions: Permissions,
    /// The format's own attributes.
    pub attributes: A,
}

/// One page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf<I, A> {
    /// The first input address of the page.
    pub input: I,
    /// The page: its first byte, its size, and how it may be used.
    pub page: Translation<A>,
}

impl<F: Format> PageTable<F> {
    /// What hardware finds at `input` with nothing cached, or `None` for a fault.
    pub fn translate(&self, memory: &impl TableMemory, input: F::Input) -> Option<Translation<F::Attributes>> {
        let address = input.to_u64();
        if address >= self.input_end() {
            return None;
        }
        let mut table = self.root();
        for level in (1..=self.levels()).rev() {
            match Self::entry(memory, table, level, geometry::index(address, level)) {
                Entry::Table(child) => table = child,
                Entry::Leaf(mapping) => {
                    let size = leaf_size(level)?;
                    return Some(Translation {
                        host: HostPhys::new(mapping.host.as_u64() + (address & (size.bytes() - 1))),
                        size,
                        permissions: mapping.permissions,
                        attributes: mapping.attributes,
                    });
                }
                Entry::Absent | Entry::Malformed => return None,
            }
        }
        None
    }

    /// Calls `visit` for every page that is mapped, in the order of the input addresses: so that a caller can prove
    /// that a frame cannot be reached.
    pub fn for_each_leaf(&self, memory: &impl TableMemory, mut visit: impl FnMut(Leaf<F::Input, F::Attributes>)) {
        self.visit(memory, (self.root(), self.levels(), 0), &mut visit, &mut |_, _| {});
    }

    /// Calls `visit` with every table and its level, the root first.
    pub fn for_each_table(&self, memory: &impl TableMemory, mut visit: impl FnMut(HostPhys, u8)) {
        self.visit(memory, (self.root(), self.levels(), 0), &mut |_| {}, &mut visit);
    }

    /// Visits everything below and with a table, given with its level and the first input address that it covers.
    fn visit(
        &self,
        memory: &impl TableMemory,
        (table, level, base): (HostPhys, u8, u64),
        visit_leaf: &mut dyn FnMut(Leaf<F::Input, F::Attributes>),
        visit_table: &mut dyn FnMut(HostPhys, u8),
    ) {
        visit_table(table, level);
        for index in 0..ENTRIES {
            let input = base + index as u64 * geometry::slot_bytes(level);
            match Self::entry(memory, table, level, index) {
                Entry::Table(child) => self.visit(memory, (child, level - 1, input), visit_leaf, visit_table),
                Entry::Leaf(mapping) => {
                    let Some(size) = leaf_size(level) else { continue };
                    visit_leaf(Leaf {
                        input: F::Input::from_u64(input),
                        page: Translation {
                            host: mapping.host,
                            size,
                            permissions: mapping.permissions,
                            attributes: mapping.attributes,
                        },
                    });
                }
                Entry::Absent | Entry::Malformed => {}
            }
        }
    }
}
