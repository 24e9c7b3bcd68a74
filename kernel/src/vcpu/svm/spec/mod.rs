//! Layouts of AMD's secure virtual machine extension (APM vol. 2, chapter 15 and appendices B and C). No logic.

pub mod event;
pub mod exit_code;
pub mod intercept;
pub mod interrupt_control;
pub mod msr;
pub mod vmcb;
