//! What the instructions do.

use super::{Instruction, Part, RegisterFile, StringOperation, Width};

/// An operand that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A general register, at the width of the memory operand.
    Register(Part),
    /// A value in the instruction, extended to 64 bits.
    Immediate(u64),
}

impl Source {
    fn read(self, width: Width, registers: &impl RegisterFile) -> u64 {
        match self {
            Self::Register(part) => part.read(width, registers),
            Self::Immediate(value) => value & width.mask(),
        }
    }
}

/// What is done with two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// The sum.
    Add,
    /// Bitwise or.
    Or,
    /// Bitwise and; TEST, if the result is not kept.
    And,
    /// The difference; CMP, if the result is not kept.
    Sub,
    /// Bitwise exclusive or.
    Xor,
}

/// An instruction that sets the flags by two values, one of them in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arithmetic {
    /// What is done.
    pub operator: Operator,
    /// The value in memory is the left operand, which also takes the result; else the other one is.
    pub memory_is_left: bool,
    /// The operand that is not in memory; a register if it is the left one.
    pub other: Source,
    /// The result is stored in the left operand, not only the flags set.
    pub keep: bool,
}

/// What is done with the value in memory alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// All bits inverted; no flag changes.
    Not,
    /// Taken from zero.
    Negate,
    /// One more; the carry flag stays.
    Increment,
    /// One less; the carry flag stays.
    Decrement,
}

/// What is done with one bit, after it was copied to the carry flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitAction {
    /// Nothing: BT.
    Test,
    /// It becomes 1: BTS.
    Set,
    /// It becomes 0: BTR.
    Reset,
    /// It becomes the other: BTC.
    Complement,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Memory to a register.
    Load {
        /// The register.
        to: Part,
        /// The width at which the register is written; at least that of the memory operand.
        width: Width,
        /// The value is extended by its sign, not by zeros.
        signed: bool,
    },
    /// To memory, which is not read.
    Store(Source),
    /// Flags, and perhaps memory or a register.
    Arithmetic(Arithmetic),
    /// Memory, and for all but NOT flags.
    Unary(Unary),
    /// XCHG: memory and a register.
    Exchange(Part),
    /// XADD: memory becomes the sum of both, the register what memory was.
    ExchangeAdd(Part),
    /// CMPXCHG: memory becomes the register if it equals the accumulator, else the accumulator becomes memory.
    CompareExchange(Part),
    /// BT, BTS, BTR, BTC.
    Bit {
        /// What becomes of it.
        action: BitAction,
        /// Which bit: modulo the width, and with a register in memory before or after the operand too.
        index: Source,
    },
    /// A string instruction, which [`Instruction::execute`] does not finish.
    String(StringOperation),
}

impl Operation {
    /// Whether the instruction may have a LOCK prefix: it reads memory, and writes it.
    pub(crate) fn may_be_locked(&self) -> bool {
        match self {
            Self::Arithmetic(arithmetic) => arithmetic.keep && arithmetic.memory_is_left,
            Self::Bit { action, .. } => *action != BitAction::Test,
            Self::Load { .. } | Self::Store(_) | Self::String(_) => false,
            Self::Unary(_) | Self::Exchange(_) | Self::ExchangeAdd(_) | Self::CompareExchange(_) => true,
        }
    }
}

/// The accumulator: AL, AX, EAX or RAX.
const ACCUMULATOR: Part = Part { number: 0, high: false };
/// RFLAGS bit 0: carry.
const CARRY: u64 = 1 << 0;
/// RFLAGS bit 2: the lowest byte of the result has an even number of ones.
const PARITY: u64 = 1 << 2;
/// RFLAGS bit 4: carry out of bit 3.
const AUXILIARY: u64 = 1 << 4;
/// RFLAGS bit 6: the result is zero.
const ZERO: u64 = 1 << 6;
/// RFLAGS bit 7: the result's highest bit.
const SIGN: u64 = 1 << 7;
/// RFLAGS bit 11: signed overflow.
const OVERFLOW: u64 = 1 << 11;
/// The flags that arithmetic sets.
const ALL: u64 = CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW;

