//! The general-purpose registers.

/// The sixteen general-purpose registers, in the order in which instructions number them. The engines' assembly
/// relies on the layout by field, not by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Number 0.
    pub rax: u64,
    /// Number 1.
    pub rcx: u64,
    /// Number 2.
    pub rdx: u64,
    /// Number 3.
    pub rbx: u64,
    /// Number 4: the stack pointer.
    pub rsp: u64,
    /// Number 5.
    pub rbp: u64,
    /// Number 6.
    pub rsi: u64,
    /// Number 7.
    pub rdi: u64,
    /// Number 8.
    pub r8: u64,
    /// Number 9.
    pub r9: u64,
    /// Number 10.
    pub r10: u64,
    /// Number 11.
    pub r11: u64,
    /// Number 12.
    pub r12: u64,
    /// Number 13.
    pub r13: u64,
    /// Number 14.
    pub r14: u64,
    /// Number 15.
    pub r15: u64,
}

impl Registers {
    /// All zero.
    pub const ZERO: Self = Self {
        rax: 0,
        rcx: 0,
        rdx: 0,
        rbx: 0,
        rsp: 0,
        rbp: 0,
        rsi: 0,
        rdi: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
    };

    /// The register with this number, 0 to 15 as in ModRM and REX; higher bits of the number are ignored.
    pub const fn get(&self, number: u8) -> u64 {
        match number & 15 {
            0 => self.rax,
            1 => self.rcx,
            2 => self.rdx,
            3 => self.rbx,
            4 => self.rsp,
            5 => self.rbp,
            6 => self.rsi,
            7 => self.rdi,
            8 => self.r8,
            9 => self.r9,
            10 => self.r10,
            11 => self.r11,
            12 => self.r12,
            13 => self.r13,
            14 => self.r14,
            _ => self.r15,
        }
    }

    /// Sets the whole register with this number, 0 to 15; higher bits of the number are ignored.
    pub const fn set(&mut self, number: u8, value: u64) {
        let register = match number & 15 {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        };
        *register = value;
    }

    /// EDX:EAX as one number: the value of WRMSR and XSETBV.
    pub const fn edx_eax(&self) -> u64 {
        (self.rdx & 0xffff_ffff) << 32 | self.rax & 0xffff_ffff
    }

    /// Sets EDX:EAX as RDMSR and RDTSC do: the upper halves of RDX and RAX become zero.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.rax = value & 0xffff_ffff;
        self.rdx = value >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn numbers_are_those_of_instruction_operands() {
        let mut registers = Registers::default();
        for number in 0..16 {
            registers.set(number, 0x100 + u64::from(number));
        }
        assert_eq!(registers.rcx, 0x101);
        assert_eq!(registers.rbx, 0x103);
        assert_eq!(registers.rsp, 0x104);
        assert_eq!(registers.rdi, 0x107);
        assert_eq!(registers.r8, 0x108);
        assert_eq!(registers.r15, 0x10f);
        assert!((0..16).all(|number| registers.get(number) == 0x100 + u64::from(number)));
        assert_eq!(offset_of!(Registers, r15), 15 * 8);
    }

    #[test]
    fn edx_eax_is_split_and_joined_and_clears_the_upper_halves() {
        let mut registers = Registers { rax: u64::MAX, rdx: u64::MAX, ..Default::default() };
        registers.set_edx_eax(0x1122_3344_5566_7788);
        assert_eq!((registers.rdx, registers.rax), (0x1122_3344, 0x5566_7788));
        registers.rax |= 0xffff_ffff << 32;
        assert_eq!(registers.edx_eax(), 0x1122_3344_5566_7788);
    }
}
