//! DMA remapping of requests without PASID (chapter 3): root table, context table, second-stage tables.

use crate::caches::{CachedContext, CachedPage, PageKey, shift};
use crate::faults::{Access, Fault, Reason};
use crate::memory::{Memory, View};
use crate::registers::{GSTS, PHMBASE, PHMLIMIT, PLMBASE, PLMLIMIT, PMEN, TE};
use crate::unit::Unit;
use crate::violation::Violation;

/// The addresses that are interrupt requests and never memory (3.14).
const INTERRUPT_RANGE: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A context entry of legacy mode (9.3).
#[derive(Clone, Copy)]
struct Context(u128);

impl Context {
    fn present(self) -> bool {
        self.0 & 1 != 0
    }
    fn fault_processing_disable(self) -> bool {
        self.0 & 2 != 0
    }
    fn translation_type(self) -> u8 {
        (self.0 >> 2) as u8 & 3
    }
    fn second_stage(self) -> u64 {
        self.0 as u64 & !0xfff
    }
    fn address_width(self) -> u8 {
        (self.0 >> 64) as u8 & 7
    }
    fn domain(self) -> u16 {
        (self.0 >> 72) as u16
    }
}

impl Unit {
    /// How the unit reads its tables (6.8).
    pub(crate) fn view(&self) -> View {
        View { snoops: self.configuration.coherent, buffered: self.configuration.write_buffer }
    }

    /// Where each part of a request goes, or the fault that blocks it (recorded).
    pub(crate) fn remap(
        &mut self,
        memory: &Memory,
        source: u16,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Vec<(u64, u64)>, Fault> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut done = 0;
        while done < len {
            let Some(at) = address.checked_add(done) else {
                let fault = self.fault(Reason::BEYOND_WIDTH, source, u64::MAX, access, false);
                self.record(&fault);
                return Err(fault);
            };
            let in_page = (4096 - at % 4096).min(len - done);
            let target = match self.remap_page(memory, source, at, access) {
                Ok(target) => target,
                Err(fault) => {
                    self.record(&fault);
                    return Err(fault);
                }
            };
            match parts.last_mut() {
                Some((start, length)) if start.wrapping_add(*length) == target => *length += in_page,
                _ => parts.push((target, in_page)),
            }
            done += in_page;
        }
        Ok(parts)
    }

    fn fault(&self, reason: Reason, source: u16, address: u64, access: Access, fpd: bool) -> Fault {
        Fault { reason, source, info: address & !0xfff, access, silenced: fpd && reason.qualified() }
    }

    fn remap_page(&mut self, memory: &Memory, source: u16, address: u64, access: Access) -> Result<u64, Fault> {
        if INTERRUPT_RANGE.contains(&address) {
            return Err(self.fault(Reason::ABORTED, source, address, access, false));
        }
        if self.registers.get32(GSTS) & TE == 0 {
            let blocked = self.protected(address);
            return if blocked {
                Err(self.fault(Reason::ABORTED, source, address, access, false))
            } else {
                Ok(address)
            };
        }
        // The translation-table mode was latched by SRTP; 01 (scalable) will branch off here.
        match self.root_table >> 10 & 3 {
            0 => {}
            3 => return Err(self.fault(Reason::ABORTED, source, address, access, false)),
            _ => return Err(self.fault(Reason::TABLE_MODE, source, address, access, false)),
        }
        let context =
            self.context(memory, source).map_err(|(reason, fpd)| self.fault(reason, source, address, access, fpd))?;
        let fpd = context.fault_processing_disable();
        let target = self.second_stage(memory, context, address, access).and_then(|target| {
            match INTERRUPT_RANGE.contains(&target) {
                true => Err(Reason::INTERRUPT_RANGE),
                false => Ok(target),
            }
        });
        target.map_err(|reason| self.fault(reason, source, address, access, fpd))
    }

    /// Protected memory regions block DMA while translation is off (11.4.8).
    fn protected(&self, address: u64) -> bool {
        let region = |base: u16, limit: u16| {
            (self.registers.get(base)..=self.registers.get(limit) | 0x1f_ffff).contains(&address)
        };
        self.configuration.protected_regions
            && self.registers.get32(PMEN) >> 31 != 0
            && (region(PLMBASE, PLMLIMIT) || region(PHMBASE, PHMLIMIT))
    }

    /// The context of a source: cached, or from the tables (3.4.3).
    fn context(&mut self, memory: &Memory, source: u16) -> Result<Context, (Reason, bool)> {
        if let Some(cached) = self.caches.context(source) {
            return cached.entry.map(Context);
        }
        let found = self.read_context(memory, source);
        let cached = match found {
            Ok(context) => {
                if context.domain() == 0 && self.configuration.caching_mode {
                    self.violation(Violation::DomainZero(source));
                }
                if context.translation_type() != 2 && self.caches.rival(context.domain(), context.second_stage()) {
                    self.violation(Violation::DomainWithTwoTables(context.domain()));
                }
                CachedContext { domain: context.domain(), entry: Ok(context.0) }
            }
            Err(_) if !self.configuration.caching_mode => return found,
            Err(error) => CachedContext { domain: 0, entry: Err(error) },
        };
        self.caches.keep_context(source, cached);
        found
    }

