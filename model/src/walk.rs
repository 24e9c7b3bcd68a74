//! DMA remapping (chapter 3): a request on its way, and legacy mode's root and context tables.

use crate::caches::{CachedContext, READ, WRITE};
use crate::fault::{Access, Fault, Reason};
use crate::memory::{Memory, View};
use crate::registers::{GSTS, PHMBASE, PHMLIMIT, PLMBASE, PLMLIMIT, PMEN, TE};
use crate::request::{Request, fault};
use crate::scalable::{Blocked, Way};
use crate::second_stage::SecondStage;
use crate::unit::Unit;
use crate::violation::Violation;

/// The addresses that are interrupt requests and never memory (3.14).
const INTERRUPT_RANGE: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

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
        memory: &mut Memory,
        request: &Request,
        address: u64,
        len: u64,
    ) -> Result<Vec<(u64, u64)>, Fault> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut done = 0;
        while done < len {
            let Some(at) = address.checked_add(done) else {
                let fault = fault(Reason::BEYOND_WIDTH, request, u64::MAX, false);
                self.record(&fault);
                return Err(fault);
            };
            let in_page = (4096 - at % 4096).min(len - done);
            let target = match self.remap_page(memory, request, at) {
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

    fn remap_page(&mut self, memory: &mut Memory, request: &Request, address: u64) -> Result<u64, Fault> {
        // Only a request without PASID can be an interrupt (3.14).
        if INTERRUPT_RANGE.contains(&address) && request.pasid.is_none() {
            return Err(fault(Reason::ABORTED, request, address, false));
        }
        if self.registers.get32(GSTS) & TE == 0 {
            return match self.protected(address) || request.pasid.is_some() {
                true => Err(fault(Reason::ABORTED, request, address, false)),
                false => Ok(address),
            };
        }
        // The translation-table mode was latched by SRTP.
        match self.root_table >> 10 & 3 {
            0 => self.remap_legacy(memory, request, address),
            1 if self.configuration.scalable_mode => self.remap_scalable(memory, request, address),
            3 if self.configuration.abort_dma => Err(fault(Reason::ABORTED, request, address, false)),
            _ => Err(fault(Reason::TABLE_MODE, request, address, false)),
        }
    }

    fn remap_legacy(&mut self, memory: &mut Memory, request: &Request, address: u64) -> Result<u64, Fault> {
        if request.pasid.is_some() {
            return Err(fault(Reason::PASID_IN_LEGACY_MODE, request, address, false));
        }
        let context =
            self.context(memory, request.source).map_err(|(reason, fpd)| fault(reason, request, address, fpd))?;
        let fpd = context.fault_processing_disable();
        let target = match context.translation_type() {
            2 => self.through(address).map_err(|_| Reason::BEYOND_WIDTH),
            _ => {
                let stage = SecondStage {
                    domain: context.domain(),
                    root: context.second_stage(),
                    levels: context.address_width() + 2,
                    scalable: false,
                    view: self.view(),
                    accessed_dirty: false,
                };
                self.second_stage(memory, &stage, address, wanted(request)).map(|found| found.address)
            }
        };
        let target = target.and_then(|target| match INTERRUPT_RANGE.contains(&target) {
            true => Err(Reason::INTERRUPT_RANGE),
            false => Ok(target),
        });
        target.map_err(|reason| fault(reason, request, address, fpd))
    }

    fn remap_scalable(&mut self, memory: &mut Memory, request: &Request, address: u64) -> Result<u64, Fault> {
        let (way, silent) =
            self.way(memory, request).map_err(|(reason, silent)| fault(reason, request, address, silent))?;
        let target = match way {
            Way::First(stage) => self.first_stage(memory, &stage, request, address),
            Way::Second(stage) => {
                self.second_stage(memory, &stage, address, wanted(request)).map(|found| found.address)
            }
            Way::Through => self.through(address),
        };
        let target = target.and_then(|target| match INTERRUPT_RANGE.contains(&target) {
            true => Err(Reason::SCALABLE_INTERRUPT_RANGE),
            false => Ok(target),
        });
        target.map_err(|reason| fault(reason, request, address, silent))
    }

    /// Whether the context of a source lets translation requests and translated requests through.
    pub(crate) fn device_tlb_allowed(&mut self, memory: &Memory, source: u16) -> Result<bool, Blocked> {
        match self.root_table >> 10 & 3 {
            0 => Ok(self.context(memory, source)?.translation_type() == 1),
            _ => self.scalable_device_tlb_allowed(memory, source),
        }
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
            1 if self.configuration.device_tlb => {}
            2 if self.configuration.pass_through => {
                if sagaw >> (width + 1) != 0 {
                    self.violation(Violation::PassThroughWidth(source));
                }
            }
            // 3 is reserved.
            _ => return Err((Reason::CONTEXT_INVALID, fpd)),
        }
        Ok(context)
    }
}

fn wanted(request: &Request) -> u64 {
    match request.access {
        Access::Read => READ,
        Access::Write => WRITE,
    }
}
