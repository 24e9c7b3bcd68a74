//! The story: what exitprobe does, in order.

use crate::list::List;
use crate::{bench, ends, probes, stacks, trap};
use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig, entry_point};
use core::panic::PanicInfo;
use exitprobe::command_line::{BadOption, Task};
use guest_support::{cpu, memory, report};

// It makes `_start` callable by what its loader leaves.
use boot as _;

const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

entry_point!(main, config = &CONFIG);

fn main(boot_info: &'static mut BootInfo) -> ! {
    report::initialize("exitprobe");
    report::say(format_args!("starting"));
    // Known from the beginning: the hypervisor keeps only so many of a guest's findings, and these must be among them.
    report::entry("probes", format_args!("none"));
    report::entry("guest", format_args!("running"));
    let Some(offset) = boot_info.physical_memory_offset.into_option() else {
        report::fail(format_args!("no-physical-memory-mapping"));
    };
    memory::initialize(offset);
    stacks::initialize();
    trap::initialize();
    stacks::install();

    let line = boot::command_line().unwrap_or_default();
    report::say(format_args!("command line \"{line}\""));
    match Task::parse(line) {
        Ok(Task::Probes) => {}
        Ok(Task::Bench) => {
            if let Err(reason) = bench::run() {
                report::fail(format_args!("{reason}"));
            }
            report::entry("guest", format_args!("done"));
            cpu::power_off()
        }
        Ok(Task::End(end)) => ends::end(end),
        Err(BadOption(word)) => {
            report::say(format_args!("\"{word}\" on the command line is not understood"));
            report::fail(format_args!("bad-command-line"));
        }
    }

    let mut list = List::default();
    probes::all(&mut list);
    if !list.finish() {
        report::fail(format_args!("probes"));
    }
    report::entry("guest", format_args!("done"));
    cpu::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    report::say(format_args!("{info}"));
    report::fail(format_args!("panic"))
}
