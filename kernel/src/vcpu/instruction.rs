//! How long an instruction is that exited, where the processor does not say.
//!
//! The instructions that a hypervisor completes in the guest's stead have fixed opcodes and no operands, but any
//! number of prefixes may stand before them. Ending such an instruction too early makes the guest execute its tail.

use crate::vcpu::Mode;

/// An instruction without operands that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// CPUID: 0F A2.
    Cpuid,
    /// HLT: F4.
    Halt,
    /// RDMSR: 0F 32.
    ReadMsr,
    /// WRMSR: 0F 30.
    WriteMsr,
    /// VMMCALL: 0F 01 D9, or VMCALL: 0F 01 C1.
    Hypercall,
    /// XSETBV: 0F 01 D1.
    SetExtendedControl,
    /// INVD: 0F 08.
    InvalidateCaches,
    /// RDPMC: 0F 33.
    ReadPerformanceCounter,
}

/// No instruction is longer, prefixes included.
pub const LONGEST_INSTRUCTION: usize = 15;

impl Instruction {
    /// The opcodes; all of one instruction have the same length.
    const fn opcodes(self) -> &'static [&'static [u8]] {
        match self {
            Instruction::Cpuid => &[&[0x0f, 0xa2]],
            Instruction::Halt => &[&[0xf4]],
            Instruction::ReadMsr => &[&[0x0f, 0x32]],
            Instruction::WriteMsr => &[&[0x0f, 0x30]],
            Instruction::Hypercall => &[&[0x0f, 0x01, 0xd9], &[0x0f, 0x01, 0xc1]],
            Instruction::SetExtendedControl => &[&[0x0f, 0x01, 0xd1]],
            Instruction::InvalidateCaches => &[&[0x0f, 0x08]],
            Instruction::ReadPerformanceCounter => &[&[0x0f, 0x33]],
        }
    }

    /// The length in bytes without any prefix.
    pub fn opcode_length(self) -> u8 {
        self.opcodes().first().map_or(1, |opcode| opcode.len() as u8)
    }
}

/// The length in bytes, 1 to 15, of the instruction that `bytes` begins with, prefixes included, if it is
/// `instruction`; `None` if it is another (somebody has changed the memory since it was executed) or is cut short.
pub fn instruction_length(bytes: &[u8], instruction: Instruction, mode: Mode) -> Option<u8> {
    let bytes = bytes.get(..LONGEST_INSTRUCTION).unwrap_or(bytes);
    let mut at = bytes.iter().take_while(|byte| is_legacy_prefix(**byte)).count();
    if mode == Mode::Long {
        // Only a REX prefix just before the opcode counts; one before another prefix is ignored by the processor.
        while let Some(0x40..=0x4f) = bytes.get(at) {
            at += 1;
            at += bytes.get(at..)?.iter().take_while(|byte| is_legacy_prefix(**byte)).count();
        }
    }
    let rest = bytes.get(at..)?;
    let opcode = instruction.opcodes().iter().find(|opcode| rest.starts_with(opcode))?;
    Some((at + opcode.len()) as u8)
}

/// Operand size, address size, segment overrides and repetition. LOCK is not here: with it none of these instructions
/// executes.
const fn is_legacy_prefix(byte: u8) -> bool {
    matches!(byte, 0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(bytes: &[u8], instruction: Instruction) -> Option<u8> {
        instruction_length(bytes, instruction, Mode::Protected32)
    }

    #[test]
    fn an_opcode_alone_has_its_own_length() {
        for (bytes, instruction, expected) in [
            (&[0x0f, 0xa2, 0x90][..], Instruction::Cpuid, 2),
            (&[0xf4], Instruction::Halt, 1),
            (&[0x0f, 0x32], Instruction::ReadMsr, 2),
            (&[0x0f, 0x30], Instruction::WriteMsr, 2),
            (&[0x0f, 0x01, 0xd9], Instruction::Hypercall, 3),
            (&[0x0f, 0x01, 0xc1], Instruction::Hypercall, 3),
            (&[0x0f, 0x01, 0xd1], Instruction::SetExtendedControl, 3),
            (&[0x0f, 0x08], Instruction::InvalidateCaches, 2),
            (&[0x0f, 0x33], Instruction::ReadPerformanceCounter, 2),
        ] {
            assert_eq!(length(bytes, instruction), Some(expected), "{instruction:?}");
            assert_eq!(instruction.opcode_length(), expected, "{instruction:?}");
        }
    }

    #[test]
    fn prefixes_make_it_longer() {
        assert_eq!(length(&[0xf3, 0x0f, 0xa2], Instruction::Cpuid), Some(3));
        assert_eq!(length(&[0x66, 0x2e, 0xf4], Instruction::Halt), Some(3));
    }

    #[test]
    fn a_rex_prefix_counts_in_long_mode_only() {
        let bytes = [0x48, 0x0f, 0xa2];
        assert_eq!(instruction_length(&bytes, Instruction::Cpuid, Mode::Long), Some(3));
        assert_eq!(length(&bytes, Instruction::Cpuid), None);
        assert_eq!(instruction_length(&[0x48, 0x66, 0x0f, 0xa2], Instruction::Cpuid, Mode::Long), Some(4));
    }

    #[test]
    fn another_instruction_or_a_part_of_one_has_no_length() {
        assert_eq!(length(&[0x0f, 0x30], Instruction::Cpuid), None);
        assert_eq!(length(&[0x0f], Instruction::Cpuid), None);
        assert_eq!(length(&[], Instruction::Halt), None);
        assert_eq!(length(&[0xf0, 0xf4], Instruction::Halt), None);
    }

    #[test]
    fn nothing_is_longer_than_fifteen_bytes() {
        let mut bytes = [0x66; 20];
        bytes[14] = 0xf4;
        assert_eq!(length(&bytes, Instruction::Halt), Some(15));
        bytes[14] = 0x66;
        bytes[15] = 0xf4;
        assert_eq!(length(&bytes, Instruction::Halt), None);
    }
}
