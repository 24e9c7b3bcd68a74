//! Agreement with iced-x86, a decoder that others wrote, over every opcode and operand form.

use super::support::{Random, Registers};
use crate::vm::instruction::{
    CodeSize, Instruction, MAX_LENGTH, Operation, Operator, Part, Reason, Segment, Source, Width, decode,
};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction as Iced, Mnemonic, OpKind, Register};

const CODE_SIZES: [(CodeSize, u32); 3] = [(CodeSize::Bits16, 16), (CodeSize::Bits32, 32), (CodeSize::Bits64, 64)];

/// Every prefix, orders that matter, and none.
const PREFIXES: [&[u8]; 25] = [
    &[],
    &[0x66],
    &[0x67],
    &[0x66, 0x67],
    &[0x40],
    &[0x41],
    &[0x42],
    &[0x44],
    &[0x48],
    &[0x4f],
    &[0x66, 0x48],
    &[0x48, 0x66],
    &[0x67, 0x47],
    &[0x41, 0x44],
    &[0x26],
    &[0x2e],
    &[0x36],
    &[0x3e],
    &[0x64],
    &[0x65, 0x4d],
    &[0x64, 0x2e],
    &[0x2e, 0x65],
    &[0xf2],
    &[0xf3, 0x66],
    &[0xf0],
];

/// The operand of `iced` in memory, if it is an instruction of the set.
fn in_the_set(iced: &Iced) -> Option<u32> {
    use Mnemonic::*;
    if !matches!(iced.mnemonic(), Mov | Movzx | Movsx | Movsxd | Test | Add | Or | And | Sub | Xor | Cmp)
        || iced.has_lock_prefix()
        || iced.code() == Code::Movsxd_r16_rm16
    {
        return None;
    }
    let memory = (0..iced.op_count()).find(|operand| iced.op_kind(*operand) == OpKind::Memory)?;
    let other = 1 - memory;
    let segment = iced.op_kind(other) == OpKind::Register && iced.op_register(other).is_segment_register();
    (!segment).then_some(memory)
}

fn part(register: Register) -> (Part, usize) {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    (Part { number: register.full_register().number() as u8, high }, register.size())
}

/// The operation as iced describes it.
fn operation(iced: &Iced, memory: u32) -> Operation {
    let other = 1 - memory;
    let register = (iced.op_kind(other) == OpKind::Register).then(|| part(iced.op_register(other)));
    let source = register.map_or_else(|| Source::Immediate(iced.immediate(other)), |(part, _)| Source::Register(part));
    let arithmetic = |operator, keep| {
        // TEST has no direction; its operand in memory is always the first.
        Operation::Arithmetic(crate::vm::instruction::Arithmetic {
            operator,
            keep,
            memory_is_left: memory == 0,
            other: source,
        })
    };
    match iced.mnemonic() {
        Mnemonic::Add => arithmetic(Operator::Add, true),
        Mnemonic::Or => arithmetic(Operator::Or, true),
        Mnemonic::And => arithmetic(Operator::And, true),
        Mnemonic::Sub => arithmetic(Operator::Sub, true),
        Mnemonic::Xor => arithmetic(Operator::Xor, true),
        Mnemonic::Cmp => arithmetic(Operator::Sub, false),
        Mnemonic::Test => arithmetic(Operator::And, false),
        _ if memory == 0 => Operation::Store(source),
        mnemonic => {
            let (to, size) = register.unwrap();
            let width = [Width::Byte, Width::Word, Width::Dword, Width::Qword]
                .into_iter()
                .find(|width| width.bytes() == size)
                .unwrap();
            let signed = matches!(mnemonic, Mnemonic::Movsx | Mnemonic::Movsxd);
            Operation::Load { to, width, signed }
        }
    }
}

/// The immediates agree in the bits that count.
fn same_operation(ours: &Instruction, theirs: Operation) -> bool {
    let cut = |operation: Operation| {
        let cut = |source: Source| match source {
            Source::Immediate(value) => Source::Immediate(value & ours.width().mask()),
            register => register,
        };
        match operation {
            Operation::Store(source) => Operation::Store(cut(source)),
            Operation::Arithmetic(mut arithmetic) => {
                arithmetic.other = cut(arithmetic.other);
                Operation::Arithmetic(arithmetic)
            }
            load => load,
        }
    };
    cut(*ours.operation()) == cut(theirs)
}

/// The linear address as iced computes it.
fn linear_address(iced: &Iced, memory: u32, bitness: u32, registers: &Registers) -> u64 {
    let address = iced.virtual_address(memory, 0, |register, _, _| {
        let base = match register {
            Register::ES => Segment::Es,
            Register::CS => Segment::Cs,
            Register::SS => Segment::Ss,
            Register::DS => Segment::Ds,
            Register::FS => Segment::Fs,
            Register::GS => Segment::Gs,
            general => {
                let value = registers.general[general.full_register().number()];
                return Some(if general.size() == 8 { value } else { value & ((1 << (8 * general.size())) - 1) });
            }
        };
        let flat = bitness == 64 && !matches!(base, Segment::Fs | Segment::Gs);
        Some(if flat { 0 } else { registers.bases[base as usize] })
    });
    if bitness == 64 { address.unwrap() } else { address.unwrap() & 0xffff_ffff }
}

/// What was compared.
#[derive(Default)]
struct Tally {
    decoded: u64,
    refused: u64,
}

