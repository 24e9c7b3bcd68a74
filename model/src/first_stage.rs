//! The first-stage walk (3.6, 9.7), alone or on top of a second stage (3.8).

use crate::caches::{CachedPage, DIRTY, NoPage, PageKey, READ, Tag, USER, WRITE, shift};
use crate::fault::{Access, Reason};
use crate::memory::{Memory, View};
use crate::request::Request;
use crate::second_stage::{ADDRESS, SecondStage};
use crate::unit::Unit;

const PRESENT: u64 = 1 << 0;
const MAY_WRITE: u64 = 1 << 1;
const MAY_USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTIED: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const EXTENDED_ACCESSED: u64 = 1 << 10;

/// Of a remembered table: the second stage, if there is one, lets the table itself be written.
const TABLE_WRITE: u64 = 1 << 4;

/// Where a table really is, and whether its accessed and dirty bits may be set there.
#[derive(Clone, Copy)]
struct Table {
    host: u64,
    writable: bool,
}

/// An entry that a walk used.
struct Visited {
    at: u64,
    writable: bool,
    entry: u64,
}

/// A first stage, as a PASID table entry describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstStage {
    pub tag: Tag,
    pub root: u64,
    pub levels: u8,
    /// WPE: supervisor requests obey the write permission too.
    pub write_protect: bool,
    /// EAFE: the extended accessed bit is kept too.
    pub extended_accessed: bool,
    /// How the unit reads paging entries.
    pub view: View,
    /// What translates the tables' addresses and the result, in a nested translation.
    pub second: Option<SecondStage>,
}

impl FirstStage {
    /// What a page gives to a request.
    fn finish(&self, request: &Request, address: u64, level: u8, page: CachedPage) -> Result<u64, Reason> {
        let base = page.target.map_err(|none| match none {
            NoPage::Absent => Reason::FIRST_STAGE_ABSENT,
            NoPage::Bad(reason) => reason,
        })?;
        let permissions = page.permissions;
        if permissions & USER == 0 && !request.supervisor {
            return Err(Reason::FIRST_STAGE_USER);
        }
        if request.access == Access::Write && permissions & WRITE == 0 && self.guards_writes(request) {
            return Err(Reason::SCALABLE_WRITE);
        }
        if request.access == Access::Read && permissions & READ == 0 {
            return Err(Reason::SCALABLE_READ);
        }
        Ok(base | address & ((1 << shift(level)) - 1))
    }

    fn guards_writes(&self, request: &Request) -> bool {
        !request.supervisor || self.write_protect
    }
}

impl Unit {
    /// Translates one address of a request.
    pub(crate) fn first_stage(
        &mut self,
        memory: &mut Memory,
        stage: &FirstStage,
        request: &Request,
        address: u64,
    ) -> Result<u64, Reason> {
        // All bits from the highest translated one up are the same (3.6).
        let upper = address as i64 >> (shift(stage.levels) + 8);
        if upper != 0 && upper != -1 {
            return Err(Reason::NOT_CANONICAL);
        }
        let write = request.access == Access::Write;
        if let Some((level, page)) = self.caches.leaf(stage.tag, address)
            && (!write || page.permissions & DIRTY != 0 || page.permissions & WRITE == 0 || page.target.is_err())
        {
            return stage.finish(request, address, level, page);
        }
        let (mut level, mut permissions) = (stage.levels, READ | WRITE | USER);
        let mut table = match self.caches.table(stage.tag, address, stage.levels) {
            Some((cached_level, page)) => {
                // What is remembered of a table is where it really is.
                let host = page.target.map_err(|_| Reason::FIRST_STAGE_ABSENT)?;
                (level, permissions) = (cached_level - 1, page.permissions & !TABLE_WRITE);
                Table { host, writable: page.permissions & TABLE_WRITE != 0 }
            }
            None => self.first_stage_table(memory, stage, stage.root, true)?,
        };
        let mut visited = Vec::new();
        loop {
            let at = table.host + 8 * (address >> shift(level) & 0x1ff);
            let entry = memory.read_u64(at, stage.view).ok_or(match level == stage.levels {
                true => Reason::FIRST_STAGE_ROOT_ACCESS,
                false => Reason::FIRST_STAGE_ACCESS,
            })?;
            visited.push(Visited { at, writable: table.writable, entry });
            let key = PageKey::new(stage.tag, level, address);
            let bad = if entry & PRESENT == 0 {
                Some(NoPage::Absent)
            } else if entry & self.first_stage_reserved(stage, level, entry) != 0 {
                Some(NoPage::Bad(Reason::FIRST_STAGE_RESERVED))
            } else {
                None
            };
            if let Some(none) = bad {
                let page = CachedPage { target: Err(none), permissions: 0 };
                if self.configuration.caching_mode {
                    self.caches.keep_leaf(PageKey::new(stage.tag, 1, address), page);
                    if level > 1 && none == NoPage::Absent {
                        self.caches.keep_table(key, page);
                    }
                }
                return stage.finish(request, address, level, page);
            }
            if entry & MAY_WRITE == 0 {
                permissions &= !WRITE;
            }
            if entry & MAY_USER == 0 {
                permissions &= !USER;
            }
            if level > 1 && entry & LARGE == 0 {
                table = self.first_stage_table(memory, stage, entry & ADDRESS, false)?;
                let writable = if table.writable { TABLE_WRITE } else { 0 };
                let page = CachedPage { target: Ok(table.host), permissions: permissions | writable };
                self.caches.keep_table(key, page);
                level -= 1;
                continue;
            }
            // The address bits of a large leaf that are not part of it: PAT stands in the lowest.
            let base = entry & ADDRESS & !((1 << shift(level)) - 1);
            let mut page = CachedPage { target: Ok(base), permissions };
            stage.finish(request, address, level, page)?;
            if let Some(second) = &stage.second {
                let wanted = if write { WRITE } else { READ };
                let input = base | address & ((1 << shift(level)) - 1);
                let below = self.second_stage(memory, second, input, wanted)?;
                level = level.min(below.level);
                page.target = Ok(below.address & !((1 << shift(level)) - 1));
                page.permissions &= below.permissions | USER;
            }
            self.mark_first_stage(memory, stage, &visited, write)?;
            if write {
                page.permissions |= DIRTY;
            }
            self.caches.keep_leaf(PageKey::new(stage.tag, level, address), page);
            return stage.finish(request, address, level, page);
        }
    }

