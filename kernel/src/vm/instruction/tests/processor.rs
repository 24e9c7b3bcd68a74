//! Agreement with the processor that runs the tests: each instruction is executed by it, and by the emulation on copies of
//! the same registers, flags and memory.

use super::support::{Random, Registers};
use crate::vm::instruction::{CodeSize, Operation, Operator, RegisterFile, decode};
use core::arch::asm;

/// Memory around the operand, which is in the middle: bit instructions reach what is before and after it.
const BYTES: usize = 128;
/// Where the emulation believes the operand to be.
const OPERAND: u64 = 0x1234_5678_9000;
const CARRY: u64 = 1 << 0;
const AUXILIARY: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const ARITHMETIC: u64 = 0x8d5;

/// What an instruction works on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    rax: u64,
    rcx: u64,
    rdx: u64,
    flags: u64,
    memory: [u8; BYTES],
}

/// One instruction, with its memory operand at RSI.
struct Native {
    text: &'static str,
    /// Executes it, and returns its bytes.
    run: fn(&mut State) -> &'static [u8],
}

/// Instructions that begin with the same words.
macro_rules! natives {
    ($list:ident, $($text:expr),+ $(,)?) => { $(
        #[expect(unsafe_code, reason = "executes an instruction for comparison")]
        $list.push(Native {
            text: $text,
            run: |state| {
                let (start, end): (usize, usize);
                // SAFETY: the instruction reaches RAX, RCX, RDX, the arithmetic flags and the state's memory, on which
                // RSI points 64 bytes behind the start; the values are chosen so that no bit index leaves it.
                unsafe {
                    asm!(
                        "lea {start}, [rip + 22f]",
                        "lea {end}, [rip + 23f]",
                        "push {flags}",
                        "popfq",
                        "22:",
                        $text,
                        "23:",
                        "pushfq",
                        "pop {flags}",
                        start = out(reg) start,
                        end = out(reg) end,
                        flags = inout(reg) state.flags,
                        inout("rax") state.rax,
                        inout("rcx") state.rcx,
                        inout("rdx") state.rdx,
                        in("rsi") state.memory.as_mut_ptr().wrapping_add(BYTES / 2),
                    );
                    core::slice::from_raw_parts(start as *const u8, end - start)
                }
            },
        });
    )+ };
}

macro_rules! for_each_operator {
    ($list:ident, $($name:literal),+) => { $(
        natives!(
            $list,
            concat!($name, " byte ptr [rsi], cl"),
            concat!($name, " byte ptr [rsi], dh"),
            concat!($name, " word ptr [rsi], cx"),
            concat!($name, " dword ptr [rsi], ecx"),
            concat!($name, " qword ptr [rsi], rcx"),
            concat!($name, " cl, byte ptr [rsi]"),
            concat!($name, " ch, byte ptr [rsi]"),
            concat!($name, " cx, word ptr [rsi]"),
            concat!($name, " ecx, dword ptr [rsi]"),
            concat!($name, " rcx, qword ptr [rsi]"),
            concat!($name, " byte ptr [rsi], -3"),
            concat!($name, " word ptr [rsi], -3"),
            concat!($name, " word ptr [rsi], 0x7fff"),
            concat!($name, " dword ptr [rsi], 127"),
            concat!($name, " dword ptr [rsi], 0x7fffffff"),
            concat!($name, " qword ptr [rsi], -128"),
            concat!($name, " qword ptr [rsi], -0x7fffffff"),
        );
    )+ };
}

macro_rules! for_each_width {
    ($list:ident, $($name:literal),+) => { $(
        natives!(
            $list,
            concat!($name, " byte ptr [rsi]"),
            concat!($name, " word ptr [rsi]"),
            concat!($name, " dword ptr [rsi]"),
            concat!($name, " qword ptr [rsi]"),
        );
    )+ };
}

macro_rules! for_each_register {
    ($list:ident, $($name:literal),+) => { $(
        natives!(
            $list,
            concat!($name, " byte ptr [rsi], cl"),
            concat!($name, " byte ptr [rsi], dh"),
            concat!($name, " byte ptr [rsi], al"),
            concat!($name, " word ptr [rsi], cx"),
            concat!($name, " dword ptr [rsi], ecx"),
            concat!($name, " dword ptr [rsi], eax"),
            concat!($name, " qword ptr [rsi], rcx"),
            concat!("lock ", $name, " dword ptr [rsi], edx"),
        );
    )+ };
}

macro_rules! for_each_bit {
    ($list:ident, $($name:literal),+) => { $(
        natives!(
            $list,
            concat!($name, " word ptr [rsi], cx"),
            concat!($name, " dword ptr [rsi], ecx"),
            concat!($name, " qword ptr [rsi], rcx"),
            concat!($name, " word ptr [rsi], 15"),
            concat!($name, " dword ptr [rsi], 3"),
            concat!($name, " qword ptr [rsi], 63"),
        );
    )+ };
}

