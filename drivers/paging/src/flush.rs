//! What hardware must forget after a change, and the tables that wait for it.

use crate::{
    InputAddress, TableMemory,
    free::free_tree,
    list::{Tree, TreeList},
    shape::Shape,
};
use addr::HostPhys;

/// What hardware may still have cached of a table after a change of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalidation<I> {
    /// The root of the table that was changed. Tags under which hardware caches it (domain id, VPID, ASID) are known
    /// to whoever attached it.
    pub root: HostPhys,
    /// The first input address whose translation may be stale; a multiple of 4 KiB.
    pub start: I,
    /// The number of bytes from there; a multiple of 4 KiB and not zero.
    pub len: u64,
    /// Entries that point to tables have changed too. If not, VT-d's invalidation hint (IH, section 6.5.2.3) may be
    /// set: cached pointers to tables are still right.
    pub tables_changed: bool,
    /// Entries went from absent to present, and nothing else changed. Only hardware that caches absent entries (VT-d
    /// with CAP.CM, section 6.1) needs an invalidation then.
    pub only_added: bool,
}

impl<I: InputAddress> Invalidation<I> {
    /// Everything that either of two changes of one table asks for, and the gap between them.
    fn union(self, other: Self) -> Self {
        let start = self.start.min(other.start);
        let end = (self.start.to_u64() + self.len).max(other.start.to_u64() + other.len);
        Self {
            root: self.root,
            start,
            len: end - start.to_u64(),
            tables_changed: self.tables_changed || other.tables_changed,
            only_added: self.only_added && other.only_added,
        }
    }
}

/// The proof that hardware has forgotten.
///
/// A driver implements it for a value that it makes only after the invalidation of every cache that may hold the
/// table has completed. Whoever implements it for something that can be made earlier gives away frames that devices
/// still write through; there should be few implementations, and each says why it is right.
pub trait InvalidationComplete<I> {
    /// Whether the caches that may hold what `invalidation` names have dropped it since the change.
    fn covers(&self, invalidation: &Invalidation<I>) -> bool;
}

/// The proof for a table that no hardware has been pointed to since it was made: nothing can be cached.
#[derive(Clone, Copy, Debug)]
pub struct NeverLoaded;

impl<I> InvalidationComplete<I> for NeverLoaded {
    fn covers(&self, _: &Invalidation<I>) -> bool {
        true
    }
}

/// The proof for hardware that does not cache absent entries (processors; VT-d with CAP.CM clear): it covers changes
/// that only added mappings, and no others.
#[derive(Clone, Copy, Debug)]
pub struct NotPresentIsNotCached;

impl<I> InvalidationComplete<I> for NotPresentIsNotCached {
    fn covers(&self, invalidation: &Invalidation<I>) -> bool {
        invalidation.only_added
    }
}

/// A change of a table that hardware may not know of yet.
///
/// The old translations may be in use until [`Flush::complete`]: until then the memory that was unmapped belongs to
/// whoever could reach it, and the addresses must not be mapped to something else. Dropping a flush loses the detached
/// tables, which is the safe way of being wrong.
#[must_use = "hardware may still use the old translations: invalidate, then call `complete` with the proof"]
#[derive(Debug)]
pub struct Flush<I> {
    root: HostPhys,
    invalidation: Option<Invalidation<I>>,
    detached: TreeList,
}

impl<I: InputAddress> Flush<I> {
    /// No change of the table at `root`: something to join others to.
    #[inline]
    pub fn none(root: HostPhys) -> Self {
        Self { root, invalidation: None, detached: TreeList::new() }
    }

    /// A change that asks for an invalidation, and detached no tables.
    #[inline]
    pub(crate) fn of(invalidation: Invalidation<I>) -> Self {
        Self { invalidation: Some(invalidation), ..Self::none(invalidation.root) }
    }

    /// A change that detached one tree.
    #[inline]
    pub(crate) fn of_tree(invalidation: Invalidation<I>, tree: Tree, shape: &'static Shape) -> Self {
        Self { detached: TreeList::one(tree, shape), ..Self::of(invalidation) }
    }

    /// What to invalidate, or `None` if nothing has changed.
    pub fn invalidation(&self) -> Option<&Invalidation<I>> {
        self.invalidation.as_ref()
    }

    /// Whether tables wait to be freed.
    pub fn has_detached_tables(&self) -> bool {
        !self.detached.is_empty()
    }

    /// The number of tables that wait to be freed.
    #[cfg(test)]
    pub(crate) fn detached_tables(&self, memory: &mut impl TableMemory) -> u64 {
        fn count(memory: &impl TableMemory, tree: Tree, shape: &Shape) -> u64 {
            let children = (0..if tree.level > 1 { crate::ENTRIES } else { 0 })
                .map(|index| memory.read_entry(tree.table, index))
                .filter(|entry| shape.is_table(*entry, tree.level));
            1 + children.map(|entry| count(memory, Tree::child(entry, tree.level), shape)).sum::<u64>()
        }
        let mut tables = 0;
        self.detached.for_each(memory, |memory, tree, shape| tables += count(memory, tree, shape));
        tables
    }

    /// Adds another change of the same table, so that one invalidation serves both.
    ///
    /// # Errors
    /// `other` comes back unchanged if it is of another table: other tags, other caches.
    pub fn join(&mut self, other: Self, memory: &mut impl TableMemory) -> Result<(), Self> {
        if other.root != self.root {
            return Err(other);
        }
        if let Some(invalidation) = other.invalidation {
            self.note(invalidation);
        }
        self.detached.append(other.detached, memory);
        Ok(())
    }

    /// Ends the change: gives the detached tables back to `memory`.
    ///
    /// # Errors
    /// The flush comes back unchanged if `proof` does not cover it.
    #[inline]
    pub fn complete(self, proof: &impl InvalidationComplete<I>, memory: &mut impl TableMemory) -> Result<(), Self> {
        if self.invalidation.as_ref().is_some_and(|invalidation| !proof.covers(invalidation)) {
            return Err(self);
        }
        self.detached.for_each(memory, free_tree);
        Ok(())
    }

    /// Adds a change to what is to be invalidated.
    pub(crate) fn note(&mut self, invalidation: Invalidation<I>) {
        self.invalidation = Some(self.invalidation.map_or(invalidation, |old| old.union(invalidation)));
    }

    /// Notes that entries which point to tables have changed.
    pub(crate) fn note_tables_changed(&mut self) {
        if let Some(invalidation) = &mut self.invalidation {
            invalidation.tables_changed = true;
        }
    }

    /// Takes a tree that nothing in the table points to any more.
    pub(crate) fn detach(&mut self, tree: Tree, shape: &'static Shape, memory: &mut impl TableMemory) {
        self.detached.push(tree, shape, memory);
    }

    /// The same change, in the table's own kind of address.
    #[inline]
    pub(crate) fn cast<J: InputAddress>(self) -> Flush<J> {
        let Self { root, invalidation, detached } = self;
        let invalidation = invalidation.map(|Invalidation { root, start, len, tables_changed, only_added }| {
            let start = J::from_u64(start.to_u64());
            Invalidation { root, start, len, tables_changed, only_added }
        });
        Flush { root, invalidation, detached }
    }
}
