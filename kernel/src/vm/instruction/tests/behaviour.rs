//! What instructions do to registers, flags and memory.

use super::support::{Random, Registers};
use crate::vm::instruction::{CodeSize, Operator, Reason, Width, decode};

/// Runs `bytes` as 64-bit code with `memory` at its operand; the registers after it, and what it writes.
fn run(bytes: &[u8], memory: u64, mut registers: Registers) -> (Registers, Option<u64>) {
    let instruction = decode(bytes, CodeSize::Bits64).unwrap();
    assert_eq!(usize::from(instruction.length()), bytes.len());
    let written = instruction.execute(memory, &mut registers);
    assert_eq!(written.is_some(), instruction.writes_memory());
    (registers, written)
}

fn reason(bytes: &[u8], code_size: CodeSize) -> Reason {
    decode(bytes, code_size).unwrap_err().reason()
}

#[test]
fn a_load_of_32_bits_clears_the_upper_half_and_smaller_ones_keep_the_rest() {
    let before = Registers::distinct();
    let rcx = before.general[1];
    let memory = 0x8877_6655_4433_2211;
    for (bytes, expected) in [
        (&[0x8b, 0x08][..], 0x4433_2211),
        (&[0x48, 0x8b, 0x08], memory),
        (&[0x66, 0x8b, 0x08], rcx & !0xffff | 0x2211),
        (&[0x8a, 0x08], rcx & !0xff | 0x11),
        // mov ch, [rax]; with REX the same number is BPL.
        (&[0x8a, 0x28], rcx & !0xff00 | 0x1100),
    ] {
        let (after, written) = run(bytes, memory, before.clone());
        assert_eq!((after.general[1], written), (expected, None), "{bytes:02x?}");
    }
    let (after, _) = run(&[0x40, 0x8a, 0x28], memory, before.clone());
    assert_eq!((after.general[1], after.general[5]), (rcx, before.general[5] & !0xff | 0x11));
    assert_eq!(after.flags, before.flags);
}

#[test]
fn extending_loads_extend() {
    let before = Registers::distinct();
    let rcx = before.general[1];
    for (bytes, expected) in [
        (&[0x0f, 0xb6, 0x08][..], 0x91),
        (&[0x0f, 0xbe, 0x08], 0xffff_ff91),
        (&[0x48, 0x0f, 0xbe, 0x08], 0xffff_ffff_ffff_ff91),
        (&[0x66, 0x0f, 0xbe, 0x08], rcx & !0xffff | 0xff91),
        (&[0x48, 0x0f, 0xb7, 0x08], 0xa291),
        (&[0x0f, 0xbf, 0x08], 0xffff_a291),
        (&[0x48, 0x63, 0x08], 0xffff_ffff_c3b3_a291),
        (&[0x63, 0x08], 0xc3b3_a291),
    ] {
        assert_eq!(run(bytes, 0x1111_1111_c3b3_a291, before.clone()).0.general[1], expected, "{bytes:02x?}");
    }
}

#[test]
fn a_store_writes_the_register_or_the_immediate_and_nothing_else() {
    let before = Registers::distinct();
    let rcx = before.general[1];
    for (bytes, expected) in [
        (&[0x89, 0x08][..], rcx & 0xffff_ffff),
        (&[0x48, 0x89, 0x08], rcx),
        (&[0x66, 0x89, 0x08], rcx & 0xffff),
        (&[0x88, 0x08], rcx & 0xff),
        (&[0x88, 0x28], rcx >> 8 & 0xff),
        (&[0xc6, 0x00, 0x80], 0x80),
        (&[0xc7, 0x00, 0xf1, 0xff, 0xff, 0xff], 0xffff_fff1),
        (&[0x48, 0xc7, 0x00, 0xf1, 0xff, 0xff, 0xff], 0xffff_ffff_ffff_fff1),
        (&[0x66, 0xc7, 0x00, 0x34, 0x12], 0x1234),
    ] {
        assert_eq!(run(bytes, 0, before.clone()), (before.clone(), Some(expected)), "{bytes:02x?}");
    }
}

