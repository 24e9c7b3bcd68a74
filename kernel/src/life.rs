//! The life of a guest: entries and exits, interrupts on their way in, faults of its devices, and its report.

use crate::console::report::Report;
use crate::console::serial;
use crate::cpu::interrupts::Source;
use crate::cpu::serving::{self, Served};
use crate::cpu::{extended_state, interrupts, local_apic, timer};
use crate::machine::calendar;
use crate::machine::config_space::MachineConfigSpace;
use crate::machine::device_memory::DeviceMemory;
use crate::machine::ports;
use crate::memory::frames::Owner;
use crate::memory::{frames, image};
use crate::passthrough::assignment::Passthrough;
use crate::passthrough::attacks::{Attacks, Observation, Verdict};
use crate::time;
use crate::vcpu::{Engine, VirtualCpu};
use crate::vm;
use crate::vm::exits::{self, ExitCounts, Next};
use crate::vm::guest::Guest;
use crate::vm::local_apic::{Destination, Effect, LocalApic};
use crate::vm::pci::{GuestPciBus, MsiEffect, MsixEffect, PciEffect, PciEffectKind};
use crate::vm::platform::{Host, Platform, Services};
use addr::{GuestPhys, HostPhys, PciAddress, Vector};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The shortest time between two timer interrupts of a guest, in microseconds: a guest that asks for more must not
/// keep the processor busy with its timer alone.
const MINIMUM_TIMER_US: u64 = 20;
/// Complaints of one kind about a guest that are logged.
const MAXIMUM_COMPLAINTS: u32 = 16;
/// What a person types to see the state.
const STATUS_KEY: u8 = b's';
/// What a person types before [`STATUS_KEY`] while a guest gets what is typed: control and `]`.
const ATTENTION_KEY: u8 = 0x1d;

/// A guest, and the machine around it.
pub struct Life<E: Engine> {
    guest: Guest<E>,
    config: MachineConfigSpace,
    machine: Machine,
    /// [`MINIMUM_TIMER_US`] in ticks of the time-stamp counter.
    minimum_timer_ticks: u64,
}

/// The machine as the guest's accesses reach it; everything that is not the guest or configuration space.
struct Machine {
    /// The guest's number.
    number: u8,
    /// The last key was [`ATTENTION_KEY`].
    attention: bool,
    /// The guest has switched itself off.
    ended_itself: bool,
    passthrough: Passthrough,
    report: Report,
    attacks: Attacks,
    name: String,
    complaints: u32,
    /// How many bytes of the line that the guest is printing have been shown.
    shown: usize,
    /// The vector of this machine that stands for the guest's doorbell, once it was rung.
    doorbell: Option<Vector>,
    /// What the guest asked of its functions and is to be done before it runs again.
    due: Vec<PciEffect>,
}

impl Machine {
    /// Says something about the guest, a bounded number of times.
    fn complain(&mut self, what: core::fmt::Arguments<'_>) {
        self.complaints = self.complaints.saturating_add(1);
        if self.complaints <= MAXIMUM_COMPLAINTS {
            log::warn!("guest {:?}: {what}", self.name);
        }
    }

    /// Shows what the guest has printed of a line, as far as it was not shown before.
    fn show(&mut self, text: &str) {
        let rest = match text.get(self.shown..).filter(|_| self.shown > 0 && serial::go_on()) {
            Some(rest) => rest,
            None => {
                // The serial line never reports an error.
                let _ = write!(serial::line(), "[{}] ", self.name);
                text
            }
        };
        let _ = serial::same_line().write_str(rest);
        self.shown = text.len();
    }

    /// Shows a line that the guest has not ended, such as a prompt.
    fn show_unfinished(&mut self, text: &str) {
        if text.len() > self.shown {
            self.show(text);
            serial::leave_unfinished();
        }
    }

    fn observe(&self) -> Observation {
        Observation { stray_interrupts: interrupts::stray_interrupts(), checksum: image::constant_checksum() }
    }