impl Operator {
    /// The result at `width`, and the six arithmetic flags. After the bitwise operators the auxiliary carry is
    /// undefined by the architecture, and clear here.
    fn apply(self, width: Width, left: u64, right: u64) -> (u64, u64) {
        let result = width.mask()
            & match self {
                Self::Add => left.wrapping_add(right),
                Self::Or => left | right,
                Self::And => left & right,
                Self::Sub => left.wrapping_sub(right),
                Self::Xor => left ^ right,
            };
        let (carry, overflow, auxiliary) = match self {
            Self::Add => (result < left, !(left ^ right) & (left ^ result), left ^ right ^ result),
            Self::Sub => (left < right, (left ^ right) & (left ^ result), left ^ right ^ result),
            Self::Or | Self::And | Self::Xor => (false, 0, 0),
        };
        let mut flags = auxiliary & AUXILIARY;
        for (set, flag) in [
            (carry, CARRY),
            ((result as u8).count_ones().is_multiple_of(2), PARITY),
            (result == 0, ZERO),
            (result & width.sign() != 0, SIGN),
            (overflow & width.sign() != 0, OVERFLOW),
        ] {
            if set {
                flags |= flag;
            }
        }
        (result, flags)
    }
}

impl Instruction {
    /// Finishes the instruction. `read` is what memory holds, if [`Instruction::reads_memory`]; the result is what to
    /// write there, if [`Instruction::writes_memory`]. Sets registers and flags, but not the instruction pointer: see
    /// [`Instruction::next_rip`].
    pub fn execute(&self, read: u64, registers: &mut impl RegisterFile) -> Option<u64> {
        let width = self.width;
        let read = read & width.mask();
        // The flags that are set, and those that may be.
        let (written, flags, mask) = match self.operation {
            Operation::Load { to, width: to_width, signed } => {
                let value = if signed { width.sign_extend(read) } else { read };
                to.write(to_width, value, registers);
                (None, 0, 0)
            }
            Operation::Store(source) => (Some(source.read(width, registers)), 0, 0),
            Operation::Arithmetic(Arithmetic { operator, memory_is_left, other, keep }) => {
                let value = other.read(width, registers);
                let (left, right) = if memory_is_left { (read, value) } else { (value, read) };
                let (result, flags) = operator.apply(width, left, right);
                match other {
                    _ if keep && memory_is_left => (Some(result), flags, ALL),
                    Source::Register(to) if keep => {
                        to.write(width, result, registers);
                        (None, flags, ALL)
                    }
                    _ => (None, flags, ALL),
                }
            }
            Operation::Unary(unary) => {
                let ((result, flags), mask) = match unary {
                    Unary::Not => ((!read & width.mask(), 0), 0),
                    Unary::Negate => (Operator::Sub.apply(width, 0, read), ALL),
                    Unary::Increment => (Operator::Add.apply(width, read, 1), ALL & !CARRY),
                    Unary::Decrement => (Operator::Sub.apply(width, read, 1), ALL & !CARRY),
                };
                (Some(result), flags, mask)
            }
            Operation::Exchange(part) => {
                let value = part.read(width, registers);
                part.write(width, read, registers);
                (Some(value), 0, 0)
            }
            Operation::ExchangeAdd(part) => {
                let (sum, flags) = Operator::Add.apply(width, read, part.read(width, registers));
                part.write(width, read, registers);
                (Some(sum), flags, ALL)
            }
            Operation::CompareExchange(part) => {
                let (difference, flags) = Operator::Sub.apply(width, ACCUMULATOR.read(width, registers), read);
                let value = if difference == 0 {
                    part.read(width, registers)
                } else {
                    ACCUMULATOR.write(width, read, registers);
                    // Memory is written in any case.
                    read
                };
                (Some(value), flags, ALL)
            }
            Operation::Bit { action, index } => {
                let bit = 1 << (index.read(width, registers) & u64::from(width.bits() - 1));
                let flags = if read & bit != 0 { CARRY } else { 0 };
                let written = match action {
                    BitAction::Test => None,
                    BitAction::Set => Some(read | bit),
                    BitAction::Reset => Some(read & !bit),
                    BitAction::Complement => Some(read ^ bit),
                };
                (written, flags, CARRY)
            }
            Operation::String(_) => (None, 0, 0),
        };
        registers.set_flags(registers.flags() & !mask | flags & mask);
        written
    }
}