#[test]
fn an_operator_on_memory_writes_its_result_and_one_on_a_register_does_not() {
    let before = Registers::distinct();
    let rcx = before.general[1];
    // or [rax], ecx; or ecx, [rax]; or byte [rax], 0x81; and dword [rax], -2; sub ecx, [rax]; cmp [rax], ecx
    assert_eq!(run(&[0x09, 0x08], 0x10, before.clone()).1, Some((rcx | 0x10) & 0xffff_ffff));
    let (after, written) = run(&[0x0b, 0x08], 0x10, before.clone());
    assert_eq!((after.general[1], written), ((rcx | 0x10) & 0xffff_ffff, None));
    assert_eq!(run(&[0x80, 0x08, 0x81], 0xff02, before.clone()).1, Some(0x83));
    assert_eq!(run(&[0x83, 0x20, 0xfe], 0xffff_ffff, before.clone()).1, Some(0xffff_fffe));
    let (after, written) = run(&[0x2b, 0x08], 1, before.clone());
    assert_eq!((after.general[1], written), ((rcx & 0xffff_ffff) - 1, None));
    let (after, written) = run(&[0x39, 0x08], rcx & 0xffff_ffff, before.clone());
    assert_eq!((after.general, written, after.flags & 0x8d5), (before.general, None, 0x44));
    // test dword [rax], 0x80000000
    let (after, written) = run(&[0xf7, 0x00, 0, 0, 0, 0x80], 0xffff_ffff, before.clone());
    assert_eq!((after.general, written, after.flags), (before.general, None, 0x202 | 0x80 | 0x04));
}

/// Result and flags of an addition, a bit at a time.
fn add_bit_by_bit(bits: u32, left: u64, right: u64, mut carry: bool) -> (u64, bool, bool, bool) {
    let (mut result, mut into_last, mut from_third) = (0, false, false);
    for bit in 0..bits {
        let (l, r) = (left >> bit & 1 != 0, right >> bit & 1 != 0);
        result |= u64::from(l ^ r ^ carry) << bit;
        into_last = carry;
        carry = l & r | l & carry | r & carry;
        if bit == 3 {
            from_third = carry;
        }
    }
    (result, carry, carry ^ into_last, from_third)
}

#[test]
fn the_flags_are_those_of_a_bit_by_bit_calculation() {
    let mut random = Random(3);
    let mut registers = Registers::distinct();
    for (width, prefix) in [(Width::Byte, 0), (Width::Word, 0x66), (Width::Dword, 0), (Width::Qword, 0x48)] {
        for (opcode, operator) in [
            (0x00, Operator::Add),
            (0x08, Operator::Or),
            (0x20, Operator::And),
            (0x28, Operator::Sub),
            (0x30, Operator::Xor),
        ] {
            let bytes = [prefix, opcode | u8::from(width != Width::Byte), 0x08];
            let bytes = if prefix == 0 { &bytes[1..] } else { &bytes[..] };
            let instruction = decode(bytes, CodeSize::Bits64).unwrap();
            for round in 0..400 {
                // Small and extreme values often, so that zero, carry and overflow all occur.
                let mut value = || match random.next() % 4 {
                    0 => random.next() % 3,
                    1 => (width.sign()).wrapping_add(random.next() % 3).wrapping_sub(1) & width.mask(),
                    2 => width.mask() - random.next() % 3,
                    _ => random.next() & width.mask(),
                };
                let (left, right) = (value(), value());
                registers.general[1] = right;
                registers.flags = if round % 2 == 0 { 0x202 } else { 0x8d7 };
                let kept = registers.flags & !0x8d5;
                let written = instruction.execute(left, &mut registers).unwrap();
                let (result, carry, overflow, auxiliary) = match operator {
                    Operator::Add => add_bit_by_bit(width.bits(), left, right, false),
                    Operator::Sub => {
                        let (result, carry, overflow, auxiliary) = add_bit_by_bit(width.bits(), left, !right, true);
                        (result, !carry, overflow, !auxiliary)
                    }
                    Operator::Or => (left | right, false, false, false),
                    Operator::And => (left & right, false, false, false),
                    Operator::Xor => (left ^ right, false, false, false),
                };
                let parity = (0..8).filter(|bit| result >> bit & 1 != 0).count() % 2 == 0;
                let flags = kept
                    | u64::from(carry)
                    | u64::from(parity) << 2
                    | u64::from(auxiliary) << 4
                    | u64::from(result == 0) << 6
                    | u64::from(result & width.sign() != 0) << 7
                    | u64::from(overflow) << 11;
                assert_eq!((written, registers.flags), (result, flags), "{operator:?} {width:?} {left:#x} {right:#x}");
            }
        }
    }
}

