//! The hypervisor's own mapping: code executable and constant, data writable, the map of all memory writable but
//! never executable, device registers uncached, stacks between guard pages. Nothing is both writable and executable.

#![expect(unsafe_code, reason = "builds the page tables that the hypervisor itself runs on")]

use crate::memory::frames::Owner;
use crate::memory::image::{self, Section};
use crate::memory::layout::{DEVICES, DEVICES_BYTES, PHYSICAL_MAP, STACKS};
use crate::memory::{frames, physical};
use addr::{HostPhys, PAGE_SIZE};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame, Size2MiB,
    Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

/// Why the mapping could not be built or extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingError {
    /// No frame is left for a page table.
    OutOfMemory,
    /// The place is mapped already, or a page of the image is not mapped: a fault in the layout.
    Conflict(u64),
    /// The window for device registers is full.
    WindowFull,
}

impl core::fmt::Display for MappingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("no memory is left for the hypervisor's page tables"),
            Self::Conflict(address) => write!(f, "the mapping at {address:#x} is not as expected"),
            Self::WindowFull => f.write_str("the window for device registers is full"),
        }
    }
}

struct TableFrames;

// SAFETY: the frame table hands out each frame once, and it becomes a page table of the hypervisor's.
unsafe impl FrameAllocator<Size4KiB> for TableFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = frames().table().allocate(1, PAGE_SIZE, Owner::Hypervisor)?;
        physical::zero(frame, 1);
        Some(PhysFrame::containing_address(PhysAddr::new(frame.as_u64())))
    }
}

/// The tables that the processor uses now.
fn current() -> OffsetPageTable<'static> {
    let root = HostPhys::new(Cr3::read().0.start_address().as_u64());
    let offset = physical::virtual_address(HostPhys::new(0));
    // SAFETY: CR3 names a valid table, the physical map covers it, and the hypervisor changes its own mapping from
    // one CPU, in the functions of this module only, none of which calls another while it holds the table.
    unsafe { OffsetPageTable::new(&mut *(physical::virtual_address(root) as *mut PageTable), VirtAddr::new(offset)) }
}

fn map<S: PageSize + core::fmt::Debug>(
    tables: &mut OffsetPageTable<'_>,
    at: u64,
    to: HostPhys,
    flags: Flags,
) -> Result<(), MappingError>
where
    for<'a> OffsetPageTable<'a>: Mapper<S>,
{
    let page = Page::<S>::containing_address(VirtAddr::new_truncate(at));
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new_truncate(to.as_u64()));
    let parents = Flags::PRESENT | Flags::WRITABLE;
    // SAFETY: the frame is the image's, a stack's, a device's or memory in general; the module's layout gives every
    // use a place of its own, and Rust references exist only to what the frame's owner made of it.
    match unsafe { tables.map_to_with_table_flags(page, frame, flags, parents, &mut TableFrames) } {
        // A new entry where there was none: no translation lookaside buffer can hold an older one.
        Ok(flush) => flush.ignore(),
        Err(MapToError::FrameAllocationFailed) => return Err(MappingError::OutOfMemory),
        Err(_) => return Err(MappingError::Conflict(at)),
    }
    Ok(())
}

fn flags_of(section: &Section) -> Flags {
    let mut flags = Flags::PRESENT | Flags::GLOBAL;
    flags.set(Flags::WRITABLE, section.writable);
    flags.set(Flags::NO_EXECUTE, !section.executable);
    flags
}

/// Builds the mapping and switches to it. `memory` yields the ranges of physical memory to map.
///
/// The caller's stack must be part of the image, which stays mapped where it is.
pub fn build(memory: impl Iterator<Item = (HostPhys, HostPhys)>) -> Result<(), MappingError> {
    // SAFETY: enabling no-execute makes one reserved bit of page tables valid; no table in use has it set wrongly.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    let root = TableFrames.allocate_frame().ok_or(MappingError::OutOfMemory)?;
    let old = current();
    let root_address = HostPhys::new(root.start_address().as_u64());
    // SAFETY: the root was just allocated and zeroed; the boot code's physical map covers it.
    let mut new = unsafe {
        OffsetPageTable::new(&mut *(physical::virtual_address(root_address) as *mut PageTable), old.phys_offset())
    };
    // Where the image's constant pages really are: their alias in the physical map must not be writable either.
    let mut constant = (HostPhys::new(u64::MAX), HostPhys::new(0));
    for section in image::sections() {
        for page in (section.start..section.end).step_by(PAGE_SIZE as usize) {
            // A loader may have put the image's pages anywhere: what counts is where they are mapped now.
            let frame = old.translate_addr(VirtAddr::new(page)).ok_or(MappingError::Conflict(page))?;
            let frame = HostPhys::new(frame.as_u64());
            map::<Size4KiB>(&mut new, page, frame, flags_of(&section))?;
            if !section.writable {
                constant = (constant.0.min(frame), constant.1.max(HostPhys::new(frame.as_u64() + PAGE_SIZE)));
            }
        }
    }
    for (start, end) in memory {
        map_memory(&mut new, start, end, constant)?;
    }
    // SAFETY: the new tables map the image where it is, so execution goes on; write protection makes constant pages
    // constant for the hypervisor too. No page of theirs is a user page, so that what CR4 forbids is never done; and
    // they are the only tables from here on, so that global pages stay what they are.
    unsafe {
        Cr3::write(root, Cr3Flags::empty());
        Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|flags| flags.insert(paging_features()));
    }
    Ok(())
}

