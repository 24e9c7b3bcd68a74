//! A function's messages, from what the device sends through a unit in software to the guest's vector.

#[path = "../../model/tests/support/mod.rs"]
mod support;

use addr::{ApicId, Bdf, HostPhys, Vector};
use model::{Configuration, Interrupt};
use postern::cpu::interrupts::{self, Source};
use postern::passthrough::messages::{MAXIMUM_VECTORS, Messages, Routed, Target};
use std::sync::{Mutex, MutexGuard};
use support::{Board, GUESTS, NIC, OTHER};
use vtd::Message;

/// The vectors of the processor are one pool: one test at a time.
static VECTORS: Mutex<()> = Mutex::new(());
const VCPU: u8 = 3;
const PROCESSOR: ApicId = ApicId(5);
/// The virtual processor's descriptor, where the unit posts.
const DESCRIPTOR: u64 = GUESTS + 0x40;
/// Offset of the invalidation queue's tail register.
const QUEUE_TAIL: u16 = 0x88;

struct Bench {
    board: Board,
    messages: Messages,
    target: Target,
    _vectors: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(configuration: Configuration, posts: bool) -> Self {
        let vectors = VECTORS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let board = Board::up(configuration);
        for at in (DESCRIPTOR..DESCRIPTOR + 64).step_by(8) {
            board.machine.store_u64(at, 0);
        }
        let descriptor = posts.then_some(HostPhys::new(DESCRIPTOR));
        let target = Target { source: NIC, processor: PROCESSOR, vcpu: VCPU, descriptor };
        Self { board, messages: Messages::default(), target, _vectors: vectors }
    }

    fn plain() -> Self {
        Self::new(Configuration::default(), false)
    }

    fn route(&mut self, entry: u16, guest_vector: u8) -> Result<Routed, String> {
        let (unit, memory) = (&mut self.board.unit, &mut self.board.memory);
        self.messages.route(unit, memory, &self.target, entry, Vector(guest_vector))
    }