#[test]
fn addresses_wrap_at_their_width_and_segments_add_to_them() {
    let mut registers = Registers::distinct();
    registers.general[0] = 0x1_2345_ffff;
    registers.general[5] = 0x1_0000_0010;
    registers.bases = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000];
    registers.rip = 0x1_0000_0ffa;
    let address = |bytes: &[u8], code_size| decode(bytes, code_size).unwrap().linear_address(&registers);
    // mov ecx, [rax + 1]
    assert_eq!(address(&[0x8b, 0x48, 0x01], CodeSize::Bits64), 0x1_2346_0000);
    // mov ecx, [eax + 1], with an address-size prefix and without
    assert_eq!(address(&[0x67, 0x8b, 0x48, 0x01], CodeSize::Bits64), 0x2346_0000);
    assert_eq!(address(&[0x8b, 0x48, 0x01], CodeSize::Bits32), 0x2346_4000, "DS");
    assert_eq!(address(&[0x8b, 0x4d, 0xf0], CodeSize::Bits32), 0x3000, "SS");
    assert_eq!(address(&[0x8b, 0x4d, 0xf0], CodeSize::Bits64), 0x1_0000_0000, "no segment base");
    assert_eq!(address(&[0x65, 0x8b, 0x4d, 0xf0], CodeSize::Bits64), 0x1_0000_6000, "GS");
    // mov ecx, [rip + 0x10]: from the next instruction
    assert_eq!(address(&[0x8b, 0x0d, 0x10, 0, 0, 0], CodeSize::Bits64), 0x1_0000_1010);
    assert_eq!(address(&[0x8b, 0x0d, 0x10, 0, 0, 0], CodeSize::Bits32), 0x4010, "not relative");
    // mov al, [moffs]
    let far = [0xa0, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe];
    assert_eq!(address(&far, CodeSize::Bits64), 0xfedc_ba98_7654_3210);
    assert_eq!(decode(&far, CodeSize::Bits32).unwrap().length(), 5);
}

#[test]
fn the_next_instruction_is_at_an_address_of_the_code_size() {
    let bytes = [0x88, 0x07];
    assert_eq!(decode(&bytes, CodeSize::Bits16).unwrap().next_rip(0xffff), 1);
    assert_eq!(decode(&bytes, CodeSize::Bits32).unwrap().next_rip(0xffff_ffff), 1);
    assert_eq!(decode(&bytes, CodeSize::Bits64).unwrap().next_rip(0xffff_ffff), 0x1_0000_0001);
}

#[test]
fn what_cannot_be_finished_is_an_error_with_its_bytes() {
    use CodeSize::*;
    assert_eq!(reason(&[], Bits64), Reason::Truncated);
    assert_eq!(reason(&[0x8b], Bits64), Reason::Truncated);
    assert_eq!(reason(&[0x8b, 0x80, 0, 0, 0], Bits64), Reason::Truncated);
    assert_eq!(reason(&[0xc7, 0x00, 1, 2, 3], Bits64), Reason::Truncated);
    assert_eq!(reason(&[0x66; 20], Bits64), Reason::TooLong);
    assert_eq!(reason(&[0xf0, 0x0b, 0x08], Bits64), Reason::Locked, "the result is in a register");
    assert_eq!(reason(&[0xf0, 0x89, 0x08], Bits64), Reason::Locked, "a store");
    assert!(decode(&[0xf0, 0x09, 0x08], Bits64).is_ok());
    assert_eq!(reason(&[0x89, 0xc8], Bits64), Reason::NoMemoryOperand);
    assert_eq!(reason(&[0x63, 0x08], Bits32), Reason::Unsupported, "ARPL");
    assert_eq!(reason(&[0xc7, 0x08, 0, 0, 0, 0], Bits64), Reason::Unsupported);
    assert_eq!(reason(&[0x11, 0x08], Bits64), Reason::Unsupported, "ADC");
    let error = decode(&[0x0f, 0xff, 0x12], Bits32).unwrap_err();
    assert_eq!(error.bytes(), [0x0f, 0xff, 0x12]);
    assert_eq!(error.to_string(), "instruction that is not emulated: 0f ff 12");
    // The fifteenth byte may be the last, and no more.
    let mut longest = [0x66; 15];
    longest[13..].copy_from_slice(&[0x8b, 0x08]);
    assert_eq!(decode(&longest, Bits64).unwrap().length(), 15);
    longest[12..].copy_from_slice(&[0x8b, 0x48, 0x01]);
    assert_eq!(decode(&longest, Bits64).unwrap().length(), 15);
    longest[13..].copy_from_slice(&[0x8b, 0x48]);
    assert_eq!(reason(&longest, Bits64), Reason::TooLong);
}