    fn read_context(&mut self, memory: &Memory, source: u16) -> Result<Context, (Reason, bool)> {
        let view = self.view();
        let root_address = (self.root_table & !0xfff) + 16 * u64::from(source >> 8);
        let root = memory.read_u128(root_address, view).ok_or((Reason::ROOT_ACCESS, false))?;
        if root & 1 == 0 {
            return Err((Reason::ROOT_NOT_PRESENT, false));
        }
        let beyond = self.configuration.beyond_host_width();
        if root as u64 & (0xffe | beyond) != 0 || root >> 64 != 0 {
            return Err((Reason::ROOT_RESERVED, false));
        }
        let context_address = (root as u64 & !0xfff) + 16 * u64::from(source & 0xff);
        let context = memory.read_u128(context_address, view).ok_or((Reason::CONTEXT_ACCESS, false))?;
        let context = Context(context);
        let fpd = context.fault_processing_disable();
        if !context.present() {
            return Err((Reason::CONTEXT_NOT_PRESENT, fpd));
        }
        let (low, high) = (context.0 as u64, (context.0 >> 64) as u64);
        // High half: AW 2:0, ignored 6:3, reserved 7, DID 23:8, reserved above. Low half: reserved 11:4.
        if low & (0xff0 | beyond) != 0
            || high & !0xff_ff7f != 0
            || u32::from(context.domain()) >= self.configuration.domain_count()
        {
            return Err((Reason::CONTEXT_RESERVED, fpd));
        }
        let width = context.address_width();
        let sagaw = self.configuration.sagaw;
        if !(1..=3).contains(&width) || sagaw >> width & 1 == 0 {
            return Err((Reason::CONTEXT_INVALID, fpd));
        }
        match context.translation_type() {
            0 => {}
            2 if self.configuration.pass_through => {
                if sagaw >> (width + 1) != 0 {
                    self.violation(Violation::PassThroughWidth(source));
                }
            }
            // 1 needs device-TLBs, which the unit has not; 3 is reserved.
            _ => return Err((Reason::CONTEXT_INVALID, fpd)),
        }
        Ok(context)
    }

    /// The second-stage walk of one address (3.6, 9.8).
    fn second_stage(&mut self, memory: &Memory, context: Context, address: u64, access: Access) -> Result<u64, Reason> {
        let levels = context.address_width() + 2;
        let width = (shift(levels) + 9).min(u32::from(self.configuration.guest_address_width));
        if address >> width != 0 {
            return Err(Reason::BEYOND_WIDTH);
        }
        if context.translation_type() == 2 {
            return Ok(address);
        }
        let domain = context.domain();
        let wanted = if access == Access::Read { 1 } else { 2 };
        let denied = if access == Access::Read { Reason::READ } else { Reason::WRITE };
        let finish = |level: u8, page: CachedPage| {
            let base = page.target.map_err(|reason| match reason {
                Reason::READ | Reason::WRITE => denied,
                other => other,
            })?;
            match page.permissions & wanted {
                0 => Err(denied),
                _ => Ok(base | address & ((1 << shift(level)) - 1)),
            }
        };
        if let Some((level, page)) = self.caches.leaf(domain, address) {
            return finish(level, page);
        }
        let (mut level, mut table, mut permissions) = (levels, context.second_stage(), 3);
        if let Some((cached_level, page)) = self.caches.table(domain, address, levels) {
            (level, table, permissions) = (cached_level - 1, page.target.map_err(|_| denied)?, page.permissions);
        }
        loop {
            let at = table + 8 * (address >> shift(level) & 0x1ff);
            let entry = memory.read_u64(at, self.view()).ok_or(Reason::PAGING_ACCESS)?;
            let key = PageKey::new(domain, level, address);
            let bad = if entry & 3 == 0 {
                Some(denied)
            } else if entry & self.reserved(level, entry) != 0 {
                Some(Reason::PAGING_RESERVED)
            } else {
                None
            };
            if let Some(reason) = bad {
                // An entry that is not present or erroneous is remembered where CM allows it.
                if self.configuration.caching_mode {
                    let page = CachedPage { target: Err(reason), permissions: 0 };
                    self.caches.keep_leaf(PageKey::new(domain, 1, address), page);
                    if level > 1 && reason == denied {
                        self.caches.keep_table(key, page);
                    }
                }
                return Err(reason);
            }
            permissions &= entry & 3;
            let leaf = level == 1 || entry & 0x80 != 0;
            let page = CachedPage { target: Ok(entry & ADDRESS & !((1 << 12) - 1)), permissions };
            if leaf {
                if permissions & wanted != 0 || self.configuration.caching_mode {
                    self.caches.keep_leaf(key, page);
                }
                return finish(level, page);
            }
            self.caches.keep_table(key, page);
            (table, level) = (entry & ADDRESS, level - 1);
        }
    }

    /// The bits that must be 0 in a present second-stage entry (9.8). Bits 6:2 and 10:8 are ignored in legacy mode,
    /// so that EPT tables can be shared.
    fn reserved(&self, level: u8, entry: u64) -> u64 {
        let mut reserved = self.configuration.beyond_host_width() & 0x000f_ffff_ffff_f000;
        // TM, without device-TLBs.
        reserved |= 1 << 62;
        if !self.configuration.snoop_control {
            reserved |= 1 << 11;
        }
        let large = match level {
            2 => self.configuration.pages_2m,
            3 => self.configuration.pages_1g,
            _ => false,
        };
        if level > 1 && entry & 0x80 != 0 {
            reserved |= if large { (1 << shift(level)) - (1 << 12) } else { 0x80 };
        }
        reserved
    }
}
