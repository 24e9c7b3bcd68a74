//! Layouts only: register offsets, model-specific registers and fields.

pub mod io_apic;
pub mod local_apic;
