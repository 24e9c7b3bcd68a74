//! What the processor sends to itself and is no interrupt of its local APIC: non-maskable interrupts, INIT and start-up
//! IPIs, and the rest of the delivery modes. In x2APIC mode, on a platform with one processor.

use super::msr::write;
use super::waiting::{pass, wait_for};
use crate::list::{List, Verdict, ensure};
use crate::trap::{self, Exception, NMI, step};
use addr::Vector;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use guest_support::apic::X2APIC_MSR;
use guest_support::interrupts::Frame;
use x86_64::instructions::interrupts;

/// The interrupt command register, all of it.
const COMMAND: u32 = X2APIC_MSR + 0x30;
/// Delivery modes. 3 and 7 are reserved.
const SMI: u64 = 2 << 8;
const NON_MASKABLE: u64 = 4 << 8;
const INIT: u64 = 5 << 8;
const START_UP: u64 = 6 << 8;
const RESERVED: [u64; 2] = [3 << 8, 7 << 8];
const LOGICAL: u64 = 1 << 11;
const ASSERT: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
/// Shorthands for the destination.
const SELF: u64 = 1 << 18;
const ALL: u64 = 2 << 18;
const OTHERS: u64 = 3 << 18;
/// The destination's place.
const DESTINATION: u32 = 32;
const EVERYBODY: u64 = 0xffff_ffff;

/// The longest that one may take, in microseconds.
const PATIENCE_US: u64 = 10_000;
/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;

pub fn probe(list: &mut List) {
    list.probe("nmi", by_id);
    list.probe("nmi-destinations", destinations);
    list.probe("nmi-nested", nested);
    list.probe("nmi-step", stepped);
    list.probe("init-others", to_others);
}

fn send(command: u64) -> Option<Exception> {
    // SAFETY: what comes of it has a handler, or is nothing.
    unsafe { write(COMMAND, command) }
}

fn came() -> u32 {
    trap::count(Vector(NMI))
}

/// One comes at once, with interrupts off, and once; the end of its handler lets the next one come.
fn by_id() -> Verdict {
    trap::forget_interrupts();
    for number in 1..=3 {
        let caught = send(NON_MASKABLE);
        ensure!(caught.is_none() && wait_for(PATIENCE_US, || came() >= number), "number {number}: {caught:x?}");
        pass(1000);
        ensure!(came() == number, "{} came and not {number}", came());
    }
    Ok(())
}

/// It comes if the destination takes in the processor, whose id is 0 and whose logical id is bit 0 of cluster 0.
fn destinations() -> Verdict {
    for (command, reaches) in [
        (1 << DESTINATION, false),
        (0x100 << DESTINATION, false),
        (EVERYBODY << DESTINATION, true),
        (1 << DESTINATION | LOGICAL, true),
        (3 << DESTINATION | LOGICAL, true),
        (2 << DESTINATION | LOGICAL, false),
        (0x1_0001 << DESTINATION | LOGICAL, false),
        (EVERYBODY << DESTINATION | LOGICAL, true),
        (ALL, true),
        (OTHERS, false),
        // This shorthand is for fixed interrupts only.
        (SELF, false),
        // The trigger mode means nothing here.
        (ASSERT, true),
        (ASSERT | LEVEL, true),
    ] {
        trap::forget_interrupts();
        let caught = send(command | NON_MASKABLE);
        pass(500);
        ensure!(caught.is_none() && came() == u32::from(reaches), "{command:#x}: {caught:x?}, {} came", came());
    }
    Ok(())
}

static HANDLERS: AtomicU32 = AtomicU32::new(0);
static WITHIN: AtomicU32 = AtomicU32::new(0);
static FIRST_AT: AtomicU64 = AtomicU64::new(0);
static SECOND_AT: AtomicU64 = AtomicU64::new(0);

/// The first handler sends two more, and takes exceptions' way out of it in between.
fn nest(frame: &mut Frame) -> bool {
    if frame.vector() != NMI {
        return false;
    }
    match HANDLERS.fetch_add(1, Relaxed) {
        0 => {
            FIRST_AT.store(frame.rip, Relaxed);
            for _ in 0..2 {
                let _ = send(NON_MASKABLE);
                pass(500);
            }
            WITHIN.store(HANDLERS.load(Relaxed), Relaxed);
        }
        1 => SECOND_AT.store(frame.rip, Relaxed),
        _ => {}
    }
    true
}

/// While one is handled, others wait, and of several one comes: right behind the handler's IRET, where the first came.
fn nested() -> Verdict {
    HANDLERS.store(0, Relaxed);
    trap::mend_with(Some(nest));
    // In the handler it is RESUME that is lost, by the attempt there: a fault here would end the guest.
    let _ = send(NON_MASKABLE);
    pass(1000);
    trap::mend_with(None);
    let (handlers, within) = (HANDLERS.load(Relaxed), WITHIN.load(Relaxed));
    let (first, second) = (FIRST_AT.load(Relaxed), SECOND_AT.load(Relaxed));
    ensure!(within == 1, "{} came while the first was handled", within.wrapping_sub(1));
    ensure!(handlers == 2, "{handlers} came and not 2");
    ensure!(second == first, "the second came at {:#x} from where the first did", second.wrapping_sub(first));
    Ok(())
}

/// A guest that single-steps the instruction that sends one has its debug exception, and the NMI.
fn stepped() -> Verdict {
    trap::forget_interrupts();
    // SAFETY: both have a handler.
    let (caught, length) = unsafe { step!("wrmsr", in("ecx") COMMAND, in("eax") NON_MASKABLE as u32, in("edx") 0u32) };
    pass(1000);
    let debug = caught.filter(|caught| caught.vector == trap::DEBUG);
    ensure!(debug.is_some_and(|caught| caught.offset == length), "{caught:x?}");
    ensure!(debug.is_some_and(|caught| caught.rflags & TRAP_FLAG != 0), "the flags that were saved have no TF");
    ensure!(came() == 1, "{} came", came());
    Ok(())
}

/// INIT and start-up to processors that there are not, and what has no effect whoever gets it.
fn to_others() -> Verdict {
    trap::forget_interrupts();
    let one = 1 << DESTINATION;
    for command in [
        OTHERS | INIT | ASSERT,
        OTHERS | INIT | LEVEL,
        OTHERS | START_UP | 0x9a,
        one | INIT | ASSERT,
        one | START_UP | 0x9a,
        one | SMI,
        2 << DESTINATION | LOGICAL | INIT | ASSERT,
        // To all, but INIT level de-assert is for nobody since there are APIC ids that no software sets.
        ALL | INIT | LEVEL,
        // A processor that does not wait for it takes no start-up IPI.
        START_UP | 0x9a,
        ALL | START_UP,
        // With the shorthand for itself it would reset the processor, were it allowed.
        SELF | INIT | ASSERT,
        RESERVED[0],
        RESERVED[1],
        ALL | RESERVED[0],
        ALL | RESERVED[1],
    ] {
        let caught = send(command);
        ensure!(caught.is_none(), "{command:#x}: {caught:x?}");
    }
    interrupts::enable();
    pass(500);
    interrupts::disable();
    ensure!(trap::taken() == 0 && came() == 0, "{} interrupts came, and {} NMIs", trap::taken(), came());
    Ok(())
}
