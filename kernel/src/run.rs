//! From the machine to its guest, and the guest's life: the second half of the story that `start` begins.

use crate::console::report::Report;
use crate::console::serial;
use crate::cpu::interrupts::{self, Source};
use crate::cpu::{extended_state, local_apic, timer};
use crate::fatal::give_up;
use crate::life::Life;
use crate::machine::config_space::MachineConfigSpace;
use crate::machine::firmware::Firmware;
use crate::machine::handover::Handover;
use crate::machine::io_apics::IoApics;
use crate::machine::power;
use crate::memory::frames::Owner;
use crate::memory::{frames, image, physical};
use crate::passthrough::assignment::Passthrough;
use crate::passthrough::device::AssignedDevice;
use crate::passthrough::fault_watch;
use crate::time;
use crate::vcpu::Engine;
use crate::vcpu::svm::Svm;
use crate::vcpu::vmx::Vmx;
use crate::vm::archive::{Archive, CONFIGURATION};
use crate::vm::guest::{self, EngineFrames, Guest};
use crate::vm::pci::AssignedFunction;
use addr::{Bdf, PciAddress};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use apic::ApicMode;
use config::Config;
use vtd::DestinationMode;

/// The PC's interrupt line of COM1.
const COM1_IRQ: u8 = 4;
/// The first slot of a guest's bus that is given to a function.
const FIRST_GUEST_SLOT: u8 = 3;
/// The first place, device and function, of a guest's bus that is given to a virtual function: behind the slots.
const FIRST_VIRTUAL_FUNCTION: u8 = 0x80;

/// Runs the machine: brings up its remapping hardware, builds its guest, and lives with it until it ends.
pub fn run(found: Handover) -> ! {
    if Vmx::is_present() {
        run_on::<Vmx>(found)
    }
    if Svm::is_present() {
        run_on::<Svm>(found)
    }
    give_up("this processor has no virtualization extension that there is an engine for (VMX, SVM)")
}

/// Runs the machine with guests on `E`.
fn run_on<E: Engine>(found: Handover) -> ! {
    match prepare::<E>(found) {
        Ok(life) => finish(life),
        Err(reason) => give_up(&reason),
    }
}

/// Everything up to the guest's first instruction.
fn prepare<E: Engine>(found: Handover) -> Result<Life<E>, String> {
    let Handover { firmware, ramdisk } = found;
    let (archive, config) = read_archive(ramdisk)?;
    let guest_config = config.guests.first().ok_or("the configuration has no guest")?;
    let (mut config_space, mut passthrough, mode) = bring_up(&firmware, &config)?;
    let mut engine = E::enable(&mut EngineFrames).map_err(|error| error.to_string())?;
    let (prepared, functions) = assign_devices(0, guest_config, &archive, &mut config_space, &mut passthrough)?;
    let guest = Guest::new(0, guest_config, prepared, functions, &mut engine)?;
    guest.verify()?;
    passthrough.verify(guest.number)?;
    release_archive(ramdisk);
    Ok(Life::new(guest, config_space, passthrough, new_report(E::NAME, mode)))
}

/// Opens the archive, and reads and checks the configuration in it.
fn read_archive(ramdisk: Option<(addr::HostPhys, u64)>) -> Result<(Archive<'static>, Config), String> {
    let bytes = ramdisk.map_or(&[][..], |(start, bytes)| physical::bytes(start, bytes as usize));
    let archive = Archive::open(bytes).map_err(|error| error.to_string())?;
    let text = archive.configuration().map_err(|error| error.to_string())?;
    let config = config::parse(text).map_err(|complaints| report_complaints(&complaints))?;
    power::set_debug_exit_port(config.hypervisor.debug_exit_port);
    let names = archive.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let complaints = config::check_members(&config, &names);
    if complaints.is_empty() { Ok((archive, config)) } else { Err(report_complaints(&complaints)) }
}

/// Brings up the machine: its remapping units, its local APIC, and its console.
fn bring_up(firmware: &Firmware, config: &Config) -> Result<(MachineConfigSpace, Passthrough, ApicMode), String> {
    extended_state::start();
    let config_space = MachineConfigSpace::new(&firmware.ecam);
    let fault_limit = config.hypervisor.fault_limit.unwrap_or(fault_watch::DEFAULT_LIMIT);
    let mut passthrough = Passthrough::new(firmware, &config_space, fault_limit);
    let mode = start_remapping(&mut passthrough)?;
    let mut io_apics = IoApics::start(&firmware.io_apics);
    match passthrough.open_console(firmware, &mut io_apics, COM1_IRQ) {
        Ok(()) => serial::enable_receive_interrupt(),
        Err(why) => log::warn!("nothing typed will be seen: {why}"),
    }
    log::info!("{} remapping units work; local APIC in {mode:?} mode", passthrough.units.working());
    Ok((config_space, passthrough, mode))
}

