//! What the unit remembers (6.2): context cache, PASID cache, IOTLB, paging-structure cache and interrupt entry cache.
//!
//! Entries stay until an invalidation that the specification says reaches them; nothing wider is dropped, although
//! hardware may. Contexts are tagged with the source-id, in legacy mode also with the domain id; PASID table entries
//! with source-id, PASID and domain id; pages as [`Tag`] says.

use crate::fault::Reason;
use std::collections::HashMap;

/// When entries leave without being invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// Never: every missing invalidation shows.
    Never,
    /// A look-up finds its entry gone once in `one_in` times, by a pseudo-random sequence from `seed`: code that
    /// relies on an entry being remembered shows.
    PseudoRandom {
        /// Start of the sequence, not 0.
        seed: u64,
        /// At least 1; 1 remembers nothing.
        one_in: u64,
    },
}

/// A context entry as cached; `Err` is one that is not present or erroneous, cached only with CAP.CM=1 and then
/// tagged with domain 0 (6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedContext {
    pub domain: u16,
    pub entry: Result<u128, (Reason, bool)>,
}

/// A context entry of scalable mode as cached: without a domain id.
pub(crate) type CachedScalableContext = Result<[u64; 4], (Reason, bool)>;

/// A PASID table entry as cached, with the FPD bits that lead to it; `Err` is one that is not present or erroneous, or
/// whose directory entry is, cached only with CAP.CM=1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedPasid {
    pub domain: u16,
    pub entry: Result<([u64; 8], bool), (Reason, bool)>,
}

/// Under what a page or a table is remembered (6.2.1): a domain id alone for the second stage and legacy mode; with a
/// PASID for first-stage, nested and pass-through translations, whichever of them it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tag {
    pub domain: u16,
    pub pasid: Option<u32>,
}

impl Tag {
    /// The second stage of a domain.
    pub(crate) fn domain(domain: u16) -> Self {
        Self { domain, pasid: None }
    }
}

/// Where a translation stands: `level` 1 to 3 for leaves of 4 KiB, 2 MiB and 1 GiB, and for paging-structure entries
/// the level of the table that the entry is in (2 to 5). `number` is the address shifted by that level's width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PageKey {
    pub tag: Tag,
    pub level: u8,
    pub number: u64,
}

/// The address bits below an entry at `level`.
pub(crate) const fn shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

impl PageKey {
    pub(crate) fn new(tag: Tag, level: u8, address: u64) -> Self {
        Self { tag, level, number: address >> shift(level) }
    }

    fn overlaps(&self, first: u64, last: u64) -> bool {
        self.number >= first >> shift(self.level) && self.number <= last >> shift(self.level)
    }

    fn within(&self, first: u64, last: u64) -> bool {
        let start = self.number << shift(self.level);
        start >= first && start + ((1 << shift(self.level)) - 1) <= last
    }
}

/// Why there is no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoPage {
    /// An entry that is not present.
    Absent,
    /// An entry that is erroneous.
    Bad(Reason),
}

/// The page may be read.
pub(crate) const READ: u64 = 1;
/// The page may be written.
pub(crate) const WRITE: u64 = 2;
/// Requests without supervisor privilege may use the page (first stage).
pub(crate) const USER: u64 = 4;
/// The dirty bits of the page are set, or nobody wants them: a write needs no walk.
pub(crate) const DIRTY: u64 = 8;

/// An address (of a page or of the next table) with the permissions collected so far, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedPage {
    pub target: Result<u64, NoPage>,
    pub permissions: u64,
}

/// All caches of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    pub eviction: Eviction,
    contexts: HashMap<u16, CachedContext>,
    scalable_contexts: HashMap<u16, CachedScalableContext>,
    pasids: HashMap<(u16, u32), CachedPasid>,
    leaves: HashMap<PageKey, CachedPage>,
    tables: HashMap<PageKey, CachedPage>,
    interrupts: HashMap<u32, u128>,
}

/// What an IOTLB invalidation reaches (6.5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageScope {
    Global,
    Domain(u16),
    Pages { domain: u16, address: u64, mask: u8, leaves_only: bool },
}

/// What a PASID-based IOTLB invalidation reaches (6.5.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PasidPageScope {
    All { domain: u16, pasid: u32 },
    Pages { domain: u16, pasid: u32, address: u64, mask: u8, leaves_only: bool },
}

/// What a PASID-cache invalidation reaches (6.5.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PasidScope {
    Global,
    Domain(u16),
    Pasid { domain: u16, pasid: u32 },
}

/// What a context-cache invalidation reaches (6.5.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ContextScope {
    Global,
    Domain(u16),
    Device { domain: u16, source: u16, function_mask: u8 },
}

/// What an interrupt-entry-cache invalidation reaches (6.5.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptScope {
    Global,
    Index { first: u16, mask: u8 },
}

