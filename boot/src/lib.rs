//! From power-on to one call.
#![no_std]