/// Logs what is wrong with the configuration, all but the last, which is returned: the reason to give up.
fn report_complaints(complaints: &[config::Complaint]) -> String {
    let mut last = String::new();
    for complaint in complaints {
        if !last.is_empty() {
            log::error!("{last}");
        }
        last = format!("{CONFIGURATION}: {complaint}");
    }
    last
}

/// Brings up the remapping units and the local APIC, in the order that keeps interrupts sound: x2APIC mode only after
/// every unit remaps in its format, and fault reports only after the local APIC is in its final mode.
fn start_remapping(passthrough: &mut Passthrough) -> Result<ApicMode, String> {
    let x2apic = local_apic::has_x2apic() && passthrough.allows_x2apic();
    let destinations = if x2apic { DestinationMode::X2Apic } else { DestinationMode::XApic };
    passthrough.start_remapping(destinations);
    let started = local_apic::start(x2apic).and_then(|mode| timer::start().map(|()| mode));
    let mode = started.map_err(|error| format!("the local APIC cannot be used: {error}"))?;
    let vector = interrupts::allocate(Source::RemappingFault);
    passthrough.units.start_translation(vector);
    Ok(mode)
}

/// Loads a guest, and moves its devices to it.
fn assign_devices(
    number: u8,
    config: &config::Guest,
    archive: &Archive<'_>,
    config_space: &mut MachineConfigSpace,
    passthrough: &mut Passthrough,
) -> Result<(guest::Prepared, Vec<AssignedFunction>), String> {
    let devices: Vec<PciAddress> =
        passthrough.select(&config.devices).map_err(|why| format!("{CONFIGURATION}: {why}"))?;
    let prepared = guest::prepare(number, config, archive)?;
    let mut functions = Vec::new();
    let mut virtual_places = FIRST_VIRTUAL_FUNCTION..=u8::MAX;
    for (device, slot) in devices.into_iter().zip(FIRST_GUEST_SLOT..) {
        passthrough.assign(config_space, device, number, &prepared.memory, config.virtual_functions)?;
        let place = Bdf::new(0, slot, 0).ok_or("a guest's bus has no slot left")?;
        let assigned = passthrough.device(device).ok_or("an assigned device is not known")?;
        let mut function = show(config_space, assigned, place)?;
        let mut virtual_functions = Vec::new();
        for (assigned, index) in passthrough.virtual_functions(device).zip(0..) {
            let place = virtual_places.next().ok_or("a guest's bus has no place left for virtual functions")?;
            let shown = show(config_space, assigned, Bdf::from_u16(place.into()))?;
            virtual_functions.push(shown.into_virtual(device, index));
        }
        function.show_virtual_functions(&virtual_functions);
        functions.push(function);
        if !virtual_functions.is_empty() {
            functions.append(&mut virtual_functions);
            passthrough.set_virtual_functions(config_space, device, 0)?;
        }
    }
    if config.virtual_functions > 0 && functions.iter().all(|function| function.physical().is_none()) {
        return Err(format!("{CONFIGURATION}: virtual_functions: no device of guest {:?} has any", config.name));
    }
    Ok((prepared, functions))
}

/// An assigned device as its guest sees it, and in the state that the guest's view says.
fn show(
    config_space: &mut MachineConfigSpace,
    assigned: &AssignedDevice,
    place: Bdf,
) -> Result<AssignedFunction, String> {
    match AssignedFunction::new(config_space, &assigned.function, place, assigned.msi()) {
        Ok(function) => {
            function.prepare(config_space);
            Ok(function)
        }
        Err(error) => Err(format!("device {} cannot be shown to a guest: {error}", assigned.address())),
    }
}

/// The archive is not needed any more: its memory is free for guests.
fn release_archive(ramdisk: Option<(addr::HostPhys, u64)>) {
    if let Some((start, bytes)) = ramdisk {
        let end = addr::HostPhys::new(start.as_u64().saturating_add(bytes));
        frames().table().claim(start, end, Owner::Free);
    }
}

/// What the report says of the machine before the guest runs.
fn new_report(engine: &str, mode: ApicMode) -> Report {
    let mut report = Report::default();
    report.set("engine", engine);
    report.set("mode", "legacy");
    report.set("apic", if mode == ApicMode::X2Apic { "x2apic" } else { "xapic" });
    report.set("image_kib", image::file_bytes().div_ceil(1024));
    report
}

/// Lives with the guest until it ends, and tells how it was.
fn finish<E: Engine>(mut life: Life<E>) -> ! {
    life.note_start(time::since_entry_us());
    let passed = life.run();
    power::finish(passed)
}
