//! The tree as its users see it: in one format, with that format's addresses and permissions.

use crate::{
    Entry, Flush, Format, InputAddress, Invalidation, Limits, MapError, Mapping, Permissions, TableMemory,
    address::Input,
    entry::ADDRESS,
    one::{Mapped, Unmapped},
    shape::Shape,
    walker::Walker,
};
use addr::{HostPhys, PageSize};
use core::{fmt, marker::PhantomData};

/// A tree of tables in the format `F`.
///
/// Every call takes the memory that the tables live in: the same one each time.
pub struct PageTable<F> {
    walker: Walker,
    format: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for PageTable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageTable({} levels from {})", self.walker.limits.levels, self.walker.root)
    }
}

impl<F: Format> PageTable<F> {
    const SHAPE: &'static Shape = &Shape::of::<F>();

    /// An empty tree of `levels` levels, whose leaves are of `largest` size and all smaller ones: hardware that has a
    /// size has the smaller sizes too. Hardware that can do less than the format otherwise needs [`Self::with_limits`].
    ///
    /// # Errors
    /// [`MapError::UnsupportedLevels`], [`MapError::OutOfMemory`].
    pub fn new(levels: u8, largest: PageSize, memory: &mut impl TableMemory) -> Result<Self, MapError<F::Input>> {
        Self::with_limits(Limits::new(levels, largest), memory)
    }

    /// An empty tree for hardware with `limits`.
    ///
    /// # Errors
    /// [`MapError::UnsupportedLevels`], [`MapError::OutOfMemory`].
    pub fn with_limits(limits: Limits, memory: &mut impl TableMemory) -> Result<Self, MapError<F::Input>> {
        if !F::LEVELS.contains(&limits.levels) {
            return Err(MapError::UnsupportedLevels(limits.levels));
        }
        let root = memory.allocate_table().ok_or(MapError::OutOfMemory)?;
        let (input_end, host_end) = (1 << limits.width::<F>(), 1 << limits.host_width());
        Ok(Self { walker: Walker { root, limits, input_end, host_end, shape: Self::SHAPE }, format: PhantomData })
    }

    /// The table at the top: what hardware is pointed to.
    pub fn root(&self) -> HostPhys {
        self.walker.root
    }

    /// The number of levels, which hardware must be told with the root.
    pub fn levels(&self) -> u8 {
        self.walker.limits.levels
    }

    /// The first input address, in bytes, that the tree cannot translate.
    pub fn input_end(&self) -> u64 {
        self.walker.input_end
    }

