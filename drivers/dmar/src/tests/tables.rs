//! The header: what makes a table usable at all.

use std::vec::Vec;

use super::builder::{everything, repair_checksum, repair_length, table};
use crate::{Dmar, DmarError};

#[test]
fn the_header_is_decoded() {
    let mut bytes = table(&[]);
    bytes[8] = 2;
    repair_checksum(&mut bytes);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!((dmar.host_address_width(), dmar.revision(), dmar.flags()), (39, 2, 0b101));
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
fn each_flag_is_a_bit() {
    let mut bytes = table(&[]);
    for flags in 0..=0xff {
        bytes[37] = flags;
        repair_checksum(&mut bytes);
        let dmar = Dmar::parse(&bytes).unwrap();
        assert_eq!(dmar.flags(), flags);
        assert_eq!(dmar.interrupt_remapping(), flags % 2 == 1);
        assert_eq!(dmar.dma_control_opt_in(), flags % 8 >= 4);
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

#[test]
fn a_damaged_table_is_read_as_far_as_it_goes() {
    let good = everything();
    assert_eq!(Dmar::parse_damaged(&good), Ok((Dmar::parse(&good).unwrap(), None)));
    let structures = |bytes: &[u8]| {
        let (dmar, damage) = Dmar::parse_damaged(bytes).unwrap();
        (dmar.bytes().len(), dmar.structures().count(), damage)
    };
    let (length, count, _) = structures(&good);

    let mut wrong_sum = good.clone();
    wrong_sum[38] = 7;
    assert_eq!(structures(&wrong_sum), (length, count, Some(DmarError::Checksum(7))));

    // The last structure is 9 bytes long.
    let cut = &good[..length - 9];
    let wrong_length = |length, available| Some(DmarError::Length { length, available });
    let field = u32::try_from(length).unwrap();
    assert_eq!(structures(cut), (length - 9, count - 1, wrong_length(field, length - 9)));

    for field in [0, 47] {
        let mut short = good.clone();
        short[4..8].copy_from_slice(&u32::to_le_bytes(field));
        assert_eq!(structures(&short), (length, count, wrong_length(field, length)));
    }
    let mut header_only = table(&[]);
    header_only.extend([0xff; 8]);
    assert_eq!(structures(&header_only), (48, 0, None));
    assert_eq!(Dmar::parse_damaged(&good[..47]), Err(DmarError::TooShort(47)));
    assert_eq!(Dmar::parse_damaged(b"DMA"), Err(DmarError::TooShort(3)));
    assert_eq!(Dmar::parse_damaged(b"DMAX"), Err(DmarError::Signature(*b"DMAX")));
}

#[test]
fn what_is_wrong_with_a_table_is_said() {
    use std::string::ToString;
    for (error, expected) in [
        (DmarError::TooShort(47), "DMAR: 47 bytes cannot hold the 48-byte header"),
        (DmarError::Signature(*b"DMAX"), "DMAR: signature is [44, 4d, 41, 58]"),
        (DmarError::Length { length: 72, available: 71 }, "DMAR: length field is 72, 71 bytes are there"),
        (DmarError::Checksum(5), "DMAR: bytes add up to 0x05 instead of 0"),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn structures_of_one_type_are_given_apart() {
    let bytes = everything();
    let dmar = Dmar::parse(&bytes).unwrap();
    let offsets: Vec<usize> = dmar.structures().map(|structure| structure.unwrap().offset()).collect();
    let types: Vec<u16> = dmar.structures().map(|structure| structure.unwrap().structure_type()).collect();
    assert_eq!(types, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(dmar.drhds().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[..3]);
    assert_eq!(dmar.rmrrs().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[3..4]);
    assert_eq!(dmar.atsrs().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[4..5]);
    assert_eq!(dmar.rhsas().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[5..6]);
    assert_eq!(dmar.andds().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[6..7]);
    assert_eq!(dmar.satcs().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[7..8]);
    assert_eq!(dmar.sidps().map(|structure| structure.offset).collect::<Vec<_>>(), offsets[8..9]);
}
