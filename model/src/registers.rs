//! Offsets, bits and access semantics of the registers (chapter 11.4).

use std::collections::BTreeMap;
use std::rc::Rc;

/// VER, 32 bits, RO (11.4.1).
pub const VER: u16 = 0x00;
/// CAP, 64 bits, RO (11.4.2).
pub const CAP: u16 = 0x08;
/// ECAP, 64 bits, RO (11.4.3).
pub const ECAP: u16 = 0x10;
/// GCMD, 32 bits, WO (11.4.4.1).
pub const GCMD: u16 = 0x18;
/// GSTS, 32 bits, RO (11.4.4.2).
pub const GSTS: u16 = 0x1c;
/// RTADDR, 64 bits, RW (11.4.5).
pub const RTADDR: u16 = 0x20;
/// CCMD, 64 bits, RW (11.4.6.1).
pub const CCMD: u16 = 0x28;
/// FSTS, 32 bits, RW1CS and ROS (11.4.7.1).
pub const FSTS: u16 = 0x34;
/// FECTL, 32 bits, RW with IP RO (11.4.7.2).
pub const FECTL: u16 = 0x38;
/// FEDATA, 32 bits, RW (11.4.7.3).
pub const FEDATA: u16 = 0x3c;
/// FEADDR, 32 bits, RW (11.4.7.4).
pub const FEADDR: u16 = 0x40;
/// FEUADDR, 32 bits, RW (11.4.7.5).
pub const FEUADDR: u16 = 0x44;
/// PMEN, 32 bits, RW with PRS RO (11.4.8.1).
pub const PMEN: u16 = 0x64;
/// PLMBASE, 32 bits, RW (11.4.8.2).
pub const PLMBASE: u16 = 0x68;
/// PLMLIMIT, 32 bits, RW (11.4.8.3).
pub const PLMLIMIT: u16 = 0x6c;
/// PHMBASE, 64 bits, RW (11.4.8.4).
pub const PHMBASE: u16 = 0x70;
/// PHMLIMIT, 64 bits, RW (11.4.8.5).
pub const PHMLIMIT: u16 = 0x78;
/// IQH, 64 bits, RO (11.4.9.1).
pub const IQH: u16 = 0x80;
/// IQT, 64 bits, RW (11.4.9.2).
pub const IQT: u16 = 0x88;
/// IQA, 64 bits, RW (11.4.9.3).
pub const IQA: u16 = 0x90;
/// ICS, 32 bits, RW1CS (11.4.9.4).
pub const ICS: u16 = 0x9c;
/// IECTL, 32 bits, RW with IP RO (11.4.9.5).
pub const IECTL: u16 = 0xa0;
/// IEDATA, 32 bits, RW (11.4.9.6).
pub const IEDATA: u16 = 0xa4;
/// IEADDR, 32 bits, RW (11.4.9.7).
pub const IEADDR: u16 = 0xa8;
/// IEUADDR, 32 bits, RW (11.4.9.8).
pub const IEUADDR: u16 = 0xac;
/// IQERCD, 64 bits, RO (11.4.9.9).
pub const IQERCD: u16 = 0xb0;
/// IRTA, 64 bits, RW (11.4.10).
pub const IRTA: u16 = 0xb8;

/// PQH, 64 bits, RW (11.4.11.1).
pub const PQH: u16 = 0xc0;
/// PQT, 64 bits, RW (11.4.11.2).
pub const PQT: u16 = 0xc8;
/// PQA, 64 bits, RW (11.4.11.3).
pub const PQA: u16 = 0xd0;
/// PRS, 32 bits, RW1CS (11.4.11.4).
pub const PRS: u16 = 0xdc;
/// PECTL, 32 bits, RW with IP RO (11.4.11.5).
pub const PECTL: u16 = 0xe0;
/// PEDATA, 32 bits, RW (11.4.11.6).
pub const PEDATA: u16 = 0xe4;
/// PEADDR, 32 bits, RW (11.4.11.7).
pub const PEADDR: u16 = 0xe8;
/// PEUADDR, 32 bits, RW (11.4.11.8).
pub const PEUADDR: u16 = 0xec;

