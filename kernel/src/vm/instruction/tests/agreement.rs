//! Agreement with iced-x86, a decoder that others wrote, over every opcode and operand form.

use super::support::{Random, Registers};
use crate::vm::instruction::{
    BitAction, CodeSize, Instruction, MAX_LENGTH, Operation, Operator, Part, Reason, Segment, Source, StringKind,
    StringOperation, Unary, Width, decode,
};
use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction as Iced, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

const CODE_SIZES: [(CodeSize, u32); 3] = [(CodeSize::Bits16, 16), (CodeSize::Bits32, 32), (CodeSize::Bits64, 64)];

/// Every prefix, orders that matter, and none.
const PREFIXES: [&[u8]; 28] = [
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
    &[0xf0, 0x48],
    &[0xf2, 0xf0],
    &[0x67, 0xf3, 0x65],
];

/// The string instruction that `iced` is, if it is one of the set.
fn string(iced: &Iced) -> Option<StringKind> {
    use Code::*;
    Some(match iced.code() {
        Movsb_m8_m8 | Movsw_m16_m16 | Movsd_m32_m32 | Movsq_m64_m64 => StringKind::Move,
        Stosb_m8_AL | Stosw_m16_AX | Stosd_m32_EAX | Stosq_m64_RAX => StringKind::Store,
        Lodsb_AL_m8 | Lodsw_AX_m16 | Lodsd_EAX_m32 | Lodsq_RAX_m64 => StringKind::Load,
        Insb_m8_DX | Insw_m16_DX | Insd_m32_DX => StringKind::Input,
        Outsb_DX_m8 | Outsw_DX_m16 | Outsd_DX_m32 => StringKind::Output,
        _ => return None,
    })
}

/// The operand of `iced` in memory, if it is an instruction of the set.
fn in_the_set(iced: &Iced) -> Option<u32> {
    use Mnemonic::*;
    if let Some(kind) = string(iced) {
        return Some(if matches!(kind, StringKind::Load | StringKind::Output) { 1 } else { 0 });
    }
    let one_operand = matches!(iced.mnemonic(), Not | Neg | Inc | Dec);
    let two_operands = matches!(
        iced.mnemonic(),
        Mov | Movzx
            | Movsx
            | Movsxd
            | Test
            | Add
            | Or
            | And
            | Sub
            | Xor
            | Cmp
            | Xchg
            | Xadd
            | Cmpxchg
            | Bt
            | Bts
            | Btr
            | Btc
    );
    if !one_operand && !two_operands || iced.code() == Code::Movsxd_r16_rm16 {
        return None;
    }
    let memory = (0..iced.op_count()).find(|operand| iced.op_kind(*operand) == OpKind::Memory)?;
    let segment = two_operands && {
        let other = 1 - memory;
        iced.op_kind(other) == OpKind::Register && iced.op_register(other).is_segment_register()
    };
    (!segment).then_some(memory)
}

fn part(register: Register) -> (Part, usize) {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    (Part { number: register.full_register().number() as u8, high }, register.size())
}

/// The operation as iced describes it.
fn operation(iced: &Iced, memory: u32) -> Operation {
    if let Some(kind) = string(iced) {
        let source_segment = segment(iced.memory_segment());
        let repeat = iced.has_rep_prefix() || iced.has_repne_prefix();
        return Operation::String(StringOperation { kind, repeat, source_segment });
    }
    match iced.mnemonic() {
        Mnemonic::Not => return Operation::Unary(Unary::Not),
        Mnemonic::Neg => return Operation::Unary(Unary::Negate),
        Mnemonic::Inc => return Operation::Unary(Unary::Increment),
        Mnemonic::Dec => return Operation::Unary(Unary::Decrement),
        _ => {}
    }
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
        Mnemonic::Xchg => Operation::Exchange(register.unwrap().0),
        Mnemonic::Xadd => Operation::ExchangeAdd(register.unwrap().0),
        Mnemonic::Cmpxchg => Operation::CompareExchange(register.unwrap().0),
        Mnemonic::Bt => Operation::Bit { action: BitAction::Test, index: source },
        Mnemonic::Bts => Operation::Bit { action: BitAction::Set, index: source },
        Mnemonic::Btr => Operation::Bit { action: BitAction::Reset, index: source },
        Mnemonic::Btc => Operation::Bit { action: BitAction::Complement, index: source },
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

fn segment(register: Register) -> Segment {
    match register {
        Register::ES => Segment::Es,
        Register::CS => Segment::Cs,
        Register::SS => Segment::Ss,
        Register::DS => Segment::Ds,
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        other => panic!("{other:?} is no segment"),
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
            Operation::Bit { action, index: Source::Immediate(index) } => {
                let index = index & u64::from(ours.width().bits() - 1);
                Operation::Bit { action, index: Source::Immediate(index) }
            }
            // Where all segments but two are flat, or there is no element at RSI, a prefix does not matter.
            Operation::String(mut string) => {
                let flat =
                    ours.code_size == CodeSize::Bits64 && !matches!(string.source_segment, Segment::Fs | Segment::Gs);
                if flat || !string.reads_source() {
                    string.source_segment = Segment::Ds;
                }
                Operation::String(string)
            }
            other => other,
        }
    };
    cut(*ours.operation()) == cut(theirs)
}

