//! A guest is linked by the hypervisor's `linker.ld`, loaded at 2 MiB: guests are small.
include!("../../boot/link_image.rs");

fn main() {
    println!("cargo:rerun-if-changed=../../boot/link_image.rs");
    link_image("bins", "../../linker.ld", 0x20_0000);
}
