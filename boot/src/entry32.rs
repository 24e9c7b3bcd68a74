//! The entry points of both protocols, in 32-bit protected mode with paging off, and the way to long mode.
//!
//! The code is linked at its physical address (`.boot` in `linker.ld`), everything else above `LINK_BASE`; names that end
//! in `_physical` are physical addresses that `linker.ld` makes of high ones.
//!
//! A processor or loader that cannot be worked with is reported as one character on COM1, then the machine halts:
//! `M` EAX does not hold Multiboot2's magic number, `L` no long mode, `N` no no-execute pages (CPUID, or firmware turned
//! them off in IA32_MISC_ENABLE).

use crate::entry64::enter;
use crate::protocol::{PROTOCOL_MULTIBOOT2, PROTOCOL_PVH};

/// What the Multiboot2 header asks for (Multiboot2, section 3.1). It must lie in the first 32 KiB of the file.
const MULTIBOOT2_HEADER_MAGIC: u32 = 0xe852_50d6;
/// What EAX holds at the entry (Multiboot2, section 3.3).
const MULTIBOOT2_BOOTLOADER_MAGIC: u32 = 0x36d7_6289;

// SAFETY: this is the entry of the image, so there is no Rust code around it to break. It runs on memory that linker.ld
// gave it, with the stack that linker.ld gave it, and calls `enter` by its C ABI with a stack that is aligned for it.
core::arch::global_asm!(
    // The ELF note that PVH loaders look for: XEN_ELFNOTE_PHYS32_ENTRY, the physical address of the 32-bit entry.
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad boot_pvh_entry",

    ".section .boot.multiboot2, \"a\"",
    ".balign 8",
    "boot_multiboot2_header:",
    ".long {header_magic}, 0, boot_multiboot2_header_end - boot_multiboot2_header",
    ".long 0x100000000 - {header_magic} - (boot_multiboot2_header_end - boot_multiboot2_header)",
    // Information request: modules, memory map, old and new RSDP. Flags 1, optional: a loader that lacks one of them
    // still starts the image, which says what is missing.
    ".balign 8",
    ".short 1, 1",
    ".long 24, 3, 6, 14, 15",
    // Entry address: without it GRUB would enter at the ELF entry point, which is for 64-bit loaders.
    ".balign 8",
    ".short 3, 0",
    ".long 12, boot_multiboot2_entry",
    // Modules begin at page borders.
    ".balign 8",
    ".short 6, 0",
    ".long 8",
    ".balign 8",
    ".short 0, 0",
    ".long 8",
    "boot_multiboot2_header_end:",

    ".section .boot.text, \"ax\"",
    ".code32",
    ".global boot_pvh_entry",
    "boot_pvh_entry:",
    "mov ebp, {pvh}",
    "jmp 2f",
    "boot_multiboot2_entry:",
    "mov ebp, {multiboot2}",
    "mov cl, 'M'",
    "cmp eax, {bootloader_magic}",
    "jne boot_halt",
    "2:",
    "cli",
    "cld",
    "mov esi, ebx",
    "mov esp, offset boot_stack_end_physical",

    // Long mode and no-execute: CPUID 8000_0001h EDX bits 29 and 20.
    "mov eax, 0x80000000",
    "cpuid",
    "mov cl, 'L'",
    "cmp eax, 0x80000001",
    "jb boot_halt",
    "mov eax, 0x80000001",
    "cpuid",
    "mov cl, 'L'",
    "bt edx, 29",
    "jnc boot_halt",
    "mov cl, 'N'",
    "bt edx, 20",
    "jnc boot_halt",

    // Four page directories: 2048 large pages (present, writable) from physical address 0. Pages of 1 GiB are left alone:
    // not every processor has them.
    "mov edi, offset boot_page_directories_physical",
    "mov eax, 0x83",
    "mov ecx, 2048",
    "2:",
    "mov [edi], eax",
    "mov dword ptr [edi + 4], 0",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",

    // One page-directory-pointer table for identity and physical memory, one for the top 2 GiB; .bss is zero.
    "mov eax, offset boot_page_directories_physical + 3",
    "mov edi, offset boot_low_pointers_physical",
    "mov edx, offset boot_high_pointers_physical",
    "mov [edi], eax",
    "mov [edx + 510 * 8], eax",
    "add eax, 0x1000",
    "mov [edi + 8], eax",
    "mov [edx + 511 * 8], eax",
    "add eax, 0x1000",
    "mov [edi + 16], eax",
    "add eax, 0x1000",
    "mov [edi + 24], eax",
    // Level 4: 0 identity, 256 physical memory, not executable (bit 63), 511 the image.
    "mov ecx, offset boot_pml4_physical",
    "lea eax, [edi + 3]",
    "mov [ecx], eax",
    "mov [ecx + 256 * 8], eax",
    "mov dword ptr [ecx + 256 * 8 + 4], 0x80000000",
    "lea eax, [edx + 3]",
    "mov [ecx + 511 * 8], eax",
    "mov cr3, ecx",

    // CR4 = PAE. EFER: LME and NXE. CR0 = PG, WP, NE, ET, MP, PE: caches on, and supervisor writes respect read-only pages.
    "mov eax, 0x20",
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900",
    "wrmsr",
    "mov eax, 0x80010033",
    "mov cr0, eax",

    "mov eax, offset boot_gdt_pointer",
    "lgdt [eax]",
    "push 8",
    "mov eax, offset boot_entry64",
    "push eax",
    "retf",

    "boot_halt:",
    "mov al, cl",
    "mov dx, 0x3f8",
    "out dx, al",
    "2:",
    "cli",
    "hlt",
    "jmp 2b",

    ".code64",
    "boot_entry64:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "xor eax, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov rsp, offset __stack_end",
    "mov edi, ebp",
    "mov esi, esi",
    // The end of the chain of frames, for backtraces.
    "xor ebp, ebp",
    "mov rax, offset {enter}",
    "call rax",
    "ud2",

    // Flat 64-bit code (8) and data (16), already marked as accessed: the processor then never writes to them.
    ".balign 8",
    "boot_gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "boot_gdt_pointer:",
    ".short 23",
    ".long boot_gdt",

    ".section .bss.boot_page_tables, \"aw\", @nobits",
    ".balign 4096",
    ".global boot_pml4, boot_low_pointers, boot_high_pointers, boot_page_directories",
    "boot_pml4: .skip 4096",
    "boot_low_pointers: .skip 4096",
    "boot_high_pointers: .skip 4096",
    "boot_page_directories: .skip 4 * 4096",
    ".text",
    header_magic = const MULTIBOOT2_HEADER_MAGIC,
    bootloader_magic = const MULTIBOOT2_BOOTLOADER_MAGIC,
    pvh = const PROTOCOL_PVH,
    multiboot2 = const PROTOCOL_MULTIBOOT2,
    enter = sym enter,
);
