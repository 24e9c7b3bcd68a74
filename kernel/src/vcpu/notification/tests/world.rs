//! Two processors, one vCPU, two device interrupts, and everything that can happen to them, one step at a time.
//!
//! Steps are of two kinds. Some must happen if nothing else does: an interrupt that is pending is taken, a function that
//! has begun goes on, a vCPU that wants to run does. Others only may: a device interrupts, the guest exits, halts, is
//! preempted, a processor goes away. Where no step of the first kind is left, every interrupt must have arrived.

extern crate std;

use addr::{ApicId, Vector};
use std::vec::Vec;
use vtd::DestinationMode;
use vtd::posted::{Control, Notification};

use super::super::protocol::{self, Notify, Processor, Steps, Vectors};
use super::replay::{Log, Replay, Shared, advance};

pub const VECTORS: Vectors = Vectors { notification: Vector(0xe0), wakeup: Vector(0xe1) };
/// In different words of PIR.
const GUEST_VECTORS: [Vector; 2] = [Vector(0x41), Vector(0xa1)];

/// Pending at a processor: bit 0 and 1 are the devices' vectors in remapped format.
const NOTIFICATION: u8 = 1 << 2;
const WAKEUP: u8 = 1 << 3;
const DEVICES: u8 = 0b11;

/// The functions that are tested, or mutants of them.
#[derive(Clone, Copy)]
pub struct Protocol {
    pub post: fn(&Replay<'_>, &Vectors, Vector, Processor) -> Notify,
    pub enter: fn(&Replay<'_>, &Vectors, Processor),
    pub collect: fn(&Replay<'_>) -> Option<[u64; 4]>,
    pub preempt: fn(&Replay<'_>),
    pub halt: fn(&Replay<'_>, &Vectors, Processor) -> bool,
    pub wake: fn(&Replay<'_>) -> bool,
    pub migrate: fn(&Replay<'_>, &Vectors, Processor) -> bool,
}

impl Protocol {
    pub const REAL: Self = Self {
        post: |vcpu, vectors, vector, here| protocol::post(vcpu, vectors, vector, here),
        enter: |vcpu, vectors, here| protocol::enter(vcpu, vectors, here),
        collect: |vcpu| protocol::collect(vcpu),
        preempt: |vcpu| protocol::preempt(vcpu),
        halt: |vcpu, vectors, here| protocol::halt(vcpu, vectors, here),
        wake: |vcpu| protocol::wake_if_notified(vcpu),
        migrate: |vcpu, vectors, to| protocol::migrate(vcpu, vectors, to),
    };
}

/// Who posts, and how.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The processors process posted interrupts.
    pub processors_post: bool,
    /// The remapping unit has CAP.PI.
    pub unit_posts: bool,
}

impl Machine {
    pub const ALL: [Self; 4] = [
        Self { processors_post: false, unit_posts: false },
        Self { processors_post: false, unit_posts: true },
        Self { processors_post: true, unit_posts: false },
        Self { processors_post: true, unit_posts: true },
    ];
}

pub fn processor(number: usize) -> Processor {
    Processor::new(ApicId(number as u32), DestinationMode::X2Apic).unwrap()
}

/// What a collecting vCPU does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Then {
    Run,
    Halt,
}

/// Where the vCPU is; the number is the processor's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    /// Waits for a processor.
    Runnable,
    /// In `enter`, interrupts disabled.
    Entering(usize),
    /// In `collect`, interrupts disabled until the guest runs.
    Collecting(usize, Then),
    /// In the guest.
    Guest(usize),
    /// In the guest, while its processor takes requests out of the descriptor.
    Processing(usize),
    /// Left for an interrupt that is being handled.
    Interrupted(usize),
    /// In `preempt`.
    Preempting(usize),
    /// In `halt`, which does not need interrupts to be disabled.
    Halting(usize),
    /// On no processor.
    Halted,
}

impl Place {
    fn processor(self) -> Option<usize> {
        match self {
            Place::Runnable | Place::Halted => None,
            Place::Entering(on)
            | Place::Collecting(on, _)
            | Place::Guest(on)
            | Place::Processing(on)
            | Place::Interrupted(on)
            | Place::Preempting(on)
            | Place::Halting(on) => Some(on),
        }
    }

    fn has_interrupts_disabled_on(self, number: usize) -> bool {
        self.processor() == Some(number) && !matches!(self, Place::Guest(_) | Place::Interrupted(_) | Place::Halting(_))
    }
}

/// A handler that runs on a processor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Handler {
    /// Posts the interrupt of this device.
    Device(usize, Log),
    /// The wakeup vector's.
    Wakeup(Log),
}

/// Where a halted vCPU is woken changes, because a processor goes away or for the sake of balance.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Migration {
    Never,
    /// `migrate` to the second processor is under way; the first, if any, runs nothing any more.
    Going(Option<usize>, usize, Log),
    /// The processor, if any, is gone.
    Done(Option<usize>),
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    shared: Shared,
    place: Place,
    log: Log,
    /// Somebody was told to make the vCPU run.
    woken: bool,
    pending: [u8; 2],
    handlers: [Option<Handler>; 2],
    migration: Migration,
    /// Devices that have interrupted.
    fired: u8,
    /// What the vCPU has collected (VIRR).
    requested: u8,
    /// What the guest has got.
    delivered: u8,
    /// How often the guest may still exit, halt or be preempted.
    whims: u8,
}

/// Why a world is wrong.
pub type Wrong = &'static str;

/// One thing that happens next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Fire(usize),
    Take(usize, u8),
    Handle(usize),
    Vcpu,
    Run(usize),
    Exit,
    Halt,
    Preempt,
    Drain,
    /// This processor goes away.
    Depart(usize),
    /// Wake-ups shall go to this processor.
    Move(usize),
    Migrate,
}

impl Step {
    /// Whether it only may happen.
    fn is_whim(self) -> bool {
        matches!(self, Step::Fire(_) | Step::Exit | Step::Halt | Step::Preempt | Step::Depart(_) | Step::Move(_))
    }
}

impl World {
    pub fn new(whims: u8) -> Self {
        Self {
            shared: Shared {
                requests: [0; 4],
                control: Control::SUPPRESSED,
                halted: false,
                buffered_unsuppress: false,
            },
            place: Place::Runnable,
            log: Vec::new(),
            woken: false,
            pending: [0; 2],
            handlers: [None, None],
            migration: Migration::Never,
            fired: 0,
            requested: 0,
            delivered: 0,
            whims,
        }
    }

