// Shared by the build.rs of every package that makes an image, by `include!`.

/// Has the linker place `kind` ("bins" or "examples") of this package as `linker.ld` says, loaded at the physical address
/// `load_address` (a multiple of 4 KiB). Does nothing for the host's target, where binaries are ordinary programs.
fn link_image(kind: &str, linker_script: &str, load_address: u64) {
    println!("cargo:rerun-if-changed={linker_script}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    // 4 KiB pages: the linker would otherwise pad each segment in the file as for larger ones.
    for argument in [
        format!("-T{manifest}/{linker_script}"),
        format!("--defsym=IMAGE_LMA={load_address:#x}"),
        "-zmax-page-size=4096".to_string(),
        "-zseparate-code".to_string(),
        "--no-eh-frame-hdr".to_string(),
    ] {
        println!("cargo:rustc-link-arg-{kind}={argument}");
    }
}
