//! Tests of the walker, run for every format.

mod flushes;
mod limits;
mod merging;
mod model;
mod observer;
mod sizes;
mod support;
