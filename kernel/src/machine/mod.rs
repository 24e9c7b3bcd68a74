//! The machine around the processor: what its firmware says, its configuration space, its clocks, and its end.

pub mod calendar;
pub mod calibration;
pub mod config_space;
pub mod device_memory;
pub mod firmware;
pub mod firmware_tables;
pub mod handover;
pub mod io_apics;
pub mod ports;
pub mod power;
pub mod unit_registers;
