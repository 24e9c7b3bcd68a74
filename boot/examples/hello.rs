//! The smallest image: prints its `BootInfo` to COM1 and leaves QEMU through its isa-debug-exit device at port 0xf4.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod image {
    use core::fmt::Write;

    use boot as _;
    use bootloader_api::{BootInfo, BootloaderConfig, config::Mapping, entry_point};

    static CONFIG: BootloaderConfig = {
        let mut config = BootloaderConfig::new_default();
        config.mappings.physical_memory = Some(Mapping::Dynamic);
        config
    };

    entry_point!(main, config = &CONFIG);

    struct Com1;

    impl Write for Com1 {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes() {
                // SAFETY: COM1's data register; an emulated one is always ready.
                unsafe { core::arch::asm!("out dx, al", in("al") byte, in("dx") 0x3f8u16, options(nomem, nostack)) };
            }
            Ok(())
        }
    }

    fn main(info: &'static mut BootInfo) -> ! {
        for region in info.memory_regions.iter() {
            let _ = writeln!(Com1, "{:#012x}..{:#012x} {:?}", region.start, region.end, region.kind);
        }
        let _ = writeln!(
            Com1,
            "rsdp {:x?} ramdisk {:x?} length {:#x}",
            info.rsdp_addr, info.ramdisk_addr, info.ramdisk_len
        );
        let _ = writeln!(
            Com1,
            "image {:#x} length {:#x} at {:#x}",
            info.kernel_addr, info.kernel_len, info.kernel_image_offset
        );
        let _ = writeln!(Com1, "{:x?}", boot::image());
        if let (Some(offset), Some(rsdp)) = (info.physical_memory_offset.into_option(), info.rsdp_addr.into_option()) {
            // SAFETY: the loader mapped physical memory at `offset`, and an RSDP begins with 8 bytes of signature.
            let signature = unsafe { *((offset + rsdp) as *const [u8; 8]) };
            let _ = writeln!(Com1, "signature {:?}", core::str::from_utf8(&signature));
        }
        if let Some(address) = info.ramdisk_addr.into_option() {
            // SAFETY: the loader put `ramdisk_len` bytes here and nobody else uses them.
            let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, info.ramdisk_len as usize) };
            let _ = writeln!(Com1, "ramdisk begins {:x?}", bytes.get(..8));
        }
        exit(0x10)
    }

    fn exit(code: u32) -> ! {
        // SAFETY: QEMU ends here.
        unsafe { core::arch::asm!("out dx, eax", in("eax") code, in("dx") 0xf4u16, options(nomem, nostack)) };
        loop {
            core::hint::spin_loop();
        }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        let _ = writeln!(Com1, "{info}");
        exit(0x11)
    }
}
