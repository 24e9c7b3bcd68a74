//! Scalable mode's way from a request to a translation (3.4.3): root entry, context entry, PASID directory, PASID table.

use crate::caches::{CachedPasid, Tag};
use crate::fault::Reason;
use crate::first_stage::FirstStage;
use crate::memory::{Memory, View};
use crate::request::Request;
use crate::second_stage::SecondStage;
use crate::unit::Unit;
use crate::violation::Violation;

/// Why a request is blocked, and whether a fault processing disable bit says not to record it.
pub(crate) type Blocked = (Reason, bool);

/// A context entry (9.4).
#[derive(Clone, Copy)]
struct Context([u64; 4]);

impl Context {
    fn fault_processing_disable(self) -> bool {
        self.0[0] & 2 != 0
    }
    fn device_tlb_enable(self) -> bool {
        self.0[0] & 4 != 0
    }
    fn pasid_enable(self) -> bool {
        self.0[0] & 8 != 0
    }
    /// How many PASIDs its directory has places for.
    fn pasids(self) -> u32 {
        64 << (7 + (self.0[0] >> 9 & 7))
    }
    fn directory(self) -> u64 {
        self.0[0] & !0xfff
    }
    fn rid_pasid(self) -> u32 {
        self.0[1] as u32 & 0xf_ffff
    }
}

/// A PASID table entry (9.6), with the fault processing disable bits that lead to it.
#[derive(Clone, Copy)]
struct Entry {
    words: [u64; 8],
    silent: bool,
}

impl Entry {
    fn translation_type(&self) -> u64 {
        self.words[0] >> 6 & 7
    }
    fn second_stage_levels(&self) -> u8 {
        (self.words[0] >> 2 & 7) as u8 + 2
    }
    fn first_stage_levels(&self) -> u8 {
        (self.words[2] >> 2 & 3) as u8 + 4
    }
    fn domain(&self) -> u16 {
        self.words[1] as u16
    }
    fn walks_snoop(&self) -> bool {
        self.words[1] >> 23 & 1 != 0
    }
    fn second_stage(&self) -> u64 {
        self.words[0] & !0xfff
    }
    fn first_stage(&self) -> u64 {
        self.words[2] & !0xfff
    }
}

/// How a request is translated.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    First(FirstStage),
    Second(SecondStage),
    Through,
}

impl Unit {
    /// The way of a request, and whether its faults are silenced.
    pub(crate) fn way(&mut self, memory: &Memory, request: &Request) -> Result<(Way, bool), Blocked> {
        let context = self.scalable_context(memory, request.source)?;
        let silent = context.fault_processing_disable();
        let pasid = match request.pasid {
            Some(_) if !context.pasid_enable() => return Err((Reason::PASID_DISABLED, silent)),
            Some(pasid) if pasid >= context.pasids() || pasid >> self.configuration.pasid_bits != 0 => {
                return Err((Reason::PASID_BEYOND_DIRECTORY, silent));
            }
            Some(pasid) => pasid,
            None if context.rid_pasid() >= context.pasids() => {
                return Err((Reason::RID_PASID_BEYOND_DIRECTORY, silent));
            }
            None => context.rid_pasid(),
        };
        let entry = self.pasid_entry(memory, context, request.source, pasid)?;
        if request.supervisor && entry.words[2] & 1 == 0 {
            return Err((Reason::SUPERVISOR, entry.silent));
        }
        let view = View { snoops: entry.walks_snoop(), buffered: self.configuration.write_buffer };
        let second = SecondStage {
            domain: entry.domain(),
            root: entry.second_stage(),
            levels: entry.second_stage_levels(),
            scalable: true,
            view,
            accessed_dirty: entry.words[0] >> 9 & 1 != 0,
        };
        let first = |second| FirstStage {
            tag: Tag { domain: entry.domain(), pasid: Some(pasid) },
            root: entry.first_stage(),
            levels: entry.first_stage_levels(),
            write_protect: entry.words[2] >> 4 & 1 != 0,
            extended_accessed: entry.words[2] >> 7 & 1 != 0,
            view,
            second,
        };
        let way = match entry.translation_type() {
            1 => Way::First(first(None)),
            2 => Way::Second(second),
            3 => Way::First(first(Some(second))),
            _ => Way::Through,
        };
        Ok((way, entry.silent))
    }

