//! The command as a person uses it.

use std::path::PathBuf;
use std::process::Command;

/// A folder with a description of a guest and its kernel.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("check-guests-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("good.toml", "[[guest]]\nname = \"a\"\nkernel = \"netprobe\"\nmemory_mib = 16\n");
        folder.write("netprobe", "\u{7f}ELF");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    /// Runs the command; its status, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let done =
            Command::new(env!("CARGO_BIN_EXE_check-guests")).args(arguments).current_dir(&self.0).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn silent(status: i32) -> (i32, String, String) {
    (status, String::new(), String::new())
}

fn says(status: i32, error: &str) -> (i32, String, String) {
    (status, String::new(), format!("{error}\n"))
}

#[test]
fn a_good_description_is_passed_over_in_silence() {
    let folder = Folder::new("good");
    assert_eq!(folder.run(&["good.toml", "netprobe"]), silent(0));
    assert_eq!(folder.run(&["--", "./good.toml", "../good.toml/../netprobe"]).0, 2, "there is no such path");
    let (status, help, error) = folder.run(&["--help"]);
    assert!(status == 0 && help.contains("check-guests CONFIG.toml [FILE...]") && error.is_empty());
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    let folder = Folder::new("bad");
    let missing = "good.toml: line 3: kernel: the archive has no member \"netprobe\"";
    assert_eq!(folder.run(&["good.toml"]), says(1, &format!("{missing}; it has none")));
    folder.write("netprob", "\u{7f}ELF");
    let meant = format!("{missing}; did you mean \"netprob\"?; it has: \"netprob\"");
    assert_eq!(folder.run(&["good.toml", "./netprob"]), says(1, &meant));
    folder.write("bad.toml", "[[guest]]\nname = \"a\"\nkernel = \"netprobe\"\nmemory_mb = 16\n");
    let (status, _, error) = folder.run(&["bad.toml", "netprobe"]);
    let words = [
        "bad.toml: line 1: the key \"memory_mib\" is missing here",
        "bad.toml: line 4: there is no key \"memory_mb\" here; did you mean \"memory_mib\"?",
    ];
    assert_eq!((status, error.lines().collect::<Vec<_>>()), (1, words.to_vec()));
    std::fs::write(folder.0.join("noise.toml"), [0xff; 10]).unwrap();
    assert_eq!(folder.run(&["noise.toml"]), says(1, "noise.toml: it is not UTF-8 text"));
}

#[test]
fn what_does_not_look_right_is_a_hint() {
    let folder = Folder::new("hints");
    folder.write("netprobe", "#!/bin/sh\n");
    let hint = "good.toml: line 3: hint: kernel: \"netprobe\" looks like text, not like an ELF image, a Linux bzImage or \
                a Multiboot kernel";
    assert_eq!(folder.run(&["good.toml", "netprobe"]), says(0, hint));
    let linux = format!("{}HdrS", "\0".repeat(0x202));
    folder.write("linux", &linux);
    folder.write("linux.toml", "[[guest]]\nname='a'\nkernel='linux'\nmemory_mib=256\ninitrd='initrd'\n");
    for (initrd, expected) in [
        ("070701", silent(0)),
        (
            "text",
            says(
                0,
                "linux.toml: line 5: hint: initrd: \"initrd\" looks like text, not like a cpio archive, plain or compressed",
            ),
        ),
    ] {
        folder.write("initrd", initrd);
        assert_eq!(folder.run(&["linux.toml", "linux", "initrd"]), expected);
    }
}

#[test]
fn wrong_usage_is_neither() {
    let folder = Folder::new("usage");
    assert_eq!(folder.run(&[]), says(2, "check-guests: a file to check is wanted (see --help)"));
    assert_eq!(folder.run(&["--chekc", "x"]), says(2, "check-guests: there is no option --chekc (see --help)"));
    for arguments in [&["absent.toml"][..], &["good.toml", "absent"], &["good.toml", "."], &["good.toml", "SHA256SUMS"]]
    {
        let (status, output, error) = folder.run(arguments);
        assert!(status == 2 && output.is_empty() && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
