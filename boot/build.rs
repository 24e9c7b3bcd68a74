//! The example is an image, linked as the hypervisor is.
include!("link_image.rs");

fn main() {
    println!("cargo:rerun-if-changed=link_image.rs");
    link_image("examples", "../linker.ld", 0x100_0000);
}