/// PRS.PPR: pending page request, RW1CS.
pub const PPR: u32 = 1 << 0;
/// PRS.PRO: page request overflow, RW1CS.
pub const PRO: u32 = 1 << 1;

/// GCMD.TE and GSTS.TES: translation.
pub const TE: u32 = 1 << 31;
/// GCMD.SRTP (one-shot) and GSTS.RTPS: root table pointer.
pub const SRTP: u32 = 1 << 30;
/// GCMD.WBF (one-shot) and GSTS.WBFS: write buffer flush.
pub const WBF: u32 = 1 << 27;
/// GCMD.QIE and GSTS.QIES: queued invalidation.
pub const QIE: u32 = 1 << 26;
/// GCMD.IRE and GSTS.IRES: interrupt remapping.
pub const IRE: u32 = 1 << 25;
/// GCMD.SIRTP (one-shot) and GSTS.IRTPS: interrupt-remapping table pointer.
pub const SIRTP: u32 = 1 << 24;
/// GCMD.CFI and GSTS.CFIS: compatibility-format interrupts pass.
pub const CFI: u32 = 1 << 23;

/// FSTS.PFO: primary fault overflow, RW1CS.
pub const PFO: u32 = 1 << 0;
/// FSTS.PPF: primary pending fault, ROS.
pub const PPF: u32 = 1 << 1;
/// FSTS.IQE: invalidation queue error, RW1CS.
pub const IQE: u32 = 1 << 4;
/// FSTS.ICE: invalidation completion error, RW1CS.
pub const ICE: u32 = 1 << 5;
/// FSTS.ITE: invalidation time-out error, RW1CS.
pub const ITE: u32 = 1 << 6;
/// FECTL.IM and IECTL.IM: the event is masked.
pub const IM: u32 = 1 << 31;
/// FECTL.IP and IECTL.IP: the event waits for the mask to go.
pub const IP: u32 = 1 << 30;
/// ICS.IWC: a wait descriptor with IF completed, RW1CS.
pub const IWC: u32 = 1;
/// CCMD.ICC and IOTLB.IVT: the command is in progress.
pub const BUSY: u64 = 1 << 63;
/// F of the upper half of a fault recording register, RW1CS (11.4.7.6).
pub const FAULT: u64 = 1 << 63;

/// How one register behaves.
#[derive(Clone, Copy, Debug)]
struct Definition {
    /// 4 or 8 bytes.
    width: u8,
    /// Bits that a write sets and clears.
    writable: u64,
    /// Bits that a write of 1 clears.
    clear: u64,
    /// Whether a read gives the value (a write-only register reads as 0).
    readable: bool,
}

/// What software's write did to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Offset of the register (not of the half that was written).
    pub register: u16,
    /// Its value before.
    pub old: u64,
    /// What software wrote, placed in its half; the other half as before.
    pub raw: u64,
    /// Whether the upper four bytes took part.
    pub upper: bool,
}

/// The registers' values, changed by software through access semantics and by the unit directly.
#[derive(Clone, Debug)]
pub(crate) struct RegisterFile {
    definitions: Rc<BTreeMap<u16, Definition>>,
    values: BTreeMap<u16, u64>,
}

