//! The virtual functions of a physical one (SR-IOV): how many there can be, where each is, and switching them on and off.
//! PCI Express Base section 9.

use crate::spec::capability::extended_id::SINGLE_ROOT_IO_VIRTUALIZATION;
use crate::spec::header::bar::MEMORY_FLAGS;
use crate::spec::sriov::{
    ARI_CAPABLE_HIERARCHY, CONTROL, FIRST_VF_OFFSET, LENGTH, NUM_VFS, PAGE_4_KIB, SUPPORTED_PAGE_SIZES,
    SYSTEM_PAGE_SIZE, TOTAL_VFS, VF_BAR0, VF_DEVICE_ID, VF_ENABLE, VF_MEMORY_SPACE, VF_STRIDE,
};
use crate::{Bar, BarSlot, Bars, ConfigSpace, Routing, bar, find_extended_capability};
use addr::{Bdf, HostPhys, PAGE_SIZE, PciAddress};
use core::fmt;

/// How long a virtual function may take after it was enabled until it may be accessed, in microseconds. PCI Express Base
/// section 9.3.3.3.1.
pub const ENABLING_US: u64 = 100_000;
/// How long the capability is not to be read after virtual functions were disabled, in microseconds. The same section.
pub const DISABLING_US: u64 = 1_000_000;

/// Why virtual functions cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SriovError {
    /// The device has fewer than are wanted.
    TooFew {
        /// How many it has.
        total: u16,
    },
    /// It does not take pages of 4 KiB.
    PageSize,
    /// The base address register with this number answers without sense, or a range is not of whole pages.
    InvalidBar(u8),
    /// The virtual function with this number has a requester id beyond its bus, that of another, or one that cannot be
    /// reached through the port above.
    Place(u16),
    /// The register at this offset of the capability does not hold what was written, or has changed.
    NotAsWritten(u16),
}

impl fmt::Display for SriovError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { total } => write!(f, "it has {total}"),
            Self::PageSize => write!(f, "they do not take pages of 4 KiB"),
            Self::InvalidBar(index) => write!(f, "BAR {index} of theirs makes no sense"),
            Self::Place(index) => write!(f, "number {index} would be where it cannot be reached"),
            Self::NotAsWritten(register) => write!(f, "register {register:#x} of the capability is not as expected"),
        }
    }
}

impl core::error::Error for SriovError {}

/// The virtual functions of a physical function, as found: [`Self::prepare`] is next, after a reset of that function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sriov {
    function: PciAddress,
    /// Where the capability begins.
    offset: u16,
    /// The device id of the virtual functions. Their vendor id is that of the physical one.
    pub device_id: u16,
    /// What the base address registers hold.
    registers: [u32; 6],
    /// The ranges of the first virtual function.
    bars: Bars,
    /// Of control: only that of the physical function with the lowest number counts.
    ari: u16,
    first: u16,
    stride: u16,
}

impl Sriov {
    /// Finds the virtual functions of `function`, a PCI Express one; `None` if it can have none. Only reads, to be done before
    /// the function is reset: where the firmware has placed their ranges is forgotten with that.
    #[inline(never)]
    pub fn find(config: &dyn ConfigSpace, function: PciAddress) -> Option<Self> {
        let found = find_extended_capability(config, function, SINGLE_ROOT_IO_VIRTUALIZATION)?;
        let offset = Some(found.offset).filter(|offset| *offset <= 0x1000 - LENGTH)?;
        let mut registers = [0; 6];
        for (register, at) in registers.iter_mut().zip((offset + VF_BAR0..).step_by(4)) {
            *register = config.read32(function, at);
        }
        let device_id = config.read16(function, offset + VF_DEVICE_ID);
        Some(Self { function, offset, device_id, registers, bars: Bars::default(), ari: 0, first: 0, stride: 0 })
    }

    /// Learns where `count` virtual functions would be and how large their ranges are, with them switched off. `routing` is how
    /// the device is reached.
    ///
    /// # Errors
    /// [`SriovError`].
    #[inline(never)]
    pub fn prepare(&mut self, config: &mut dyn ConfigSpace, count: u16, routing: Routing) -> Result<(), SriovError> {
        if routing == Routing::Alternative {
            self.ari = ARI_CAPABLE_HIERARCHY;
        }
        self.disable(config);
        let total = self.read(config, TOTAL_VFS);
        if count > total {
            return Err(SriovError::TooFew { total });
        }
        let sizes = config.read32(self.function, self.offset + SUPPORTED_PAGE_SIZES);
        if sizes & PAGE_4_KIB == 0 {
            return Err(SriovError::PageSize);
        }
        self.set_up(config, count);
        self.bars = bar::read_registers(config, self.function, self.offset + VF_BAR0, 6);
        for index in 0..6 {
            let sound = match self.bars.slot(index) {
                BarSlot::Range(Bar::Memory { size, .. }) => size >= PAGE_SIZE,
                BarSlot::Range(Bar::Io { .. }) | BarSlot::Invalid { .. } => false,
                BarSlot::Unimplemented | BarSlot::UpperHalf => true,
            };
            if !sound {
                return Err(SriovError::InvalidBar(index));
            }
        }
        self.first = self.read(config, FIRST_VF_OFFSET);
        self.stride = self.read(config, VF_STRIDE);
        for index in 0..count {
            let reached = |bdf: &Bdf| routing != Routing::DeviceZero || bdf.device() == 0;
            let apart = self.first > 0 && (self.stride > 0 || index == 0);
            self.place(index).filter(|place| apart && reached(&place.bdf)).ok_or(SriovError::Place(index))?;
        }
        Ok(())
    }

