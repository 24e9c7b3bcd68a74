//! The registers that an instruction can name.

/// The width of an operand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes.
    Qword,
}

impl Width {
    /// The number of bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    /// The number of bits: 8, 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        8 * self.bytes() as u32
    }

    /// All bits of this width.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The highest bit of this width.
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// The value of this width in `value`, with its sign in all bits above.
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64 >> unused) as u64
    }
}

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// The registers of a virtual CPU.
pub trait RegisterFile {
    /// A general register by its number in instructions, 0 to 15: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    fn general(&self, number: u8) -> u64;

    /// Sets all 64 bits of a general register.
    fn set_general(&mut self, number: u8, value: u64);

    /// RFLAGS.
    fn flags(&self) -> u64;

    /// Sets RFLAGS.
    fn set_flags(&mut self, value: u64);

    /// The address of the instruction: RIP, without the base of CS.
    fn rip(&self) -> u64;

    /// The base of a segment.
    fn segment_base(&self, segment: Segment) -> u64;
}

/// A general register, or a part of one, as an instruction names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The register's number, 0 to 15.
    pub number: u8,
    /// Bits 15:8 instead of the lowest ones: AH, CH, DH or BH. Only with a width of one byte.
    pub high: bool,
}

impl Part {
    /// The register that a number of an instruction names at a width. Without a REX prefix, the bytes 4 to 7 are the
    /// high halves of registers 0 to 3.
    pub(crate) fn new(number: u8, width: Width, rex: bool) -> Self {
        if width == Width::Byte && !rex && (4..8).contains(&number) {
            Self { number: number - 4, high: true }
        } else {
            Self { number, high: false }
        }
    }

    /// Its value at `width`.
    pub fn read(self, width: Width, registers: &impl RegisterFile) -> u64 {
        registers.general(self.number) >> self.shift() & width.mask()
    }

    /// Writes `value` at `width`: 32 bits clear the upper half of the register, 8 and 16 leave the rest as it is.
    pub fn write(self, width: Width, value: u64, registers: &mut impl RegisterFile) {
        let keep = match width {
            Width::Byte | Width::Word => !(width.mask() << self.shift()),
            Width::Dword | Width::Qword => 0,
        };
        let kept = registers.general(self.number) & keep;
        registers.set_general(self.number, kept | (value & width.mask()) << self.shift());
    }

    fn shift(self) -> u32 {
        if self.high { 8 } else { 0 }
    }
}
