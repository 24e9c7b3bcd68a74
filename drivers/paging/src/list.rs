//! A list of trees that are in no table any more, linked through the tables themselves: there is no allocator here.

use crate::{
    TableMemory,
    entry::{ADDRESS, LINK, LINK_SHIFT},
    shape::Shape,
};
use addr::HostPhys;

/// The number of bits of a link that one entry holds.
const PIECE_BITS: u32 = LINK.count_ones();
const PIECE: u64 = LINK >> LINK_SHIFT;
/// Entries that hold a link: 40 bits of a frame number, and 3 of a level.
const PIECES: usize = 9;
/// The number of bits of a link that say the level.
const LEVEL_BITS: u32 = 3;

/// The root of a tree of tables, and its level; level 1 is a table without others below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tree {
    /// The table at the top.
    pub(crate) table: HostPhys,
    /// Its level, 1 to 5.
    pub(crate) level: u8,
}

impl Tree {
    /// The tree that `entry` of a table at `level` points to, or will point to.
    pub(crate) fn child(entry: u64, level: u8) -> Self {
        Self { table: HostPhys::new(entry & ADDRESS), level: level - 1 }
    }
}

/// Trees that were detached and perhaps still are read by hardware, which may hold pointers to any of their tables.
///
/// Until hardware has forgotten, whatever it finds in a detached table must be what it found before: after a merge, the
/// old table still translates for whoever has a pointer to it cached. So nothing in them changes but bits that hardware
/// ignores: those hold the links.
#[derive(Debug)]
pub(crate) struct TreeList {
    ends: Option<Ends>,
}

/// The two ends of a list that is not empty.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: Packed,
    /// The last tree's table. Its link means nothing, and was never written.
    last: HostPhys,
    /// The format of all of them.
    shape: &'static Shape,
}

/// A [`Tree`] in one word: the level is where a table's address has zeros.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

impl From<Tree> for Packed {
    fn from(tree: Tree) -> Self {
        Self(tree.table.as_u64() & ADDRESS | u64::from(tree.level))
    }
}

impl From<Packed> for Tree {
    fn from(packed: Packed) -> Self {
        Self { table: HostPhys::new(packed.0 & ADDRESS), level: (packed.0 & !ADDRESS) as u8 }
    }
}

impl TreeList {
    /// No trees.
    pub(crate) const fn new() -> Self {
        Self { ends: None }
    }

    /// One tree.
    #[inline]
    pub(crate) fn one(tree: Tree, shape: &'static Shape) -> Self {
        Self { ends: Some(Ends { first: tree.into(), last: tree.table, shape }) }
    }

    /// Adds a tree, of the format of those that are there.
    pub(crate) fn push(&mut self, tree: Tree, shape: &'static Shape, memory: &mut impl TableMemory) {
        self.append(Self::one(tree, shape), memory);
    }

    /// Adds all trees of `other` before those that are there.
    pub(crate) fn append(&mut self, other: Self, memory: &mut impl TableMemory) {
        let Some(mut ends) = other.ends else { return };
        if let Some(old) = self.ends {
            write_link(memory, ends.last, old.first.into());
            ends.last = old.last;
        }
        self.ends = Some(ends);
    }

    /// Whether there is no tree.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Calls `visit` with each tree, which it may destroy.
    #[inline]
    pub(crate) fn for_each<M: TableMemory>(&self, memory: &mut M, visit: impl FnMut(&mut M, Tree, &Shape)) {
        // The parts and not the whole, which would have to be in memory.
        if let Some(Ends { first, last, shape }) = self.ends {
            for_each_from(first, last, shape, memory, visit);
        }
    }
}

#[inline(never)]
fn for_each_from<M: TableMemory>(
    first: Packed,
    last: HostPhys,
    shape: &Shape,
    memory: &mut M,
    mut visit: impl FnMut(&mut M, Tree, &Shape),
) {
    let mut tree = Tree::from(first);
    loop {
        let next = (tree.table != last).then(|| read_link(memory, tree.table));
        visit(memory, tree, shape);
        match next {
            Some(next) => tree = next,
            None => return,
        }
    }
}

fn write_link(memory: &mut impl TableMemory, table: HostPhys, next: Tree) {
    let mut link = (next.table.as_u64() & ADDRESS) >> 12 << LEVEL_BITS | u64::from(next.level);
    for index in 0..PIECES {
        let rest = memory.read_entry(table, index) & !LINK;
        memory.fill_entry(table, index, rest | (link & PIECE) << LINK_SHIFT);
        link >>= PIECE_BITS;
    }
}

fn read_link(memory: &impl TableMemory, table: HostPhys) -> Tree {
    let link = (0..PIECES)
        .rev()
        .fold(0, |link, index| link << PIECE_BITS | (memory.read_entry(table, index) >> LINK_SHIFT & PIECE));
    Tree { table: HostPhys::new(link >> LEVEL_BITS << 12), level: (link & ((1 << LEVEL_BITS) - 1)) as u8 }
}
