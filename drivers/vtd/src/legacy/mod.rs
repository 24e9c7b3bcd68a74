//! Legacy mode: root and context tables say which device is translated by which second-stage table.
//!
//! A table that is not there denies. At no moment can hardware read one half of one context entry and one half of another.
//! A present entry changes by one store: of all 128 bits where memory can do that, or of one half where the other is
//! the same. What was cached of it is invalidated under the domain id that it *had*. Where one store does not do, the entry
//! is made not present, what was cached is invalidated, and only then the new entry is written, its high half first and
//! the half with the present bit last; in between the device reaches nothing. Reserved memory of firmware that the
//! device uses must not be gone for that long: [`Unit::replace`](crate::Unit::replace) changes an entry by one store or
//! not at all.

mod assignment;
mod tables;
