//! The story: what netprobe does, in order.

use crate::attack::Attacker;
use crate::e1000e::E1000e;
use crate::network::{Network, Storage};
use crate::{apic, clock, cpu, interrupts, memory, pci, report};
use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig, entry_point};
use core::fmt;
use core::panic::PanicInfo;
use netprobe::command_line::{BadOption, Options};

const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

entry_point!(main, config = &CONFIG);

/// How many pings are sent to the gateway.
const PINGS: u16 = 10;

fn main(boot_info: &'static mut BootInfo) -> ! {
    report::initialize("netprobe");
    report::say(format_args!("starting"));
    match run(boot_info) {
        Ok(()) => {
            report::entry("guest", format_args!("done"));
            cpu::power_off()
        }
        Err(reason) => report::fail(format_args!("{reason}")),
    }
}

/// Everything from the first instruction to the last report, or why it could not be done.
fn run(boot_info: &BootInfo) -> Result<(), Failure> {
    let offset = boot_info.physical_memory_offset.into_option().ok_or(Failure("no-physical-memory-mapping"))?;
    memory::initialize(offset);

    let line = boot::command_line().unwrap_or_default();
    report::say(format_args!("command line \"{line}\""));
    let options = Options::parse(line).map_err(|BadOption(word)| {
        report::say(format_args!("\"{word}\" on the command line is not understood"));
        Failure("bad-command-line")
    })?;

    interrupts::initialize();
    let apic_id = apic::initialize(interrupts::TIMER, interrupts::SPURIOUS);
    let clock = clock::initialize().map_err(Failure)?;
    let clock::Frequencies { tsc_khz, apic_timer_khz, source } = clock;
    report::say(format_args!("{}, TSC {tsc_khz} kHz, APIC timer {apic_timer_khz} kHz, {source}", apic::mode()));

    let function = pci::find(E1000e::VENDOR, E1000e::DEVICE).ok_or(Failure("no-e1000e-on-bus-0"))?;
    let mut nic = E1000e::new(&function, apic_id).map_err(Failure)?;
    nic.initialize(&nic.ordinary_setup()).map_err(Failure)?;
    report::say(format_args!("e1000e at {}, MAC {}", function.address, ColonSeparated(&nic.mac())));

    let mut storage = Storage::new();
    let mut network = Network::new(&mut nic, &mut storage);
    if !options.no_network {
        network.get_lease(&mut nic).map_err(Failure)?;
        let (moved, of) = nic.move_ranges(&function);
        report::entry("ranges_moved", format_args!("{moved}/{of}"));
        let answered = network.ping_gateway(&mut nic, PINGS);
        report::entry("pings", format_args!("{answered}/{PINGS}"));
    }
    if options.attack || options.nmi {
        let mut attacker = Attacker::new(&mut nic, network.addresses());
        if options.attack {
            attacker.everything(options.image).map_err(Failure)?;
        }
        if options.nmi {
            attacker.forge_non_maskable().map_err(Failure)?;
        }
        if !options.no_network {
            let answered = network.ping_gateway(&mut nic, 1);
            report::entry("after_attack_ping", format_args!("{answered}/1"));
        }
    }
    if options.storm {
        Attacker::new(&mut nic, network.addresses()).storm();
    }

    let counts = interrupts::counts();
    report::say(format_args!("{counts}"));
    report::entry("guest_interrupts", format_args!("{}", counts.total()));
    report::entry("unexpected_vectors", format_args!("{}", counts.unexpected));
    Ok(())
}

/// Why netprobe gave up: one word for the report, with hyphens where a sentence would have spaces.
struct Failure(&'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A MAC address as it is usually written.
struct ColonSeparated<'a>(&'a [u8]);

impl fmt::Display for ColonSeparated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    report::say(format_args!("{info}"));
    report::fail(format_args!("panic"))
}