    /// Where the table at `table` really is: in a nested translation, where the second stage lets it be read.
    fn first_stage_table(
        &mut self,
        memory: &mut Memory,
        stage: &FirstStage,
        table: u64,
        root: bool,
    ) -> Result<Table, Reason> {
        let Some(second) = &stage.second else { return Ok(Table { host: table, writable: true }) };
        let found = self.second_stage(memory, second, table, READ);
        found.map(|found| Table { host: found.address, writable: found.permissions & WRITE != 0 }).map_err(|reason| {
            match reason {
                Reason::SECOND_STAGE_BEYOND_WIDTH => Reason::FIRST_STAGE_BEYOND_WIDTH,
                Reason::SECOND_STAGE_ABSENT | Reason::SCALABLE_READ if root => Reason::FIRST_STAGE_ROOT_READ,
                Reason::SECOND_STAGE_ABSENT | Reason::SCALABLE_READ => Reason::FIRST_STAGE_READ,
                other => other,
            }
        })
    }

    /// Sets accessed bits in the entries that were used, and the dirty bit in the leaf, which is the last, of a write
    /// (3.6.2).
    fn mark_first_stage(
        &mut self,
        memory: &mut Memory,
        stage: &FirstStage,
        visited: &[Visited],
        write: bool,
    ) -> Result<(), Reason> {
        for (index, &Visited { at, writable, entry }) in visited.iter().enumerate() {
            let mut bits = ACCESSED;
            if stage.extended_accessed {
                bits |= EXTENDED_ACCESSED;
            }
            if write && index + 1 == visited.len() {
                bits |= DIRTIED;
            }
            match entry & bits == bits {
                true => {}
                false if !writable => return Err(Reason::FIRST_STAGE_WRITE),
                false if !stage.view.snoops => return Err(Reason::FIRST_STAGE_UPDATE),
                false => self.update_entry(memory, at, entry | bits),
            }
        }
        Ok(())
    }

    /// The bits that must be 0 in a present first-stage entry (9.7). Addresses of a nested translation are as wide as
    /// the second stage, which looks itself.
    fn first_stage_reserved(&self, stage: &FirstStage, level: u8, entry: u64) -> u64 {
        let mut reserved = match stage.second {
            Some(_) => 0,
            None => self.configuration.beyond_host_width() & ADDRESS,
        };
        let large = match level {
            2 => true,
            3 => self.configuration.first_stage_1g,
            _ => false,
        };
        if level > 1 && entry & LARGE != 0 {
            reserved |= if large { (1 << shift(level)) - (1 << 13) } else { LARGE };
        }
        reserved
    }
}