    /// One `key=value` of a guest's `report: ` line.
    fn take_claim(&mut self, key: &str, value: &str, rest: &str) {
        let number = |name: &str| {
            let text = rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix("=0x"))?;
            u64::from_str_radix(text, 16).ok()
        };
        match key {
            "attack" => {
                let (start, length) = (number("iova").unwrap_or(0), number("len").unwrap_or(1));
                let before = self.observe();
                self.attacks.begin(value, start, length, before);
            }
            "attack-done" => self.finish_attack(),
            "iova" | "len" => {}
            _ => self.report.claim(key, value),
        }
    }

    /// Resets a function whose guest has asked for it. Takes the time that it takes: it is the guest's.
    fn reset_function(
        &mut self,
        config: &mut MachineConfigSpace,
        bus: &GuestPciBus,
        address: PciAddress,
    ) -> Result<(), String> {
        let reset = self.passthrough.reset(config, address);
        bus.functions().filter(|function| function.host() == address).for_each(|function| function.prepare(config));
        reset
    }

    /// Gives a function as many virtual ones as its guest asks for.
    fn set_virtual_functions(
        &mut self,
        config: &mut MachineConfigSpace,
        bus: &GuestPciBus,
        physical: PciAddress,
        count: u16,
    ) -> Result<(), String> {
        self.passthrough.set_virtual_functions(config, physical, count)?;
        let its = bus.functions().filter(|function| function.physical() == Some(physical) && function.is_present());
        its.for_each(|function| function.prepare(config));
        Ok(())
    }

    fn finish_attack(&mut self) {
        let after = self.observe();
        if let Some((name, verdict)) = self.attacks.end(after) {
            log::info!("attack {name}: {verdict}");
        }
    }

    /// What the machine itself asks for: faults, stray interrupts, what was typed. Returns whether somebody wants to see
    /// the state.
    fn serve(&mut self, config: &mut MachineConfigSpace, platform: &mut Platform) -> bool {
        if interrupts::take_fault() {
            self.serve_faults(config, platform);
        }
        let stray = interrupts::take_stray();
        if stray != [0; 4] {
            for (word, bits) in stray.into_iter().enumerate() {
                for bit in (0..64).filter(|bit| bits >> bit & 1 != 0) {
                    let vector = word * 64 + bit;
                    self.complain(format_args!("while it ran, vector {vector:#x} arrived, which nobody was given"));
                }
            }
        }
        interrupts::take_console() && self.serve_keys(platform)
    }

    /// A guest that listens gets what is typed, but for what follows the attention key. Returns whether somebody wants to
    /// see the state.
    fn serve_keys(&mut self, platform: &mut Platform) -> bool {
        let mut status = false;
        while let Some(key) = serial::read_byte() {
            let attention = core::mem::replace(&mut self.attention, key == ATTENTION_KEY);
            match key {
                ATTENTION_KEY if !attention => {}
                STATUS_KEY if attention || !platform.listens() => status = true,
                key => platform.receive(key),
            }
        }
        status
    }

    /// Tells of faults, and takes what has too many out of service, here and in the guest's view.
    fn serve_faults(&mut self, config: &mut MachineConfigSpace, platform: &mut Platform) {
        let (number, attacks) = (self.number, &mut self.attacks);
        let now_us = time::ticks_to_us(time::ticks());
        let quarantined = self.passthrough.serve_faults(config, now_us, |record, guest| {
            if guest == Some(number) {
                attacks.fault(record);
            }
        });
        for address in quarantined {
            platform.pci.quarantine(address, config, &mut |effect| self.pci_effect(effect));
        }
    }

    fn print_status(&self, exits: &ExitCounts, delivered: u64) {
        log::info!(
            "status: guest {:?} runs; {} exits, {} interrupts delivered, {} faults, {} stray interrupts",
            self.name,
            exits.total,
            delivered,
            self.passthrough.faults(),
            interrupts::stray_interrupts()
        );
    }

    /// The guest's end: what it has not said yet, what its devices did last, and they are taken back.
    fn end(&mut self, end: Next, config: &mut MachineConfigSpace, platform: &mut Platform, vcpu: &dyn VirtualCpu) {
        if let Some(rest) = platform.take_rest_of_line() {
            self.line(rest);
        }
        self.serve_faults(config, platform);
        if let Next::Stop(reason) = end {
            log::error!("guest {:?} was stopped: {reason}", self.name);
            log::error!("  rip {:#x} ({:?}), registers {:x?}", vcpu.rip(), vcpu.mode(), vcpu.registers());
            log::error!("  {:x?}", vcpu.control());
        } else {
            log::info!("guest {:?} has switched itself off", self.name);
            self.ended_itself = true;
        }
        self.passthrough.release(config, self.number);
    }

    /// Reports on the whole life. Returns whether the run passed.
    fn report(&mut self, exits: &ExitCounts, delivered: u64) -> bool {
        let (report, attacks) = (&mut self.report, &self.attacks);
        let full = |text: &str| text.split_once('/').is_some_and(|(done, of)| done == of && done != "0");
        let pings = report.claimed("pings").is_none_or(full);
        let done = report.claimed("guest").is_none_or(|state| state == "done");
        let passed = self.ended_itself && pings && done && attacks.all_repelled();
        let kept = frames().table().count(Owner::Hypervisor) * 4;
        report.set("units", self.passthrough.units.working());
        report.set("interrupts", delivered);
        report.set("device_interrupts", interrupts::device_interrupts());
        report.set("stray_interrupts", interrupts::stray_interrupts());
        report.set("exits", exits.total);
        report.set(
            "exits_by_reason",
            format!(
                "port:{},msr:{},memory:{},halt:{},interrupt:{},window:{},other:{}",
                exits.ports, exits.msrs, exits.memory, exits.halts, exits.interrupts, exits.windows, exits.others
            ),
        );
        report.set("faults", self.passthrough.faults());
        report.set("quarantined", self.passthrough.quarantined_so_far());
        report.set("attacks", attacks.count());
        report.set("blocked", attacks.with(Verdict::Blocked));
        report.set("harmless", attacks.with(Verdict::Harmless));
        report.set("hv_kib", kept);
        report.set("result", if passed { "pass" } else { "fail" });
        // The serial line never reports an error.
        let _ = report.write(&mut *serial::line());
        passed
    }
}

