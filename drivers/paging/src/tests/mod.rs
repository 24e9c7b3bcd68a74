//! Tests of the walker, run for every format.

mod flushes;
mod limits;
mod model;
mod observer;
mod sizes;
mod support;
