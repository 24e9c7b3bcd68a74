//! The hypervisor is linked by `linker.ld`, loaded at 16 MiB: above what firmware and loaders use.
include!("../boot/link_image.rs");

fn main() {
    println!("cargo:rerun-if-changed=../boot/link_image.rs");
    link_image("bins", "../linker.ld", 0x100_0000);
}