impl Host for Machine {
    fn pci_effect(&mut self, effect: PciEffect) -> bool {
        let function = effect.function;
        match effect.kind {
            // The only processor of the guest is the destination, whichever way a message names it.
            PciEffectKind::Msix(MsixEffect::Route { entry, message }) => {
                if let Err(why) = self.passthrough.route(function, entry, 0, message.vector) {
                    self.complain(format_args!("MSI-X {entry} of {function} stays masked: {why}"));
                    return false;
                }
            }
            PciEffectKind::Msix(MsixEffect::Mask { entry }) => self.passthrough.mask(function, entry),
            PciEffectKind::Msix(MsixEffect::Unroutable { entry, address, data, reason }) => {
                self.complain(format_args!(
                    "MSI-X {entry} of {function} stays masked: address {address:#x}, data {data:#x}: {reason}"
                ));
            }
            PciEffectKind::Msi(MsiEffect::Route { message, vectors }) => {
                if let Err(why) = self.passthrough.route_msi(function, vectors, 0, message.vector) {
                    self.complain(format_args!("MSI of {function} stays off: {why}"));
                    return false;
                }
            }
            PciEffectKind::Msi(MsiEffect::Unroutable { address, data, reason }) => {
                self.complain(format_args!(
                    "MSI of {function} stays off: address {address:#x}, data {data:#x}: {reason}"
                ));
            }
            PciEffectKind::Mapping(_) | PciEffectKind::Reset | PciEffectKind::VirtualFunctions { .. } => {
                self.due.push(effect);
            }
            PciEffectKind::BusMaster { .. } => {}
            PciEffectKind::Refused(refusal) => self.complain(format_args!("{function}: refused: {refusal}")),
        }
        true
    }

    fn xcr0(&self) -> u64 {
        extended_state::read_xcr0()
    }

    fn set_xcr0(&mut self, value: u64) {
        extended_state::set_xcr0(value);
    }

    fn apic_effect(&mut self, effect: Effect) {
        // What a guest sends to a group is for those that there are, and it is alone: kernels start others in this way.
        let alone = matches!(effect, Effect::InterProcessorInterrupt { destination, .. }
            if !matches!(destination, Destination::Physical(_)));
        if !alone {
            self.complain(format_args!("it has one processor; ignored: {effect:?}"));
        }
    }

    fn doorbell(&mut self, vector: Vector) {
        // The only processor of the guest is number 0.
        let source = Source::Device { vcpu: 0, guest_vector: vector };
        self.doorbell = self.doorbell.or_else(|| interrupts::allocate(source));
        match self.doorbell {
            Some(own) => {
                interrupts::set(own, source);
                // It stays pending here until the guest is entered, and takes it out again as any other would.
                local_apic::notify(local_apic::id(), own);
            }
            None => self.complain(format_args!("its doorbell is silent: no interrupt vector is left")),
        }
    }

    fn line(&mut self, line: String) {
        self.show(&line);
        self.shown = 0;
        let _ = serial::same_line().write_str("\n");
        let Some(claims) = line.strip_prefix("report: ") else { return };
        for word in claims.split(' ') {
            if let Some((key, value)) = word.split_once('=') {
                self.take_claim(key, value, claims);
            }
        }
    }

    fn nothing_there(&mut self, address: GuestPhys) {
        self.complain(format_args!("it accessed guest-physical {address:#x}, where nothing is"));
    }