    /// Maps `len` bytes from `input` to the host memory from `host`, with the largest pages that fit. Where that fills a
    /// table with pages that one larger page can replace, it does, and the flush says so.
    ///
    /// # Errors
    /// The range is empty, misaligned or beyond what the table or an entry can hold; the format cannot say
    /// `permissions` or `attributes`; some part is mapped already; memory is out. Nothing has changed then.
    #[cfg_attr(feature = "small", inline)]
    #[cfg_attr(not(feature = "small"), inline(always))]
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        host: HostPhys,
        len: u64,
        permissions: Permissions,
        attributes: F::Attributes,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        if let Ok(bits) = self.bits(permissions, attributes)
            && let Some(mapped) = self.walker.map_one(Self::SHAPE, memory, input.to_u64(), host.as_u64(), len, bits)
        {
            let tables_changed = mapped == Mapped::InNewTables;
            return Ok(Flush::of(Invalidation { tables_changed, ..self.walker.invalidation(input, len, true) }));
        }
        self.map_many(memory, input, host, len, permissions, attributes)
    }

    /// The long way of [`Self::map`]; said to be cold so that the short way, where it is compiled into a loop, has the
    /// registers.
    #[cold]
    #[inline(never)]
    fn map_many(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        host: HostPhys,
        len: u64,
        permissions: Permissions,
        attributes: F::Attributes,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        let bits = self.bits(permissions, attributes)?;
        finish(self.walker.map(memory, input.to_u64(), host.as_u64(), len, bits))
    }

    /// Takes out whatever is mapped of the `len` bytes from `input`. A larger page of which only a part goes is
    /// split, and what is left of it stays mapped at every moment. A table all of whose range goes is detached; one that
    /// merely becomes empty stays for what is mapped there next ([`Self::release_empty_tables`] takes such tables).
    ///
    /// # Errors
    /// The range is empty, misaligned or beyond the table; memory is out for the tables of a split. Nothing has
    /// changed then. That nothing was mapped is no error.
    #[cfg_attr(feature = "small", inline)]
    #[cfg_attr(not(feature = "small"), inline(always))]
    pub fn unmap(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        len: u64,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        let removed = self.walker.invalidation(input, len, false);
        match self.walker.unmap_one(Self::SHAPE, memory, input.to_u64(), len) {
            Some(Unmapped::Page) => Ok(Flush::of(removed)),
            Some(Unmapped::Table(tree)) => {
                Ok(Flush::of_tree(Invalidation { tables_changed: true, ..removed }, tree, Self::SHAPE))
            }
            None => self.unmap_many(memory, input, len),
        }
    }

    /// The long way of [`Self::unmap`].
    #[cold]
    #[inline(never)]
    fn unmap_many(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        len: u64,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        finish(self.walker.unmap(memory, input.to_u64(), len))
    }

    /// Gives whatever is mapped of the `len` bytes from `input` other permissions and attributes; each page has the old
    /// or the new ones at every moment, and never none. A larger page of which only a part changes is split; small pages
    /// that have become alike are merged into a larger one. What is not mapped stays so.
    ///
    /// Until the flush is complete, hardware may go by the old permissions: more than the new ones grant, or less.
    ///
    /// # Errors
    /// The range is empty, misaligned or beyond the table; the format cannot say `permissions` or `attributes`; memory
    /// is out for the tables of a split; an entry is malformed. Nothing has changed then.
    pub fn protect(
        &mut self,
        memory: &mut impl TableMemory,
        input: F::Input,
        len: u64,
        permissions: Permissions,
        attributes: F::Attributes,
    ) -> Result<Flush<F::Input>, MapError<F::Input>> {
        let bits = self.bits(permissions, attributes)?;
        finish(self.walker.protect(memory, input.to_u64(), len, bits))
    }

    /// Detaches all tables that have become empty, the root apart: a table stays when its last mapping goes alone, since
    /// what was mapped there once is mapped there again in most systems. For when memory is wanted back; whole
    /// ranges that are unmapped take their tables with them anyway.
    pub fn release_empty_tables(&mut self, memory: &mut impl TableMemory) -> Flush<F::Input> {
        self.walker.release_empty_tables(memory).cast()
    }

    /// Takes the whole tree down. Hardware must have been pointed elsewhere first; what may still be cached is
    /// everything. The frames of all tables, the root's too, wait in the flush.
    pub fn destroy(self, memory: &mut impl TableMemory) -> Flush<F::Input> {
        self.walker.destroy(memory).cast()
    }

    /// What entry `index` of a table says.
    pub(crate) fn entry(memory: &impl TableMemory, table: HostPhys, level: u8, index: usize) -> Entry<F::Attributes> {
        let entry = memory.read_entry(table, index);
        if Self::SHAPE.is_table(entry, level) {
            return Entry::Table(HostPhys::new(entry & ADDRESS));
        }
        match F::decode(entry, level) {
            Entry::Table(_) => Entry::Malformed,
            entry => entry,
        }
    }

    /// The bits of a page's entry that say this, if it can be said on this hardware.
    #[inline]
    fn bits(&self, permissions: Permissions, attributes: F::Attributes) -> Result<u64, MapError<F::Input>> {
        if !F::supports(permissions, attributes) {
            return Err(MapError::Unsupported);
        }
        if !permissions.read && !self.walker.limits.write_only {
            return Err(MapError::WriteOnly);
        }
        let bits = F::leaf(PageSize::Size4K, Mapping { host: HostPhys::new(0), permissions, attributes });
        if bits & self.walker.limits.reserved != 0 { Err(MapError::Unsupported) } else { Ok(bits) }
    }
}

/// The walker's result, in a format's own kind of address.
#[inline]
fn finish<I: InputAddress>(result: Result<Flush<Input>, MapError<Input>>) -> Result<Flush<I>, MapError<I>> {
    match result {
        Ok(flush) => Ok(flush.cast()),
        Err(error) => Err(error.cast()),
    }
}
