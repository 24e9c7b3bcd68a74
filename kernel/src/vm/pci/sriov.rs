//! The virtual functions that a guest's physical function shows: their capability, which is all the hypervisor's. Where they
//! are on the guest's bus is not where they are on the machine's, and the page size is 4 KiB. PCI Express Base section 9.3.3.

use super::bars::GuestBars;
use super::lanes::Lanes;
use ::pci::FunctionDescription;
use ::pci::spec::capability::extended_id::SINGLE_ROOT_IO_VIRTUALIZATION;
use ::pci::spec::sriov::{
    CONTROL, FIRST_VF_OFFSET, FUNCTION_DEPENDENCY_LINK, INITIAL_VFS, LENGTH, NUM_VFS, PAGE_4_KIB, SUPPORTED_PAGE_SIZES,
    SYSTEM_PAGE_SIZE, VF_BAR0, VF_DEVICE_ID, VF_ENABLE, VF_MEMORY_SPACE,
};
use addr::Bdf;
use core::ops::Range;

/// First behind the registers of the virtual functions' ranges: nothing of migration.
const VF_BAR_END: u16 = VF_BAR0 + 24;
const DEVICE_ID_DWORD: u16 = VF_DEVICE_ID & !3;
const _: () = assert!(FUNCTION_DEPENDENCY_LINK == NUM_VFS + 2 && LENGTH == VF_BAR_END + 4);

/// The capability of one physical function.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestSriov {
    /// Where it is itself, as it says in its dependency link.
    own: u8,
    /// From the physical function to the first virtual one; the others follow one by one.
    first_offset: u16,
    device_id: u16,
    /// How many there can be.
    total: u16,
    /// NumVFs.
    count: u16,
    control: u16,
    /// The registers, for the ranges of one virtual function.
    bars: GuestBars,
}

impl GuestSriov {
    /// For `total` virtual functions like `description`, the first of which is at `first`. They are off.
    pub fn new(own: Bdf, first: Bdf, total: u16, description: &FunctionDescription) -> Self {
        Self {
            own: own.devfn(),
            first_offset: first.as_u16().wrapping_sub(own.as_u16()),
            device_id: description.info.device_id,
            total,
            count: 0,
            control: 0,
            bars: GuestBars::new(&description.bars),
        }
    }

    /// How many virtual functions there are.
    pub fn present(&self) -> u16 {
        if self.control & VF_ENABLE != 0 { self.count } else { 0 }
    }

    /// Whether those that there are answer in memory space.
    pub fn decodes(&self) -> bool {
        self.control & VF_MEMORY_SPACE != 0
    }

    /// As after a reset: they are off, and their ranges have no addresses.
    pub fn reset(&mut self) {
        self.switch_off();
        self.count = 0;
        for index in 0..6 {
            self.bars.write(index, 0);
        }
    }

    /// Switches them off.
    pub fn switch_off(&mut self) {
        self.control = 0;
    }

    /// What the dword at `register` of the capability reads.
    pub fn read(&self, register: u16) -> u32 {
        match register {
            0 => u32::from(SINGLE_ROOT_IO_VIRTUALIZATION) | 1 << 16,
            CONTROL => self.control.into(),
            INITIAL_VFS => u32::from(self.total) * 0x1_0001,
            NUM_VFS => u32::from(self.count) | u32::from(self.own) << 16,
            FIRST_VF_OFFSET => u32::from(self.first_offset) | 1 << 16,
            DEVICE_ID_DWORD => u32::from(self.device_id) << 16,
            SUPPORTED_PAGE_SIZES | SYSTEM_PAGE_SIZE => PAGE_4_KIB,
            VF_BAR0..VF_BAR_END => self.bars.read(bar_index(register)),
            _ => 0,
        }
    }

    /// Writes a part of the dword at `register` of the capability. Their number stays while they are on, and so does a number
    /// beyond those that there can be.
    pub fn write(&mut self, register: u16, lanes: Lanes, value: u32) {
        let merged = lanes.merge(self.read(register), value);
        match register {
            CONTROL => self.control = merged as u16 & (VF_ENABLE | VF_MEMORY_SPACE),
            NUM_VFS if self.control & VF_ENABLE == 0 && merged as u16 <= self.total => self.count = merged as u16,
            VF_BAR0..VF_BAR_END => self.bars.write(bar_index(register), merged),
            _ => {}
        }
    }

    /// The ranges of one of them.
    pub fn ranges(&self) -> &GuestBars {
        &self.bars
    }

    /// How much room the range of a register needs, all functions together: a power of two.
    pub fn room(&self, size: u64) -> u64 {
        size.saturating_mul(u64::from(self.total).next_power_of_two())
    }

    /// Gives a range an address, before the guest runs.
    pub fn set_address(&mut self, register: u8, address: u64) {
        self.bars.set_address(register, address);
    }

    /// Where virtual function `index` is to have the range of a register; `None` while that has no address.
    pub fn address(&self, register: u8, index: u16) -> Option<u64> {
        let range = self.bars.range(register)?;
        let first = self.bars.address(range).filter(|first| *first != 0)?;
        first.checked_add(range.size.checked_mul(index.into())?)
    }

    /// The end of a range of theirs with an address that has something in common with `wanted`.
    pub fn in_the_way(&self, wanted: &Range<u64>) -> Option<u64> {
        self.bars.ranges().find_map(|range| {
            let start = self.bars.address(range).filter(|start| *start != 0)?;
            let end = start.saturating_add(range.size.saturating_mul(self.total.into()));
            (start < wanted.end && wanted.start < end).then_some(end)
        })
    }
}

/// The number of the base address register at an offset of the capability.
fn bar_index(register: u16) -> u8 {
    (register.saturating_sub(VF_BAR0) / 4) as u8
}
