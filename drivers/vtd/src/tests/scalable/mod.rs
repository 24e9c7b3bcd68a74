//! Scalable mode, store by store and descriptor by descriptor.

mod changes;
mod device_tlb;
mod entries;
mod failures;
mod forgetting;
mod refusals;
mod setup;

use super::fake::{CAP, CONFIGURATION, ECAP, Event, Fake, TestUnit};
use super::std::vec::Vec;
use crate::spec::invalidation::Descriptor;
use crate::{DescriptorWidth, DeviceTlb, Error, Levels, Pasid, QueueLayout, Translation, TranslationMode};
use addr::{Bdf, DomainId, GuestPhys, HostPhys, Iova, PAGE_SIZE};
use paging::{Invalidation, InvalidationComplete};

/// DT, SC, NEST, PASID with 20 bits, DIT, SMTS, SSTS, FSTS, RPS; walks do not snoop.
const SCALABLE: u64 =
    ECAP | 1 << 2 | 1 << 7 | 1 << 26 | 19 << 35 | 1 << 40 | 1 << 41 | 1 << 43 | 1 << 46 | 1 << 47 | 1 << 49;
const CACHING: u64 = CAP | 1 << 7;
const SOURCE: Bdf = Bdf::from_u16(0x12b4);
const FUNCTION: Bdf = Bdf::from_u16(0x1280);
const TABLE: HostPhys = HostPhys::new(0x70_0000);
const OTHER: HostPhys = HostPhys::new(0x90_0000);
const DEVICE: DeviceTlb = DeviceTlb { queue_depth: 4, physical_function: FUNCTION };

const GLOBAL: [u64; 3] = [0x11, 0x37, 0xd2];
const CONTEXT: u64 = 0x12b4_0000_0031;

fn second(table: HostPhys) -> Translation {
    Translation::SecondStage { table, levels: Levels::Four }
}

fn first(table: HostPhys) -> Translation {
    Translation::FirstStage { table, levels: Levels::Four }
}

fn nested(first: u64, second: HostPhys) -> Translation {
    let first = GuestPhys::new(first);
    Translation::Nested { first, first_levels: Levels::Four, second, second_levels: Levels::Four }
}

fn up_with(fake: &Fake, rid_pasid: u32) -> (TestUnit, Fake) {
    let mut unit = fake.probe().unwrap();
    let mut memory = fake.clone();
    unit.use_scalable_mode(Pasid::new(rid_pasid).unwrap()).unwrap();
    unit.bring_up(&mut memory, &CONFIGURATION).unwrap();
    fake.take_log();
    (unit, memory)
}

fn up(fake: &Fake) -> (TestUnit, Fake) {
    up_with(fake, 0)
}

fn pasid(number: u32) -> Option<Pasid> {
    Some(Pasid::new(number).unwrap())
}

/// The tags of a PASID-cache or PASID-based IOTLB descriptor.
fn tags(domain: u64, pasid: u64) -> u64 {
    domain << 16 | pasid << 32
}

fn context(fake: &Fake) -> u64 {
    fake.inner(|inner| {
        let root = inner.others[&0x20] & !0xfff;
        (inner.memory[&(root + 0x12 * 16 + 8)] & !0xfff) + 0x34 * 32
    })
}

fn entry(fake: &Fake, pasid: u64) -> u64 {
    let context = context(fake);
    fake.inner(|inner| {
        let directory = inner.memory[&context] & !0xfff;
        (inner.memory[&(directory + pasid / 64 * 8)] & !0xfff) + pasid % 64 * 64
    })
}

fn words<const N: usize>(fake: &Fake, address: u64) -> [u64; N] {
    fake.inner(|inner| core::array::from_fn(|index| inner.memory[&(address + 8 * index as u64)]))
}

/// Stores to so many bytes at an address, and descriptors, in order and without waits.
fn events(log: &[Event], address: u64, bytes: u64) -> Vec<Event> {
    let concerned = |event: &&Event| match event {
        Event::Store(at, _) | Event::Exchange(at) => (address..address + bytes).contains(at),
        Event::Executed(low, _) => low & 0xf != 5,
        _ => false,
    };
    log.iter().filter(concerned).copied().collect()
}

fn attach(unit: &mut TestUnit, memory: &mut Fake, domain: u16, translation: Translation) -> Result<(), Error> {
    unit.attach(memory, SOURCE, None, DomainId(domain), translation)
}

fn entry_of(inner: &super::fake::Inner) -> u64 {
    let root = inner.others[&0x20] & !0xfff;
    let contexts = inner.memory[&(root + 0x12 * 16 + 8)] & !0xfff;
    let directory = inner.memory[&(contexts + 0x34 * 32)] & !0xfff;
    inner.memory[&directory] & !0xfff
}

/// The device-TLB descriptors that were executed, each after the last of the unit's own caches.
fn device_descriptors(fake: &Fake) -> Vec<Descriptor> {
    let mut found = Vec::new();
    for event in fake.take_log() {
        if let Event::Executed(low, high) = event {
            match low & 0xf {
                3 | 8 => found.push(Descriptor { low, high }),
                5 => {}
                _ => assert!(found.is_empty(), "the unit forgets first"),
            }
        }
    }
    found
}
