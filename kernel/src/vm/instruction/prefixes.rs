//! What stands before the opcode.

use super::{CodeSize, Reason, Segment, Width, bytes::Bytes};

/// The prefixes of an instruction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Prefixes {
    operand_size: bool,
    address_size: bool,
    /// LOCK.
    pub(crate) lock: bool,
    /// REP or REPNE. It means something to string instructions only (as XACQUIRE and XRELEASE they are hints).
    pub(crate) repeat: bool,
    /// The segment that replaces the default one. In 64-bit code only FS and GS do.
    pub(crate) segment: Option<Segment>,
    rex: Option<u8>,
}

impl Prefixes {
    /// Reads all prefixes, and the first byte of the opcode behind them.
    pub(crate) fn read(bytes: &mut Bytes<'_>, code_size: CodeSize) -> Result<(Self, u8), Reason> {
        let long = code_size == CodeSize::Bits64;
        let mut prefixes = Self::default();
        loop {
            let byte = bytes.byte()?;
            let segment = match byte {
                0x40..=0x4f if long => {
                    prefixes.rex = Some(byte);
                    continue;
                }
                0x26 => Some(Segment::Es),
                0x2e => Some(Segment::Cs),
                0x36 => Some(Segment::Ss),
                0x3e => Some(Segment::Ds),
                0x64 => Some(Segment::Fs),
                0x65 => Some(Segment::Gs),
                0x66 => {
                    prefixes.operand_size = true;
                    None
                }
                0x67 => {
                    prefixes.address_size = true;
                    None
                }
                0xf0 => {
                    prefixes.lock = true;
                    None
                }
                0xf2 | 0xf3 => {
                    prefixes.repeat = true;
                    None
                }
                opcode => return Ok((prefixes, opcode)),
            };
            // In 64-bit code the bases of ES, CS, SS and DS are zero and their prefixes mean nothing.
            if !long || matches!(segment, Some(Segment::Fs | Segment::Gs)) {
                prefixes.segment = segment.or(prefixes.segment);
            }
            // A REX prefix counts only right before the opcode.
            prefixes.rex = None;
        }
    }

    /// Whether there is a REX prefix, even one that says nothing: byte registers 4 to 7 differ.
    pub(crate) fn has_rex(&self) -> bool {
        self.rex.is_some()
    }

    /// REX.R, X or B as the bit 3 that it adds to a register number; `bit` is 2, 1 or 0.
    pub(crate) fn rex_bit(&self, bit: u8) -> u8 {
        self.rex.map_or(0, |rex| (rex >> bit & 1) << 3)
    }

    /// The width of operands that are not bytes.
    pub(crate) fn operand_width(&self, code_size: CodeSize) -> Width {
        if self.rex.is_some_and(|rex| rex & 8 != 0) {
            Width::Qword
        } else if self.operand_size != (code_size == CodeSize::Bits16) {
            Width::Word
        } else {
            Width::Dword
        }
    }

    /// The width of addresses.
    pub(crate) fn address_width(&self, code_size: CodeSize) -> Width {
        match (code_size, self.address_size) {
            (CodeSize::Bits64, false) => Width::Qword,
            (CodeSize::Bits64, true) | (CodeSize::Bits32, false) | (CodeSize::Bits16, true) => Width::Dword,
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => Width::Word,
        }
    }
}