impl Caches {
    pub(crate) fn new(eviction: Eviction) -> Self {
        Self {
            eviction,
            contexts: HashMap::new(),
            scalable_contexts: HashMap::new(),
            pasids: HashMap::new(),
            leaves: HashMap::new(),
            tables: HashMap::new(),
            interrupts: HashMap::new(),
        }
    }

    /// Whether the entry about to be found has just been lost.
    fn lost(&mut self) -> bool {
        let Eviction::PseudoRandom { seed, one_in } = &mut self.eviction else { return false };
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        seed.is_multiple_of((*one_in).max(1))
    }

    pub(crate) fn context(&mut self, source: u16) -> Option<CachedContext> {
        if self.lost() {
            self.contexts.remove(&source);
        }
        self.contexts.get(&source).copied()
    }

    pub(crate) fn keep_context(&mut self, source: u16, context: CachedContext) {
        self.contexts.insert(source, context);
    }

    /// Another cached context of `domain` with other contents, if any.
    pub(crate) fn rival(&self, domain: u16, pointer: u64) -> bool {
        self.contexts.values().any(|context| {
            context.domain == domain && context.entry.is_ok_and(|entry| entry as u64 & !0xfff != pointer)
        })
    }

    pub(crate) fn scalable_context(&mut self, source: u16) -> Option<CachedScalableContext> {
        if self.lost() {
            self.scalable_contexts.remove(&source);
        }
        self.scalable_contexts.get(&source).copied()
    }

    pub(crate) fn keep_scalable_context(&mut self, source: u16, context: CachedScalableContext) {
        self.scalable_contexts.insert(source, context);
    }

    pub(crate) fn pasid(&mut self, source: u16, pasid: u32) -> Option<CachedPasid> {
        if self.lost() {
            self.pasids.remove(&(source, pasid));
        }
        self.pasids.get(&(source, pasid)).copied()
    }

    pub(crate) fn keep_pasid(&mut self, source: u16, pasid: u32, entry: CachedPasid) {
        self.pasids.insert((source, pasid), entry);
    }

    /// The cached PASID table entries of `domain` that are good, with the PASID of each.
    pub(crate) fn pasids_of(&self, domain: u16) -> impl Iterator<Item = (u32, [u64; 8])> {
        self.pasids
            .iter()
            .filter(move |(_, cached)| cached.domain == domain)
            .filter_map(|(&(_, pasid), cached)| Some((pasid, cached.entry.ok()?.0)))
    }

    pub(crate) fn leaf(&mut self, tag: Tag, address: u64) -> Option<(u8, CachedPage)> {
        for level in 1..=3 {
            let key = PageKey::new(tag, level, address);
            if self.leaves.contains_key(&key) && self.lost() {
                self.leaves.remove(&key);
            }
            if let Some(page) = self.leaves.get(&key) {
                return Some((level, *page));
            }
        }
        None
    }

    pub(crate) fn keep_leaf(&mut self, key: PageKey, page: CachedPage) {
        self.leaves.insert(key, page);
    }

    /// The cached table entry nearest to the leaf, with the level of the table that it is in.
    pub(crate) fn table(&mut self, tag: Tag, address: u64, levels: u8) -> Option<(u8, CachedPage)> {
        for level in 2..=levels {
            let key = PageKey::new(tag, level, address);
            if self.tables.contains_key(&key) && self.lost() {
                self.tables.remove(&key);
            }
            if let Some(page) = self.tables.get(&key) {
                return Some((level, *page));
            }
        }
        None
    }

    pub(crate) fn keep_table(&mut self, key: PageKey, page: CachedPage) {
        self.tables.insert(key, page);
    }

    pub(crate) fn interrupt(&mut self, index: u32) -> Option<u128> {
        if self.lost() {
            self.interrupts.remove(&index);
        }
        self.interrupts.get(&index).copied()
    }

    pub(crate) fn keep_interrupt(&mut self, index: u32, entry: u128) {
        self.interrupts.insert(index, entry);
    }

    pub(crate) fn invalidate_contexts(&mut self, scope: ContextScope) {
        // In scalable mode a context has no domain id, and that of the descriptor is ignored.
        self.scalable_contexts.retain(|&source, _| match scope {
            ContextScope::Global => false,
            ContextScope::Domain(_) => true,
            ContextScope::Device { source: named, function_mask, .. } => {
                let ignored: u16 = [0, 0b100, 0b110, 0b111][usize::from(function_mask & 3)];
                source & !ignored != named & !ignored
            }
        });
        self.contexts.retain(|&source, context| match scope {
            ContextScope::Global => false,
            ContextScope::Domain(domain) => context.domain != domain,
            ContextScope::Device { domain, source: named, function_mask } => {
                let ignored: u16 = [0, 0b100, 0b110, 0b111][usize::from(function_mask & 3)];
                context.domain != domain || source & !ignored != named & !ignored
            }
        });
    }