fn natives() -> Vec<Native> {
    let mut list = Vec::new();
    for_each_operator!(list, "add", "or", "and", "sub", "xor", "cmp");
    for_each_width!(list, "not", "neg", "inc", "dec", "lock neg", "lock inc");
    for_each_register!(list, "xadd", "cmpxchg", "xchg");
    for_each_bit!(list, "bt", "bts", "btr", "btc");
    natives!(
        list,
        "test byte ptr [rsi], cl",
        "test word ptr [rsi], cx",
        "test dword ptr [rsi], ecx",
        "test qword ptr [rsi], rcx",
        "test byte ptr [rsi], 0x81",
        "test dword ptr [rsi], -2",
        "test qword ptr [rsi], -0x80",
        "lock bts dword ptr [rsi], ecx",
        "lock btr qword ptr [rsi], 7",
        "mov byte ptr [rsi], ch",
        "mov word ptr [rsi], dx",
        "mov dword ptr [rsi], -7",
        "mov qword ptr [rsi], -7",
        "mov ax, word ptr [rsi]",
        "mov eax, dword ptr [rsi]",
        "mov ah, byte ptr [rsi]",
        "movzx eax, byte ptr [rsi]",
        "movzx ax, byte ptr [rsi]",
        "movzx rax, word ptr [rsi]",
        "movsx eax, byte ptr [rsi]",
        "movsx ax, byte ptr [rsi]",
        "movsx rax, word ptr [rsi]",
        "movsxd rax, dword ptr [rsi]",
        "add ecx, dword ptr [rsi - 12]",
        "sub dword ptr [rsi + 4], ecx",
        "xor word ptr [rsi + 2*rdx], cx",
    );
    list
}

/// The emulation of `bytes` on `state`. Returns the flags that the architecture defines after it.
fn emulate(bytes: &[u8], state: &mut State) -> u64 {
    let mut registers = Registers::distinct();
    for (number, value) in [(0, state.rax), (1, state.rcx), (2, state.rdx), (6, OPERAND)] {
        registers.set_general(number, value);
    }
    registers.set_flags(state.flags);
    let instruction = decode(bytes, CodeSize::Bits64).unwrap();
    assert_eq!(usize::from(instruction.length()), bytes.len());
    let at = instruction.linear_address(&registers).wrapping_sub(OPERAND).wrapping_add(BYTES as u64 / 2) as usize;
    let range = at..at + instruction.width().bytes();
    let mut read = [0; 8];
    read[..range.len()].copy_from_slice(&state.memory[range.clone()]);
    if let Some(value) = instruction.execute(u64::from_le_bytes(read), &mut registers) {
        let width = range.len();
        state.memory[range].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    (state.rax, state.rcx, state.rdx) = (registers.general(0), registers.general(1), registers.general(2));
    state.flags = registers.flags();
    match instruction.operation() {
        Operation::Bit { .. } => CARRY | ZERO,
        Operation::Arithmetic(arithmetic)
            if matches!(arithmetic.operator, Operator::And | Operator::Or | Operator::Xor) =>
        {
            ARITHMETIC & !AUXILIARY
        }
        _ => ARITHMETIC,
    }
}

#[test]
fn the_emulation_does_what_this_processor_does() {
    const SEED: u64 = 29;
    println!("seed {SEED}");
    let mut random = Random(SEED);
    let natives = natives();
    for native in &natives {
        let bits = native.text.split(' ').any(|word| word.starts_with("bt"));
        for _ in 0..400 {
            // Small and extreme values often, so that zero, carry, overflow and equality all occur.
            let mut value = || match random.next() % 6 {
                0 => random.next() % 3,
                1 => [0x7f, 0x80, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, 1 << 63][(random.next() % 7) as usize],
                2 => u64::MAX - random.next() % 3,
                3 => 0x0101_0101_0101_0101 * (random.next() % 3),
                _ => random.next(),
            };
            let mut state = State { rax: value(), rcx: value(), rdx: value(), flags: 0x202, memory: [0; BYTES] };
            let all_alike = random.next().is_multiple_of(3);
            for chunk in state.memory.chunks_exact_mut(8) {
                let filling = if all_alike { state.rax } else { random.next() };
                chunk.copy_from_slice(&filling.to_le_bytes());
            }
            state.flags |= random.next() & ARITHMETIC;
            if bits {
                // The index stays within the memory, before and after the operand.
                state.rcx = (random.next() % 800).wrapping_sub(400);
                if native.text.contains("cx") && random.next().is_multiple_of(2) {
                    // What is above the index's width does not count.
                    let width = if native.text.contains("rcx") {
                        64
                    } else if native.text.contains("ecx") {
                        32
                    } else {
                        16
                    };
                    state.rcx ^= if width < 64 { random.next() << width } else { 0 };
                }
            }
            if native.text.contains("rdx") {
                state.rdx = random.next() % 20;
            }
            let before = state.clone();
            let mut emulated = state.clone();
            let code = (native.run)(&mut state);
            let defined = emulate(code, &mut emulated);
            state.flags &= defined;
            emulated.flags &= defined;
            assert_eq!(emulated, state, "{} ({code:02x?}) from {before:x?}", native.text);
        }
    }
    assert!(natives.len() > 170, "{}", natives.len());
}
