//! Layouts of the virtual-machine extensions, and nothing else (SDM vol. 3, chapters 24 to 28, appendices A to C).

pub mod control;
pub mod ept;
pub mod exit_reason;
pub mod field;
pub mod instruction_error;
pub mod interruption;
pub mod msr;
pub mod qualification;