    fn read_register(&mut self, address: HostPhys, bytes: u8) -> u64 {
        let Some((memory, offset)) = self.passthrough.trapped_registers(address) else { return u64::MAX };
        read(memory, offset, bytes)
    }

    fn read_real_port(&mut self, port: u16, bytes: u8) -> u32 {
        ports::read(port, bytes)
    }

    fn write_real_port(&mut self, port: u16, bytes: u8, value: u32) {
        ports::write(port, bytes, value);
    }

    fn write_register(&mut self, address: HostPhys, bytes: u8, value: u64) {
        let Some((memory, offset)) = self.passthrough.trapped_registers(address) else { return };
        match bytes {
            1 => memory.write8(offset, value as u8),
            2 => memory.write16(offset, value as u16),
            4 => memory.write32(offset, value as u32),
            _ => memory.write64(offset, value),
        }
    }
}

/// If this processor's timer has interrupted and is the guest's, that was the guest's deadline; then it moves, if it is to.
fn serve_timer(apic: &mut LocalApic, vcpu: &mut dyn VirtualCpu) {
    if apic.has_borrowed_timer() && interrupts::take_timer() && timer::take_deadline_reached() {
        apic.deadline_reached();
    }
    if apic.timer_moves() {
        move_timer(apic, vcpu);
    }
}

/// Gives the guest this processor's timer, or takes it back.
fn move_timer(apic: &mut LocalApic, vcpu: &mut dyn VirtualCpu) {
    let lend = !apic.has_borrowed_timer();
    vcpu.pass_deadline_writes(lend);
    if lend {
        timer::lend(apic.borrow_timer());
    } else {
        let (deadline, reached) = timer::take_back();
        apic.return_timer(deadline, reached, time::ticks());
    }
}

fn read(memory: &DeviceMemory, offset: u64, bytes: u8) -> u64 {
    match bytes {
        1 => memory.read8(offset).into(),
        2 => memory.read16(offset).into(),
        4 => memory.read32(offset).into(),
        _ => memory.read64(offset),
    }
}

impl<E: Engine> Life<E> {
    /// A guest that is ready to run.
    pub fn new(guest: Guest<E>, config: MachineConfigSpace, passthrough: Passthrough, report: Report) -> Self {
        let machine = Machine {
            number: guest.number,
            attention: false,
            ended_itself: false,
            passthrough,
            report,
            attacks: Attacks::default(),
            name: guest.name.clone(),
            complaints: 0,
            shown: 0,
            doorbell: None,
            due: Vec::new(),
        };
        Self { guest, config, machine, minimum_timer_ticks: time::us_to_ticks(MINIMUM_TIMER_US) }
    }

    /// Notes how long it took from entry to here, in microseconds.
    pub fn note_start(&mut self, microseconds: u64) {
        self.machine.report.set("boot_ms", microseconds.div_ceil(1000));
        log::info!("guest {:?} starts", self.guest.name);
    }

    /// Runs the guest until it ends, and reports. Returns whether the run passed.
    pub fn run(&mut self) -> bool {
        self.guest.platform.clock.start = time::ticks();
        // Where nobody knows the time, it begins in 1970.
        self.guest.platform.clock.wall_seconds = calendar::read_seconds().unwrap_or(0);
        let tsc_khz = u32::try_from(time::frequency_khz()).unwrap_or(u32::MAX);
        if self.guest.vcpu.pass_deadline_writes(false) && timer::has_deadline() {
            // Nothing but a guest's timer needs this processor's.
            self.guest.platform.apic.offer_timer();
        }
        if self.guest.platform.extended_state.is_offered() {
            // As after reset.
            extended_state::set_xcr0(vm::extended_state::X87);
        }
        if let (Some(mailbox), Some(here)) = (interrupts::mailbox(self.guest.number), local_apic::processor()) {
            mailbox.enter(&interrupts::NOTIFICATIONS, here);
        }
        let end = loop {
            self.serve_machine();
            self.deliver_interrupts();
            serving::set(Served::Guest(self.guest.number));
            let exit = self.guest.vcpu.run();
            let guest = &mut self.guest;
            // What was delivered comes before what has ended.
            guest.virtual_apic.after_exit(&mut guest.platform.apic, &mut guest.vcpu);
            guest.platform.after_exit();
            let mut services = Services { config: &mut self.config, host: &mut self.machine };
            let next = exits::serve(
                exit,
                &mut guest.vcpu,
                &mut guest.platform,
                &mut guest.exits,
                time::ticks(),
                tsc_khz,
                &mut services,
            );
            serving::set(Served::Nobody);
            if !self.machine.due.is_empty() {
                self.do_what_is_due();
            }
            match next {
                Next::Run => {}
                Next::Halt => self.wait_for_interrupt(),
                end => break end,
            }
        };
        if self.guest.platform.apic.has_borrowed_timer() {
            move_timer(&mut self.guest.platform.apic, &mut self.guest.vcpu);
        }
        self.end(end)
    }