/// The linear address as iced computes it; of a bit instruction, that of its operand.
fn linear_address(iced: &Iced, memory: u32, bitness: u32, registers: &Registers) -> u64 {
    let address = iced.virtual_address(memory, 0, |register, _, _| {
        if register.is_segment_register() {
            let base = segment(register);
            let flat = bitness == 64 && !matches!(base, Segment::Fs | Segment::Gs);
            return Some(if flat { 0 } else { registers.bases[base as usize] });
        }
        let value = registers.general[register.full_register().number()];
        Some(if register.size() == 8 { value } else { value & ((1 << (8 * register.size())) - 1) })
    });
    if bitness == 64 { address.unwrap() } else { address.unwrap() & 0xffff_ffff }
}

/// What a bit's index adds to the address, where it is in a register.
fn bit_offset(iced: &Iced) -> Option<Register> {
    let bit = matches!(iced.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    (bit && iced.op_kind(1) == OpKind::Register).then(|| iced.op_register(1))
}

/// What was compared.
#[derive(Default)]
struct Tally {
    decoded: u64,
    refused: u64,
}

/// Decodes `bytes` with both, and compares everything.
fn compare(bytes: &[u8], registers: &Registers, tally: &mut Tally) {
    let mut information = InstructionInfoFactory::new();
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
                // The processor finds the element that the index is in; a low one is in the operand itself.
                if let Some(register) = bit_offset(&iced) {
                    // Any index has an address.
                    let _ = ours.linear_address(&registers);
                    registers.general[register.full_register().number()] &= 0xf;
                }
                let address = linear_address(&iced, memory, bitness, &registers);
                assert_eq!(ours.linear_address(&registers), address, "{}", context());
                if let Some(string) = ours.string() {
                    let elements = ours.elements(&string, &registers);
                    let theirs = |operand| linear_address(&iced, operand, bitness, &registers);
                    let source = string.reads_source().then(|| theirs(1));
                    let destination = string.writes_destination().then(|| theirs(0));
                    assert_eq!(elements, [source, destination], "{}", context());
                }
                let access = information.info(&iced).op_access(memory);
                let reads = matches!(
                    access,
                    OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
                );
                let writes = !matches!(access, OpAccess::Read | OpAccess::CondRead);
                let both = string(&iced) == Some(StringKind::Move);
                assert_eq!((ours.reads_memory(), ours.writes_memory()), (reads || both, writes), "{}", context());
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

/// Random byte strings; each is decoded as code of three sizes.
const ROUNDS: u64 = 1_000_000;

/// The opcodes of the set.
const OPCODES: [&[u8]; 70] = [
    &[0x00],
    &[0x01],
    &[0x02],
    &[0x03],
    &[0x08],
    &[0x09],
    &[0x0a],
    &[0x0b],
    &[0x20],
    &[0x21],
    &[0x22],
    &[0x23],
    &[0x28],
    &[0x29],
    &[0x2a],
    &[0x2b],
    &[0x30],
    &[0x31],
    &[0x32],
    &[0x33],
    &[0x38],
    &[0x39],
    &[0x3a],
    &[0x3b],
    &[0x63],
    &[0x6c],
    &[0x6d],
    &[0x6e],
    &[0x6f],
    &[0x80],
    &[0x81],
    &[0x82],
    &[0x83],
    &[0x84],
    &[0x85],
    &[0x86],
    &[0x87],
    &[0x88],
    &[0x89],
    &[0x8a],
    &[0x8b],
    &[0xa0],
    &[0xa1],
    &[0xa2],
    &[0xa3],
    &[0xa4],
    &[0xa5],
    &[0xaa],
    &[0xab],
    &[0xac],
    &[0xad],
    &[0xc6],
    &[0xc7],
    &[0xf6],
    &[0xf7],
    &[0xfe],
    &[0xff],
    &[0x0f, 0xa3],
    &[0x0f, 0xab],
    &[0x0f, 0xb0],
    &[0x0f, 0xb1],
    &[0x0f, 0xb3],
    &[0x0f, 0xb6],
    &[0x0f, 0xb7],
    &[0x0f, 0xba],
    &[0x0f, 0xbb],
    &[0x0f, 0xbe],
    &[0x0f, 0xbf],
    &[0x0f, 0xc0],
    &[0x0f, 0xc1],
];

#[test]
fn random_bytes_agree() {
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let mut random = Random(SEED);
    let mut tally = Tally::default();
    let mut registers = Registers::distinct();
    for round in 0..ROUNDS {
        let mut bytes = [0; MAX_LENGTH];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (random.next() >> 32) as u8;
            // Some with several prefixes of every kind before the rest.
            if index < 4 && random.next().is_multiple_of(3) {
                *byte = [0x66, 0x67, 0x40, 0x48, 0x4d, 0x64, 0x3e, 0xf0, 0xf2, 0xf3][(random.next() % 10) as usize];
            }
        }
        // Most with an opcode of the set after up to three such prefixes.
        if round % 4 != 0 {
            let at = (random.next() % 4) as usize;
            let opcode = OPCODES[(random.next() % 70) as usize];
            bytes[at..at + opcode.len()].copy_from_slice(opcode);
        }
        let end = if round % 16 == 1 { (random.next() % 16) as usize } else { MAX_LENGTH };
        registers.rip = random.next();
        registers.general[(random.next() % 16) as usize] = random.next();
        compare(&bytes[..end], &registers, &mut tally);
    }
    println!("{} decoded by both, {} refused by both", tally.decoded, tally.refused);
    assert!(tally.decoded > ROUNDS / 2 && tally.refused > ROUNDS / 2);
}

#[test]
fn an_instruction_cut_at_any_byte_is_truncated() {
    for (code_size, _) in CODE_SIZES {
        for opcode in [&[0x89][..], &[0xc7], &[0x81], &[0xa1], &[0x0f, 0xb7], &[0xf7], &[0xa5], &[0x0f, 0xab], &[0x87]]
        {
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
