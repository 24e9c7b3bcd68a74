//! The header: what makes a table usable at all.

use std::vec::Vec;

use super::builder::{everything, repair_checksum, repair_length, table};
use crate::{Dmar, DmarError};

#[test]
fn the_header_is_decoded() {
    let bytes = table(&[]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!((dmar.host_address_width(), dmar.revision(), dmar.flags()), (39, 1, 0b101));
    assert!(dmar.interrupt_remapping() && !dmar.x2apic_opt_out() && dmar.dma_control_opt_in());
    assert_eq!(dmar.oem_ids(), (*b"OEMID ", *b"OEMTABLE"));
    assert_eq!(dmar.structures().count(), 0);
}

#[test]
fn x2apic_opt_out_means_nothing_without_interrupt_remapping() {
    let mut bytes = table(&[]);
    for (flags, expected) in
        [(0b000, (false, false)), (0b001, (true, false)), (0b010, (false, false)), (0b011, (true, true))]
    {
        bytes[37] = flags;
        repair_checksum(&mut bytes);
        let dmar = Dmar::parse(&bytes).unwrap();
        assert_eq!((dmar.interrupt_remapping(), dmar.x2apic_opt_out()), expected, "{flags:#b}");
    }
}

#[test]
fn the_widest_host_address_width_does_not_wrap() {
    let mut bytes = table(&[]);
    bytes[36] = 0xff;
    repair_checksum(&mut bytes);
    assert_eq!(Dmar::parse(&bytes).unwrap().host_address_width(), 256);
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut bytes = table(&[]);
    bytes[..4].copy_from_slice(b"DMAX");
    repair_checksum(&mut bytes);
    assert_eq!(Dmar::parse(&bytes), Err(DmarError::Signature(*b"DMAX")));
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut bytes = table(&[]);
    bytes[40] = 5;
    assert_eq!(Dmar::parse(&bytes), Err(DmarError::Checksum(5)));
}

#[test]
fn a_length_field_below_the_header_or_beyond_the_slice_is_refused() {
    for length in [0u32, 36, 47, 49, 0x8000_0000, u32::MAX] {
        let mut bytes = table(&[]);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        repair_checksum(&mut bytes);
        assert_eq!(Dmar::parse(&bytes), Err(DmarError::Length { length, available: 48 }));
    }
}

#[test]
fn bytes_after_the_table_are_not_part_of_it() {
    let mut bytes = everything();
    let length = bytes.len();
    bytes.extend([0xff; 100]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.bytes().len(), length);
    assert!(dmar.structures().all(|structure| structure.is_ok()));
}

#[test]
fn a_table_cut_at_any_byte_is_refused() {
    let good = everything();
    for length in 0..good.len() {
        assert!(Dmar::parse(&good[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn a_table_cut_at_any_byte_and_repaired_has_at_most_one_error_and_that_last() {
    let good = everything();
    let boundaries: Vec<usize> = {
        let dmar = Dmar::parse(&good).unwrap();
        dmar.structures().map(|structure| structure.unwrap().offset()).chain([good.len()]).collect()
    };
    for length in 48..=good.len() {
        let mut bytes = good[..length].to_vec();
        repair_length(&mut bytes);
        repair_checksum(&mut bytes);
        let results: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
        let complete = boundaries.iter().filter(|end| **end <= length).count() - 1;
        let cut = usize::from(!boundaries.contains(&length));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), complete, "cut at {length}");
        assert_eq!(results.len(), complete + cut, "cut at {length}");
        assert!(results.iter().filter_map(|result| result.err()).all(|error| error.ends_table()));
    }
}