    /// Routes an entry for the first time.
    fn new_way(&mut self, entry: u16, guest_vector: u8) -> Message {
        match self.route(entry, guest_vector) {
            Ok(Routed::New { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The guest's vector that a device's message ends as; `None` if it is blocked.
    fn arrives(&self, source: Bdf, address: u64, data: u32) -> Option<u8> {
        match support::interrupt(&self.board.machine, source, Message { address, data }) {
            Interrupt::Delivered(to) => {
                assert_eq!(u64::from(to.destination), u64::from(PROCESSOR.0));
                match interrupts::source(Vector(to.vector)) {
                    Source::Device { vcpu: VCPU, guest_vector } => Some(guest_vector.0),
                    other => panic!("vector {:#x} means {other:?}", to.vector),
                }
            }
            Interrupt::Posted { vector, .. } => Some(vector),
            Interrupt::Blocked(_) => None,
            Interrupt::Unremapped { .. } => panic!("an interrupt passed by the table"),
        }
    }

    fn tail(&self) -> u64 {
        self.board.machine.read64(0, QUEUE_TAIL)
    }

    fn done(mut self) {
        self.messages.release(&mut self.board.unit, &mut self.board.memory).unwrap();
        self.board.done();
    }
}

#[test]
fn an_entry_keeps_its_way_and_hardware_hears_of_it_once() {
    for posts in [false, true] {
        let mut bench = Bench::new(Configuration::default(), posts);
        let message = bench.new_way(7, 0x41);
        assert_eq!(bench.arrives(NIC, message.address, message.data), Some(0x41));
        assert_eq!(bench.arrives(OTHER, message.address, message.data), None, "from another device");
        let tail = bench.tail();
        for _ in 0..100 {
            bench.messages.masked(7);
            assert_eq!(bench.route(7, 0x41), Ok(Routed::Known));
        }
        assert_eq!(bench.tail(), tail, "unmasking invalidates");
        assert_eq!(bench.route(7, 0x52), Ok(Routed::Known));
        assert_eq!(bench.arrives(NIC, message.address, message.data), Some(0x52));
        assert_eq!(bench.tail() == tail, !posts, "a posted entry changes in hardware, a vector's meaning does not");
        bench.done();
    }
}

#[test]
fn masked_entries_lend_their_ways_and_no_live_one_is_taken() {
    let mut bench = Bench::plain();
    let messages: Vec<_> =
        (0..MAXIMUM_VECTORS as u16).map(|entry| bench.new_way(entry, 0x20 + (entry % 200) as u8)).collect();
    let error = bench.route(1000, 0x99).unwrap_err();
    assert!(error.contains("128 of its messages"), "{error}");
    bench.messages.masked(40);
    let tail = bench.tail();
    let lent = bench.new_way(1000, 0x99);
    assert_eq!((lent, bench.tail()), (messages[40], tail), "the way is lent as it is");
    assert_eq!(bench.arrives(NIC, lent.address, lent.data), Some(0x99));
    assert!(bench.route(40, 0x48).is_err(), "it has none now");
    for (entry, message) in messages.iter().enumerate().filter(|(entry, _)| *entry != 40) {
        assert_eq!(bench.arrives(NIC, message.address, message.data), Some(0x20 + entry as u8));
    }
    bench.messages.masked(1000);
    assert_eq!(bench.new_way(40, 0x48), messages[40]);
    bench.done();
}

#[test]
fn where_the_unit_posts_hundreds_of_entries_have_ways() {
    let configuration = Configuration::default();
    let mut bench = Bench::new(configuration, true);
    for entry in 0..250 {
        bench.new_way(entry, 0x40);
    }
    // 255 remapping entries in all: the rest is told as a lack of those.
    let error = (250..260).find_map(|entry| bench.route(entry, 0x40).err()).unwrap();
    assert!(error.contains("entr"), "{error}");
    bench.done();
}

#[test]
fn all_vectors_in_use_is_an_error_in_words_and_they_come_back() {
    let mut bench = Bench::plain();
    let mut taken = Vec::new();
    while let Some(vector) = interrupts::allocate(Source::Timer) {
        taken.push(vector);
    }
    assert_eq!(bench.route(0, 0x41).unwrap_err(), "no interrupt vector is left");
    let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
    bench.messages.allocate_msi(unit, memory, 4).unwrap();
    interrupts::free(taken.pop().unwrap());
    let error = bench.messages.route_msi(unit, memory, &bench.target, 4, Vector(0x40)).unwrap_err();
    assert_eq!(error, "no interrupt vector is left");
    bench.messages.release(unit, memory).unwrap();
    taken.push(interrupts::allocate(Source::Timer).expect("a vector of MSI that was half routed is lost"));
    taken.into_iter().for_each(interrupts::free);
    bench.new_way(0, 0x41);
    bench.done();
}

#[test]
fn a_way_that_hardware_refuses_costs_no_vector() {
    let configuration = Configuration { extended_interrupt_mode: false, ..Configuration::default() };
    let mut bench = Bench::new(configuration, false);
    // No xAPIC has this id.
    bench.target.processor = ApicId(0x100);
    let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
    bench.messages.allocate_msi(unit, memory, 1).unwrap();
    for _ in 0..300 {
        let error = bench.route(0, 0x41).unwrap_err();
        assert!(error.contains("APIC id 256"), "{error}");
        let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
        let error = bench.messages.route_msi(unit, memory, &bench.target, 1, Vector(0x41)).unwrap_err();
        assert!(error.contains("APIC id 256"), "{error}");
    }
    bench.done();
}

#[test]
fn multiple_messages_reach_vectors_of_their_own() {
    for (name, configuration) in support::kinds() {
        if !configuration.extended_interrupt_mode {
            continue;
        }
        let mut bench = Bench::new(configuration, false);
        let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
        let message = bench.messages.allocate_msi(unit, memory, 8).unwrap();
        assert_eq!(message.data, 0);
        for number in 0..8 {
            assert_eq!(bench.arrives(NIC, message.address, number), None, "{name}: before it is routed");
        }
        for (count, base, first) in [(4, 0x53, 0x50), (8, 0x60, 0x60), (1, 0x77, 0x77)] {
            let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
            bench.messages.route_msi(unit, memory, &bench.target, count, Vector(base)).unwrap();
            for number in 0..count {
                let arrived = bench.arrives(NIC, message.address, number.into());
                assert_eq!(arrived, Some(first + number), "{name}: {number} of {count}");
            }
        }
        assert_eq!(bench.arrives(OTHER, message.address, 0), None, "{name}: from another device");
        let tail = bench.tail();
        let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
        bench.messages.route_msi(unit, memory, &bench.target, 8, Vector(0x88)).unwrap();
        assert_eq!(bench.tail(), tail, "{name}: a new vector of the guest's concerns hardware");
        bench.done();
    }
}

#[test]
fn a_cleared_table_gets_its_messages_anew_and_msi_stays() {
    let mut bench = Bench::plain();
    let (unit, memory) = (&mut bench.board.unit, &mut bench.board.memory);
    let msi = bench.messages.allocate_msi(unit, memory, 1).unwrap();
    bench.messages.route_msi(unit, memory, &bench.target, 1, Vector(0x61)).unwrap();
    let old = bench.new_way(3, 0x41);
    bench.messages.table_cleared(&mut bench.board.unit, &mut bench.board.memory).unwrap();
    assert_eq!(bench.arrives(NIC, old.address, old.data), None);
    bench.new_way(3, 0x42);
    assert_eq!(bench.arrives(NIC, msi.address, msi.data), Some(0x61));
    bench.messages.release(&mut bench.board.unit, &mut bench.board.memory).unwrap();
    assert_eq!(bench.arrives(NIC, msi.address, msi.data), None);
    bench.done();
}
