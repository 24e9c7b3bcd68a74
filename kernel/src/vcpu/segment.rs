//! Segment registers with their hidden parts.

/// The segment registers, numbered as in instructions, and the two system segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    /// Number 0.
    Es,
    /// Number 1: code.
    Cs,
    /// Number 2: stack.
    Ss,
    /// Number 3: data.
    Ds,
    /// Number 4.
    Fs,
    /// Number 5.
    Gs,
    /// The local descriptor table.
    Ldtr,
    /// The task register.
    Tr,
}

/// A segment's attributes: bits 7:0 are bits 47:40 of its descriptor (type, S, DPL, P), bits 11:8 are bits 55:52
/// (AVL, L, D/B, G). The form of APM vol. 2, 15.5.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SegmentAttributes(pub u16);

impl SegmentAttributes {
    /// A 32-bit code segment: execute and read, accessed, present, 4 KiB units.
    pub const CODE_32: Self = Self(0xc9b);
    /// A 64-bit code segment: execute and read, accessed, present, 4 KiB units.
    pub const CODE_64: Self = Self(0xa9b);
    /// A 32-bit data segment: read and write, accessed, present, 4 KiB units.
    pub const DATA_32: Self = Self(0xc93);
    /// A real-mode code segment: execute and read, accessed, present.
    pub const CODE_16: Self = Self(0x09b);
    /// A real-mode data segment: read and write, accessed, present.
    pub const DATA_16: Self = Self(0x093);
    /// A busy 32-bit task state segment, present.
    pub const BUSY_TASK_32: Self = Self(0x08b);
    /// A local descriptor table, present.
    pub const LOCAL_DESCRIPTOR_TABLE: Self = Self(0x082);

    /// P: the segment is present.
    pub const fn present(self) -> bool {
        self.0 & 1 << 7 != 0
    }

    /// The descriptor privilege level, 0 to 3.
    pub const fn privilege_level(self) -> u8 {
        (self.0 >> 5) as u8 & 3
    }

    /// L: 64-bit code, when in long mode.
    pub const fn long(self) -> bool {
        self.0 & 1 << 9 != 0
    }

    /// D/B: 32-bit operands, addresses or stack.
    pub const fn default_big(self) -> bool {
        self.0 & 1 << 10 != 0
    }
}

/// A segment register: the selector that programs see, and what the processor keeps of the descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Type, privilege level and size.
    pub attributes: SegmentAttributes,
    /// The highest offset, in bytes whatever the granularity bit says.
    pub limit: u32,
    /// The linear address of offset 0.
    pub base: u64,
}

impl Segment {
    /// Base 0 and 4 GiB long.
    pub const fn flat(selector: u16, attributes: SegmentAttributes) -> Self {
        Self { selector, attributes, limit: 0xffff_ffff, base: 0 }
    }

    /// As after loading `selector` in real mode: 64 KiB at 16 times the selector.
    pub const fn real(selector: u16, attributes: SegmentAttributes) -> Self {
        Self { selector, attributes, limit: 0xffff, base: (selector as u64) << 4 }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// The linear address of entry 0.
    pub base: u64,
    /// The highest offset in bytes.
    pub limit: u16,
}
