//! Where an operand is: the ModRM and SIB bytes and what follows them.

use super::{CodeSize, Reason, RegisterFile, Segment, Width, bytes::Bytes, prefixes::Prefixes};

/// How an operand in memory is addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOperand {
    /// The segment that the address is in.
    pub segment: Segment,
    /// The general register that is the base.
    pub base: Option<u8>,
    /// The general register that is the index, and the logarithm to base 2 of its factor (0 to 3).
    pub index: Option<(u8, u8)>,
    /// The displacement; negative ones wrap.
    pub displacement: u64,
    /// The displacement counts from the next instruction (64-bit code only).
    pub rip_relative: bool,
    /// The width at which the sum wraps: 16, 32 or 64 bits.
    pub address_width: Width,
}

impl MemoryOperand {
    /// The operand at an address that the instruction holds (opcodes A0 to A3).
    pub(crate) fn direct(bytes: &mut Bytes<'_>, prefixes: &Prefixes, code_size: CodeSize) -> Result<Self, Reason> {
        let address_width = prefixes.address_width(code_size);
        Ok(Self {
            segment: prefixes.segment.unwrap_or(Segment::Ds),
            base: None,
            index: None,
            displacement: bytes.unsigned(address_width)?,
            rip_relative: false,
            address_width,
        })
    }

    /// An operand of a string instruction: at RSI (6) or RDI (7).
    pub(crate) fn string(segment: Segment, base: u8, address_width: Width) -> Self {
        Self { segment, base: Some(base), index: None, displacement: 0, rip_relative: false, address_width }
    }

    /// The operand that `modrm` and what follows it name, or `None` if it is a register.
    pub(crate) fn read(
        modrm: u8,
        bytes: &mut Bytes<'_>,
        prefixes: &Prefixes,
        code_size: CodeSize,
    ) -> Result<Option<Self>, Reason> {
        let (mode, number) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return Ok(None);
        }
        let address_width = prefixes.address_width(code_size);
        let mut operand =
            Self { segment: Segment::Ds, base: None, index: None, displacement: 0, rip_relative: false, address_width };
        let displacement = if address_width == Width::Word {
            operand.word_registers(mode, number)
        } else {
            operand.registers(mode, number, bytes, prefixes, code_size)?
        };
        // RSP (4) and RBP (5) point to the stack; R12 and R13 do not.
        if matches!(operand.base, Some(4 | 5)) {
            operand.segment = Segment::Ss;
        }
        operand.segment = prefixes.segment.unwrap_or(operand.segment);
        if let Some(width) = displacement {
            operand.displacement = bytes.signed(width)?;
        }
        Ok(Some(operand))
    }

    /// Base and index with 16-bit addresses; the width of the displacement.
    fn word_registers(&mut self, mode: u8, number: u8) -> Option<Width> {
        const BX: u8 = 3;
        const BP: u8 = 5;
        const SI: u8 = 6;
        const DI: u8 = 7;
        let (base, index) = match number {
            0 => (Some(BX), Some(SI)),
            1 => (Some(BX), Some(DI)),
            2 => (Some(BP), Some(SI)),
            3 => (Some(BP), Some(DI)),
            4 => (Some(SI), None),
            5 => (Some(DI), None),
            6 if mode == 0 => return Some(Width::Word),
            6 => (Some(BP), None),
            _ => (Some(BX), None),
        };
        self.base = base;
        self.index = index.map(|index| (index, 0));
        match mode {
            0 => None,
            1 => Some(Width::Byte),
            _ => Some(Width::Word),
        }
    }

    /// Base and index with 32-bit and 64-bit addresses; the width of the displacement.
    fn registers(
        &mut self,
        mode: u8,
        number: u8,
        bytes: &mut Bytes<'_>,
        prefixes: &Prefixes,
        code_size: CodeSize,
    ) -> Result<Option<Width>, Reason> {
        let mut base = number;
        if number == 4 {
            let sib = bytes.byte()?;
            base = sib & 7;
            let index = sib >> 3 & 7 | prefixes.rex_bit(1);
            // 4 is no index; with REX.X it is R12.
            self.index = (index != 4).then_some((index, sib >> 6));
        }
        // Neither of these two looks at REX.B.
        if mode == 0 && base == 5 {
            self.rip_relative = number == 5 && code_size == CodeSize::Bits64;
            return Ok(Some(Width::Dword));
        }
        self.base = Some(base | prefixes.rex_bit(0));
        Ok(match mode {
            0 => None,
            1 => Some(Width::Byte),
            _ => Some(Width::Dword),
        })
    }

    /// The offset in the segment of the byte `further` bytes after the operand. `next_rip` is the address of the next
    /// instruction.
    fn effective_address(&self, further: u64, next_rip: u64, registers: &impl RegisterFile) -> u64 {
        let base = self.base.map_or(0, |number| registers.general(number));
        let index = self.index.map_or(0, |(number, scale)| registers.general(number) << scale);
        let rip = if self.rip_relative { next_rip } else { 0 };
        base.wrapping_add(index).wrapping_add(rip).wrapping_add(self.displacement).wrapping_add(further)
            & self.address_width.mask()
    }

    /// The linear address, `further` bytes after the operand: with the segment's base, which in 64-bit code is zero
    /// except for FS and GS.
    pub(crate) fn linear_address(
        &self,
        code_size: CodeSize,
        further: u64,
        next_rip: u64,
        registers: &impl RegisterFile,
    ) -> u64 {
        let offset = self.effective_address(further, next_rip, registers);
        match (code_size, self.segment) {
            (CodeSize::Bits64, Segment::Fs | Segment::Gs) => offset.wrapping_add(registers.segment_base(self.segment)),
            (CodeSize::Bits64, _) => offset,
            _ => offset.wrapping_add(registers.segment_base(self.segment)) & 0xffff_ffff,
        }
    }
}
