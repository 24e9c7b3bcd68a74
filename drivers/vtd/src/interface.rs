//! The two ways in which a unit is told to forget.

use crate::queue::Queue;

/// How a unit is told to forget.
#[allow(clippy::large_enum_variant, reason = "there is one to a unit, and no allocator to put the queue elsewhere")]
#[derive(Debug)]
pub(crate) enum Interface {
    /// By the invalidation queue.
    Queue(Queue),
    /// By registers, one command at a time: a unit without ECAP.QI.
    Registers,
}