/// What this processor has of global pages, and of the protection against execution of and access to user pages. A
/// kernel as a guest has the same set; where they differ, QEMU's TCG flushes once more at every entry and every exit.
fn paging_features() -> Cr4Flags {
    let features = __cpuid(1).edx;
    let structured = if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).ebx };
    [
        (features >> 3, Cr4Flags::PAGE_SIZE_EXTENSION),
        (features >> 13, Cr4Flags::PAGE_GLOBAL),
        (structured >> 7, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
        (structured >> 20, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
    ]
    .into_iter()
    .filter_map(|(bit, flag)| (bit & 1 != 0).then_some(flag))
    .collect()
}

/// Maps one range of memory in the physical map; what is mapped already stays.
fn map_memory(
    tables: &mut OffsetPageTable<'_>,
    start: HostPhys,
    end: HostPhys,
    constant: (HostPhys, HostPhys),
) -> Result<(), MappingError> {
    let data = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
    let mut at = start.align_down(PAGE_SIZE).as_u64();
    while at < end.as_u64() {
        let here = HostPhys::new(at);
        let large = Size2MiB::SIZE;
        let touches_constant = at < constant.1.as_u64() && at + large > constant.0.as_u64();
        let fits = here.is_aligned(large) && at + large <= end.as_u64() && !touches_constant;
        // Ranges may overlap, as the ramdisk's does with the memory that it is in: then page by page.
        if fits && map::<Size2MiB>(tables, PHYSICAL_MAP + at, here, data).is_ok() {
            at += large;
        } else {
            let is_constant = at < constant.1.as_u64() && at >= constant.0.as_u64();
            let flags = if is_constant { data - Flags::WRITABLE } else { data };
            if tables.translate_addr(VirtAddr::new_truncate(PHYSICAL_MAP + at)).is_none() {
                map::<Size4KiB>(tables, PHYSICAL_MAP + at, here, flags)?;
            }
            at += PAGE_SIZE;
        }
    }
    Ok(())
}

/// Maps `bytes` of device registers at `start`, uncached and not executable, for ever.
pub fn map_device(start: HostPhys, bytes: u64) -> Result<NonNull<u8>, MappingError> {
    static NEXT: AtomicU64 = AtomicU64::new(DEVICES);
    let first = start.align_down(PAGE_SIZE);
    let offset = start.as_u64() - first.as_u64();
    let length = bytes.saturating_add(offset).next_multiple_of(PAGE_SIZE);
    if length > DEVICES_BYTES {
        return Err(MappingError::WindowFull);
    }
    let at = NEXT.fetch_add(length, Ordering::Relaxed);
    if at.saturating_add(length) > DEVICES + DEVICES_BYTES {
        return Err(MappingError::WindowFull);
    }
    let flags =
        Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL | Flags::NO_CACHE | Flags::WRITE_THROUGH;
    let mut tables = current();
    for page in (0..length).step_by(PAGE_SIZE as usize) {
        map::<Size4KiB>(&mut tables, at + page, HostPhys::new(first.as_u64() + page), flags)?;
    }
    NonNull::new((at + offset) as *mut u8).ok_or(MappingError::WindowFull)
}

/// A stack between two unmapped pages.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Lowest byte.
    pub bottom: u64,
    /// One past the highest byte: where the stack pointer starts.
    pub top: u64,
}

/// A new stack of `pages` pages. A stack that grows too far meets an unmapped page instead of somebody's data.
pub fn new_stack(pages: u64) -> Result<Stack, MappingError> {
    static NEXT: AtomicU64 = AtomicU64::new(STACKS + PAGE_SIZE);
    let bottom = NEXT.fetch_add((pages + 1) * PAGE_SIZE, Ordering::Relaxed);
    let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
    let mut tables = current();
    for page in 0..pages {
        let frame = frames().table().allocate(1, PAGE_SIZE, Owner::Hypervisor).ok_or(MappingError::OutOfMemory)?;
        map::<Size4KiB>(&mut tables, bottom + page * PAGE_SIZE, frame, flags)?;
    }
    Ok(Stack { bottom, top: bottom + pages * PAGE_SIZE })
}

/// Whether `address` is mapped: what a backtrace asks before it follows a frame pointer.
pub fn is_mapped(address: u64) -> bool {
    translate(address).is_some()
}

/// Where the page at `address` is in physical memory, if it is mapped.
pub fn translate(address: u64) -> Option<HostPhys> {
    let address = VirtAddr::try_new(address).ok()?;
    current().translate_addr(address).map(|address| HostPhys::new(address.as_u64()))
}

/// Checks every mapping in use: none may be both writable and executable, and the image's constant pages must not
/// be writable anywhere. Returns the first address that breaks the rule.
pub fn first_writable_and_executable() -> Option<u64> {
    let tables = current();
    for section in image::sections() {
        for page in (section.start..section.end).step_by(PAGE_SIZE as usize) {
            let frame = tables.translate_addr(VirtAddr::new(page))?;
            let alias = PHYSICAL_MAP + frame.as_u64();
            for address in [page, alias] {
                let flags = match tables.translate(VirtAddr::new_truncate(address)) {
                    x86_64::structures::paging::mapper::TranslateResult::Mapped { flags, .. } => flags,
                    _ => continue,
                };
                let writable = flags.contains(Flags::WRITABLE);
                let executable = !flags.contains(Flags::NO_EXECUTE);
                if writable && (executable || !section.writable) {
                    return Some(address);
                }
            }
        }
    }
    None
}
