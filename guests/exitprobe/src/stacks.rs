//! A task state segment, so that exceptions can be handled when the stack cannot be used.

use crate::trap;
use core::cell::UnsafeCell;
use guest_support::interrupts;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// The stack of page faults.
pub const PAGE_FAULT_STACK: u8 = 1;
/// The stack of double faults.
pub const DOUBLE_FAULT_STACK: u8 = 2;
const SIZE: usize = 16 << 10;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the processor's exception delivery and the handler on top of it use it, one at a time.
unsafe impl Sync for Stack {}

static STACKS: [Stack; 2] = [const { Stack(UnsafeCell::new([0; SIZE])) }; 2];
static TASK: Once<TaskStateSegment> = Once::new();
static DESCRIPTORS: Once<GlobalDescriptorTable> = Once::new();

/// Loads descriptor tables of exitprobe's own. Before the interrupt descriptor table is installed: that takes over the
/// code segment in use.
pub fn initialize() {
    let task = TASK.call_once(|| {
        let mut task = TaskStateSegment::new();
        task.interrupt_stack_table = core::array::from_fn(|number| {
            STACKS.get(number).map_or(VirtAddr::zero(), |stack| VirtAddr::from_ptr(stack.0.get()) + SIZE as u64)
        });
        task
    });
    let mut selectors = None;
    let descriptors = DESCRIPTORS.call_once(|| {
        let mut table = GlobalDescriptorTable::new();
        selectors = Some((
            table.append(Descriptor::kernel_code_segment()),
            table.append(Descriptor::kernel_data_segment()),
            table.append(Descriptor::tss_segment(task)),
        ));
        table
    });
    let Some((code, data, task)) = selectors else { return };
    descriptors.load();
    // SAFETY: the table is static, and these are flat segments and a task state segment in it.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
}

/// Gives page faults and double faults stacks of their own. After [`initialize`] and [`trap::initialize`].
pub fn install() {
    // SAFETY: the task state segment is loaded, and each stack is for one vector; neither handler raises its own.
    unsafe {
        interrupts::set_stack(trap::PAGE_FAULT, PAGE_FAULT_STACK);
        interrupts::set_stack(trap::DOUBLE_FAULT, DOUBLE_FAULT_STACK);
    }
}