    fn is_there(&self, number: usize) -> bool {
        !matches!(self.migration, Migration::Going(gone, ..) | Migration::Done(gone) if gone == Some(number))
    }

    /// What can happen.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for device in 0..2 {
            if self.fired & 1 << device == 0 {
                steps.push(Step::Fire(device));
            }
        }
        for number in 0..2 {
            if self.handlers[number].is_some() {
                steps.push(Step::Handle(number));
            } else if !self.place.has_interrupts_disabled_on(number) && self.migration != Migration::Done(Some(number))
            {
                let pending = self.pending[number];
                steps.extend(
                    (0..4).map(|bit| 1 << bit).filter(|bit| pending & bit != 0).map(|bit| Step::Take(number, bit)),
                );
            }
        }
        match self.place {
            Place::Runnable => {
                let free = |number: &usize| self.is_there(*number) && self.handlers[*number].is_none();
                steps.extend((0..2).filter(free).map(Step::Run));
            }
            Place::Halted => {}
            Place::Interrupted(on) | Place::Halting(on) if self.handlers[on].is_some() => {}
            Place::Guest(_) if self.whims > 0 => steps.extend([Step::Exit, Step::Halt, Step::Preempt]),
            Place::Guest(_) => {}
            // Entering the guest empties the store buffer.
            Place::Collecting(..) if self.shared.buffered_unsuppress && self.log.len() > 3 => {}
            _ => steps.push(Step::Vcpu),
        }
        if self.shared.buffered_unsuppress {
            steps.push(Step::Drain);
        }
        match self.migration {
            Migration::Never => {
                steps.extend((0..2).filter(|number| self.place.processor() != Some(*number)).map(Step::Depart));
                steps.extend((0..2).map(Step::Move));
            }
            Migration::Going(gone, ..) if gone.is_none_or(|gone| self.handlers[gone].is_none()) => {
                steps.push(Step::Migrate);
            }
            _ => {}
        }
        steps
    }

    /// Everything that is under way has come to its end: then nothing may be missing.
    pub fn check(&self, steps: &[Step]) -> Result<(), Wrong> {
        if steps.iter().any(|step| !step.is_whim()) || self.delivered == self.fired {
            return Ok(());
        }
        Err(if self.place == Place::Halted { "a wake-up is lost" } else { "an interrupt is lost" })
    }

    /// Does one step.
    pub fn step(&mut self, step: Step, machine: Machine, protocol: &Protocol) -> Result<(), Wrong> {
        match step {
            Step::Fire(device) => self.fire(device, machine),
            Step::Take(number, bit) => {
                self.take(number, bit, machine);
                Ok(())
            }
            Step::Handle(number) => self.handle(number, protocol),
            Step::Vcpu => self.go_on(protocol),
            Step::Run(number) => {
                self.place = Place::Entering(number);
                Ok(())
            }
            Step::Exit | Step::Halt | Step::Preempt => {
                let Place::Guest(on) = self.place else { return Err("not in the guest") };
                self.whims -= 1;
                self.place = match step {
                    Step::Exit => Place::Collecting(on, Then::Run),
                    Step::Halt => Place::Collecting(on, Then::Halt),
                    _ => Place::Preempting(on),
                };
                Ok(())
            }
            Step::Drain => {
                self.shared.buffered_unsuppress = false;
                self.shared.control = self.shared.control.suppressed(false);
                Ok(())
            }
            Step::Depart(number) => {
                self.migration = Migration::Going(Some(number), 1 - number, Log::new());
                Ok(())
            }
            Step::Move(number) => {
                self.migration = Migration::Going(None, number, Log::new());
                Ok(())
            }
            Step::Migrate => self.migrate(protocol),
        }
    }

    fn fire(&mut self, device: usize, machine: Machine) -> Result<(), Wrong> {
        self.fired |= 1 << device;
        if !machine.unit_posts {
            // The route leads to processor 0, or to the one that is left.
            let target = usize::from(self.migration == Migration::Done(Some(0)));
            self.pending[target] |= 1 << device;
            return Ok(());
        }
        let vector = GUEST_VECTORS[device];
        self.shared.requests[usize::from(vector.0 / 64)] |= 1 << (vector.0 % 64);
        let Some(claimed) = self.shared.control.claimed() else { return Ok(()) };
        self.shared.control = claimed;
        self.send(claimed.notification())
    }

    fn send(&mut self, to: Notification) -> Result<(), Wrong> {
        let number = to.destination as usize;
        if number > 1 || self.migration == Migration::Done(Some(number)) {
            return Err("a notification to a processor that is not there");
        }
        if to.vector == VECTORS.notification {
            if self.place.processor() != Some(number) {
                return Err("a notification to the wrong processor");
            }
            self.pending[number] |= NOTIFICATION;
        } else {
            self.pending[number] |= WAKEUP;
        }
        Ok(())
    }

    fn take(&mut self, number: usize, bit: u8, machine: Machine) {
        self.pending[number] &= !bit;
        if self.place == Place::Guest(number) {
            if bit == NOTIFICATION && machine.processors_post {
                self.place = Place::Processing(number);
                return;
            }
            self.place = Place::Interrupted(number);
        }
        self.handlers[number] = match bit {
            NOTIFICATION => None,
            WAKEUP => Some(Handler::Wakeup(Log::new())),
            device => Some(Handler::Device(device.ilog2() as usize, Log::new())),
        };
    }

    fn handle(&mut self, number: usize, protocol: &Protocol) -> Result<(), Wrong> {
        match self.handlers[number].take() {
            None => Err("no handler runs"),
            Some(Handler::Device(device, mut log)) => {
                let (vector, here) = (GUEST_VECTORS[device], processor(number));
                match advance(&mut self.shared, &mut log, |vcpu| (protocol.post)(vcpu, &VECTORS, vector, here)) {
                    None => self.handlers[number] = Some(Handler::Device(device, log)),
                    Some(Notify::Nobody) => {}
                    Some(Notify::Here) => self.handlers[number] = Some(Handler::Wakeup(Log::new())),
                    Some(Notify::Processor { processor, vector }) => {
                        return self.send(Notification { vector, destination: processor.0 });
                    }
                }
                Ok(())
            }
            Some(Handler::Wakeup(mut log)) => {
                match advance(&mut self.shared, &mut log, protocol.wake) {
                    None => self.handlers[number] = Some(Handler::Wakeup(log)),
                    Some(true) => return self.wake(),
                    Some(false) => {}
                }
                Ok(())
            }
        }
    }

    fn wake(&mut self) -> Result<(), Wrong> {
        if self.woken || !matches!(self.place, Place::Halting(_) | Place::Halted) {
            return Err("a vCPU that runs, or will, is made to run again");
        }
        if self.place == Place::Halted {
            self.place = Place::Runnable;
        } else {
            self.woken = true;
        }
        Ok(())
    }

    fn go_on(&mut self, protocol: &Protocol) -> Result<(), Wrong> {
        let (shared, log) = (&mut self.shared, &mut self.log);
        match self.place {
            Place::Entering(on) => {
                let done = advance(shared, log, |vcpu| (protocol.enter)(vcpu, &VECTORS, processor(on)));
                if done.is_some() {
                    self.place = Place::Collecting(on, Then::Run);
                }
            }
            Place::Collecting(on, then) => {
                if let Some(collected) = advance(shared, log, protocol.collect) {
                    self.receive(collected.unwrap_or_default())?;
                    match then {
                        Then::Halt if self.requested == 0 => self.place = Place::Halting(on),
                        _ => return self.run_guest(on),
                    }
                }
            }
            Place::Processing(on) => {
                // ON, then PIR: what the processor does is in the SDM's hands, and not the protocol's.
                let taken = advance(shared, log, |vcpu| {
                    vcpu.clear_outstanding();
                    core::array::from_fn(|index| vcpu.take_word(index))
                });
                if let Some(taken) = taken {
                    self.receive(taken)?;
                    return self.run_guest(on);
                }
            }
            Place::Interrupted(on) => self.place = Place::Collecting(on, Then::Run),
            Place::Preempting(_) => {
                if advance(shared, log, protocol.preempt).is_some() {
                    self.place = Place::Runnable;
                }
            }
            Place::Halting(on) => match advance(shared, log, |vcpu| (protocol.halt)(vcpu, &VECTORS, processor(on))) {
                None => {}
                Some(true) if core::mem::take(&mut self.woken) => self.place = Place::Runnable,
                Some(true) => self.place = Place::Halted,
                Some(false) if self.woken => return Err("a vCPU goes on that somebody else runs too"),
                Some(false) => self.place = Place::Entering(on),
            },
            Place::Runnable | Place::Guest(_) | Place::Halted => return Err("nothing to go on with"),
        }
        Ok(())
    }

    fn receive(&mut self, words: [u64; 4]) -> Result<(), Wrong> {
        for (device, vector) in GUEST_VECTORS.into_iter().enumerate() {
            if words[usize::from(vector.0 / 64)] >> (vector.0 % 64) & 1 != 0 {
                self.requested |= 1 << device;
            }
        }
        Ok(())
    }

    fn run_guest(&mut self, on: usize) -> Result<(), Wrong> {
        if self.requested & (self.delivered | !self.fired) != 0 {
            return Err("an interrupt that did not happen, or happened once, is delivered again");
        }
        self.delivered |= core::mem::take(&mut self.requested);
        self.place = Place::Guest(on);
        Ok(())
    }

    fn migrate(&mut self, protocol: &Protocol) -> Result<(), Wrong> {
        let Migration::Going(from, to, log) = &mut self.migration else { return Err("nothing migrates") };
        let (from, to) = (*from, *to);
        let done = advance(&mut self.shared, log, |vcpu| (protocol.migrate)(vcpu, &VECTORS, processor(to)));
        let Some(wakes) = done else { return Ok(()) };
        self.migration = Migration::Done(from);
        if let Some(from) = from {
            // Devices' routes are moved with what is pending; a notification that is still under way is not.
            self.pending[to] |= self.pending[from] & DEVICES;
            self.pending[from] = 0;
        }
        if wakes { self.wake() } else { Ok(()) }
    }
}
