//! The hypervisor's image: the loader's entry, and what the language asks of a program without an operating system.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use boot as _;
    use bootloader_api::config::Mapping;
    use bootloader_api::{BootInfo, BootloaderConfig};

    /// What is asked of a rust-osdev loader; the entries in the `boot` crate do the same.
    static CONFIG: BootloaderConfig = {
        let mut config = BootloaderConfig::new_default();
        config.mappings.physical_memory = Some(Mapping::FixedAddress(postern::memory::layout::PHYSICAL_MAP));
        config.kernel_stack_size = 128 << 10;
        config
    };

    bootloader_api::entry_point!(main, config = &CONFIG);

    fn main(boot: &'static mut BootInfo) -> ! {
        postern::start::start(boot)
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        postern::fatal::panic(info, postern::cpu::frame_pointer())
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("This is the image of a hypervisor: build it with --target x86_64-unknown-none, or use ./run-qemu.sh.");
    std::process::exit(2);
}
