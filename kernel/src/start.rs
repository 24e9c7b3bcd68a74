//! From the loader's call to the first guest: the story of a start, step by step. Each step that fails has a
//! sentence of its own, and ends the machine.

use crate::console;
use crate::cpu::descriptor_tables::{self, EMERGENCY_STACKS};
use crate::cpu::entry_points;
use crate::fatal::{self, give_up};
use crate::machine::calibration;
use crate::machine::firmware::Firmware;
use crate::machine::firmware_tables::Tables;
use crate::machine::handover::Handover;
use crate::memory::frames::{FrameTable, Owner};
use crate::memory::{address_space, frames, heap, image, layout, physical};
use crate::time;
use addr::{HostPhys, PAGE_SIZE};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

/// Pages of the hypervisor's stack. Its deepest path is reading the configuration.
const STACK_PAGES: u64 = 16;
/// Pages of each emergency stack.
const EMERGENCY_STACK_PAGES: u64 = 4;
/// Largest archive of guests, in bytes.
const MAXIMUM_RAMDISK: u64 = 4 << 30;

/// A range of physical memory, first and one past the last byte.
type Range = (HostPhys, HostPhys);

/// The hypervisor's entry, with what the loader found.
pub fn start(boot: &'static mut BootInfo) -> ! {
    time::start();
    entry_points::set_exception_handler(fatal::exception);
    descriptor_tables::load();
    heap::start();
    console::log::start();
    log::info!("Postern {}", env!("CARGO_PKG_VERSION"));
    match prepare(boot) {
        Ok(found) => continue_on_own_stack(found),
        Err(reason) => give_up(&reason),
    }
}

/// Everything that happens on the loader's mapping: reading the firmware's tables, counting memory, and building the
/// hypervisor's own mapping.
fn prepare(boot: &'static mut BootInfo) -> Result<Handover, String> {
    if boot.physical_memory_offset.into_option() != Some(layout::PHYSICAL_MAP) {
        return Err(format!("the loader has not mapped physical memory at {:#x}", layout::PHYSICAL_MAP));
    }
    let tables = Tables::find(boot.rsdp_addr.into_option());
    let firmware = match tables {
        Ok(tables) => Firmware::read(&tables),
        Err(error) => {
            log::warn!("no usable ACPI tables: {error:?}");
            Firmware::default()
        }
    };
    match calibration::calibrate(firmware.pm_timer_port) {
        Some(reference) => {
            log::info!("time-stamp counter {} MHz, measured by {reference:?}", time::frequency_khz() / 1000)
        }
        None => log::warn!("no clock to measure the time-stamp counter by; waits will be too long"),
    }
    let ramdisk = locate_ramdisk(boot)?;
    let image = locate_image()?;
    count_memory(&boot.memory_regions, ramdisk, &image)?;
    let memory: Vec<Range> = boot.memory_regions.iter().filter(|region| is_memory(region)).map(range).collect();
    address_space::build(memory.into_iter().chain(ramdisk.map(|(start, bytes)| (start, end_of(start, bytes)))))
        .map_err(|error| error.to_string())?;
    let (free, kept) = frame_counts();
    log::info!("memory: {} MiB free, {} KiB kept", free / 256, kept * 4);
    Ok(Handover { firmware, ramdisk })
}

/// Frames that are free, and frames that the hypervisor keeps.
fn frame_counts() -> (usize, usize) {
    let mut frames = frames();
    (frames.table().count(Owner::Free), frames.table().count(Owner::Hypervisor))
}

fn range(region: &MemoryRegion) -> Range {
    (HostPhys::new(region.start), HostPhys::new(region.end))
}

fn end_of(start: HostPhys, bytes: u64) -> HostPhys {
    HostPhys::new(start.as_u64().saturating_add(bytes))
}

/// Memory that can be mapped as such: what is free, and what the loader used. Everything else may be a device.
fn is_memory(region: &MemoryRegion) -> bool {
    matches!(region.kind, MemoryRegionKind::Usable | MemoryRegionKind::Bootloader) && region.start < region.end
}

