//! Checks the file that describes the guests on the host, with the code by which the hypervisor reads it.

mod contents;

use config::{Complaint, Config, Member};
use contents::Kind;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Checks a file that describes guests, before a machine is started with it.

  check-guests CONFIG.toml [FILE...]

CONFIG.toml is read and judged as the hypervisor does when it starts, in the same words. FILE... are the files that are
to be packed with it (guests/pack.sh): whatever a guest needs must be among them, by the last part of its path.
A kernel or initrd that does not look like one is told as a hint, and is no error.

Exit status: 0 nothing is wrong; 1 something is, and is on standard error with its line; 2 wrong usage, or a file that
cannot be read.";

/// The members of an archive that no guest can name.
const OWN_MEMBERS: [&str; 2] = ["postern.toml", "SHA256SUMS"];
/// Bytes of a file by which its kind is told: the Multiboot header is within the first 8192.
const BEGINNING: u64 = 8192;

fn main() -> ExitCode {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if arguments.iter().any(|argument| argument == Path::new("--help") || argument == Path::new("-h")) {
        // Who asked for help and does not listen has no use for an error.
        let _ = writeln!(io::stdout(), "{HELP}");
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|argument| argument == Path::new("--")) {
        arguments.remove(0);
    } else if let Some(option) = arguments.iter().find(|argument| argument.to_string_lossy().starts_with('-')) {
        return wrong_usage(&format!("there is no option {}", option.display()));
    }
    let Some((file, packed)) = arguments.split_first() else { return wrong_usage("a file to check is wanted") };
    match run(file, packed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => wrong_usage(&why),
    }
}

fn wrong_usage(what: &str) -> ExitCode {
    eprintln!("check-guests: {what} (see --help)");
    ExitCode::from(2)
}

/// Checks `file` against the files that are packed with it; whether nothing is wrong.
fn run(file: &Path, packed: &[PathBuf]) -> Result<bool, String> {
    let unreadable = |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
    let bytes = fs::read(file).map_err(|error| unreadable(file, error))?;
    let mut members = Vec::new();
    for path in packed {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| format!("{} has no name that an archive could have", path.display()))?;
        let mut beginning = Vec::new();
        let opened = fs::File::open(path).and_then(|file| file.take(BEGINNING).read_to_end(&mut beginning));
        opened.map_err(|error| unreadable(path, error))?;
        if OWN_MEMBERS.contains(&name) {
            return Err(format!("{name} is a name that the archive needs for itself"));
        }
        members.push((name, beginning));
    }
    let say = |complaint: &Complaint| eprintln!("{}: {complaint}", file.display());
    let Ok(text) = str::from_utf8(&bytes) else {
        eprintln!("{}: it is not UTF-8 text", file.display());
        return Ok(false);
    };
    let complaints = match config::parse(text) {
        Err(complaints) => complaints,
        Ok(config) => {
            hints(&config, &members, file);
            let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
            config::check_members(&config, &names)
        }
    };
    complaints.iter().for_each(say);
    Ok(complaints.is_empty())
}

/// Tells what does not look like what it is used for.
fn hints(config: &Config, members: &[(&str, Vec<u8>)], file: &Path) {
    let kind_of = |wanted: &Member| {
        let (_, beginning) = members.iter().find(|(name, _)| *name == wanted.name)?;
        Some(Kind::of(beginning))
    };
    let hint = |key: &str, member: &Member, kind: Kind, wanted: &str| {
        let (file, line, name) = (file.display(), member.line, &member.name);
        eprintln!("{file}: line {line}: hint: {key}: {name:?} looks like {kind}, not like {wanted}");
    };
    for guest in &config.guests {
        let Some(kernel) = kind_of(&guest.kernel) else { continue };
        if !kernel.may_be_kernel() {
            hint("kernel", &guest.kernel, kernel, "an ELF image, a Linux bzImage or a Multiboot kernel");
        }
        // To any other kernel it is a module, and may be anything.
        if let (Kind::BzImage, Some(initrd)) = (kernel, &guest.initrd)
            && let Some(kind) = kind_of(initrd).filter(|kind| !kind.may_be_initrd())
        {
            hint("initrd", initrd, kind, "a cpio archive, plain or compressed");
        }
    }
}
