//! Tests of the walker, run for every format.

mod coherency;
mod flushes;
mod freeing;
mod limits;
mod merging;
mod model;
mod observer;
mod sizes;
mod support;
