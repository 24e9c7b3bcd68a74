//! The first code in long mode: reads what the loader left and calls `_start`.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::boot_info::{self, Placement};
use crate::bytes::Physical;
use crate::error::Error;
use crate::memory_map::{MAX_REGIONS, Span};
use crate::protocol::{PROTOCOL_MULTIBOOT2, PROTOCOL_PVH};
use crate::{LINK_BASE, MAPPED_PHYSICAL_MEMORY, PHYSICAL_MEMORY_OFFSET, command_line, multiboot2, pvh};

unsafe extern "C" {
    /// What `bootloader_api::entry_point!` defines.
    #[allow(improper_ctypes, reason = "`BootInfo` is repr(C); both sides are compiled against the same bootloader_api")]
    fn _start(boot_info: &'static mut BootInfo) -> !;
}

/// What outlives this crate's code. All zero until [`enter`] fills it, so it costs no bytes in the file.
struct Kept {
    regions: [MemoryRegion; MAX_REGIONS],
    info: MaybeUninit<BootInfo>,
}

struct KeptCell(UnsafeCell<Kept>);

// SAFETY: only `enter` touches it, which runs once, on the only processor that runs.
unsafe impl Sync for KeptCell {}

static KEPT: KeptCell = KeptCell(UnsafeCell::new(Kept {
    regions: [MemoryRegion { start: 0, end: 0, kind: MemoryRegionKind::Usable }; MAX_REGIONS],
    info: MaybeUninit::uninit(),
}));

/// The physical memory that the boot page tables map.
struct Mapped;

impl Physical for Mapped {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(u64::try_from(length).ok()?)?;
        if end > MAPPED_PHYSICAL_MEMORY {
            return None;
        }
        // SAFETY: the boot page tables map physical memory 0 to 4 GiB at this offset, so the bytes can be read, and
        // nobody writes to what the loader left while this crate runs: no device and no other processor was started.
        Some(unsafe { core::slice::from_raw_parts((PHYSICAL_MEMORY_OFFSET + address) as *const u8, length) })
    }
}

/// Called once by the entry code: `protocol` says who loaded the image, `information` is the physical address that the
/// loader passed in EBX.
pub(crate) extern "C" fn enter(protocol: u32, information: u32) -> ! {
    let information = u64::from(information);
    let handover = match protocol {
        PROTOCOL_PVH => pvh::parse(&Mapped, information),
        PROTOCOL_MULTIBOOT2 => multiboot2::parse(&Mapped, information),
        _ => Err(Error::Magic),
    };
    if protocol == PROTOCOL_PVH
        && let Some(line) = pvh::command_line(&Mapped, information)
    {
        // SAFETY: this function runs once, before `_start`, on the only processor that runs.
        unsafe { command_line::keep(line) };
    }
    let image = crate::image();
    let placement = Placement {
        physical: Span { start: image.boot.start, end: image.whole.end.wrapping_sub(LINK_BASE) },
        image_start: image.whole.start,
        stack: Span { start: image.stack.start, end: image.stack.end },
    };
    // SAFETY: this function runs once, and this is its only use of KEPT: the reference is unique, for ever.
    let kept: &'static mut Kept = unsafe { &mut *KEPT.0.get() };
    match handover.and_then(|handover| boot_info::build(handover, &placement, &mut kept.regions)) {
        // SAFETY: `_start` is made by `entry_point!` with this signature, and the reference is unique and lives for ever.
        Ok(info) => unsafe { _start(kept.info.write(info)) },
        Err(error) => stop(error.message()),
    }
}

/// Writes `message` to COM1 and halts. Without a UART the port reads 0xff, which is "ready", so this ends anywhere.
fn stop(message: &str) -> ! {
    for byte in message.bytes() {
        for _ in 0..100_000 {
            let status: u8;
            // SAFETY: reads the line status register of COM1, which has no effect on memory.
            unsafe { core::arch::asm!("in al, dx", out("al") status, in("dx") 0x3fdu16, options(nomem, nostack)) };
            // Bit 5: the transmitter holding register is empty.
            if status & 0x20 != 0 {
                break;
            }
        }
        // SAFETY: writes the transmitter holding register of COM1, which has no effect on memory.
        unsafe { core::arch::asm!("out dx, al", in("al") byte, in("dx") 0x3f8u16, options(nomem, nostack)) };
    }
    loop {
        // SAFETY: nothing is left to do; with interrupts off the processor stays here.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