impl RegisterFile {
    /// The registers at reset, with the IOTLB registers at `iotlb` and `records` fault records at `faults`.
    pub(crate) fn new(cap: u64, ecap: u64, iotlb: u16, faults: u16, records: u16) -> Self {
        let mut file = Self { definitions: Rc::default(), values: BTreeMap::new() };
        let all32 = 0xffff_ffff;
        let event = u64::from(IM);
        let status = u64::from(PFO | IQE | ICE | ITE);
        file.define(VER, 4, 0, 0, 0x10);
        file.define(CAP, 8, 0, 0, cap);
        file.define(ECAP, 8, 0, 0, ecap);
        file.define(GCMD, 4, 0, 0, 0);
        file.define(GSTS, 4, 0, 0, 0);
        file.define(RTADDR, 8, !0x3ff, 0, 0);
        file.define(CCMD, 8, 0xe000_0003_ffff_ffff, 0, 0);
        file.define(FSTS, 4, 0, status, 0);
        file.define(FECTL, 4, event, 0, event);
        file.define(FEDATA, 4, all32, 0, 0);
        file.define(FEADDR, 4, all32 & !3, 0, 0);
        file.define(FEUADDR, 4, all32, 0, 0);
        file.define(PMEN, 4, 1 << 31, 0, 0);
        file.define(PLMBASE, 4, all32 & !0x1f_ffff, 0, 0);
        file.define(PLMLIMIT, 4, all32 & !0x1f_ffff, 0, 0);
        file.define(PHMBASE, 8, !0x1f_ffff, 0, 0);
        file.define(PHMLIMIT, 8, !0x1f_ffff, 0, 0);
        file.define(IQH, 8, 0, 0, 0);
        file.define(IQT, 8, 0x7_fff0, 0, 0);
        file.define(IQA, 8, !0x7f8, 0, 0);
        file.define(ICS, 4, 0, u64::from(IWC), 0);
        file.define(IECTL, 4, event, 0, event);
        file.define(IEDATA, 4, all32, 0, 0);
        file.define(IEADDR, 4, all32 & !3, 0, 0);
        file.define(IEUADDR, 4, all32, 0, 0);
        file.define(IQERCD, 8, 0, 0, 0);
        file.define(IRTA, 8, !0x7f0, 0, 0);
        file.define(PQH, 8, 0x7_ffe0, 0, 0);
        file.define(PQT, 8, 0x7_ffe0, 0, 0);
        file.define(PQA, 8, !0xff8, 0, 0);
        file.define(PRS, 4, 0, u64::from(PPR | PRO), 0);
        file.define(PECTL, 4, event, 0, event);
        file.define(PEDATA, 4, all32, 0, 0);
        file.define(PEADDR, 4, all32 & !3, 0, 0);
        file.define(PEUADDR, 4, all32, 0, 0);
        file.define(iotlb, 8, !0, 0, 0);
        file.define(iotlb + 8, 8, !(3 << 57), 0, 0);
        for record in 0..records {
            file.define(faults + 16 * record, 8, 0, 0, 0);
            file.define(faults + 16 * record + 8, 8, 0, FAULT, 0);
        }
        for write_only in [GCMD, iotlb] {
            if let Some(definition) = Rc::make_mut(&mut file.definitions).get_mut(&write_only) {
                definition.readable = false;
            }
        }
        file
    }

    fn define(&mut self, offset: u16, width: u8, writable: u64, clear: u64, reset: u64) {
        Rc::make_mut(&mut self.definitions).insert(offset, Definition { width, writable, clear, readable: true });
        self.values.insert(offset, reset);
    }

    /// The value as the unit itself knows it.
    pub(crate) fn get(&self, register: u16) -> u64 {
        self.values.get(&register).copied().unwrap_or(0)
    }

    /// The value of a 32-bit register as the unit itself knows it.
    pub(crate) fn get32(&self, register: u16) -> u32 {
        self.get(register) as u32
    }

    /// The unit changes a register.
    pub(crate) fn set(&mut self, register: u16, value: u64) {
        self.values.insert(register, value);
    }

    /// The unit sets some bits and clears others.
    pub(crate) fn update(&mut self, register: u16, set: u64, clear: u64) {
        self.set(register, self.get(register) & !clear | set);
    }

    /// The register that an access of `width` bytes at `offset` belongs to, and whether it is its upper half.
    /// `Err` for an access that the specification forbids, `Ok(None)` where there is no register.
    fn locate(&self, offset: u16, width: u8) -> Result<Option<(u16, Definition, bool)>, ()> {
        if !offset.is_multiple_of(u16::from(width)) {
            return Err(());
        }
        if let Some(definition) = self.definitions.get(&offset) {
            return if width > definition.width { Err(()) } else { Ok(Some((offset, *definition, false))) };
        }
        match self.definitions.get(&offset.wrapping_sub(4)) {
            Some(definition) if width == 4 && definition.width == 8 => Ok(Some((offset - 4, *definition, true))),
            _ => Ok(None),
        }
    }

