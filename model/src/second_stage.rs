//! The second-stage walk (3.7, 9.8): the only one of legacy mode, and one of scalable mode's two.

use crate::caches::{CachedPage, DIRTY, NoPage, PageKey, READ, Tag, WRITE, shift};
use crate::fault::Reason;
use crate::memory::{Memory, View};
use crate::unit::Unit;

/// The address of a table or page in a paging entry of either stage.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// A of a second-stage entry.
const ACCESSED: u64 = 1 << 8;
/// D of a second-stage leaf.
const DIRTIED: u64 = 1 << 9;

/// A second stage, as a context entry or PASID table entry describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecondStage {
    pub domain: u16,
    pub root: u64,
    pub levels: u8,
    /// Scalable mode has fault reasons of its own.
    pub scalable: bool,
    /// How the unit reads paging entries.
    pub view: View,
    /// SSADE: accessed and dirty bits are kept.
    pub accessed_dirty: bool,
}

/// Where an address leads, the level of the leaf that says so, and what it permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated {
    pub address: u64,
    pub level: u8,
    pub permissions: u64,
}

impl SecondStage {
    fn either(&self, legacy: Reason, scalable: Reason) -> Reason {
        if self.scalable { scalable } else { legacy }
    }

    fn denied(&self, wanted: u64, permissions: u64) -> Reason {
        match (self.scalable, permissions & (READ | WRITE), wanted) {
            (true, 0, _) => Reason::SECOND_STAGE_ABSENT,
            (true, _, WRITE) => Reason::SCALABLE_WRITE,
            (true, ..) => Reason::SCALABLE_READ,
            (false, _, WRITE) => Reason::WRITE,
            (false, ..) => Reason::READ,
        }
    }

    fn finish(&self, address: u64, wanted: u64, level: u8, page: CachedPage) -> Result<Translated, Reason> {
        let base = page.target.map_err(|none| match none {
            NoPage::Absent => self.denied(wanted, 0),
            NoPage::Bad(reason) => reason,
        })?;
        match page.permissions & wanted {
            0 => Err(self.denied(wanted, page.permissions)),
            _ => Ok(Translated {
                address: base | address & ((1 << shift(level)) - 1),
                level,
                permissions: page.permissions,
            }),
        }
    }
}

impl Unit {
    /// Translates one address for an access that wants [`READ`] or [`WRITE`].
    pub(crate) fn second_stage(
        &mut self,
        memory: &mut Memory,
        stage: &SecondStage,
        address: u64,
        wanted: u64,
    ) -> Result<Translated, Reason> {
        let width = (shift(stage.levels) + 9).min(u32::from(self.configuration.guest_address_width));
        if address >> width != 0 {
            return Err(stage.either(Reason::BEYOND_WIDTH, Reason::SECOND_STAGE_BEYOND_WIDTH));
        }
        let tag = Tag::domain(stage.domain);
        if let Some((level, page)) = self.caches.leaf(tag, address)
            && (wanted != WRITE || page.permissions & DIRTY != 0 || page.permissions & WRITE == 0)
        {
            return stage.finish(address, wanted, level, page);
        }
        let (mut level, mut table, mut permissions) = (stage.levels, stage.root, READ | WRITE);
        if let Some((cached_level, page)) = self.caches.table(tag, address, stage.levels) {
            let target = page.target.map_err(|_| stage.denied(wanted, 0))?;
            (level, table, permissions) = (cached_level - 1, target, page.permissions);
        }
        let mut visited = Vec::new();
        loop {
            let at = table + 8 * (address >> shift(level) & 0x1ff);
            let entry = memory.read_u64(at, stage.view).ok_or(match level == stage.levels {
                true => stage.either(Reason::CONTEXT_INVALID, Reason::SECOND_STAGE_ROOT_ACCESS),
                false => stage.either(Reason::PAGING_ACCESS, Reason::SECOND_STAGE_ACCESS),
            })?;
            visited.push((at, entry));
            let key = PageKey::new(tag, level, address);
            let bad = if entry & 3 == 0 {
                Some(NoPage::Absent)
            } else if entry & self.second_stage_reserved(level, entry) != 0 {
                Some(NoPage::Bad(stage.either(Reason::PAGING_RESERVED, Reason::SECOND_STAGE_RESERVED)))
            } else {
                None
            };
            if let Some(none) = bad {
                let page = CachedPage { target: Err(none), permissions: 0 };
                // An entry that is not present or erroneous is remembered where CM allows it.
                if self.configuration.caching_mode {
                    self.caches.keep_leaf(PageKey::new(tag, 1, address), page);
                    if level > 1 && none == NoPage::Absent {
                        self.caches.keep_table(key, page);
                    }
                }
                return stage.finish(address, wanted, level, page);
            }
            permissions &= entry & 3;
            let leaf = level == 1 || entry & 0x80 != 0;
            if !leaf {
                self.caches.keep_table(key, CachedPage { target: Ok(entry & ADDRESS), permissions });
                (table, level) = (entry & ADDRESS, level - 1);
                continue;
            }
            let mut page = CachedPage { target: Ok(entry & ADDRESS), permissions };
            if permissions & wanted != 0 {
                if !stage.accessed_dirty || wanted == WRITE {
                    page.permissions |= DIRTY;
                }
                if stage.accessed_dirty {
                    self.mark_second_stage(memory, stage, &visited, wanted)?;
                }
            }
            if permissions & wanted != 0 || self.configuration.caching_mode {
                self.caches.keep_leaf(key, page);
            }
            return stage.finish(address, wanted, level, page);
        }
    }

    /// Sets accessed bits in the entries that were used, and the dirty bit in the leaf, which is the last, of a write
    /// (3.7.2).
    fn mark_second_stage(
        &mut self,
        memory: &mut Memory,
        stage: &SecondStage,
        visited: &[(u64, u64)],
        wanted: u64,
    ) -> Result<(), Reason> {
        for (index, &(at, entry)) in visited.iter().enumerate() {
            let leaf = index + 1 == visited.len();
            let bits = if leaf && wanted == WRITE { ACCESSED | DIRTIED } else { ACCESSED };
            if entry & bits != bits {
                if !stage.view.snoops {
                    return Err(Reason::SECOND_STAGE_UPDATE);
                }
                self.update_entry(memory, at, entry | bits);
            }
        }
        Ok(())
    }

    /// The unit changes a paging entry; a unit that is only asked what it would do does not.
    pub(crate) fn update_entry(&mut self, memory: &mut Memory, at: u64, entry: u64) {
        if !self.traceless {
            memory.device_write(at, &entry.to_le_bytes());
        }
    }

    /// The bits that must be 0 in a present second-stage entry (9.8). Bits 6:2 and 10:8 are ignored, so that EPT
    /// tables can be shared.
    fn second_stage_reserved(&self, level: u8, entry: u64) -> u64 {
        let mut reserved = self.configuration.beyond_host_width() & ADDRESS;
        // TM, without device-TLBs.
        reserved |= 1 << 62;
        let large = match level {
            2 => self.configuration.pages_2m,
            3 => self.configuration.pages_1g,
            _ => false,
        };
        let leaf = level == 1 || large && entry & 0x80 != 0;
        if !leaf || !self.configuration.snoop_control {
            reserved |= 1 << 11;
        }
        if level > 1 && entry & 0x80 != 0 {
            reserved |= if large { (1 << shift(level)) - (1 << 12) } else { 0x80 };
        }
        reserved
    }
}
