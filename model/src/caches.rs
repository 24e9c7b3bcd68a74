//! What the unit remembers (6.2): context cache, IOTLB, paging-structure cache and interrupt entry cache.
//!
//! Entries stay until an invalidation that the specification says reaches them; nothing wider is dropped, although
//! hardware may. Tags are those of legacy mode: domain id, and for contexts also the source-id. Scalable mode would
//! add the PASID cache and PASID tags to [`PageKey`].

use crate::faults::Reason;
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

/// Where a translation stands: `level` 1 to 3 for leaves of 4 KiB, 2 MiB and 1 GiB, and for paging-structure entries
/// the level of the table that the entry is in (2 to 5). `number` is the address shifted by that level's width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PageKey {
    pub domain: u16,
    pub level: u8,
    pub number: u64,
}

/// The address bits below an entry at `level`.
pub(crate) const fn shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

impl PageKey {
    pub(crate) fn new(domain: u16, level: u8, address: u64) -> Self {
        Self { domain, level, number: address >> shift(level) }
    }

    fn overlaps(&self, first: u64, last: u64) -> bool {
        self.number >= first >> shift(self.level) && self.number <= last >> shift(self.level)
    }

    fn within(&self, first: u64, last: u64) -> bool {
        let start = self.number << shift(self.level);
        start >= first && start + ((1 << shift(self.level)) - 1) <= last
    }
}

/// An address (of a page or of the next table) with the permissions collected so far (bit 0 read, bit 1 write), or
/// why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedPage {
    pub target: Result<u64, Reason>,
    pub permissions: u64,
}

/// All caches of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    pub eviction: Eviction,
    contexts: HashMap<u16, CachedContext>,
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

    pub(crate) fn leaf(&mut self, domain: u16, address: u64) -> Option<(u8, CachedPage)> {
        for level in 1..=3 {
            let key = PageKey::new(domain, level, address);
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
    pub(crate) fn table(&mut self, domain: u16, address: u64, levels: u8) -> Option<(u8, CachedPage)> {
        for level in 2..=levels {
            let key = PageKey::new(domain, level, address);
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
        self.contexts.retain(|&source, context| match scope {
            ContextScope::Global => false,
            ContextScope::Domain(domain) => context.domain != domain,
            ContextScope::Device { domain, source: named, function_mask } => {
                let ignored: u16 = [0, 0b100, 0b110, 0b111][usize::from(function_mask & 3)];
                context.domain != domain || source & !ignored != named & !ignored
            }
        });
    }

    pub(crate) fn invalidate_pages(&mut self, scope: PageScope) {
        let (domain, first, last, leaves_only) = match scope {
            PageScope::Global => {
                self.leaves.clear();
                return self.tables.clear();
            }
            PageScope::Domain(domain) => (domain, 0, u64::MAX, false),
            PageScope::Pages { domain, address, mask, leaves_only } => {
                let size = 1u64.checked_shl(12 + u32::from(mask)).unwrap_or(0);
                let first = address & !size.wrapping_sub(1);
                (domain, first, first.wrapping_add(size).wrapping_sub(1), leaves_only)
            }
        };
        self.leaves.retain(|key, _| key.domain != domain || !key.overlaps(first, last));
        self.tables.retain(|key, page| {
            // With the hint, pointers to tables stay. What was not present may have become a leaf, which the
            // invalidation then covers whole; if it covers less, the leaf is below and a pointer has changed.
            let stays = leaves_only && (page.target.is_ok() || !key.within(first, last));
            key.domain != domain || !key.overlaps(first, last) || stays
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
                caches.keep_leaf(PageKey::new(domain, 1, page << 12), PAGE);
            }
            caches.keep_leaf(PageKey::new(domain, 2, 0x20_0000), PAGE);
            caches.keep_table(PageKey::new(domain, 2, 0), PAGE);
        }
        caches
    }

    #[test]
    fn page_invalidation_reaches_its_range_its_domain_and_no_more() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0x3000, mask: 1, leaves_only: true });
        let left: Vec<_> = (0..4).map(|page| caches.leaf(1, page << 12).is_some()).collect();
        assert_eq!(left, [true, true, false, false], "an address is rounded down to its mask");
        assert!(caches.leaf(2, 0x3000).is_some());
        assert!(caches.table(1, 0, 4).is_some(), "IH keeps the paging-structure cache");
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0, mask: 0, leaves_only: false });
        assert!(caches.table(1, 0, 4).is_none());
        assert!(caches.table(2, 0, 4).is_some());
    }

    #[test]
    fn invalidating_one_page_of_a_large_leaf_drops_the_leaf() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Pages { domain: 1, address: 0x2f_f000, mask: 0, leaves_only: true });
        assert!(caches.leaf(1, 0x20_0000).is_none());
    }

    #[test]
    fn domain_invalidation_leaves_other_domains() {
        let mut caches = caches();
        caches.invalidate_pages(PageScope::Domain(1));
        assert!(caches.leaf(1, 0).is_none() && caches.leaf(2, 0).is_some());
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
