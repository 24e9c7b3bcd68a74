//! Physical memory and device registers, through the boot loader's mapping of the first 4 GiB.

use addr::GuestPhys;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{OffsetPageTable, PageTable, Translate};
use x86_64::{PhysAddr, VirtAddr};

/// How much physical memory is mapped.
const MAPPED: u64 = 1 << 32;

static OFFSET: AtomicU64 = AtomicU64::new(0);

/// Remembers where physical memory is mapped: `offset` is BootInfo's `physical_memory_offset`.
pub fn initialize(offset: u64) {
    OFFSET.store(offset, Ordering::Relaxed);
}

/// Where a physical address below 4 GiB is mapped.
pub fn mapped(address: GuestPhys) -> VirtAddr {
    VirtAddr::new_truncate(OFFSET.load(Ordering::Relaxed).wrapping_add(address.as_u64()))
}

/// Where the memory behind `pointer` is physically, or `None` if it is not mapped.
pub fn physical_address(pointer: *const u8) -> Option<GuestPhys> {
    let (frame, _) = Cr3::read();
    let root: *mut PageTable = mapped(GuestPhys::new(frame.start_address().as_u64())).as_mut_ptr();
    // SAFETY: the boot loader's tables are mapped at `OFFSET` with all physical memory, nothing changes them while
    // the guest runs, and this is the only reference to the root while it lives.
    let tables = unsafe { OffsetPageTable::new(&mut *root, mapped(GuestPhys::new(0))) };
    tables.translate_addr(VirtAddr::from_ptr(pointer)).map(PhysAddr::as_u64).map(GuestPhys::new)
}

/// A window of device registers, 32 bits each.
pub struct DeviceRegisters {
    base: *mut u32,
    length: usize,
}

impl DeviceRegisters {
    /// The registers of `length` bytes at `base`, or `None` if they are not mapped or not aligned.
    ///
    /// # Safety
    /// The range must belong to a device, never to memory that Rust knows of.
    pub unsafe fn new(base: GuestPhys, length: u64) -> Option<Self> {
        let end = base.checked_add(length)?;
        if end.as_u64() > MAPPED || !base.is_aligned(4) {
            return None;
        }
        Some(Self { base: mapped(base).as_mut_ptr(), length: usize::try_from(length).ok()? })
    }

    fn pointer(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4) && offset < self.length, "no register at {offset:#x}");
        self.base.wrapping_byte_add(offset)
    }

    /// Reads the register at `offset`, a multiple of 4 within the window.
    pub fn read(&self, offset: usize) -> u32 {
        let value: u32;
        // SAFETY: `pointer` is inside the window, which is mapped. Always this one instruction: a hypervisor that
        // emulates the register has to decode it, and the compiler would be free to choose any.
        unsafe { asm!("mov eax, [rdx]", in("rdx") self.pointer(offset), out("eax") value, options(nostack)) };
        value
    }

    /// Writes the register at `offset`, a multiple of 4 within the window.
    pub fn write(&self, offset: usize, value: u32) {
        // SAFETY: as for `read`; what the device does to memory is decided by the descriptors that it is given. The
        // compiler takes this as touching all memory, so that the descriptors are in memory before.
        unsafe { asm!("mov [rdx], eax", in("rdx") self.pointer(offset), in("eax") value, options(nostack)) };
    }
}
