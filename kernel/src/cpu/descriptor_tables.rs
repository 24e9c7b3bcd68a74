//! Segments, the task state segment with its emergency stacks, and the interrupt descriptor table.

#![expect(unsafe_code, reason = "loads the processor's descriptor tables")]

use crate::cpu::entry_points;
use crate::memory::address_space::Stack;
use spin::Once;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{HandlerFunc, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Emergency stacks: an exception that may come from a broken stack, or at any moment, needs a sound one of its own.
/// Index into the interrupt stack table, for the double fault, the NMI and the machine check.
const DOUBLE_FAULT_STACK: u16 = 0;
const NMI_STACK: u16 = 1;
const MACHINE_CHECK_STACK: u16 = 2;
/// Emergency stacks that [`load_task_state`] takes.
pub const EMERGENCY_STACKS: usize = 3;

static IDT: Once<InterruptDescriptorTable> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();
static TSS: Once<TaskStateSegment> = Once::new();
static FINAL_GDT: Once<GlobalDescriptorTable> = Once::new();

fn load_segments(gdt: &'static GlobalDescriptorTable, code: SegmentSelector, data: SegmentSelector) {
    gdt.load();
    // SAFETY: the selectors name flat 64-bit code and data descriptors of the table that was just loaded.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
    }
}

/// Loads segments of the hypervisor's own and the interrupt descriptor table; from here on a fault is reported. The
/// emergency stacks come later, when there is memory.
pub fn load() {
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    load_segments(GDT.call_once(|| gdt), code, data);
    IDT.call_once(|| idt(false)).load();
}

/// Loads a task state segment with the emergency stacks, and an interrupt descriptor table that uses them.
pub fn load_task_state(stacks: [Stack; EMERGENCY_STACKS]) {
    static FINAL_IDT: Once<InterruptDescriptorTable> = Once::new();
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        // The structure is packed, so its table is set as a whole.
        let mut table = tss.interrupt_stack_table;
        for (entry, stack) in table.iter_mut().zip(stacks) {
            *entry = VirtAddr::new_truncate(stack.top);
        }
        tss.interrupt_stack_table = table;
        tss
    });
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    load_segments(FINAL_GDT.call_once(|| gdt), code, data);
    // SAFETY: the selector names the task state segment, which lives for ever.
    unsafe { load_tss(task) };
    FINAL_IDT.call_once(|| idt(true)).load();
}

fn idt(emergency_stacks: bool) -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    for vector in 32..=255u8 {
        let stub = VirtAddr::new_truncate(entry_points::stub(vector));
        // SAFETY: the stub saves and restores every register and ends with IRETQ.
        unsafe { idt[vector].set_handler_addr(stub) };
    }
    // The exceptions' entries have types of their own, for handlers that only unstable Rust can write. The stubs
    // serve them all, so the entries are set by address.
    macro_rules! exceptions {
        ($($vector:literal => $entry:ident),* $(,)?) => {$(
            let stub = VirtAddr::new_truncate(entry_points::stub($vector));
            // SAFETY: the stub expects just what the processor pushes for this vector.
            unsafe { idt.$entry.set_handler_addr(stub) };
        )*};
    }
    exceptions! {
        0 => divide_error, 1 => debug, 3 => breakpoint, 4 => overflow, 5 => bound_range_exceeded, 6 => invalid_opcode,
        7 => device_not_available, 10 => invalid_tss, 11 => segment_not_present, 12 => stack_segment_fault,
        13 => general_protection_fault, 14 => page_fault, 16 => x87_floating_point, 17 => alignment_check,
        19 => simd_floating_point, 20 => virtualization, 21 => cp_protection_exception, 28 => hv_injection_exception,
        29 => vmm_communication_exception, 30 => security_exception,
    }
    let mut special = [(8, DOUBLE_FAULT_STACK), (2, NMI_STACK), (18, MACHINE_CHECK_STACK)].map(|(vector, stack)| {
        let mut entry = x86_64::structures::idt::Entry::<HandlerFunc>::missing();
        // SAFETY: as above; the stack index names an emergency stack that `load_task_state` has set.
        unsafe {
            let options = entry.set_handler_addr(VirtAddr::new_truncate(entry_points::stub(vector)));
            options.set_privilege_level(PrivilegeLevel::Ring0);
            if emergency_stacks {
                options.set_stack_index(stack);
            }
        }
        entry
    });
    // SAFETY: every entry has the same 16-byte layout; only the handler's type differs, which the hardware ignores.
    unsafe {
        core::ptr::copy_nonoverlapping((&raw mut special[0]).cast::<u8>(), (&raw mut idt.double_fault).cast(), 16);
        core::ptr::copy_nonoverlapping(
            (&raw mut special[1]).cast::<u8>(),
            (&raw mut idt.non_maskable_interrupt).cast(),
            16,
        );
        core::ptr::copy_nonoverlapping((&raw mut special[2]).cast::<u8>(), (&raw mut idt.machine_check).cast(), 16);
    }
    idt
}