    pub(crate) fn invalidate_pasids(&mut self, scope: PasidScope) {
        self.pasids.retain(|&(_, pasid), cached| match scope {
            PasidScope::Global => false,
            PasidScope::Domain(domain) => cached.domain != domain,
            PasidScope::Pasid { domain, pasid: named } => cached.domain != domain || pasid != named,
        });
    }

    pub(crate) fn invalidate_pages(&mut self, scope: PageScope) {
        let (domain, address, mask, leaves_only) = match scope {
            PageScope::Global => {
                self.leaves.clear();
                return self.tables.clear();
            }
            PageScope::Domain(domain) => (domain, 0, 52, false),
            PageScope::Pages { domain, address, mask, leaves_only } => (domain, address, mask, leaves_only),
        };
        self.drop_pages(Tag::domain(domain), address, mask, leaves_only);
        // What went through a first stage before has other addresses: all of it goes (6.5.2.3), and with it the
        // pointers to first-stage tables, which the second stage has translated.
        self.leaves.retain(|key, _| key.tag.domain != domain || key.tag.pasid.is_none());
        self.tables.retain(|key, _| key.tag.domain != domain || key.tag.pasid.is_none());
    }

    /// The second stage's own entries stay.
    pub(crate) fn invalidate_pasid_pages(&mut self, scope: PasidPageScope) {
        match scope {
            PasidPageScope::All { domain, pasid } => {
                self.drop_pages(Tag { domain, pasid: Some(pasid) }, 0, 52, false);
            }
            PasidPageScope::Pages { domain, pasid, address, mask, leaves_only } => {
                self.drop_pages(Tag { domain, pasid: Some(pasid) }, address, mask, leaves_only);
            }
        }
    }

    /// Drops the 2^`mask` pages at `address` of one tag.
    fn drop_pages(&mut self, tag: Tag, address: u64, mask: u8, leaves_only: bool) {
        let size = 1u64.checked_shl(12 + u32::from(mask)).unwrap_or(0);
        let first = address & !size.wrapping_sub(1);
        let last = first.wrapping_add(size).wrapping_sub(1);
        self.leaves.retain(|key, _| key.tag != tag || !key.overlaps(first, last));
        self.tables.retain(|key, page| {
            // With the hint, pointers to tables stay. What was not present may have become a leaf, which the
            // invalidation then covers whole; if it covers less, the leaf is below and a pointer has changed.
            let stays = leaves_only && (page.target.is_ok() || !key.within(first, last));
            key.tag != tag || !key.overlaps(first, last) || stays
        });
    }

