//! Page tables of exitprobe's own, in a part of the address space where the boot loader's have nothing.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use guest_support::memory;
use x86_64::registers::control::Cr3;

pub const PRESENT: u64 = 1;
pub const WRITABLE: u64 = 1 << 1;
pub const ACCESSED: u64 = 1 << 5;
pub const DIRTY: u64 = 1 << 6;
pub const LARGE: u64 = 1 << 7;
pub const NO_EXECUTE: u64 = 1 << 63;

/// The slot of the root table: between those of the boot loader's mappings.
const ROOT_SLOT: usize = 300;
/// Where the slot's addresses begin.
pub const BASE: u64 = 0xffff_0000_0000_0000 | (ROOT_SLOT as u64) << 39;
/// Where the page directory's second entry leads: pages of 2 MiB.
pub const LARGE_PAGE: u64 = BASE + (2 << 20);
/// Where the pointer table's second entry leads: pages of 1 GiB.
pub const HUGE_PAGE: u64 = BASE + (1 << 30);

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn physical(&self) -> u64 {
        physical(self.0.as_ptr().cast())
    }
}

static POINTERS: Table = Table::new();
static DIRECTORY: Table = Table::new();
static PAGES: Table = Table::new();

/// Memory for pages. What is in it is seen through several addresses, so all access is volatile.
#[repr(C, align(4096))]
pub struct Frames(UnsafeCell<[u8; 4 * 4096]>);

// SAFETY: it is reached by raw pointers only.
unsafe impl Sync for Frames {}

/// Four pages of memory.
pub static FRAMES: Frames = Frames(UnsafeCell::new([0; 4 * 4096]));

impl Frames {
    /// Frame `number` (0 to 3), by its ordinary address.
    pub fn pointer(&self, number: usize) -> *mut u64 {
        self.0.get().cast::<u8>().wrapping_add(number % 4 * 4096).cast()
    }

    /// Where frame `number` is physically.
    pub fn physical(&self, number: usize) -> u64 {
        physical(self.pointer(number).cast())
    }
}

/// Where static memory is physically.
fn physical(pointer: *const u8) -> u64 {
    memory::physical_address(pointer).map_or(0, |address| address.as_u64())
}

/// Puts the tables in place, all entries absent but those that lead from one table to the next.
pub fn install() {
    POINTERS.0[0].store(DIRECTORY.physical() | PRESENT | WRITABLE, Relaxed);
    DIRECTORY.0[0].store(PAGES.physical() | PRESENT | WRITABLE, Relaxed);
    let (root, _) = Cr3::read();
    let root: *mut u64 =
        memory::mapped(addr::GuestPhys::new(root.start_address().as_u64())).as_mut_ptr::<u64>().wrapping_add(ROOT_SLOT);
    // SAFETY: the root is mapped, and nothing that Rust knows of lies behind this entry.
    unsafe { root.write_volatile(POINTERS.physical() | PRESENT | WRITABLE) };
    flush_all();
}

/// The address of page `number` (0 to 511) of 4 KiB.
pub const fn page(number: usize) -> u64 {
    BASE + (number as u64 % 512) * 4096
}

/// Sets the entry of page `number` of 4 KiB.
pub fn set_page(number: usize, entry: u64) {
    PAGES.0[number % 512].store(entry, Relaxed);
    flush(page(number));
}

/// Sets the entry of page `number` of 4 KiB, and leaves what the processor remembers of it.
pub fn set_page_without_flush(number: usize, entry: u64) {
    PAGES.0[number % 512].store(entry, Relaxed);
}

/// The entry of page `number` of 4 KiB.
pub fn entry_of(number: usize) -> u64 {
    PAGES.0[number % 512].load(Relaxed)
}

/// Sets the entry of the page of 2 MiB.
pub fn set_large(entry: u64) {
    DIRECTORY.0[1].store(entry, Relaxed);
    flush(LARGE_PAGE);
}

/// Sets the entry of the page of 1 GiB.
pub fn set_huge(entry: u64) {
    POINTERS.0[1].store(entry, Relaxed);
    flush(HUGE_PAGE);
}

/// INVLPG.
pub fn flush(address: u64) {
    // SAFETY: forgetting a translation changes nothing that Rust knows of.
    unsafe { asm!("invlpg [{}]", in(reg) address) };
}

/// Loads CR3 with what it holds.
pub fn flush_all() {
    // SAFETY: as above.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _) };
}
