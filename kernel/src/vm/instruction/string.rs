//! String instructions: an element at RSI, at RDI or at both, and with a repeat prefix RCX of them.

use super::{Instruction, MemoryOperand, Operation, Part, RegisterFile, Segment, Width};

/// RFLAGS bit 10: addresses go down.
const DIRECTION: u64 = 1 << 10;
const RCX: Part = Part { number: 1, high: false };
const RSI: Part = Part { number: 6, high: false };
const RDI: Part = Part { number: 7, high: false };

/// What is done with an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StringKind {
    /// MOVS: from memory at RSI to memory at RDI.
    Move,
    /// STOS: from the accumulator to memory at RDI.
    Store,
    /// LODS: from memory at RSI to the accumulator.
    Load,
    /// INS: from the I/O port in DX to memory at RDI.
    Input,
    /// OUTS: from memory at RSI to the I/O port in DX.
    Output,
}

/// A string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringOperation {
    /// What is done with an element.
    pub kind: StringKind,
    /// With a repeat prefix: RCX times.
    pub repeat: bool,
    /// The segment of the element at RSI. The one at RDI is always in ES.
    pub source_segment: Segment,
}

impl StringOperation {
    /// Whether there is an element at RSI.
    pub fn reads_source(&self) -> bool {
        matches!(self.kind, StringKind::Move | StringKind::Load | StringKind::Output)
    }

    /// Whether there is an element at RDI.
    pub fn writes_destination(&self) -> bool {
        matches!(self.kind, StringKind::Move | StringKind::Store | StringKind::Input)
    }

    pub(crate) fn source(&self, address_width: Width) -> MemoryOperand {
        MemoryOperand::string(self.source_segment, RSI.number, address_width)
    }

    pub(crate) fn destination(&self, address_width: Width) -> MemoryOperand {
        MemoryOperand::string(Segment::Es, RDI.number, address_width)
    }
}

impl Instruction {
    /// The string instruction that it is, if it is one.
    pub fn string(&self) -> Option<StringOperation> {
        match self.operation {
            Operation::String(string) => Some(string),
            _ => None,
        }
    }

    /// The linear addresses of a string instruction's elements at RSI and at RDI, where it has them.
    pub fn elements(&self, string: &StringOperation, registers: &impl RegisterFile) -> [Option<u64>; 2] {
        let width = self.memory.address_width;
        let linear = |operand: MemoryOperand| operand.linear_address(self.code_size, 0, 0, registers);
        [
            string.reads_source().then(|| linear(string.source(width))),
            string.writes_destination().then(|| linear(string.destination(width))),
        ]
    }

    /// How many elements a string instruction has before it.
    pub fn elements_left(&self, string: &StringOperation, registers: &impl RegisterFile) -> u64 {
        if string.repeat { RCX.read(self.memory.address_width, registers) } else { 1 }
    }

    /// Goes on to a string instruction's next element: RSI, RDI and RCX as far as it uses them, at the width of its
    /// addresses.
    pub fn next_element(&self, string: &StringOperation, registers: &mut impl RegisterFile) {
        let width = self.memory.address_width;
        let bytes = self.width.bytes() as u64;
        let further = if registers.flags() & DIRECTION != 0 { bytes.wrapping_neg() } else { bytes };
        for (used, register, change) in [
            (string.reads_source(), RSI, further),
            (string.writes_destination(), RDI, further),
            (string.repeat, RCX, u64::MAX),
        ] {
            if used {
                register.write(width, register.read(width, registers).wrapping_add(change), registers);
            }
        }
    }
}