    pub(crate) fn invalidate_interrupts(&mut self, scope: InterruptScope) {
        self.interrupts.retain(|&index, _| match scope {
            InterruptScope::Global => false,
            InterruptScope::Index { first, mask } => {
                let ignored = 1u32.checked_shl(mask.into()).unwrap_or(0).wrapping_sub(1);
                index & !ignored != u32::from(first) & !ignored
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: CachedPage = CachedPage { target: Ok(0x1000), permissions: 3 };

    fn caches() -> Caches {
        let mut caches = Caches::new(Eviction::Never);
        for domain in [1, 2] {
            for page in 0..4 {
                caches.keep_leaf(PageKey::new(Tag::domain(domain), 1, page << 12), PAGE);
            }
            caches.keep_leaf(PageKey::new(Tag::domain(domain), 2, 0x20_0000), PAGE);
            caches.keep_table(PageKey::new(Tag::domain(domain), 2, 0), PAGE);
        }
        caches
    }

    #[test]
    fn page_invalidation_reaches_its_range_its_domain_and_no_more() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0x3000, mask: 1, leaves_only: true });
        let left: Vec<_> = (0..4).map(|page| caches.leaf(Tag::domain(1), page << 12).is_some()).collect();
        assert_eq!(left, [true, true, false, false], "an address is rounded down to its mask");
        assert!(caches.leaf(Tag::domain(2), 0x3000).is_some());
        assert!(caches.table(Tag::domain(1), 0, 4).is_some(), "IH keeps the paging-structure cache");
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0, mask: 0, leaves_only: false });
        assert!(caches.table(Tag::domain(1), 0, 4).is_none());
        assert!(caches.table(Tag::domain(2), 0, 4).is_some());
    }

    #[test]
    fn invalidating_one_page_of_a_large_leaf_drops_the_leaf() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0x2f_f000, mask: 0, leaves_only: true });
        assert!(caches.leaf(Tag::domain(1), 0x20_0000).is_none());
    }

    #[test]
    fn domain_invalidation_leaves_other_domains() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Domain(1));
        assert!(caches.leaf(Tag::domain(1), 0).is_none() && caches.leaf(Tag::domain(2), 0).is_some());
    }

    #[test]
    fn device_invalidation_needs_the_domain_of_the_cached_entry() {
        let mut caches = Caches::new(Eviction::Never);
        for source in [0x10, 0x14, 0x18] {
            caches.keep_context(source, CachedContext { domain: 7, entry: Ok(1) });
        }
        caches.invalidate_contexts(ContextScope::Device { domain: 8, source: 0x10, function_mask: 0 });
        assert!(caches.context(0x10).is_some(), "the new domain's id does not reach the old entry");
        caches.invalidate_contexts(ContextScope::Device { domain: 7, source: 0x10, function_mask: 1 });
        let left = [0x10, 0x14, 0x18].map(|source| caches.context(source).is_some());
        assert_eq!(left, [false, false, true]);
    }

    #[test]
    fn pasid_invalidation_is_by_domain_and_pasid_and_of_every_device() {
        let mut caches = Caches::new(Eviction::Never);
        let entry = Ok(([0; 8], false));
        for (source, pasid, domain) in [(1, 5, 7), (2, 5, 7), (1, 6, 7), (1, 7, 8)] {
            caches.keep_pasid(source, pasid, CachedPasid { domain, entry });
        }
        let mut left = |scope| {
            caches.invalidate_pasids(scope);
            [(1, 5), (2, 5), (1, 6), (1, 7)].map(|(source, pasid)| caches.pasid(source, pasid).is_some())
        };
        assert_eq!(left(PasidScope::Pasid { domain: 8, pasid: 5 }), [true; 4]);
        assert_eq!(left(PasidScope::Pasid { domain: 7, pasid: 5 }), [false, false, true, true]);
        assert_eq!(left(PasidScope::Domain(8)), [false, false, true, false]);
        assert_eq!(left(PasidScope::Global), [false; 4]);
    }

    #[test]
    fn pages_of_a_pasid_go_by_their_own_invalidation_or_with_their_domain() {
        let tag = |pasid| Tag { domain: 1, pasid: Some(pasid) };
        let filled = || {
            let mut caches = caches();
            for pasid in [3, 4] {
                caches.keep_leaf(PageKey::new(tag(pasid), 1, 0x1000), PAGE);
                caches.keep_table(PageKey::new(tag(pasid), 2, 0x1000), PAGE);
            }
            caches
        };
        let left = |caches: &mut Caches| {
            [tag(3), tag(4), Tag::domain(1)]
                .map(|tag| (caches.leaf(tag, 0x1000).is_some(), caches.table(tag, 0x1000, 4).is_some()))
        };
        let pages = |address, leaves_only| PasidPageScope::Pages { domain: 1, pasid: 3, address, mask: 0, leaves_only };
        let (all, none) = ((true, true), (false, false));
        for (scope, expected) in [
            (pages(0x2000, true), [all; 3]),
            (pages(0x2000, false), [(true, false), all, all]),
            (pages(0x1000, true), [(false, true), all, all]),
            (PasidPageScope::All { domain: 1, pasid: 3 }, [none, all, all]),
            (PasidPageScope::All { domain: 2, pasid: 3 }, [all; 3]),
        ] {
            let mut caches = filled();
            caches.invalidate_pasid_pages(scope);
            assert_eq!(left(&mut caches), expected, "{scope:?}");
        }
        let mut caches = filled();
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0x3000, mask: 0, leaves_only: true });
        assert_eq!(left(&mut caches), [none, none, all], "the second stage may be below any of them");
        let mut caches = filled();
        caches.invalidate_pages(PageScope::Domain(1));
        assert_eq!(left(&mut caches), [none; 3]);
    }

    #[test]
    fn interrupt_invalidation_by_index_covers_its_mask() {
        let mut caches = Caches::new(Eviction::Never);
        for index in 0..8 {
            caches.keep_interrupt(index, 1);
        }
        caches.invalidate_interrupts(InterruptScope::Index { first: 5, mask: 1 });
        let left: Vec<_> = (0..8).filter(|&index| caches.interrupt(index).is_some()).collect();
        assert_eq!(left, [0, 1, 2, 3, 6, 7]);
    }

    #[test]
    fn pseudo_random_eviction_forgets_and_is_repeatable() {
        let run = || {
            let mut caches = Caches::new(Eviction::PseudoRandom { seed: 5, one_in: 2 });
            (0..16)
                .map(|_| {
                    caches.keep_interrupt(0, 1);
                    caches.interrupt(0).is_some()
                })
                .collect::<Vec<_>>()
        };
        assert!(run().contains(&true) && run().contains(&false));
        assert_eq!(run(), run());
    }
}