    /// What the guest's last access asked of its functions, and could not be done in the midst of it.
    fn do_what_is_due(&mut self) {
        for effect in core::mem::take(&mut self.machine.due) {
            let function = effect.function;
            let (machine, config) = (&mut self.machine, &mut self.config);
            let done = match effect.kind {
                PciEffectKind::Mapping(change) => self.guest.change_mapping(change),
                PciEffectKind::Reset => machine.reset_function(config, &self.guest.platform.pci, function),
                PciEffectKind::VirtualFunctions { count } => {
                    machine.set_virtual_functions(config, &self.guest.platform.pci, function, count)
                }
                _ => Ok(()),
            };
            if let Err(why) = done {
                self.machine.complain(format_args!("{function}: {why}"));
            }
        }
    }

    /// What the machine itself asks for: faults, stray interrupts, what was typed.
    fn serve_machine(&mut self) {
        if !interrupts::take_noted() {
            return;
        }
        if self.machine.serve(&mut self.config, &mut self.guest.platform) {
            let guest = &self.guest;
            self.machine.print_status(&guest.exits, guest.virtual_apic.delivered(&guest.platform.apic));
        }
        self.do_what_is_due();
    }

    /// Brings what waits in the mailbox and at the timer to the processor, by whichever way it has.
    fn deliver_interrupts(&mut self) {
        self.serve_timer();
        let guest = &mut self.guest;
        let now = time::ticks();
        if let Some(mailbox) = interrupts::mailbox(guest.number) {
            guest.virtual_apic.before_entry(&mut guest.platform.apic, mailbox, &mut guest.vcpu, now);
        }
        guest.platform.before_entry(guest.virtual_apic.offered());
        self.set_alarm(now);
    }

    /// What happened to this processor's timer, and what is to happen to it, for a guest that can have it.
    #[inline(always)]
    fn serve_timer(&mut self) {
        let apic = &mut self.guest.platform.apic;
        if interrupts::has_timer_fired() || apic.timer_moves() {
            serve_timer(apic, &mut self.guest.vcpu);
        }
    }

    /// Makes sure that the guest is left when its timer is due: by the engine's own alarm, or by this processor's timer.
    fn set_alarm(&mut self, now: u64) {
        let deadline = self.guest.platform.apic.timer_deadline();
        let remaining = deadline.map(|deadline| deadline.saturating_sub(now).max(self.minimum_timer_ticks));
        if !self.guest.vcpu.set_alarm(remaining) {
            self.start_timer(now);
        }
    }

    /// Lets this processor's timer interrupt when the guest's is due.
    fn start_timer(&self, now: u64) {
        if let Some(deadline) = self.guest.platform.apic.timer_deadline() {
            timer::run_until(deadline.max(now + self.minimum_timer_ticks));
        }
    }

    /// The guest has halted: so does this processor, until something is there for the guest or for the machine.
    fn wait_for_interrupt(&mut self) {
        self.machine.show_unfinished(self.guest.platform.line());
        loop {
            self.serve_machine();
            self.serve_timer();
            let guest = &mut self.guest;
            let (Some(mailbox), Some(here)) = (interrupts::mailbox(guest.number), local_apic::processor()) else {
                return;
            };
            let apic = &mut guest.platform.apic;
            guest.virtual_apic.collect(apic, mailbox);
            let now = time::ticks();
            apic.expire(now);
            if guest.virtual_apic.wants_to_run(apic, &guest.vcpu) {
                return;
            }
            self.start_timer(now);
            if mailbox.halt(&interrupts::NOTIFICATIONS, here) {
                interrupts::wait();
                // Whatever it was, the vCPU looks for itself.
                let _ = mailbox.wake();
            }
            mailbox.enter(&interrupts::NOTIFICATIONS, here);
        }
    }

    /// Ends the guest and reports. Returns whether the run passed.
    fn end(&mut self, end: Next) -> bool {
        let guest = &mut self.guest;
        self.machine.end(end, &mut self.config, &mut guest.platform, &guest.vcpu);
        self.machine.report(&guest.exits, guest.virtual_apic.delivered(&guest.platform.apic))
    }
}
