//! What an engine is: a processor's virtualization extension, switched on on one processor.

use crate::vcpu::{FrameSource, VirtualCpu};
use addr::{GuestPhys, HostPhys, PageSize};
use core::fmt;
use paging::{Format, MemoryType};

/// A virtualization extension, switched on on the processor that this runs on.
pub trait Engine: Sized {
    /// Its name in the log and the report.
    const NAME: &'static str;
    /// The virtual CPUs that it makes.
    type Cpu: VirtualCpu;
    /// The format of the tables that translate its guests' physical addresses.
    type Nested: NestedFormat;
    /// Why it cannot be used.
    type Error: fmt::Display;

    /// Whether this processor has the extension at all, whether or not it can be used.
    fn is_present() -> bool;

    /// Switches the extension on.
    fn enable(frames: &mut impl FrameSource) -> Result<Self, Self::Error>;

    /// The largest page that the processor takes in nested tables.
    fn largest_nested_page(&self) -> PageSize;

    /// A virtual CPU for this processor, whose guest-physical addresses the tables at `nested_root` translate.
    fn new_virtual_cpu(
        &mut self,
        frames: &mut impl FrameSource,
        nested_root: HostPhys,
    ) -> Result<Self::Cpu, Self::Error>;
}

/// A format of nested tables in which every page has a memory type.
pub trait NestedFormat: Format<Input = GuestPhys, Attributes: From<MemoryType>> {}

impl<F: Format<Input = GuestPhys, Attributes: From<MemoryType>>> NestedFormat for F {}
