//! What a virtual CPU is: virtual machine control in, typed exit out.
//!
//! [`VirtualCpu`] is all that the code above sees of a processor's virtualization extension; [`svm`] and [`vmx`] are
//! engines of it. An engine runs the guest, says why it stopped, and keeps the state that the hardware keeps; it
//! emulates nothing and knows no device. Deciding what an exit means is the caller's.

mod apic_virtualization;
mod engine;
mod event;
mod exit;
mod frames;
mod instruction;
pub mod notification;
mod page_attribute_table;
mod region;
mod registers;
mod segment;
mod start;
pub mod svm;
mod virtual_cpu;
pub mod vmx;

pub use apic_virtualization::{
    ApicCapability, ApicVirtualization, ApicWay, InterruptStatus, PassedMsrs, PostedProcessing, VirtualApicPage,
};
pub use engine::{Engine, NestedFormat};
pub use event::{Combined, Event, combine};
pub use exit::{Access, Direction, EntryFailure, Exit, IoAccess, IoWidth, NestedPageFault};
pub use frames::FrameSource;
pub use instruction::{Instruction, instruction_length};
pub use registers::Registers;
pub use segment::{DescriptorTable, Segment, SegmentAttributes, SegmentName};
pub use start::{InitialState, LONG_CODE_SELECTOR, LONG_DATA_SELECTOR, Start};
pub use virtual_cpu::{ControlState, GeneralProtection, Mode, NotNow, VirtualCpu};