    /// Where virtual function `index` is, from 0; `None` if that is not on the bus of the physical one.
    pub fn place(&self, index: u16) -> Option<PciAddress> {
        let distance = self.stride.checked_mul(index)?.checked_add(self.first)?;
        let bdf = Bdf::from_u16(self.function.bdf.as_u16().checked_add(distance)?);
        (bdf.bus() == self.function.bdf.bus()).then_some(PciAddress { bdf, ..self.function })
    }

    /// The ranges of virtual function `index`; those of the first one begin where the registers say. A range that would be
    /// beyond all addresses is missing.
    #[inline(never)]
    pub fn bars(&self, index: u16) -> Bars {
        Bars::new([0, 1, 2, 3, 4, 5].map(|register| match self.bars.slot(register) {
            BarSlot::Range(Bar::Memory { address, size, prefetchable, is_64_bit }) => {
                let address = size.checked_mul(index.into()).and_then(|distance| address.checked_add(distance));
                address.map_or(BarSlot::Unimplemented, |address| {
                    BarSlot::Range(Bar::Memory { address, size, prefetchable, is_64_bit })
                })
            }
            slot => slot,
        }))
    }

    /// Puts the ranges of base address register `register` at `address`, from the next [`Self::enable`] on.
    #[inline(never)]
    pub fn set_address(&mut self, register: u8, address: HostPhys) {
        let mut slots = [0, 1, 2, 3, 4, 5].map(|register| self.bars.slot(register));
        let mut values = self.registers.iter_mut().skip(register.into());
        let Some(BarSlot::Range(Bar::Memory { address: old, is_64_bit, .. })) = slots.get_mut(usize::from(register))
        else {
            return;
        };
        *old = address;
        if let Some(low) = values.next() {
            *low = address.as_u64() as u32;
        }
        if let (true, Some(high)) = (*is_64_bit, values.next()) {
            *high = (address.as_u64() >> 32) as u32;
        }
        self.bars = Bars::new(slots);
    }

    /// Switches the first `count` virtual functions on: they are to be left alone for [`ENABLING_US`] then, and their bus
    /// mastering is off. If they were on before, [`DISABLING_US`] must have passed since.
    ///
    /// # Errors
    /// [`SriovError::NotAsWritten`]; they are off then.
    #[inline(never)]
    pub fn enable(&self, config: &mut dyn ConfigSpace, count: u16) -> Result<(), SriovError> {
        self.set_up(config, count);
        for (register, wanted) in [(NUM_VFS, count), (FIRST_VF_OFFSET, self.first), (VF_STRIDE, self.stride)] {
            // The stride means nothing to a single one.
            if self.read(config, register) != wanted && (register != VF_STRIDE || count > 1) {
                return Err(SriovError::NotAsWritten(register));
            }
        }
        for (index, value) in (0..6).zip(self.registers) {
            let register = VF_BAR0 + 4 * u16::from(index);
            // The low bits say what a register is.
            let flags = if self.bars.slot(index) == BarSlot::UpperHalf { 0 } else { MEMORY_FLAGS };
            if (config.read32(self.function, self.offset + register) ^ value) & !flags != 0 {
                return Err(SriovError::NotAsWritten(register));
            }
        }
        let control = self.ari | VF_ENABLE | VF_MEMORY_SPACE;
        self.write(config, CONTROL, control);
        if self.read(config, CONTROL) & control != control {
            self.disable(config);
            return Err(SriovError::NotAsWritten(CONTROL));
        }
        Ok(())
    }

    /// Switches the virtual functions off: there are none, and what they were doing is forgotten. See [`DISABLING_US`].
    pub fn disable(&self, config: &mut dyn ConfigSpace) {
        self.write(config, CONTROL, self.ari);
    }

    /// Writes all but whether they are enabled, which a reset has cleared.
    fn set_up(&self, config: &mut dyn ConfigSpace, count: u16) {
        self.disable(config);
        config.write32(self.function, self.offset + SYSTEM_PAGE_SIZE, PAGE_4_KIB);
        for (value, register) in self.registers.iter().zip((VF_BAR0..).step_by(4)) {
            config.write32(self.function, self.offset + register, *value);
        }
        self.write(config, NUM_VFS, count);
    }

    fn read(&self, config: &dyn ConfigSpace, register: u16) -> u16 {
        config.read16(self.function, self.offset + register)
    }

    fn write(&self, config: &mut dyn ConfigSpace, register: u16, value: u16) {
        config.write16(self.function, self.offset + register, value);
    }
}

#[cfg(test)]
mod tests;