    /// DTE of the context of a source.
    pub(crate) fn scalable_device_tlb_allowed(&mut self, memory: &Memory, source: u16) -> Result<bool, Blocked> {
        self.scalable_context(memory, source).map(Context::device_tlb_enable)
    }

    /// The context of a source: cached, or from the tables.
    fn scalable_context(&mut self, memory: &Memory, source: u16) -> Result<Context, Blocked> {
        if let Some(cached) = self.caches.scalable_context(source) {
            return cached.map(Context);
        }
        let found = self.read_scalable_context(memory, source);
        if found.is_ok() || self.configuration.caching_mode {
            self.caches.keep_scalable_context(source, found.map(|context| context.0));
        }
        found
    }

    fn read_scalable_context(&mut self, memory: &Memory, source: u16) -> Result<Context, Blocked> {
        let view = self.view();
        let beyond = self.configuration.beyond_host_width();
        // One half of the root entry serves devices 0 to 15, the other 16 to 31 (9.2).
        let half = (self.root_table & !0xfff) + 16 * u64::from(source >> 8) + 8 * u64::from(source >> 7 & 1);
        let root = memory.read_u64(half, view).ok_or((Reason::SCALABLE_ROOT_ACCESS, false))?;
        if root & 1 == 0 {
            return Err((Reason::SCALABLE_ROOT_NOT_PRESENT, false));
        }
        if root & (0xffe | beyond) != 0 {
            return Err((Reason::SCALABLE_ROOT_RESERVED, false));
        }
        let at = (root & !0xfff) + 32 * u64::from(source & 0x7f);
        let words = memory.read_words(at, view).ok_or((Reason::SCALABLE_CONTEXT_ACCESS, false))?;
        let context = Context(words);
        let silent = context.fault_processing_disable();
        if words[0] & 1 == 0 {
            return Err((Reason::SCALABLE_CONTEXT_NOT_PRESENT, silent));
        }
        let configuration = &self.configuration;
        // PRE (4), RID_PRIV (84) and bits 8:5; DTE (2), PASIDE (3) and RID_PASID by what the unit can.
        let mut reserved = [0x1f0 | beyond, !0xf_ffff, !0, !0];
        if !configuration.pasid {
            reserved[0] |= 8;
        }
        if !configuration.rid_pasid {
            reserved[1] = !0;
        }
        if !configuration.device_tlb {
            reserved[0] |= 4;
        }
        if configuration.page_requests {
            reserved[0] &= !0x10;
        }
        match words.iter().zip(reserved).any(|(word, reserved)| word & reserved != 0) {
            true => Err((Reason::SCALABLE_CONTEXT_RESERVED, silent)),
            false => Ok(context),
        }
    }

    /// The PASID table entry of a PASID of a source: cached, or from the tables.
    fn pasid_entry(&mut self, memory: &Memory, context: Context, source: u16, pasid: u32) -> Result<Entry, Blocked> {
        if let Some(cached) = self.caches.pasid(source, pasid) {
            return cached.entry.map(|(words, silent)| Entry { words, silent });
        }
        let (domain, found) = self.read_pasid_entry(memory, context, pasid);
        if let Ok(entry) = &found {
            self.check_domain(source, pasid, entry);
        }
        if found.is_ok() || self.configuration.caching_mode {
            let entry = found.map(|entry| (entry.words, entry.silent));
            self.caches.keep_pasid(source, pasid, CachedPasid { domain, entry });
        }
        found
    }

