//! What the guest's addresses of a function's ranges lead to: taken away and given as the guest writes its command and
//! base address registers.

use super::super::address_space::Obstacle;
use super::super::bars::{GuestRange, HostRange};
use super::super::effect::MappingEffect;
use super::super::{EffectSink, Refusal};
use super::{AssignedFunction, PciEffectKind};
use ::pci::spec::header::command::{IO_SPACE, MEMORY_SPACE};
use addr::{GuestPhys, HostPhys, PAGE_SIZE};
use core::ops::Range;

impl AssignedFunction {
    /// The guest's ranges.
    pub(in super::super) fn ranges(&self) -> impl Iterator<Item = &GuestRange> {
        self.bars.ranges()
    }

    /// The guest's range of base address register `register`.
    pub(in super::super) fn range(&self, register: u8) -> Option<&GuestRange> {
        self.bars.range(register)
    }

    /// Gives a range an address, before the guest runs.
    pub(in super::super) fn set_address(&mut self, register: u8, address: u64) {
        self.bars.set_address(register, address);
    }

    /// The end of a range with an address in the same space that has something in common with `wanted`.
    pub(in super::super) fn in_the_way(&self, memory: bool, wanted: &Range<u64>) -> Option<u64> {
        let virtual_functions = self.sriov.as_ref().filter(|_| memory);
        self.bars.in_the_way(memory, wanted).or_else(|| virtual_functions?.in_the_way(wanted))
    }

    /// Where the guest wants a range now: nowhere while it is switched off, asks for the size or has no address. A virtual
    /// function is switched on by its physical one.
    pub(in super::super) fn wanted(&self, range: &GuestRange) -> Option<u64> {
        let space = if range.is_memory() { MEMORY_SPACE } else { IO_SPACE };
        let on = self.virtual_function.map_or_else(|| self.command.has(space), |own| own.decodes);
        self.bars.address(range).filter(|address| *address != 0 && on)
    }

    /// Takes away what is not where the guest wants it.
    pub(in super::super) fn take_away(&mut self, effects: &mut EffectSink<'_>) {
        for register in 0..6 {
            let Some(range) = self.bars.range(register).copied() else { continue };
            let wanted = self.wanted(&range);
            if let Some(old) = range.decoded.filter(|old| Some(*old) != wanted) {
                for (guest, _, bytes) in self.pieces(&range, old) {
                    self.effect(PciEffectKind::Mapping(MappingEffect::Unmap { guest, bytes }), effects);
                }
            }
            if let Some(range) = self.bars.range_mut(register) {
                range.decoded = range.decoded.filter(|old| Some(*old) == wanted);
                range.refused = range.refused.filter(|old| Some(*old) == wanted);
            }
        }
    }

    /// Lets the guest reach a range at `start`, or says why not, once.
    pub(in super::super) fn give(
        &mut self,
        register: u8,
        start: u64,
        verdict: Result<(), Obstacle>,
        effects: &mut EffectSink<'_>,
    ) {
        let Some(range) = self.bars.range(register).copied() else { return };
        match verdict {
            Ok(()) => {
                for (guest, host, bytes) in self.pieces(&range, start) {
                    self.effect(PciEffectKind::Mapping(MappingEffect::Map { guest, host, bytes }), effects);
                }
                if let Some(range) = self.bars.range_mut(register) {
                    range.decoded = Some(start);
                    range.refused = None;
                }
            }
            Err(obstacle) if range.refused != Some(start) => {
                self.refuse(Refusal::BarMove { index: register, requested: start, obstacle }, effects);
                if let Some(range) = self.bars.range_mut(register) {
                    range.refused = Some(start);
                }
            }
            Err(_) => {}
        }
    }

    /// The parts of a range in memory at `start` that are mapped: all but the pages of the MSI-X table, which the guest
    /// reaches through the hypervisor only, and nothing of a range that shares its page. Where the guest reaches them, where they are, and how many bytes.
    fn pieces(&self, range: &GuestRange, start: u64) -> impl Iterator<Item = (GuestPhys, HostPhys, u64)> + use<> {
        let trapped = self.trapped_offsets(range.register).unwrap_or(range.size..range.size);
        let HostRange::Memory(host) = range.host else { return [None, None].into_iter().flatten() };
        if range.shares_page().is_some() {
            return [None, None].into_iter().flatten();
        }
        [0..trapped.start, trapped.end..range.size]
            .map(|part| {
                let bytes = part.end.checked_sub(part.start).filter(|bytes| *bytes > 0)?;
                let guest = GuestPhys::new(start.checked_add(part.start)?);
                Some((guest, host.checked_add(part.start)?, bytes))
            })
            .into_iter()
            .flatten()
    }

    /// The whole pages that hold the real MSI-X table, as offsets in the range of `register`, if they are in it and as far as
    /// they are.
    pub(super) fn trapped_offsets(&self, register: u8) -> Option<Range<u64>> {
        let region = self.msix.as_ref().map(|msix| msix.capability.table).filter(|table| table.bar == register)?;
        let (start, length) = (u64::from(region.offset), u64::from(region.length));
        let end = start.checked_add(length)?.checked_next_multiple_of(PAGE_SIZE)?;
        Some(start & !(PAGE_SIZE - 1)..end.min(self.bars.range(register)?.size))
    }
}
