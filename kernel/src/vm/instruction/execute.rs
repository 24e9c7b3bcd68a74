//! What the instructions do.

use super::{Instruction, Part, RegisterFile, Width};

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
}

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
        let read = read & self.width.mask();
        match self.operation {
            Operation::Load { to, width, signed } => {
                let value = if signed { self.width.sign_extend(read) } else { read };
                to.write(width, value, registers);
                None
            }
            Operation::Store(source) => Some(source.read(self.width, registers)),
            Operation::Arithmetic(Arithmetic { operator, memory_is_left, other, keep }) => {
                let value = other.read(self.width, registers);
                let (left, right) = if memory_is_left { (read, value) } else { (value, read) };
                let (result, flags) = operator.apply(self.width, left, right);
                let others = registers.flags() & !(CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW);
                registers.set_flags(others | flags);
                if !keep {
                    return None;
                }
                if memory_is_left {
                    return Some(result);
                }
                if let Source::Register(to) = other {
                    to.write(self.width, result, registers);
                }
                None
            }
        }
    }
}
