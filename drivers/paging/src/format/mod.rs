//! What an entry looks like in each kind of table.

mod ept;
mod first_stage;
mod nested;
mod second_stage;

pub use ept::{Ept, EptAttributes};
pub use first_stage::FirstStage;
pub use nested::NestedPaging;
pub use second_stage::{SecondStage, SecondStageAttributes};