    /// The entry, and the domain id under which it is remembered.
    fn read_pasid_entry(&self, memory: &Memory, context: Context, pasid: u32) -> (u16, Result<Entry, Blocked>) {
        let view = self.view();
        let beyond = self.configuration.beyond_host_width();
        let mut silent = context.fault_processing_disable();
        let Some(directory) = memory.read_u64(context.directory() + 8 * u64::from(pasid >> 6), view) else {
            return (0, Err((Reason::PASID_DIRECTORY_ACCESS, false)));
        };
        silent |= directory & 2 != 0;
        if directory & 1 == 0 {
            return (0, Err((Reason::PASID_DIRECTORY_NOT_PRESENT, silent)));
        }
        if directory & (0xffc | beyond) != 0 {
            return (0, Err((Reason::PASID_DIRECTORY_RESERVED, silent)));
        }
        let at = (directory & !0xfff) + 64 * u64::from(pasid & 0x3f);
        let Some(words) = memory.read_words::<8>(at, view) else {
            return (0, Err((Reason::PASID_TABLE_ACCESS, false)));
        };
        silent |= words[0] & 2 != 0;
        let entry = Entry { words, silent };
        // An entry that is not present or erroneous has the reserved domain id (6.1), or that of its field.
        let absent = if self.configuration.absent_keeps_domain { entry.domain() } else { 0 };
        if words[0] & 1 == 0 {
            return (absent, Err((Reason::PASID_NOT_PRESENT, silent)));
        }
        if words.iter().zip(self.pasid_reserved()).any(|(word, reserved)| word & reserved != 0)
            || u32::from(entry.domain()) >= self.configuration.domain_count()
        {
            return (absent, Err((Reason::PASID_RESERVED, silent)));
        }
        match self.can_translate(&entry) {
            true => (entry.domain(), Ok(entry)),
            false => (absent, Err((Reason::PASID_INVALID, silent))),
        }
    }

    /// The bits that must be 0 in a present PASID table entry, by what the unit can (9.6).
    fn pasid_reserved(&self) -> [u64; 8] {
        let configuration = &self.configuration;
        let beyond = configuration.beyond_host_width();
        let mut reserved = [0xc20 | beyond, 0xffff_ffff_fe7f_0000, 0xf02 | beyond, !0, !0, !0, !0, !0];
        if !configuration.second_stage {
            reserved[0] |= 1 << 9 | !0xfff;
            // Units of one stage that report widths all the same take AW, and QEMU's bounds the first stage by it.
            if configuration.sagaw == 0 {
                reserved[0] |= 0x1c;
            }
        }
        if !configuration.second_stage_accessed_dirty {
            reserved[0] |= 1 << 9;
        }
        if !configuration.page_walk_coherency {
            reserved[1] |= 1 << 23;
        }
        if !configuration.snoop_control {
            reserved[1] |= 1 << 24;
        }
        if !configuration.supervisor_requests {
            reserved[2] |= 1;
        }
        if !configuration.extended_accessed {
            reserved[2] |= 1 << 7;
        }
        if !configuration.first_stage {
            // Bits 6:5 are ignored.
            reserved[2] = !0x60;
        }
        reserved
    }

    /// Whether the unit has what a PASID table entry asks for.
    fn can_translate(&self, entry: &Entry) -> bool {
        let configuration = &self.configuration;
        let levels = entry.second_stage_levels();
        let second =
            configuration.second_stage && (3..=5).contains(&levels) && configuration.sagaw >> (levels - 2) & 1 != 0;
        let first = configuration.first_stage
            && match entry.first_stage_levels() {
                4 => true,
                5 => configuration.first_stage_five_levels,
                _ => false,
            };
        match entry.translation_type() {
            1 => first,
            2 => second,
            3 => first && second && configuration.nested,
            4 => configuration.pass_through,
            _ => false,
        }
    }

    /// What all PASID table entries of a domain must have in common (6.2.1).
    fn check_domain(&mut self, source: u16, pasid: u32, entry: &Entry) {
        let domain = entry.domain();
        if domain == 0 && self.configuration.caching_mode {
            self.violation(Violation::DomainZero(source));
        }
        let kind = entry.translation_type();
        let rival = self.caches.pasids_of(domain).any(|(other_pasid, words)| {
            let other = Entry { words, silent: false };
            let other_kind = other.translation_type();
            let both_second = matches!(kind, 2 | 3) && matches!(other_kind, 2 | 3);
            let same_tag = pasid == other_pasid && kind != 2 && other_kind != 2;
            both_second && entry.second_stage() != other.second_stage()
                || same_tag && (kind != other_kind || entry.first_stage() != other.first_stage())
        });
        if rival {
            self.violation(Violation::DomainWithTwoTables(domain));
        }
    }

    /// Pass-through: the address is itself, if the unit has wires for it.
    pub(crate) fn through(&self, address: u64) -> Result<u64, Reason> {
        match address & self.configuration.beyond_host_width() {
            0 => Ok(address),
            _ => Err(Reason::BEYOND_HOST_WIDTH),
        }
    }
}
