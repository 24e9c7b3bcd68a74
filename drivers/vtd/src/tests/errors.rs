//! What errors say: each what went wrong, with what hardware said.

use super::std::string::ToString;
use crate::spec::invalidation::Descriptor;
use crate::{Error, Pasid, QueueError, Step};
use addr::{ApicId, Bdf, DomainId, GuestPhys, HostPhys, Vector};

const SOURCE: Bdf = Bdf::from_u16(0x1234);

/// All of `needles`, in this order, and nothing that is left out.
fn says(text: &str, needles: &[&str]) {
    let mut rest = text;
    for needle in needles {
        let at = rest.find(needle).unwrap_or_else(|| panic!("{text:?} does not say {needle:?}"));
        rest = &rest[at + needle.len()..];
    }
}

#[test]
fn an_invalidation_that_failed_says_what_hardware_said() {
    let timeout = QueueError::Timeout { expected: 0x1a, last: 0x19, fault_status: 0x40, head: 0x230 };
    says(&timeout.to_string(), &["0x19", "0x1a", "FSTS_REG 0x40", "IQH_REG 0x230"]);
    let descriptor = Descriptor { low: 0x1234_0022, high: 0x5000 };
    let refused = QueueError::Refused { index: 17, descriptor, record: 4 };
    says(&refused.to_string(), &["17", "IQE", "0x0000000012340022", "0x0000000000005000", "IQERCD_REG 0x4"]);
    says(&QueueError::DeviceTimeout { source: Some(SOURCE) }.to_string(), &["12:06.4", "ITE"]);
    says(&QueueError::DeviceTimeout { source: None }.to_string(), &["ITE"]);
    let undone = QueueError::NotPerformed { register: "IOTLB_REG", value: 0x8000 };
    says(&undone.to_string(), &["IOTLB_REG 0x8000", "nothing"]);
    says(&QueueError::Full { head: 0x40, tail: 3 }.to_string(), &["full", "IQH_REG 0x40", "3"]);
    says(&QueueError::Off.to_string(), &["off"]);
    says(&QueueError::BadHead { head: 0x7_0008 }.to_string(), &["IQH_REG 0x70008"]);
    assert_eq!(Error::from(timeout), Error::Invalidation(timeout));
    says(&Error::from(timeout).to_string(), &["invalidation", &timeout.to_string()]);
}

#[test]
fn every_error_says_what_it_is_about() {
    let (step, source) = (Step::SetRootTable, SOURCE);
    let timeout =
        Error::Timeout { step, register: "GSTS_REG", mask: 0x4000_0000, expected: 0x4000_0000, last: 0x8000_0000 };
    let errors: [(Error, &[&str]); 28] = [
        (Error::Absent { register: "CAP_REG" }, &["CAP_REG", "all ones"]),
        (Error::Unsupported { capability: "a thing (CAP.X)" }, &["lacks", "a thing (CAP.X)"]),
        (timeout, &["SetRootTable", "GSTS_REG", "0x80000000", "0x40000000", "0x40000000"]),
        (Error::OutOfOrder { step, needs: "the queue" }, &["SetRootTable", "the queue"]),
        (Error::WindowRefused, &["firmware", "DMA"]),
        (Error::X2ApicOptOut, &["firmware", "x2APIC"]),
        (Error::OtherTableMode { in_force: 0x6_6400 }, &["0x66400", "mode"]),
        (Error::OutOfMemory(step), &["SetRootTable", "out of memory"]),
        (Error::QueueHeadNotZero(0x20), &["IQH_REG", "0x20"]),
        (Error::CompatibilityFormatNotBlocked(0x80_0000), &["compatibility", "GSTS_REG 0x800000"]),
        (Error::Invalidation(QueueError::Off), &["invalidation", "off"]),
        (Error::DeviceIsolated(source), &["12:06.4", "isolated"]),
        (Error::Poisoned, &["assigns nothing"]),
        (Error::DomainOutOfRange(DomainId(77)), &["77", "out of range"]),
        (Error::NotAtomic(source), &["12:06.4", "one store"]),
        (Error::TooManyDeviceTlbs(source), &["no room", "12:06.4"]),
        (Error::PasidOutOfRange(Pasid::ZERO), &["PASID 0x0", "out of range"]),
        (Error::BadTable(HostPhys::new(0x1800)), &["1800", "table"]),
        (Error::BadFirstStageTable(GuestPhys::new(0x1800)), &["1800", "first-stage"]),
        (Error::LevelsUnsupported(5), &["5 levels"]),
        (Error::CorruptTable(source), &["root entry", "12:06.4"]),
        (Error::BadTableSize(300), &["300 entries"]),
        (Error::NoInterruptEntries(64), &["64"]),
        (Error::BadPageRequestIndex { head: 0x1000, tail: 0x10 }, &["PQH_REG 0x1000", "PQT_REG 0x10"]),
        (Error::BadHandle(9), &["9", "not allocated"]),
        (Error::DestinationOutOfRange(ApicId(0x100)), &["256", "destination"]),
        (Error::BadVector(Vector(3)), &["3", "delivered"]),
        (Error::BadDescriptor(HostPhys::new(0x1020)), &["1020", "posted-interrupt descriptor"]),
    ];
    for (error, needles) in errors {
        says(&error.to_string(), needles);
    }
}