/// Decodes `bytes` with both, and compares everything.
fn compare(bytes: &[u8], registers: &Registers, tally: &mut Tally) {
    for (code_size, bitness) in CODE_SIZES {
        let mut registers = registers.clone();
        if bitness < 64 {
            registers.rip &= (1 << bitness) - 1;
        }
        let ours = decode(bytes, code_size);
        let iced = Decoder::with_ip(bitness, bytes, registers.rip, DecoderOptions::NONE).decode();
        let memory = in_the_set(&iced);
        match (ours, memory) {
            (Ok(ours), Some(memory)) => {
                tally.decoded += 1;
                let context = || format!("{bytes:02x?} in {bitness} bits: {ours:?}, {iced:?}");
                assert_eq!(usize::from(ours.length()), iced.len(), "{}", context());
                assert_eq!(ours.width().bytes(), iced.memory_size().size(), "{}", context());
                assert!(same_operation(&ours, operation(&iced, memory)), "{}", context());
                let address = linear_address(&iced, memory, bitness, &registers);
                assert_eq!(ours.linear_address(&registers), address, "{}", context());
                assert_eq!(ours.reads_memory() && ours.writes_memory(), {
                    let access = matches!(ours.operation(), Operation::Arithmetic(_));
                    access && memory == 0 && !matches!(iced.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
                });
            }
            (Ok(ours), None) => panic!("{bytes:02x?} in {bitness} bits: {ours:?}, but iced: {iced:?}"),
            (Err(error), Some(_)) => panic!("{error} in {bitness} bits, but iced: {iced:?}"),
            (Err(error), None) => {
                tally.refused += 1;
                assert!(error.bytes().len() <= MAX_LENGTH);
            }
        }
    }
}

/// An instruction of `prefixes`, `opcode`, ModRM and SIB, with enough behind it.
fn bytes(prefixes: &[u8], opcode: &[u8], modrm: u8, sib: u8) -> [u8; MAX_LENGTH] {
    let tail = [modrm, sib, 0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88, 0x79, 0x6a, 0x5b, 0x4c, 0x3d];
    let mut bytes = [0; MAX_LENGTH];
    for (to, from) in bytes.iter_mut().zip(prefixes.iter().chain(opcode).chain(&tail)) {
        *to = *from;
    }
    bytes
}

#[test]
fn every_opcode_with_every_modrm_byte_agrees() {
    let registers = Registers::distinct();
    let mut tally = Tally::default();
    for opcode in (0..=255).map(|opcode| vec![opcode]).chain((0..=255).map(|opcode| vec![0x0f, opcode])) {
        for prefixes in PREFIXES {
            // All that are decoded, and some of the others.
            let known = (0..8).any(|extension| {
                CODE_SIZES.iter().any(|(size, _)| decode(&bytes(&[], &opcode, extension << 3, 0), *size).is_ok())
            });
            for modrm in (0..=255).step_by(if known { 1 } else { 23 }) {
                for sib in if known && modrm & 7 == 4 { &[0x24, 0xe5, 0x6c, 0x9b][..] } else { &[0x85] } {
                    compare(&bytes(prefixes, &opcode, modrm, *sib), &registers, &mut tally);
                }
            }
        }
    }
    assert!(tally.decoded > 300_000 && tally.refused > 300_000, "{} {}", tally.decoded, tally.refused);
}

#[test]
fn every_sib_byte_agrees() {
    let registers = Registers::distinct();
    let mut tally = Tally::default();
    for prefixes in PREFIXES {
        for sib in 0..=255 {
            for modrm in [0x04, 0x4c, 0x94] {
                compare(&bytes(prefixes, &[0x8b], modrm, sib), &registers, &mut tally);
                compare(&bytes(prefixes, &[0xc7], modrm, sib), &registers, &mut tally);
            }
        }
    }
    assert!(tally.decoded > 30_000);
}

#[test]
fn random_bytes_agree() {
    let mut random = Random(11);
    let mut tally = Tally::default();
    let mut registers = Registers::distinct();
    for _ in 0..60_000 {
        let mut bytes = [0; MAX_LENGTH];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (random.next() >> 32) as u8;
            // Some with several prefixes of every kind before the rest.
            if index < 4 && random.next().is_multiple_of(3) {
                *byte = [0x66, 0x67, 0x40, 0x48, 0x4d, 0x64, 0x3e, 0x8b][(random.next() % 8) as usize];
            }
        }
        registers.rip = random.next();
        registers.general[(random.next() % 16) as usize] = random.next();
        compare(&bytes, &registers, &mut tally);
    }
    assert!(tally.decoded > 5_000, "{}", tally.decoded);
}

#[test]
fn an_instruction_cut_at_any_byte_is_truncated() {
    for (code_size, _) in CODE_SIZES {
        for opcode in [&[0x89][..], &[0xc7], &[0x81], &[0xa1], &[0x0f, 0xb7], &[0xf7]] {
            for prefixes in [&[][..], &[0x66], &[0x67], &[0x65]] {
                for modrm in [0x00, 0x04, 0x05, 0x06, 0x44, 0x84, 0x80] {
                    let whole = bytes(prefixes, opcode, modrm, 0x25);
                    let length = usize::from(decode(&whole, code_size).unwrap().length());
                    for end in 0..length {
                        let error = decode(&whole[..end], code_size).unwrap_err();
                        assert_eq!(error.reason(), Reason::Truncated, "{:02x?}", &whole[..end]);
                    }
                    assert!(decode(&whole[..length], code_size).is_ok());
                }
            }
        }
    }
}
