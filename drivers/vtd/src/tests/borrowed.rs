//! What a kernel lends, behind pointers to traits, serves as what it gives away.

use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake};
use super::std::vec::Vec;
use crate::{Clock, DmaMemory, Levels, Registers, Unit};
use addr::{Bdf, DomainId, HostPhys, Iova, PageSize};
use core::cell::Cell;
use paging::{NeverLoaded, PageTable, Permissions, SecondStage, SecondStageAttributes, TableMemory};

struct Ticks(Cell<u64>);

impl Clock for Ticks {
    fn now_us(&self) -> u64 {
        self.0.get()
    }
    fn relax(&self) {
        self.0.set(self.0.get() + 1000);
    }
}

/// Brings a unit up and moves a device from one domain to another by one store.
fn work<R: Registers, C: Clock, M: DmaMemory>(registers: R, clock: C, mut memory: M) {
    let mut unit = Unit::probe(registers, clock).unwrap();
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    let device = Bdf::from_u16(8);
    for (domain, table) in [(1, 0x8000), (2, 0x9000)] {
        unit.replace(&mut memory, device, DomainId(domain), HostPhys::new(table), Levels::Four).unwrap();
    }
    assert_eq!(unit.assignment(&memory, device), Some((DomainId(2), HostPhys::new(0x9000))));
}

/// Everything that hardware saw.
fn log(run: impl FnOnce(&Fake)) -> Vec<Event> {
    // Not coherent: what is not written back is not there.
    let fake = Fake::with(CAP, ECAP & !1);
    fake.inner(|inner| inner.exchanges = true);
    run(&fake);
    let log = fake.take_log();
    assert!(log.iter().any(|event| matches!(event, Event::Exchange(_))));
    log
}

#[test]
fn a_borrowed_machine_sees_what_one_that_was_given_away_sees() {
    let given = log(|fake| work(fake.clone(), Ticks(Cell::new(0)), fake.clone()));
    let lent = log(|fake| {
        let (registers, memory): (&mut dyn Registers, &mut dyn DmaMemory) = (&mut fake.clone(), &mut fake.clone());
        work(registers, &Ticks(Cell::new(0)) as &dyn Clock, memory);
    });
    assert_eq!(given, lent);
}

#[test]
fn a_finished_change_is_forgotten_and_its_tables_are_back() {
    let fake = Fake::new();
    let (mut unit, mut memory) = fake.up();
    let domain = DomainId(1);
    let mut table: PageTable<SecondStage> = PageTable::new(4, PageSize::Size4K, &mut memory).unwrap();
    let attributes = SecondStageAttributes::default();
    let (iova, host) = (Iova::new(0), HostPhys::new(0x4000_0000));
    let flush = table.map(&mut memory, iova, host, 0x20_0000, Permissions::READ_WRITE, attributes).unwrap();
    flush.complete(&NeverLoaded, &mut memory).unwrap();
    fake.take_log();

    struct Counting<'a>(&'a mut Fake, usize);
    impl TableMemory for Counting<'_> {
        fn allocate_table(&mut self) -> Option<HostPhys> {
            self.0.allocate_table()
        }
        fn free_table(&mut self, _: HostPhys) {
            // Not before the unit has forgotten.
            assert_eq!(Fake::executed(&self.0.take_log()).len(), usize::from(self.1 == 0));
            self.1 += 1;
        }
        fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
            self.0.read_entry(table, index)
        }
        fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
            self.0.write_entry(table, index, value);
        }
    }
    impl DmaMemory for Counting<'_> {
        fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
            self.0.allocate_contiguous(pages, alignment)
        }
        fn read_u64(&self, address: HostPhys) -> u64 {
            self.0.read_u64(address)
        }
        fn write_u64(&mut self, address: HostPhys, value: u64) {
            self.0.write_u64(address, value);
        }
        fn write_back(&mut self, address: HostPhys, bytes: u64) {
            self.0.write_back(address, bytes);
        }
    }
    let mut counting = Counting(&mut memory, 0);
    let flush = table.unmap(&mut counting, iova, 0x20_0000).unwrap();
    unit.finish(&mut counting, domain, flush).unwrap();
    assert_eq!(counting.1, 1);
    // Nothing was mapped: nothing to do.
    let flush = table.unmap(&mut memory, iova, 0x1000).unwrap();
    unit.finish(&mut memory, domain, flush).unwrap();
    assert_eq!(fake.take_log(), []);

    let flush = table.map(&mut memory, iova, host, 0x1000, Permissions::READ_WRITE, attributes).unwrap();
    unit.finish(&mut memory, domain, flush).unwrap();
    let flush = table.unmap(&mut memory, iova, 0x1000).unwrap();
    fake.inner(|inner| inner.stalled = true);
    assert!(unit.finish(&mut memory, domain, flush).is_err());
}
