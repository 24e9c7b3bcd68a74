//! From power-on to one call.
//!
//! QEMU's `-kernel` (PVH, by the ELF note `XEN_ELFNOTE_PHYS32_ENTRY`) and GRUB (Multiboot2) start an image in 32-bit
//! protected mode with paging off. This crate takes the processor to long mode, turns what the loader reported into a
//! [`bootloader_api::BootInfo`], and calls the `_start` that `bootloader_api::entry_point!` defines. It is used by
//! `use boot as _;` in the binary and by linking with `linker.ld`; there is nothing to call.
//!
//! An image that uses it can also be loaded by rust-osdev's `bootloader`, which calls `_start` by itself: the ELF entry
//! point is `_start`, and the code of this crate then never runs. So an image must take every fact from its `BootInfo`.
//!
//! Where the loader leaves the processor, and what it promises:
//! - PVH: EBX holds the physical address of `hvm_start_info` (Xen, "x86/HVM direct boot ABI").
//! - Multiboot2: EAX holds 0x36d76289, EBX the physical address of the boot information (Multiboot2, section 3.3).
//! - Both honour `p_memsz` of the program headers, so `.bss` is zero and nobody clears it here.
//!
//! What an image finds at `_start`:
//! - physical memory 0 to 4 GiB at [`PHYSICAL_MEMORY_OFFSET`] (not executable) and at its own address (identity);
//! - the first 2 GiB also at [`LINK_BASE`], where the image is linked: all of it writable and executable, so an image
//!   makes its own tables with the ranges of `image`;
//! - EFER.NXE and CR0.WP set, interrupts off, no IDT, a stack of 128 KiB with a page below it that is nobody's.
#![no_std]
#![cfg_attr(
    not(any(test, target_os = "none")),
    allow(dead_code, reason = "the machine layer, which calls it, is not there")
)]

#[cfg(test)]
extern crate std;

mod boot_info;
mod bytes;
mod error;
mod memory_map;
mod multiboot2;
#[cfg(target_os = "none")]
mod protocol;
mod pvh;

#[cfg(target_os = "none")]
mod command_line;
#[cfg(target_os = "none")]
mod entry32;
#[cfg(target_os = "none")]
mod entry64;
#[cfg(target_os = "none")]
mod image;

#[cfg(target_os = "none")]
pub use command_line::command_line;
#[cfg(target_os = "none")]
pub use image::{Image, image};

/// Virtual address at which the first 4 GiB of physical memory are mapped when [`bootloader_api::BootInfo`] was made
/// here. Take `BootInfo::physical_memory_offset` instead: another loader chooses another.
pub const PHYSICAL_MEMORY_OFFSET: u64 = 0xffff_8000_0000_0000;

/// Virtual address of physical address 0 in the part of the address space that images are linked in (`linker.ld`).
/// True only when this crate booted the image: another loader puts the image at any physical address.
pub const LINK_BASE: u64 = 0xffff_ffff_8000_0000;

/// Bytes of physical memory that the boot page tables map from address 0.
pub const MAPPED_PHYSICAL_MEMORY: u64 = 1 << 32;
