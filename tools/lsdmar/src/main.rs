//! The command: what was asked, which file, and how it ended.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value};
use lsdmar::{Input, InputError, Machine, damages, to_json, to_svg, to_tree};

const HELP: &str = "\
Shows a DMAR table: what a machine's firmware says about its Intel VT-d remapping units.

usage: lsdmar [--json | --svg] [FILE]

  FILE         the table, or - for standard input (default: this machine's, which usually only root may read)
  --json       every field as JSON instead of a tree
  --svg        a picture: lsdmar --svg > dmar.svg
  --sys DIR    a copy of a machine's /sys: its table if there is no FILE, and the names of its devices
  -h, --help
  -V, --version

Exit status: 0; 1 if there is no table or it is damaged (what can be read is shown); 2 if used wrongly.
";

/// The table or a bad usage is the caller's fault, and which of them the status says.
const BAD_TABLE: u8 = 1;
const BAD_USAGE: u8 = 2;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Tree,
    Json,
    Svg,
}

struct Arguments {
    format: Format,
    file: Option<OsString>,
    sys: Option<PathBuf>,
}

fn main() -> ExitCode {
    match arguments() {
        Ok(Some(arguments)) => show(&arguments),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error} (see --help)"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// `None` if the arguments were answered already.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let (mut format, mut file, mut sys) = (Format::Tree, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") if format != Format::Svg => format = Format::Json,
            Long("svg") if format != Format::Json => format = Format::Svg,
            Long("json" | "svg") => return Err("--json and --svg exclude each other".into()),
            Long("sys") => sys = Some(parser.value()?.into()),
            Short('h') | Long("help") => {
                print(HELP);
                return Ok(None);
            }
            Short('V') | Long("version") => {
                print(concat!("lsdmar ", env!("CARGO_PKG_VERSION"), "\n"));
                return Ok(None);
            }
            Value(value) if file.is_none() => file = Some(value),
            Value(_) => return Err("more than one FILE".into()),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(Arguments { format, file, sys }))
}

fn show(arguments: &Arguments) -> ExitCode {
    let sys = arguments.sys.as_deref().unwrap_or(Path::new("/sys"));
    let own_table = Machine::table(sys);
    // A table from elsewhere says nothing about this machine's devices.
    let machine = (arguments.file.is_none() || arguments.sys.is_some()).then(|| Machine::read(sys));
    let path = arguments.file.as_ref().map_or(own_table.as_path(), Path::new);
    let (name, input) = if path.as_os_str() == "-" {
        ("standard input".to_string(), Input::read(io::stdin().lock()))
    } else {
        (path.display().to_string(), File::open(path).map_err(InputError::Io).and_then(Input::read))
    };
    let bad = |why: &dyn std::fmt::Display| {
        complain(&format!("{name}: {why}"));
        ExitCode::from(BAD_TABLE)
    };
    let input = match input {
        Ok(input) => input,
        Err(InputError::Io(error)) if arguments.file.is_none() => return bad(&no_own_table(&error)),
        Err(error) => return bad(&error),
    };
    let (dmar, damage) = match input.table() {
        Ok(table) => table,
        Err(error) => return bad(&error),
    };
    let written = print(&match arguments.format {
        Format::Tree => to_tree(&dmar, damage, input.trailing(&dmar), machine.as_ref()),
        Format::Json => format_json(&to_json(&dmar, damage)),
        Format::Svg => to_svg(&dmar, damage, machine.as_ref()),
    });
    match (&damages(&dmar, damage)[..], written) {
        ([], written) => written,
        ([only], _) => bad(&format!("damaged: {only}")),
        ([first, others @ ..], _) => bad(&format!("damaged: {first}; and {} more", others.len())),
    }
}

/// Why the machine's own table cannot be read, and what to do.
fn no_own_table(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            "not there: this machine has no VT-d, its firmware has it switched off, or this is no Linux on bare metal"
                .into()
        }
        ErrorKind::PermissionDenied => "permission denied: only root may read it (try sudo)".into(),
        _ => error.to_string(),
    }
}

/// As the tables' decodings are written: one space a level.
fn format_json(value: &serde_json::Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a value to memory does not fail; and if it did, the text would be empty and not wrong.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes to standard output. That nobody reads on is not an error: `lsdmar | head`.
fn print(text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("standard output: {error}"));
            ExitCode::from(BAD_TABLE)
        }
    }
}

/// One line on standard error, if it is open.
fn complain(what: &str) {
    let line: String = what.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let _ = writeln!(io::stderr(), "lsdmar: {line}");
}
