//! What a guest reaches of its functions' registers: changes of its nested tables while it lives.

use crate::vcpu::{NestedFormat, VirtualCpu};
use crate::vm::pci::MappingEffect;
use addr::GuestPhys;
use alloc::string::{String, ToString};
use paging::{Invalidation, InvalidationComplete, MemoryType, PageTable, Permissions, TableMemory};

/// The proof that a guest does not use old translations: its only processor is not in the guest, and forgets them before
/// it enters it again. What it does meanwhile is not translated by the guest's tables.
struct ForgottenBeforeEntry;

impl ForgottenBeforeEntry {
    fn new(vcpu: &mut impl VirtualCpu) -> Self {
        vcpu.flush_translations();
        Self
    }
}

impl InvalidationComplete<GuestPhys> for ForgottenBeforeEntry {
    fn covers(&self, _: &Invalidation<GuestPhys>) -> bool {
        true
    }
}

/// Changes what the guest of `vcpu`, its only processor, reaches by `table`.
///
/// # Errors
/// In words; the guest reaches less than it should then, and never more.
pub fn change<F: NestedFormat>(
    table: &mut PageTable<F>,
    memory: &mut impl TableMemory,
    vcpu: &mut impl VirtualCpu,
    change: MappingEffect,
) -> Result<(), String> {
    let flush = match change {
        MappingEffect::Map { guest, host, bytes } => {
            let attributes = F::Attributes::from(MemoryType::Uncacheable);
            table.map(memory, guest, host, bytes, Permissions::READ_WRITE, attributes)
        }
        MappingEffect::Unmap { guest, bytes } => table.unmap(memory, guest, bytes),
    };
    let flush = flush.map_err(|error| error.to_string())?;
    let forgotten = ForgottenBeforeEntry::new(vcpu);
    flush.complete(&forgotten, memory).map_err(|_| "a translation is still in use".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::svm::fake::{Script, cpu};
    use addr::{HostPhys, PageSize};
    use paging::NestedPaging;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    /// Tables at made-up addresses.
    #[derive(Default)]
    struct Memory {
        tables: BTreeMap<u64, [u64; 512]>,
        next: u64,
    }

    impl TableMemory for Memory {
        fn allocate_table(&mut self) -> Option<HostPhys> {
            self.next += 0x1000;
            self.tables.insert(self.next, [0; 512]);
            Some(HostPhys::new(self.next))
        }
        fn free_table(&mut self, table: HostPhys) {
            self.tables.remove(&table.as_u64()).expect("a table is freed once");
        }
        fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
            self.tables[&table.as_u64()][index]
        }
        fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
            self.tables.get_mut(&table.as_u64()).unwrap()[index] = value;
        }
    }

    /// The exit code of HLT.
    const HALT: u64 = 0x78;
    const MOVED_FROM: GuestPhys = GuestPhys::new(0xC004_1000);
    const MOVED_TO: GuestPhys = GuestPhys::new(0xD000_1000);
    const HOST: HostPhys = HostPhys::new(0xFEBD_1000);

    #[test]
    fn a_moved_range_is_reached_at_its_new_place_and_the_old_one_is_forgotten() {
        let flushes = Rc::new(RefCell::new(Vec::new()));
        let script = (0..3).fold(Script::default(), |script, _| {
            let flushes = flushes.clone();
            script.then(move |vmcb, _| {
                flushes.borrow_mut().push(vmcb.control.tlb_control != 0);
                vmcb.control.exit_code = HALT;
            })
        });
        let mut vcpu = cpu(script);
        let mut memory = Memory::default();
        let mut table = PageTable::<NestedPaging>::new(4, PageSize::Size2M, &mut memory).unwrap();
        let mut apply = |vcpu: &mut _, effect| change(&mut table, &mut memory, vcpu, effect);
        let map = |guest| MappingEffect::Map { guest, host: HOST, bytes: 0x3000 };
        apply(&mut vcpu, map(MOVED_FROM)).unwrap();
        vcpu.run();
        vcpu.run();
        apply(&mut vcpu, MappingEffect::Unmap { guest: MOVED_FROM, bytes: 0x3000 }).unwrap();
        apply(&mut vcpu, map(MOVED_TO)).unwrap();
        assert!(apply(&mut vcpu, map(MOVED_TO)).unwrap_err().contains("already"));
        vcpu.run();
        assert_eq!(*flushes.borrow(), [true, false, true], "the old place may be cached");
        assert!(table.translate(&memory, MOVED_FROM).is_none());
        let translation = table.translate(&memory, GuestPhys::new(0xD000_3000)).unwrap();
        assert_eq!(translation.host.as_u64(), 0xFEBD_3000);
        let tables = memory.tables.len();
        for (from, to) in [(MOVED_TO, MOVED_FROM), (MOVED_FROM, MOVED_TO)] {
            let unmap = MappingEffect::Unmap { guest: from, bytes: 0x3000 };
            change(&mut table, &mut memory, &mut vcpu, unmap).unwrap();
            change(&mut table, &mut memory, &mut vcpu, map(to)).unwrap();
        }
        assert_eq!(memory.tables.len(), tables, "moving costs memory");
    }
}
