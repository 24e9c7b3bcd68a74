//! The tree: making one, adding mappings to it, taking it down.

use crate::{
    Entry, Flush, Format, InputAddress, Invalidation, MapError, Mapping, Permissions, TableMemory,
    entry::leaf_size,
    geometry::{Slot, slots},
    list::TableList,
};
use addr::{HostPhys, PAGE_SIZE, PageSize};
use core::{fmt, marker::PhantomData, ops::Range};

/// A tree of tables in the format `F`.
///
/// Every call takes the memory that the tables live in: the same one each time.
pub struct PageTable<F> {
    pub(crate) root: HostPhys,
    pub(crate) levels: u8,
    largest: PageSize,
    format: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for PageTable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageTable({} levels from {})", self.levels, self.root)
    }
}

/// A mapping to be made, of any length.
struct Request<A> {
    input: Range<u64>,
    host: u64,
    permissions: Permissions,
    attributes: A,
}

impl<A: Copy> Request<A> {
    /// What a leaf at `input`, which is in the range, says.
    fn mapping(&self, input: u64) -> Mapping<A> {
        let host = HostPhys::new(self.host + (input - self.input.start));
        Mapping { host, permissions: self.permissions, attributes: self.attributes }
    }
}

/// Where a recursion stands: a table, its level, and the first input address that it covers.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) table: HostPhys,
    pub(crate) level: u8,
    pub(crate) base: u64,
}

impl At {
    /// The table that `slot` of this one points to.
    pub(crate) fn child(self, table: HostPhys, slot: &Slot) -> Self {
        Self { table, level: self.level - 1, base: slot.covers.start }
    }
}

impl<F: Format> PageTable<F> {
    /// An empty tree of `levels` levels, whose leaves are of `largest` size and all smaller ones: hardware that has a
    /// size has the smaller sizes too.
    ///
    /// # Errors
    /// [`MapError::UnsupportedLevels`], [`MapError::OutOfMemory`].
    pub fn new(levels: u8, largest: PageSize, memory: &mut impl TableMemory) -> Result<Self, MapError<F::Input>> {
        if !F::LEVELS.contains(&levels) {
            return Err(MapError::UnsupportedLevels(levels));
        }
        let root = memory.allocate_table().ok_or(MapError::OutOfMemory)?;
        Ok(Self { root, levels, largest, format: PhantomData })
    }

    /// The table at the top: what hardware is pointed to.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// The number of levels, which hardware must be told with the root.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// The first input address, in bytes, that the tree cannot translate.
    pub fn input_end(&self) -> u64 {
        1 << F::input_bits(self.levels)
    }

    /// Maps `len` bytes from `input` to the host memory from `host`, with the largest pages that fit.
    ///
    /// # Errors
    /// The range is empty, misaligned or beyond what the table or an entry can hold; the format cannot say
    /// `permissions` or `attributes`; some part is mapped already; memory is out. Nothing has changed then.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        host: HostPhys,
        len: u64,
        permissions: Permissions,
        attributes: F::Attributes,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        let range = self.range(input, len)?;
        if !host.is_aligned(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        if host.checked_add(len).is_none_or(|end| end.as_u64() > 1 << 52) {
            return Err(MapError::HostOutOfRange);
        }
        if !F::supports(permissions, attributes) {
            return Err(MapError::Unsupported);
        }
        let request = Request { input: range, host: host.as_u64(), permissions, attributes };

        // Everything that can fail comes before the first store that hardware can see.
        let needed = self.plan_map(memory, Some(self.root), self.levels, 0, &request)?;
        let mut spare = TableList::reserve(needed, memory).ok_or(MapError::OutOfMemory)?;
        self.fill(memory, self.top(), &request, &mut spare);
        spare.free(memory);

        let mut flush = Flush::none(self.root);
        flush.note(Invalidation { root: self.root, start: input, len, tables_changed: needed > 0, only_added: true });
        Ok(flush)
    }

