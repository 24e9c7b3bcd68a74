//! Tests of the decoder: what it does, and that it agrees with iced-x86.

mod agreement;
mod behaviour;
mod support;
