//! The command: runs for a time, and says with which seed; keeps the input that fails.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dmar_fuzz::{Parts, Reached, built_in, check, from_folder, input};
use lexopt::prelude::{Long, Short};

const HELP: &str = "\
Feeds mutated DMAR tables to drivers/dmar and lsdmar and checks what they make of them.

usage: cargo run --profile fuzz -p dmar-fuzz -- [OPTION]...

  --seconds N    how long (default 20)
  --seed N       of the random numbers (default: from the clock; printed)
  --run N        only the input with this number, which a failure prints
  --tables DIR   further tables to mutate, DIR/*.bin (default: POSTERN_DMAR_TABLES or shared/dmar-tables beside the
                 workspace, if there is one)
  --input FILE   checks this file instead
  --save DIR     where the input that fails goes (default: the current folder)

Exit status: 0 if nothing failed and everything was reached.
";

/// An input that takes longer counts as a loop without an end.
const LONGEST: Duration = Duration::from_secs(10);
/// Inputs after which everything must have been reached.
const ENOUGH: u64 = 100_000;

struct Options {
    seconds: u64,
    seed: u64,
    run: Option<u64>,
    tables: Option<PathBuf>,
    input: Option<PathBuf>,
    save: PathBuf,
}

fn main() -> ExitCode {
    let result = options().map_err(|error| format!("{error} (see --help)")).and_then(|options| match options {
        Some(options) => fuzz(&options),
        None => Ok(HELP.to_string()),
    });
    match result {
        Ok(text) => {
            let _ = write!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "dmar-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None` if help is wanted.
fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::ValueExt;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        seconds: 20,
        seed: now.as_secs() ^ u64::from(now.subsec_nanos()) << 32,
        run: None,
        tables: None,
        input: None,
        save: ".".into(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("run") => options.run = Some(parser.value()?.parse()?),
            Long("tables") => options.tables = Some(parser.value()?.into()),
            Long("input") => options.input = Some(parser.value()?.into()),
            Long("save") => options.save = parser.value()?.into(),
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(options))
}

fn fuzz(options: &Options) -> Result<String, String> {
    if let Some(file) = &options.input {
        let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        check(&bytes, true, &mut Reached::default());
        return Ok("nothing failed\n".into());
    }
    let (seeds, tables) = seeds(options.tables.as_deref())?;
    let seed = options.seed;
    println!("seed {seed}, {tables} tables of real machines");
    let current = Arc::new(AtomicU64::new(options.run.unwrap_or(0)));
    watch(Arc::clone(&current), seeds.clone(), seed, options.save.clone());
    let mut reached = Reached::default();
    let started = Instant::now();
    let mut number = options.run.unwrap_or(0);
    loop {
        current.store(number, Ordering::Relaxed);
        let bytes = input(&seeds, seed, number);
        // What takes long is done for some only.
        let thorough = number.is_multiple_of(16) || options.run.is_some();
        if catch_unwind(AssertUnwindSafe(|| check(&bytes, thorough, &mut reached))).is_err() {
            return Err(failure(&options.save, seed, number, &bytes, "failed"));
        }
        number += 1;
        if options.run.is_some() || started.elapsed() >= Duration::from_secs(options.seconds) {
            break;
        }
    }
    let missing = reached.missing();
    if number >= ENOUGH && !missing.is_empty() {
        return Err(format!("{number} inputs did not reach: {}", missing.join(", ")));
    }
    let (read, items) = (reached.tables, reached.items);
    Ok(format!("{number} inputs, {read} read as tables, with {items} structures and scopes; nothing failed\n"))
}

/// The tables to mutate, and how many of them are real.
fn seeds(folder: Option<&Path>) -> Result<(Vec<Parts>, usize), String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/dmar-tables");
    let variable = std::env::var_os("POSTERN_DMAR_TABLES").map(PathBuf::from);
    let real = match folder {
        Some(folder) => from_folder(folder).map_err(|error| format!("{}: {error}", folder.display()))?,
        None => from_folder(&variable.unwrap_or(beside)).unwrap_or_default(),
    };
    let count = real.len();
    Ok((built_in().into_iter().chain(real).collect(), count))
}

/// Ends the process when one input takes too long.
fn watch(current: Arc<AtomicU64>, seeds: Vec<Parts>, seed: u64, save: PathBuf) {
    thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            let number = current.load(Ordering::Relaxed);
            if number == last {
                let text = failure(&save, seed, number, &input(&seeds, seed, number), "does not end");
                let _ = writeln!(io::stderr(), "dmar-fuzz: {text}");
                std::process::exit(1);
            }
            last = number;
            thread::sleep(LONGEST);
        }
    });
}

/// Keeps the input, and says how to come back to it.
fn failure(folder: &Path, seed: u64, number: u64, bytes: &[u8], what: &str) -> String {
    let file = folder.join(format!("dmar-fuzz-{seed}-{number}.bin"));
    let kept = match fs::write(&file, bytes) {
        Ok(()) => format!("kept as {}", file.display()),
        Err(error) => format!("{} could not be written: {error}", file.display()),
    };
    format!(
        "input {number} of seed {seed} {what} ({kept}); again: --seed {seed} --run {number}, or --input with that file"
    )
}
