//! Why bytes are not an instruction that can be finished here.

use super::MAX_LENGTH;
use core::fmt;

/// What is wrong with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The bytes end before the instruction does.
    Truncated,
    /// The instruction has more than 15 bytes.
    TooLong,
    /// A LOCK prefix before an instruction that cannot have one: an invalid opcode.
    Locked,
    /// An instruction that is not in the set.
    Unsupported,
    /// An instruction of the set, with no operand in memory.
    NoMemoryOperand,
}

/// Bytes that are not an instruction that can be finished here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    reason: Reason,
    bytes: [u8; MAX_LENGTH],
    len: u8,
}

impl DecodeError {
    pub(crate) fn new(reason: Reason, from: &[u8]) -> Self {
        let mut bytes = [0; MAX_LENGTH];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
            len += 1;
        }
        Self { reason, bytes, len }
    }

    /// What is wrong.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The bytes that were looked at, at most 15, of which the instruction is the beginning.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Truncated => "instruction cut short:",
            Reason::TooLong => "instruction of more than 15 bytes:",
            Reason::Locked => "instruction that cannot be locked:",
            Reason::Unsupported => "instruction that is not emulated:",
            Reason::NoMemoryOperand => "instruction without a memory operand:",
        })?;
        self.bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl core::error::Error for DecodeError {}
