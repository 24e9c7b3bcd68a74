//! The opcodes.

use super::{
    Arithmetic, CodeSize, DecodeError, Instruction, MemoryOperand, Operation, Operator, Part, Reason, Source, Width,
    bytes::Bytes, prefixes::Prefixes,
};

/// The instruction that `bytes` (from the guest's instruction pointer, as many as could be read; those after the
/// fifteenth do not matter) begin with.
///
/// # Errors
/// They begin with no instruction of the set, or not with all of one. Nothing is said of whether the guest's processor
/// would run it.
pub fn decode(bytes: &[u8], code_size: CodeSize) -> Result<Instruction, DecodeError> {
    Decoder::decode(bytes, code_size).map_err(|reason| DecodeError::new(reason, bytes))
}

struct Decoder<'a> {
    bytes: Bytes<'a>,
    code_size: CodeSize,
    prefixes: Prefixes,
}

impl Decoder<'_> {
    fn decode(bytes: &[u8], code_size: CodeSize) -> Result<Instruction, Reason> {
        let mut bytes = Bytes::new(bytes);
        let (prefixes, opcode) = Prefixes::read(&mut bytes, code_size)?;
        let mut decoder = Decoder { bytes, code_size, prefixes };
        let (width, memory, operation) = match opcode {
            0x0f => decoder.two_bytes()?,
            _ => decoder.one_byte(opcode)?,
        };
        Ok(Instruction { length: decoder.bytes.position(), code_size, width, memory, operation })
    }

    fn one_byte(&mut self, opcode: u8) -> Result<(Width, MemoryOperand, Operation), Reason> {
        // In these opcodes bit 0 tells bytes from the operand size.
        let width = if opcode & 1 == 0 { Width::Byte } else { self.operand_width() };
        match opcode {
            // Bits 5:3 are the operator, bit 1 the direction.
            0x00..=0x3f if opcode & 7 < 4 => {
                let (operator, keep) = operator(opcode >> 3).ok_or(Reason::Unsupported)?;
                let (memory, register) = self.memory_and_register(width)?;
                let other = Source::Register(register);
                let memory_is_left = opcode & 2 == 0;
                Ok((width, memory, Operation::Arithmetic(Arithmetic { operator, memory_is_left, other, keep })))
            }
            0x63 if self.code_size == CodeSize::Bits64 => {
                let width = self.operand_width();
                // With a 16-bit destination AMD and Intel disagree on the width of the source.
                if width == Width::Word {
                    return Err(Reason::Unsupported);
                }
                let (memory, to) = self.memory_and_register(width)?;
                Ok((Width::Dword, memory, Operation::Load { to, width, signed: true }))
            }
            0x80 | 0x81 | 0x83 => self.immediate_arithmetic(opcode, width),
            0x82 if self.code_size != CodeSize::Bits64 => self.immediate_arithmetic(opcode, width),
            0x84 | 0x85 => {
                let (memory, register) = self.memory_and_register(width)?;
                Ok((width, memory, test(Source::Register(register))))
            }
            0x88 | 0x89 => {
                let (memory, register) = self.memory_and_register(width)?;
                Ok((width, memory, Operation::Store(Source::Register(register))))
            }
            0x8a | 0x8b => {
                let (memory, to) = self.memory_and_register(width)?;
                Ok((width, memory, Operation::Load { to, width, signed: false }))
            }
            0xa0..=0xa3 => {
                let memory = MemoryOperand::direct(&mut self.bytes, &self.prefixes, self.code_size)?;
                let accumulator = Part { number: 0, high: false };
                let operation = if opcode & 2 == 0 {
                    Operation::Load { to: accumulator, width, signed: false }
                } else {
                    Operation::Store(Source::Register(accumulator))
                };
                Ok((width, memory, operation))
            }
            0xc6 | 0xc7 => {
                let (memory, extension) = self.memory_and_extension()?;
                if extension != 0 {
                    return Err(Reason::Unsupported);
                }
                Ok((width, memory, Operation::Store(self.immediate(width)?)))
            }
            // 1 is an undocumented second encoding of 0.
            0xf6 | 0xf7 => {
                let (memory, extension) = self.memory_and_extension()?;
                if extension > 1 {
                    return Err(Reason::Unsupported);
                }
                Ok((width, memory, test(self.immediate(width)?)))
            }
            _ => Err(Reason::Unsupported),
        }
    }

    /// The opcodes after 0F.
    fn two_bytes(&mut self) -> Result<(Width, MemoryOperand, Operation), Reason> {
        let opcode = self.bytes.byte()?;
        let (source, signed) = match opcode {
            0xb6 => (Width::Byte, false),
            0xb7 => (Width::Word, false),
            0xbe => (Width::Byte, true),
            0xbf => (Width::Word, true),
            _ => return Err(Reason::Unsupported),
        };
        let width = self.operand_width();
        let (memory, to) = self.memory_and_register(width)?;
        Ok((source, memory, Operation::Load { to, width, signed }))
    }

    /// Opcodes 80 to 83: the operator is in the ModRM byte.
    fn immediate_arithmetic(&mut self, opcode: u8, width: Width) -> Result<(Width, MemoryOperand, Operation), Reason> {
        let (memory, extension) = self.memory_and_extension()?;
        let (operator, keep) = operator(extension).ok_or(Reason::Unsupported)?;
        let other = if opcode == 0x83 { self.immediate(Width::Byte)? } else { self.immediate(width)? };
        Ok((width, memory, Operation::Arithmetic(Arithmetic { operator, memory_is_left: true, other, keep })))
    }

    fn operand_width(&self) -> Width {
        self.prefixes.operand_width(self.code_size)
    }

    /// The operands that a ModRM byte names, and the number in its bits 5:3 without REX.
    fn memory_and_extension(&mut self) -> Result<(MemoryOperand, u8), Reason> {
        let modrm = self.bytes.byte()?;
        let memory = MemoryOperand::read(modrm, &mut self.bytes, &self.prefixes, self.code_size)?;
        Ok((memory.ok_or(Reason::NoMemoryOperand)?, modrm >> 3 & 7))
    }

    /// The operands that a ModRM byte names.
    fn memory_and_register(&mut self, width: Width) -> Result<(MemoryOperand, Part), Reason> {
        let (memory, number) = self.memory_and_extension()?;
        Ok((memory, Part::new(number | self.prefixes.rex_bit(2), width, self.prefixes.has_rex())))
    }

    /// The value at the end of the instruction: 64-bit operands have 32 bits of it.
    fn immediate(&mut self, width: Width) -> Result<Source, Reason> {
        self.bytes.signed(width.min(Width::Dword)).map(Source::Immediate)
    }
}

/// The operator with this number in opcodes and ModRM bytes, and whether the result is kept. ADC (2) and SBB (3), which
/// nobody uses on device registers, are not in the set.
fn operator(number: u8) -> Option<(Operator, bool)> {
    match number {
        0 => Some((Operator::Add, true)),
        1 => Some((Operator::Or, true)),
        4 => Some((Operator::And, true)),
        5 => Some((Operator::Sub, true)),
        6 => Some((Operator::Xor, true)),
        7 => Some((Operator::Sub, false)),
        _ => None,
    }
}

/// TEST of memory with `other`.
fn test(other: Source) -> Operation {
    Operation::Arithmetic(Arithmetic { operator: Operator::And, memory_is_left: true, other, keep: false })
}