    /// Software reads `width` bytes. Where there is no register, zeros. `Err` for a forbidden access.
    pub(crate) fn read(&self, offset: u16, width: u8) -> Result<u64, ()> {
        let Some((register, definition, upper)) = self.locate(offset, width)? else { return Ok(0) };
        let value = if definition.readable { self.get(register) } else { 0 };
        let value = if upper { value >> 32 } else { value };
        Ok(if width == 4 { value & 0xffff_ffff } else { value })
    }

    /// Software writes `width` bytes. `None` where there is no register. `Err` for a forbidden access.
    pub(crate) fn write(&mut self, offset: u16, width: u8, value: u64) -> Result<Option<Written>, ()> {
        let Some((register, definition, upper)) = self.locate(offset, width)? else { return Ok(None) };
        let lanes = match (width, upper) {
            (8, _) => !0,
            (_, false) => 0xffff_ffff,
            (_, true) => 0xffff_ffff << 32,
        };
        let placed = if upper { value << 32 } else { value };
        let old = self.get(register);
        let writable = definition.writable & lanes;
        self.set(register, (old & !writable | placed & writable) & !(definition.clear & lanes & placed));
        Ok(Some(Written { register, old, raw: old & !lanes | placed & lanes, upper: upper || width == 8 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> RegisterFile {
        RegisterFile::new(0x1234_5678_9abc_def0, 1, 0x500, 0x400, 2)
    }

    #[test]
    fn read_only_registers_ignore_writes() {
        let mut file = file();
        file.write(CAP, 8, 0).unwrap();
        assert_eq!(file.read(CAP, 8), Ok(0x1234_5678_9abc_def0));
        assert_eq!(file.read(CAP + 4, 4), Ok(0x1234_5678));
        file.write(GSTS, 4, !0).unwrap();
        assert_eq!(file.read(GSTS, 4), Ok(0));
    }

    #[test]
    fn write_one_to_clear_clears_only_what_is_written_as_one() {
        let mut file = file();
        file.set(FSTS, u64::from(PFO | IQE | PPF));
        file.write(FSTS, 4, u64::from(IQE | PPF)).unwrap();
        assert_eq!(file.get32(FSTS), PFO | PPF, "PPF is read-only, PFO was not written");
        file.write(FSTS, 4, 0).unwrap();
        assert_eq!(file.get32(FSTS), PFO | PPF);
        file.set(0x408, FAULT | 0x77);
        file.write(0x408, 8, 0).unwrap();
        assert_eq!(file.get(0x408), FAULT | 0x77, "writing 0 to F leaves it");
        file.write(0x40c, 4, 1 << 31).unwrap();
        assert_eq!(file.get(0x408), 0x77);
    }

    #[test]
    fn halves_of_a_64_bit_register_are_written_apart() {
        let mut file = file();
        file.write(RTADDR + 4, 4, 0x12).unwrap();
        file.write(RTADDR, 4, 0x0004_5fff).unwrap();
        assert_eq!(file.read(RTADDR, 8), Ok(0x12_0004_5c00));
    }

    #[test]
    fn a_wide_access_to_a_narrow_register_is_refused() {
        let mut file = file();
        assert_eq!(file.read(GCMD, 8), Err(()));
        assert_eq!(file.write(FSTS, 8, 0), Err(()));
        assert_eq!(file.read(CAP + 2, 4), Err(()));
        assert_eq!(file.read(0xff0, 8), Ok(0));
    }

    #[test]
    fn write_only_registers_read_as_zero() {
        let mut file = file();
        file.write(0x500, 8, 0x1234_5000).unwrap();
        assert_eq!(file.read(0x500, 8), Ok(0));
        assert_eq!(file.get(0x500), 0x1234_5000);
    }
}
