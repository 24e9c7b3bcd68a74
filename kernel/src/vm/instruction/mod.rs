//! Instructions by which a guest reads or writes device registers.
//!
//! When a guest touches an address that is not memory, the processor says where, and (without decode assists, or with
//! EPT) not with which instruction. The bytes at the guest's instruction pointer are decoded here, and the instruction
//! is finished for the guest: [`decode`], [`Instruction::linear_address`] to compare with the address that faulted,
//! then [`Instruction::execute`] around the device's answer.
//!
//! The set is what compilers and drivers use for device registers: MOV in all forms with a memory operand and a general
//! register or an immediate, MOVZX, MOVSX, MOVSXD; TEST, ADD, OR, AND, SUB, XOR, CMP, NOT, NEG, INC and DEC; BT, BTS, BTR
//! and BTC; XCHG, XADD and CMPXCHG; and the string instructions MOVS, STOS, LODS, INS and OUTS, which are run an element
//! at a time ([`StringOperation`]). LOCK is taken where it is legal: between a device's read and its write no other
//! instruction of the guest's runs. Everything else is an error that carries the bytes: ADC and SBB, CMPXCHG8B, PUSH and
//! POP, CMPS and SCAS, and all that moves vector registers are among the things left out. Encodings: AMD64 APM volume 3,
//! chapter 1; Intel SDM volume 2, chapter 2.

mod bytes;
mod decode;
mod error;
mod execute;
mod memory_operand;
mod prefixes;
mod registers;
mod string;

#[cfg(test)]
mod tests;

pub use decode::decode;
pub use error::{DecodeError, Reason};
pub use execute::{Arithmetic, BitAction, Operation, Operator, Source, Unary};
pub use memory_operand::MemoryOperand;
pub use registers::{Part, RegisterFile, Segment, Width};
pub use string::{StringKind, StringOperation};

/// The longest instruction, in bytes; a longer one is a general protection fault.
pub const MAX_LENGTH: usize = 15;

/// What the guest's code segment says of operands and addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeSize {
    /// CS.D clear: 16-bit operands and addresses unless a prefix says otherwise.
    Bits16,
    /// CS.D set: 32 bits.
    Bits32,
    /// Long mode with CS.L set: 64-bit addresses, 32-bit operands.
    Bits64,
}

/// An instruction with one operand in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub(crate) length: u8,
    pub(crate) code_size: CodeSize,
    pub(crate) width: Width,
    pub(crate) memory: MemoryOperand,
    pub(crate) operation: Operation,
}

impl Instruction {
    /// The number of bytes of the instruction, 1 to 15.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The number of bytes that it reads or writes in memory.
    pub fn width(&self) -> Width {
        self.width
    }

    /// How its memory operand is addressed.
    pub fn memory(&self) -> &MemoryOperand {
        &self.memory
    }

    /// What it does.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Whether it reads its memory operand.
    pub fn reads_memory(&self) -> bool {
        match self.operation {
            Operation::Store(_) => false,
            Operation::String(string) => string.reads_source(),
            _ => true,
        }
    }

    /// Whether it writes its memory operand (after it has read it, if it does both).
    pub fn writes_memory(&self) -> bool {
        match self.operation {
            Operation::Load { .. } => false,
            Operation::Arithmetic(arithmetic) => arithmetic.keep && arithmetic.memory_is_left,
            Operation::Bit { action, .. } => action != BitAction::Test,
            Operation::String(string) => string.writes_destination(),
            _ => true,
        }
    }

    /// The linear address of the memory operand's first byte: 64 bits in 64-bit code, else 32. `registers` are those
    /// before the instruction.
    ///
    /// A guest can change its code between the fault and the fetch of the bytes: an address that does not lead to the
    /// page that faulted means that this is not the instruction, and the guest simply runs on.
    pub fn linear_address(&self, registers: &impl RegisterFile) -> u64 {
        let further = match self.operation {
            // The index of a bit in a register counts from the operand, and far beyond it (SDM vol. 2, BT).
            Operation::Bit { index: Source::Register(part), .. } => {
                let index = self.width.sign_extend(part.read(self.width, registers)) as i64;
                ((index >> self.width.bits().trailing_zeros()) as u64).wrapping_mul(self.width.bytes() as u64)
            }
            _ => 0,
        };
        self.memory.linear_address(self.code_size, further, self.next_rip(registers.rip()), registers)
    }

    /// The address of the instruction after this one, which is at `rip`.
    pub fn next_rip(&self, rip: u64) -> u64 {
        let next = rip.wrapping_add(u64::from(self.length));
        match self.code_size {
            CodeSize::Bits16 => next & 0xffff,
            CodeSize::Bits32 => next & 0xffff_ffff,
            CodeSize::Bits64 => next,
        }
    }
}