/// Where the ramdisk is in physical memory; the loader says where it is mapped.
fn locate_ramdisk(boot: &BootInfo) -> Result<Option<(HostPhys, u64)>, String> {
    let Some(start) = boot.ramdisk_addr.into_option() else { return Ok(None) };
    if boot.ramdisk_len == 0 {
        return Ok(None);
    }
    if boot.ramdisk_len > MAXIMUM_RAMDISK {
        return Err(format!("the ramdisk is {} bytes long; the limit is {MAXIMUM_RAMDISK}", boot.ramdisk_len));
    }
    let translate = |address| address_space::translate(address).ok_or("the loader's ramdisk is not mapped");
    let first = translate(start)?;
    for offset in (PAGE_SIZE..boot.ramdisk_len).step_by(PAGE_SIZE as usize) {
        if translate(start + offset)?.as_u64() != first.as_u64() + offset {
            return Err("the loader's ramdisk is not in one piece".to_string());
        }
    }
    Ok(Some((first, boot.ramdisk_len)))
}

/// The physical pages of the image, as ranges.
fn locate_image() -> Result<Vec<Range>, String> {
    let mut ranges: Vec<Range> = Vec::new();
    for section in image::sections() {
        for page in (section.start..section.end).step_by(PAGE_SIZE as usize) {
            let frame = address_space::translate(page).ok_or("a page of the image is not mapped")?;
            match ranges.last_mut() {
                Some(last) if last.1 == frame => last.1 = end_of(frame, PAGE_SIZE),
                _ => ranges.push((frame, end_of(frame, PAGE_SIZE))),
            }
        }
    }
    Ok(ranges)
}

/// Builds the table of frames, in a piece of the memory that it describes.
fn count_memory(regions: &[MemoryRegion], ramdisk: Option<(HostPhys, u64)>, image: &[Range]) -> Result<(), String> {
    let usable = || regions.iter().filter(|region| region.kind == MemoryRegionKind::Usable).map(range);
    let end = usable().map(|(_, end)| end).max().ok_or("the loader names no usable memory")?;
    let bytes = FrameTable::bytes_for(end).next_multiple_of(PAGE_SIZE);
    // Above 1 MiB, which other processors will need to start; below 4 GiB, which every loader has mapped.
    let place = usable()
        .map(|(start, end)| (start.max(HostPhys::new(1 << 20)).as_u64().next_multiple_of(PAGE_SIZE), end.as_u64()))
        .find(|(start, end)| *start + bytes <= (*end).min(1 << 32))
        .map(|(start, _)| HostPhys::new(start))
        .ok_or_else(|| format!("too little memory: the table of frames takes {} KiB", bytes >> 10))?;
    let mut table = FrameTable::new(physical::bytes_mut(place, bytes as usize));
    for (start, end) in usable() {
        table.add_usable(start.max(HostPhys::new(1 << 20)), end);
    }
    table.claim(place, end_of(place, bytes), Owner::Hypervisor);
    for (start, end) in image {
        table.claim(*start, *end, Owner::Hypervisor);
    }
    if let Some((start, bytes)) = ramdisk {
        table.claim(start, end_of(start, bytes), Owner::Hypervisor);
    }
    crate::memory::set_frames(table);
    Ok(())
}

/// Leaves the loader's stack for one between guard pages.
#[expect(unsafe_code, reason = "changes the stack")]
fn continue_on_own_stack(found: Handover) -> ! {
    let stacks = address_space::new_stack(STACK_PAGES).and_then(|stack| {
        let mut emergency = [stack; EMERGENCY_STACKS];
        for stack in &mut emergency {
            *stack = address_space::new_stack(EMERGENCY_STACK_PAGES)?;
        }
        Ok((stack, emergency))
    });
    let (stack, emergency) = match stacks {
        Ok(stacks) => stacks,
        Err(error) => give_up(&error.to_string()),
    };
    descriptor_tables::load_task_state(emergency);
    if let Some(address) = address_space::first_writable_and_executable() {
        give_up(&format!("the page at {address:#x} is writable where it must not be"));
    }
    log::info!(
        "own mapping in place: image at {:#x}, physical map at {:#x}",
        image::sections()[0].start,
        layout::PHYSICAL_MAP
    );
    let found = alloc::boxed::Box::into_raw(alloc::boxed::Box::new(found));
    // SAFETY: the new stack is mapped and used by nobody; the function never returns; the pointer is a box's.
    unsafe {
        core::arch::asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            stack = in(reg) stack.top,
            next = sym on_own_stack,
            in("rdi") found,
            options(noreturn)
        )
    }
}

#[expect(unsafe_code, reason = "takes over the box that the other stack made")]
extern "C" fn on_own_stack(found: *mut Handover) -> ! {
    // SAFETY: the only caller passes a pointer from `Box::into_raw`, once.
    let found = unsafe { alloc::boxed::Box::from_raw(found) };
    crate::run::run(*found)
}
