//! Tests of the local APIC. Register numbers are written out here and not taken from `registers`, so that a mistake
//! there shows.
//!
//! Every test runs over both stores at once ([`LocalApic`] here), and so shows that they do the same.

mod both_stores;
mod commands;
mod interrupts;
mod levels;
mod loans;
mod modes;
mod msrs;
mod pages;
mod timers;

use addr::{ApicId, Vector};

use both_stores::BothStores as LocalApic;

/// In xAPIC mode and software-enabled.
fn xapic() -> LocalApic {
    let mut apic = LocalApic::new(ApicId(3), true, 40);
    assert_eq!(apic.write_page(0xf0, 0x1ff, 0), None);
    apic
}

/// In x2APIC mode and software-enabled.
fn x2apic() -> LocalApic {
    let mut apic = LocalApic::new(ApicId(3), true, 40);
    apic.write_msr(0x1b, 0xfee0_0d00, 0).unwrap();
    write(&mut apic, 0x80f, 0x1ff);
    apic
}

/// A write that must succeed and ask nothing of the caller, at time 0.
fn write(apic: &mut LocalApic, msr: u32, value: u64) {
    write_at(apic, msr, value, 0);
}

/// A write that must succeed and ask nothing of the caller.
fn write_at(apic: &mut LocalApic, msr: u32, value: u64, now: u64) {
    assert_eq!(apic.write_msr(msr, value, now), Ok(None), "MSR {msr:#x} = {value:#x}");
}

/// The bits that a posted-interrupt descriptor has for these vectors.
fn requests(vectors: &[u8]) -> [u64; 4] {
    let mut requests = [0; 4];
    for vector in vectors {
        requests[usize::from(vector / 64)] |= 1 << (vector % 64);
    }
    requests
}

/// Takes everything that is due, without an EOI between.
fn acknowledge_all(apic: &mut LocalApic) -> Vec<u8> {
    std::iter::from_fn(|| apic.acknowledge().map(|vector| vector.0)).collect()
}

/// Reads and clears the error status.
fn errors(apic: &mut LocalApic) -> u64 {
    write(apic, 0x828, 0);
    apic.read_msr(0x828, 0).unwrap()
}

const fn vector(vector: u8) -> Option<Vector> {
    Some(Vector(vector))
}
