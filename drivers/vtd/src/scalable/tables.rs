//! Where a device's entries are, and the tables that are made on the way to them.
//!
//! A table that becomes reachable denies, as its absence did. Tables are never given back: a device that is cleared keeps
//! its PASID directory, in a context entry that is not present, and uses it again.

use crate::error::{Error, Step};
use crate::memory::DmaMemory;
use crate::memory::{at, publish, store};
use crate::registers::Registers;
use crate::spec::invalidation::Descriptor;
use crate::spec::pasid::{self, Pasid, PasidEntry};
use crate::spec::scalable_context::{
    DirectorySize, PRESENT, ScalableContextEntry, TABLE_MASK, context_entry_offset, root_half, root_half_offset,
};
use crate::unit::Unit;
use crate::wait::Clock;
use addr::{Bdf, DomainId, HostPhys, PAGE_SIZE};

/// The context entry at an address.
pub(super) fn read_context<M: DmaMemory + ?Sized>(memory: &M, entry: HostPhys) -> ScalableContextEntry {
    ScalableContextEntry { low: memory.read_u64(entry), high: memory.read_u64(at(entry, 8)) }
}

/// The PASID table entry at an address.
pub(super) fn read_pasid_entry<M: DmaMemory + ?Sized>(memory: &M, entry: HostPhys) -> PasidEntry {
    let mut found = PasidEntry::ABSENT;
    for (word, offset) in found.words.iter_mut().zip((0..).step_by(8)) {
        *word = memory.read_u64(at(entry, offset));
    }
    found
}

/// The table that a word with a present bit names.
pub(super) fn table(word: u64) -> Option<HostPhys> {
    (word & PRESENT != 0).then(|| HostPhys::new(word & TABLE_MASK))
}

/// Where the PASID table entry for `pasid` is, if it has a table. The context entry need not be present.
pub(super) fn pasid_entry<M: DmaMemory + ?Sized>(
    memory: &M,
    context: ScalableContextEntry,
    pasid: Pasid,
) -> Option<HostPhys> {
    if context.directory().as_u64() == 0 || pasid.as_u32() >= context.directory_size().pasids() {
        return None;
    }
    let pasids = table(memory.read_u64(at(context.directory(), pasid.directory_offset())))?;
    Some(at(pasids, pasid.table_offset()))
}

/// Where the entries of a device's directory are.
pub(super) fn directory_entries(context: ScalableContextEntry) -> impl Iterator<Item = HostPhys> {
    let bytes = context.directory_size().bytes();
    (0..bytes).step_by(pasid::DIRECTORY_ENTRY_BYTES as usize).map(move |offset| at(context.directory(), offset))
}

impl<R: Registers, C: Clock> Unit<R, C> {
    /// Where the context entry of `source` is, if it has a context table.
    pub(super) fn scalable_context<M: DmaMemory + ?Sized>(&self, memory: &M, source: Bdf) -> Option<HostPhys> {
        let contexts = table(memory.read_u64(at(self.root_table?, root_half_offset(source))))?;
        Some(at(contexts, context_entry_offset(source)))
    }

    /// Where the context entry of `source` is. It is present when the call returns, and has a PASID directory.
    pub(super) fn scalable_context_or_create<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        rid_pasid: Pasid,
    ) -> Result<HostPhys, Error> {
        let step = Step::Assign;
        let entry = match self.scalable_context(memory, source) {
            Some(entry) => entry,
            None => {
                let root = self.root_table.ok_or(Error::OutOfOrder { step, needs: "the root table" })?;
                let contexts = self.allocate(memory, step, 1, PAGE_SIZE)?;
                store(memory, self.capabilities, at(root, root_half_offset(source)), root_half(contexts));
                at(contexts, context_entry_offset(source))
            }
        };
        let old = read_context(memory, entry);
        if old.is_present() {
            return Ok(entry);
        }
        let (directory, size) = match old.directory().as_u64() {
            0 => {
                let size = DirectorySize::for_pasid(rid_pasid.as_u32());
                (self.allocate_directory(memory, size)?, size)
            }
            _ => (old.directory(), old.directory_size()),
        };
        let pasids = self.capabilities.pasid();
        let new = ScalableContextEntry::new(directory, size, rid_pasid.as_u32(), pasids, false);
        // One line of the cache: nobody sees the present bit and not the rest.
        memory.write_u64(at(entry, 8), new.high);
        store(memory, self.capabilities, entry, new.low);
        if self.capabilities.caching_mode()
            && let Err(error) = self.forget_context(memory, source)
        {
            store(memory, self.capabilities, entry, new.low & !PRESENT);
            return Err(error);
        }
        Ok(entry)
    }

    /// Where the PASID table entry for `pasid` is, in a directory that is made larger if it has no place for it.
    pub(super) fn pasid_entry_or_create<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        context_entry: HostPhys,
        pasid: Pasid,
    ) -> Result<HostPhys, Error> {
        let mut context = read_context(memory, context_entry);
        if pasid.as_u32() >= context.directory_size().pasids() {
            context = self.grow_directory(memory, source, context_entry, context, pasid)?;
        }
        let entry = at(context.directory(), pasid.directory_offset());
        let pasids = match table(memory.read_u64(entry)) {
            Some(pasids) => pasids,
            None => {
                let pasids = self.allocate(memory, Step::Assign, 1, PAGE_SIZE)?;
                store(memory, self.capabilities, entry, pasid::directory_entry(pasids));
                pasids
            }
        };
        Ok(at(pasids, pasid.table_offset()))
    }

    /// Gives a device a larger directory with the same tables in it. Address and size are in one word, which changes by
    /// one store: hardware finds every PASID in either directory, until it has forgotten the old one.
    fn grow_directory<M: DmaMemory>(
        &mut self,
        memory: &mut M,
        source: Bdf,
        context_entry: HostPhys,
        old: ScalableContextEntry,
        pasid: Pasid,
    ) -> Result<ScalableContextEntry, Error> {
        let size = DirectorySize::for_pasid(pasid.as_u32());
        let directory = self.allocate_directory(memory, size)?;
        let bytes = old.directory_size().bytes();
        for (from, offset) in directory_entries(old).zip((0..).step_by(pasid::DIRECTORY_ENTRY_BYTES as usize)) {
            let word = memory.read_u64(from);
            if word != 0 {
                memory.write_u64(at(directory, offset), word);
            }
        }
        publish(memory, self.capabilities, directory, bytes);
        let new = ScalableContextEntry::new(
            directory,
            size,
            old.rid_pasid(),
            self.capabilities.pasid(),
            old.device_tlb_enabled(),
        );
        store(memory, self.capabilities, context_entry, new.low);
        // What is added from here on is in the new directory alone.
        self.forget_context(memory, source)?;
        Ok(new)
    }

    fn allocate_directory<M: DmaMemory>(&self, memory: &mut M, size: DirectorySize) -> Result<HostPhys, Error> {
        self.allocate(memory, Step::Assign, size.bytes().div_ceil(PAGE_SIZE) as usize, PAGE_SIZE)
    }

    /// Makes hardware forget the context entry of a device. Context entries of scalable mode have no domain id: the
    /// descriptor's is ignored, and 0 is that of entries that are not present (sections 6.1 and 6.5.2.1).
    pub(super) fn forget_context<M: DmaMemory>(&mut self, memory: &mut M, source: Bdf) -> Result<(), Error> {
        match self.root_table_set {
            true => self.submit(memory, &[Descriptor::context_cache_device(DomainId(0), source)]),
            false => Ok(()),
        }
    }
}
