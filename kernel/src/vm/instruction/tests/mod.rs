//! Tests of the decoder: what it does, and that it agrees with iced-x86 and with the processor.

mod agreement;
mod behaviour;
#[cfg(target_arch = "x86_64")]
mod processor;
mod support;
