//! The opcodes.

use super::{
    Arithmetic, BitAction, CodeSize, DecodeError, Instruction, MemoryOperand, Operation, Operator, Part, Reason,
    Segment, Source, StringKind, StringOperation, Unary, Width, bytes::Bytes, prefixes::Prefixes,
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
    /// The width of the operand in memory.
    width: Width,
    memory: MemoryOperand,
}

impl Decoder<'_> {
    fn decode(bytes: &[u8], code_size: CodeSize) -> Result<Instruction, Reason> {
        let mut bytes = Bytes::new(bytes);
        let (prefixes, mut opcode) = Prefixes::read(&mut bytes, code_size)?;
        let two_bytes = opcode == 0x0f;
        if two_bytes {
            opcode = bytes.byte()?;
        }
        // In most opcodes bit 0 tells bytes from the operand size.
        let width = if opcode & 1 == 0 { Width::Byte } else { prefixes.operand_width(code_size) };
        let memory = MemoryOperand::string(Segment::Ds, 0, width);
        let mut decoder = Decoder { bytes, code_size, prefixes, width, memory };
        let operation = if two_bytes { decoder.two_bytes(opcode)? } else { decoder.one_byte(opcode)? };
        if prefixes.lock && !operation.may_be_locked() {
            return Err(Reason::Locked);
        }
        let Decoder { bytes, width, memory, .. } = decoder;
        Ok(Instruction { length: bytes.position(), code_size, width, memory, operation })
    }

    fn one_byte(&mut self, opcode: u8) -> Result<Operation, Reason> {
        let width = self.width;
        Ok(match opcode {
            // Bits 5:3 are the operator, bit 1 the direction.
            0x00..=0x3f if opcode & 7 < 4 => {
                let (operator, keep) = operator(opcode >> 3).ok_or(Reason::Unsupported)?;
                let other = Source::Register(self.register(width)?);
                Operation::Arithmetic(Arithmetic { operator, memory_is_left: opcode & 2 == 0, other, keep })
            }
            // With a 16-bit destination AMD and Intel disagree on the width of the source.
            0x63 if self.code_size == CodeSize::Bits64 && width != Width::Word => {
                let to = self.register(width)?;
                self.width = Width::Dword;
                Operation::Load { to, width, signed: true }
            }
            0x6c | 0x6d => self.string(StringKind::Input),
            0x6e | 0x6f => self.string(StringKind::Output),
            // Opcode 82 is a second encoding of 80, which 64-bit code does not have.
            0x80..=0x83 if opcode != 0x82 || self.code_size != CodeSize::Bits64 => {
                let (operator, keep) = operator(self.extension()?).ok_or(Reason::Unsupported)?;
                let other = self.immediate(if opcode == 0x83 { Width::Byte } else { width })?;
                Operation::Arithmetic(Arithmetic { operator, memory_is_left: true, other, keep })
            }
            0x84..=0x8b => {
                let register = self.register(width)?;
                match opcode >> 1 & 3 {
                    // 84 and 85; 86 and 87; 88 and 89; 8A and 8B.
                    2 => test(Source::Register(register)),
                    3 => Operation::Exchange(register),
                    0 => Operation::Store(Source::Register(register)),
                    _ => Operation::Load { to: register, width, signed: false },
                }
            }
            0xa0..=0xa3 => {
                self.memory = MemoryOperand::direct(&mut self.bytes, &self.prefixes, self.code_size)?;
                let accumulator = Part { number: 0, high: false };
                if opcode & 2 == 0 {
                    Operation::Load { to: accumulator, width, signed: false }
                } else {
                    Operation::Store(Source::Register(accumulator))
                }
            }
            0xa4 | 0xa5 => self.string(StringKind::Move),
            0xaa | 0xab => self.string(StringKind::Store),
            0xac | 0xad => self.string(StringKind::Load),
            0xc6 | 0xc7 => {
                if self.extension()? != 0 {
                    return Err(Reason::Unsupported);
                }
                Operation::Store(self.immediate(width)?)
            }
            0xf6 | 0xf7 | 0xfe | 0xff => {
                Operation::Unary(match (opcode >= 0xfe, self.extension()?) {
                    // 1 is an undocumented second encoding of 0.
                    (false, 0 | 1) => return Ok(test(self.immediate(width)?)),
                    (false, 2) => Unary::Not,
                    (false, 3) => Unary::Negate,
                    (true, 0) => Unary::Increment,
                    (true, 1) => Unary::Decrement,
                    _ => return Err(Reason::Unsupported),
                })
            }
            _ => return Err(Reason::Unsupported),
        })
    }

    /// The opcodes after 0F.
    fn two_bytes(&mut self, opcode: u8) -> Result<Operation, Reason> {
        let operand = self.prefixes.operand_width(self.code_size);
        Ok(match opcode {
            0xa3 | 0xab | 0xb3 | 0xbb => {
                self.width = operand;
                bit(opcode >> 3, Source::Register(self.register(operand)?))
            }
            0xba => {
                self.width = operand;
                match self.extension()? {
                    extension @ 4.. => bit(extension, self.immediate(Width::Byte)?),
                    _ => return Err(Reason::Unsupported),
                }
            }
            0xb0 | 0xb1 => Operation::CompareExchange(self.register(self.width)?),
            0xc0 | 0xc1 => Operation::ExchangeAdd(self.register(self.width)?),
            0xb6 | 0xb7 | 0xbe | 0xbf => {
                let to = self.register(operand)?;
                self.width = if opcode & 1 == 0 { Width::Byte } else { Width::Word };
                Operation::Load { to, width: operand, signed: opcode & 8 != 0 }
            }
            _ => return Err(Reason::Unsupported),
        })
    }

    /// A string instruction. Its memory operand is the destination, if it has one, else the source.
    fn string(&mut self, kind: StringKind) -> Operation {
        let source_segment = self.prefixes.segment.unwrap_or(Segment::Ds);
        let address_width = self.prefixes.address_width(self.code_size);
        let string = StringOperation { kind, repeat: self.prefixes.repeat, source_segment };
        self.memory =
            if string.writes_destination() { string.destination(address_width) } else { string.source(address_width) };
        if matches!(kind, StringKind::Input | StringKind::Output) {
            // A port has at most 32 bits.
            self.width = self.width.min(Width::Dword);
        }
        Operation::String(string)
    }

    /// Reads a ModRM byte and the memory operand that it names; the number in its bits 5:3 without REX.
    fn extension(&mut self) -> Result<u8, Reason> {
        let modrm = self.bytes.byte()?;
        let memory = MemoryOperand::read(modrm, &mut self.bytes, &self.prefixes, self.code_size)?;
        self.memory = memory.ok_or(Reason::NoMemoryOperand)?;
        Ok(modrm >> 3 & 7)
    }

    /// Reads a ModRM byte and the memory operand that it names; the register of the given width that it names too.
    fn register(&mut self, width: Width) -> Result<Part, Reason> {
        let number = self.extension()?;
        Ok(Part::new(number | self.prefixes.rex_bit(2), width, self.prefixes.has_rex()))
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

/// BT, BTS, BTR or BTC, by bits 1:0 of `number`.
fn bit(number: u8, index: Source) -> Operation {
    let action = match number & 3 {
        0 => BitAction::Test,
        1 => BitAction::Set,
        2 => BitAction::Reset,
        _ => BitAction::Complement,
    };
    Operation::Bit { action, index }
}
