//! A QEMU process with a qtest socket and no firmware.

use crate::program::Program;
use crate::protocol::{Client, DEFAULT_TIMEOUT};
use crate::trace::Trace;
use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

/// How long QEMU may take to connect.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What QEMU writes down of itself. Not the register accesses, which would drown the rest.
const TRACED: &str = "trace:vtd_inv_*,trace:vtd_iotlb_*,trace:vtd_context_cache_reset,trace:vtd_re_not_present,\
    trace:vtd_ce_not_present,trace:vtd_dmar_*,trace:vtd_frr_new,trace:vtd_fault_disabled,trace:vtd_ir_*,\
    trace:vtd_irq_generate,trace:vtd_reg_dmar_root,trace:vtd_reg_ir_root,trace:vtd_reg_write_gcmd,\
    trace:vtd_reg_write_fectl,trace:vtd_translate_pt,trace:apic_deliver_irq";

/// Size of the firmware image; QEMU wants whole 64 KiB.
const ROM_BYTES: usize = 65536;
/// Where in it the processor begins: 16 bytes below 4 GiB.
const RESET_VECTOR: usize = ROM_BYTES - 16;
/// `cli; hlt; jmp` back to the `hlt`'s `cli`: the processor stays out of everything. If an NMI or an INIT wakes it, it
/// comes here again.
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];

/// What machine to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The properties of the intel-iommu, such as `caching-mode=on`; `None` leaves the unit out.
    pub iommu: Option<String>,
    /// The other devices, as `-device` takes them.
    pub devices: Vec<String>,
}

/// A running QEMU; it ends with the value.
#[derive(Debug)]
pub struct Qemu {
    /// The socket.
    pub client: Client,
    /// What QEMU writes down of itself.
    pub trace: Trace,
    child: Child,
    command: String,
    folder: tempfile::TempDir,
    /// Dropped last, when the folder is gone.
    _running: Running,
}

/// How many QEMUs of this process have not ended, or still have their folders.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
#[derive(Debug)]
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no QEMU of this process is left, but not for ever: one that a thread keeps to itself ends with the thread,
/// and a process may end before its threads have.
pub fn wait_for_all_to_end() {
    let start = Instant::now();
    while RUNNING.load(Ordering::SeqCst) != 0 && start.elapsed() < START_TIMEOUT {
        thread::sleep(Duration::from_millis(1));
    }
}

impl Qemu {
    /// Starts one, and waits until it has connected.
    ///
    /// # Errors
    /// In words, with QEMU's standard error.
    pub fn start(program: &Program, options: &Options) -> Result<Self, String> {
        let said = |what: &str, error: io::Error| format!("{what}: {error}");
        let folder = tempfile::Builder::new()
            .prefix("postern-qtest-")
            .tempdir()
            .map_err(|error| said("a folder for the machine", error))?;
        let place = |name: &str| folder.path().join(name);
        fs::write(place("rom"), rom()).map_err(|error| said("the ROM", error))?;
        let listener = UnixListener::bind(place("socket")).map_err(|error| said("the socket", error))?;
        let stderr = File::create(place("stderr")).map_err(|error| said("QEMU's standard error", error))?;

        let mut command = in_death_bound(&program.path);
        command.args(arguments(folder.path(), options));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let line = format!("{command:?}");
        let mut child = command.spawn().map_err(|error| said(&line, error))?;
        let stream = accept(&listener, &mut child).map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            format!("{line}: {error}\n{}", fs::read_to_string(place("stderr")).unwrap_or_default())
        })?;
        Ok(Self {
            client: Client::new(stream, DEFAULT_TIMEOUT),
            trace: Trace::new(place("trace")),
            child,
            command: line,
            folder,
            _running: Running::new(),
        })
    }

    /// All that helps to understand a failure: how QEMU was started, what it said, what it wrote down, and the last
    /// commands.
    pub fn account(&mut self) -> String {
        let mut text = format!("QEMU: {}\n", self.command);
        match self.child.try_wait() {
            Ok(Some(status)) => text += &format!("ended: {status}\n"),
            Ok(None) => text += "still runs\n",
            Err(error) => text += &format!("state unknown: {error}\n"),
        }
        let stderr = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let mut section = |name: &str, lines: Vec<String>| {
            text += &format!("{name}:\n");
            lines.iter().for_each(|line| text += &format!("    {line}\n"));
        };
        section("standard error", last(stderr.lines(), 20));
        let trace = self.trace.everything();
        section("trace", last(trace.lines(), 40));
        section("commands", last(self.client.history(), 24));
        text
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last<'a>(lines: impl Iterator<Item = &'a str>, count: usize) -> Vec<String> {
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| line.to_string()).collect()
}

/// The command that starts `program`, so that it dies with this process however that dies: without a test at its other
/// end, a QEMU whose virtual time leaps from timer to timer would keep a processor busy for ever.
fn in_death_bound(program: &Path) -> Command {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if !Path::new(SETPRIV).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Low memory ends at 1 GiB and the rest lies from 4 GiB: addresses of more than 32 bits are some that tables hold.
/// `icount` with `sleep=off` lets virtual time leap to the next timer when the processor halts: a DMA that takes edu
/// 100 ms of it takes a tenth of a millisecond of ours. No PIT: it ticks from the start, and QEMU would keep a processor
/// busy with its ticks.
fn arguments(folder: &Path, options: &Options) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut list: Vec<String> = [
        "-machine",
        "q35,kernel-irqchip=off,pit=off,max-ram-below-4g=1G",
        "-accel",
        "tcg",
        "-icount",
        "shift=0,sleep=off",
        "-rtc",
        "clock=vm,base=2026-01-01",
        "-m",
        "1088",
        "-nodefaults",
        "-display",
        "none",
        "-no-user-config",
        "-qtest-log",
        "/dev/null",
    ]
    .map(String::from)
    .into();
    list.extend(["-bios".into(), file("rom"), "-qtest".into(), format!("unix:{}", file("socket"))]);
    list.extend(["-d".into(), TRACED.into(), "-D".into(), file("trace")]);
    if let Some(iommu) = &options.iommu {
        let comma = if iommu.is_empty() { "" } else { "," };
        list.extend(["-device".into(), format!("intel-iommu{comma}{iommu}")]);
    }
    for device in &options.devices {
        list.extend(["-device".into(), device.clone()]);
    }
    list
}

fn rom() -> Vec<u8> {
    let mut rom = vec![0xf4; ROM_BYTES];
    rom[RESET_VECTOR..RESET_VECTOR + HALT.len()].copy_from_slice(&HALT);
    rom
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream, String> {
    let words = |error: io::Error| error.to_string();
    listener.set_nonblocking(true).map_err(words)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(words)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(words(error)),
        }
        if let Some(status) = child.try_wait().map_err(words)? {
            return Err(format!("ended before it connected: {status}"));
        }
        if start.elapsed() > START_TIMEOUT {
            return Err("did not connect".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