    /// Takes the whole tree down. Hardware must have been pointed elsewhere first; what may still be cached is
    /// everything. The frames of all tables, the root's too, wait in the flush.
    pub fn destroy(self, memory: &mut impl TableMemory) -> Flush<F::Input> {
        let mut flush = Flush::none(self.root);
        self.detach(memory, self.top(), &mut flush);
        flush.note(Invalidation {
            root: self.root,
            start: F::Input::from_u64(0),
            len: self.input_end(),
            tables_changed: true,
            only_added: false,
        });
        flush
    }

    /// Where every recursion starts.
    pub(crate) fn top(&self) -> At {
        At { table: self.root, level: self.levels, base: 0 }
    }

    /// What entry `index` of a table says. A pointer to a table at level 1 is none: there is nothing below.
    pub(crate) fn entry(memory: &impl TableMemory, table: HostPhys, level: u8, index: usize) -> Entry<F::Attributes> {
        match F::decode(memory.read_entry(table, index), level) {
            Entry::Table(_) if level <= 1 => Entry::Malformed,
            entry => entry,
        }
    }

    /// The error for a malformed entry.
    pub(crate) fn malformed(memory: &impl TableMemory, table: HostPhys, index: usize) -> MapError<F::Input> {
        MapError::Malformed { table, index, value: memory.read_entry(table, index) }
    }

    /// The range of `len` bytes from `input`, if it is one that the tree can hold.
    pub(crate) fn range(&self, input: F::Input, len: u64) -> Result<Range<u64>, MapError<F::Input>> {
        let start = input.to_u64();
        if len == 0 {
            return Err(MapError::Empty);
        }
        if !start.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        match start.checked_add(len) {
            Some(end) if end <= self.input_end() => Ok(start..end),
            _ => Err(MapError::InputOutOfRange),
        }
    }

    /// The size of the leaf that maps all of `slot`, or `None` if it needs a table.
    fn fits(&self, level: u8, slot: &Slot, request: &Request<F::Attributes>) -> Option<PageSize> {
        leaf_size(level).filter(|size| {
            *size <= self.largest && slot.is_whole() && request.mapping(slot.covers.start).host.is_aligned(size.bytes())
        })
    }

    /// The number of tables that `request` needs below `table` (`None`: a table that is to be made), if nothing in
    /// its way is mapped.
    fn plan_map(
        &self,
        memory: &impl TableMemory,
        table: Option<HostPhys>,
        level: u8,
        base: u64,
        request: &Request<F::Attributes>,
    ) -> Result<u64, MapError<F::Input>> {
        let mut needed = 0;
        if table.is_none() && level == 1 {
            return Ok(0);
        }
        for slot in slots(level, base, &request.input) {
            let (missing, child) = match table.map(|table| (table, Self::entry(memory, table, level, slot.index))) {
                None | Some((_, Entry::Absent)) if self.fits(level, &slot, request).is_some() => continue,
                None | Some((_, Entry::Absent)) => (1, None),
                Some((_, Entry::Table(child))) => (0, Some(child)),
                Some((_, Entry::Leaf(_))) => {
                    return Err(MapError::AlreadyMapped(F::Input::from_u64(slot.part.start)));
                }
                Some((table, Entry::Malformed)) => return Err(Self::malformed(memory, table, slot.index)),
            };
            needed += missing + self.plan_map(memory, child, level - 1, slot.covers.start, request)?;
        }
        Ok(needed)
    }

    /// Stores the leaves of `request` below `at`, with the tables that the plan found missing. A new table is filled
    /// before it is attached.
    fn fill(&self, memory: &mut impl TableMemory, at: At, request: &Request<F::Attributes>, spare: &mut TableList) {
        for slot in slots(at.level, at.base, &request.input) {
            if let Entry::Table(child) = Self::entry(memory, at.table, at.level, slot.index) {
                self.fill(memory, at.child(child, &slot), request, spare);
            } else if let Some(size) = self.fits(at.level, &slot, request) {
                memory.write_entry(at.table, slot.index, F::leaf(size, request.mapping(slot.covers.start)));
            } else {
                let child = spare.pop(memory).expect("the plan counted every missing table");
                self.fill(memory, at.child(child, &slot), request, spare);
                memory.write_entry(at.table, slot.index, F::table(child));
            }
        }
    }
}
