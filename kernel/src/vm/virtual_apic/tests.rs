//! A guest must not be able to tell which way its interrupts come: the same history, in each way.

extern crate std;

mod processor;

use addr::{ApicId, HostPhys, Vector};
use std::vec::Vec;

use super::*;
use crate::vcpu::VirtualApicPage;
use crate::vcpu::notification::{Mailbox, Processor, Vectors};
use processor::{ALL, FakeHardware, FakeProcessor};
use vtd::DestinationMode;

const VECTORS: Vectors = Vectors { notification: Vector(0xe0), wakeup: Vector(0xe1) };
const POSTED: PostedProcessing =
    PostedProcessing { descriptor: HostPhys::new(0x1000), notification: VECTORS.notification };

fn here() -> Processor {
    Processor::new(ApicId(0), DestinationMode::X2Apic).unwrap()
}

/// A guest with one processor, and what is around it.
struct Guest {
    virtual_apic: VirtualApic,
    apic: LocalApic,
    processor: FakeProcessor,
    mailbox: Mailbox,
    effects: Vec<Effect>,
}

impl Guest {
    /// In x2APIC mode, enabled, with interrupts enabled.
    fn new(way: ApicWay) -> Self {
        let mut guest = Self::after_reset(way);
        guest.write(0x1b, 0xfee0_0c00);
        guest.write(0x80f, 0x1ff);
        guest.processor.interrupts_enabled = true;
        guest.run();
        guest
    }

    /// The same in software on a processor that delivers by itself what is offered to it.
    fn offering() -> Self {
        let mut guest = Self::new(ApicWay::Software);
        guest.processor.offers = true;
        guest
    }

    fn after_reset(way: ApicWay) -> Self {
        let capability = match way {
            ApicWay::Software => ApicCapability { virtual_interrupt_delivery: false, ..ALL },
            ApicWay::VirtualDelivery => ApicCapability { posted_interrupts: false, ..ALL },
            ApicWay::Posted => ALL,
        };
        let mut processor = FakeProcessor::new(FakeHardware::new(capability));
        let (virtual_apic, apic) =
            VirtualApic::new(ApicProcessor::apic_virtualization(&mut processor), POSTED, ApicId(0), true, 40);
        assert_eq!(virtual_apic.way(), way);
        let mailbox = Mailbox::new();
        mailbox.enter(&VECTORS, here());
        Self { virtual_apic, apic, processor, mailbox, effects: Vec::new() }
    }

    /// Enters the guest until it stays there.
    fn run(&mut self) {
        loop {
            self.virtual_apic.before_entry(&mut self.apic, &self.mailbox, &mut self.processor, 0);
            if self.processor.enter() {
                return;
            }
            self.virtual_apic.after_exit(&mut self.apic, &mut self.processor);
        }
    }

    /// The guest is taken out, and enters again.
    fn exit(&mut self) {
        self.virtual_apic.after_exit(&mut self.apic, &mut self.processor);
        self.run();
    }

    /// An interrupt for the guest while it runs.
    fn post(&mut self, vector: u8) {
        let _ = self.mailbox.post(&VECTORS, Vector(vector), here());
        if !self.processor.process_notification(&self.mailbox) {
            self.exit();
        }
    }

    /// The guest's WRMSR.
    fn write(&mut self, msr: u32, value: u64) {
        if let Some(exit) = self.processor.write_msr(msr, value) {
            use processor::Exit;
            self.virtual_apic.after_exit(&mut self.apic, &mut self.processor);
            let effect = match exit {
                Exit::WriteMsr => self.apic.write_msr(msr, value, 0).unwrap(),
                Exit::EndOfInterrupt(vector) => self.virtual_apic.end_of_interrupt_exit(&mut self.apic, vector),
                Exit::ApicWrite(offset) => self.virtual_apic.write_exit(&mut self.apic, offset, 0),
            };
            self.effects.extend(effect);
            self.run();
        }
    }

    /// The guest's RDMSR.
    fn read(&mut self, msr: u32) -> u64 {
        match self.processor.read_msr(msr) {
            Some(value) => value,
            None => {
                self.virtual_apic.after_exit(&mut self.apic, &mut self.processor);
                let value = self.apic.read_msr(msr, 0).unwrap();
                self.run();
                value
            }
        }
    }

    fn set_cr8(&mut self, class: u8) {
        self.processor.set_cr8(class);
        // In software it takes no exit, and the window opens when there was one wanted.
        if self.virtual_apic.way() == ApicWay::Software {
            self.exit();
        }
    }

    fn enable_interrupts(&mut self) {
        self.processor.interrupts_enabled = true;
        if !self.processor.evaluate() {
            self.exit();
        }
    }

    fn level(&mut self, vector: u8) {
        self.virtual_apic.after_exit(&mut self.apic, &mut self.processor);
        self.apic.accept_level(Vector(vector));
        self.run();
    }

    fn visible(&mut self) -> Vec<u64> {
        (0x810..0x828).chain([0x808, 0x80a, 0x828]).map(|msr| self.read(msr)).collect()
    }
}

const WAYS: [ApicWay; 3] = [ApicWay::Software, ApicWay::VirtualDelivery, ApicWay::Posted];

fn guests() -> [Guest; 4] {
    let [software, delivery, posting] = WAYS.map(Guest::new);
    [software, delivery, posting, Guest::offering()]
}

#[test]
fn an_interrupt_arrives_in_each_way() {
    for mut guest in guests() {
        guest.post(0x41);
        assert_eq!(guest.processor.taken, [0x41]);
        guest.write(0x80b, 0);
        assert_eq!(guest.read(0x812), 0);
    }
}

#[test]
fn a_history_looks_the_same_in_each_way() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut delivered = 0;
    for _ in 0..50 {
        let mut guests = guests();
        for step in 0..60 {
            let (what, vector, class) = (next(9), 16 + next(240) as u8, next(16) as u8);
            // A processor that posts does not touch TMR: a vector is edge- or level-triggered, and not now this, now that.
            let (edge, level) = (vector & !1, vector | 1);
            let mut seen = Vec::new();
            for guest in &mut guests {
                match what {
                    0..=2 => guest.post(edge),
                    3 | 4 => guest.write(0x80b, 0),
                    5 => guest.write(0x83f, edge.into()),
                    6 => guest.write(0x808, (class << 4).into()),
                    7 if class > 8 => guest.level(level),
                    7 => guest.set_cr8(class),
                    _ => guest.enable_interrupts(),
                }
                seen.push((guest.processor.taken.clone(), guest.effects.clone(), guest.visible()));
            }
            assert_eq!(seen[0], seen[1], "step {step}: {what} {vector:#x} {class}: software and virtual delivery");
            assert_eq!(seen[0], seen[2], "step {step}: {what} {vector:#x} {class}: software and posting");
            assert_eq!(seen[0], seen[3], "step {step}: {what} {vector:#x} {class}: software and software with offers");
        }
        delivered += guests[0].processor.taken.len();
    }
    assert!(delivered > 100, "{delivered} interrupts were delivered in all");
}

#[test]
fn a_posted_interrupt_takes_the_guest_out_only_where_the_processor_does_not_post() {
    let exits = WAYS.map(|way| {
        let mut guest = Guest::new(way);
        let before = guest.processor.entries;
        guest.post(0x41);
        guest.write(0x80b, 0);
        guest.processor.entries - before
    });
    // Software: the interrupt, and the EOI.
    assert_eq!(exits, [2, 1, 0]);
}

#[test]
fn what_cannot_be_taken_yet_costs_no_exit_where_the_processor_takes_offers() {
    let [window, offer] = [Guest::new(ApicWay::Software), Guest::offering()].map(|mut guest| {
        guest.processor.interrupts_enabled = false;
        guest.post(0x41);
        assert_eq!(guest.processor.taken, []);
        let before = guest.processor.entries;
        guest.enable_interrupts();
        assert_eq!(guest.processor.taken, [0x41]);
        let exits = guest.processor.entries - before;
        // The next exit, whatever it is for, finds it in service.
        assert_eq!(guest.read(0x812), 2);
        assert_eq!(guest.virtual_apic.delivered(&guest.apic), 1);
        exits
    });
    assert_eq!((window, offer), (1, 0));
}

#[test]
fn an_offer_is_for_one_run_and_gives_way_to_what_is_more_important() {
    let mut guest = Guest::offering();
    guest.processor.interrupts_enabled = false;
    guest.post(0x41);
    assert_eq!(guest.virtual_apic.offered(), Some(Vector(0x41)));
    guest.post(0x61);
    guest.enable_interrupts();
    guest.write(0x80b, 0);
    guest.enable_interrupts();
    assert_eq!(guest.processor.taken, [0x61, 0x41]);
}

#[test]
fn a_guest_that_halts_wakes_for_what_it_would_take_and_for_nothing_else() {
    for mut guest in guests() {
        assert!(!guest.virtual_apic.wants_to_run(&guest.apic, &guest.processor));
        guest.write(0x808, 0x50);
        guest.post(0x41);
        assert!(!guest.virtual_apic.wants_to_run(&guest.apic, &guest.processor), "its priority is below the task's");
        let _ = guest.mailbox.post(&VECTORS, Vector(0x61), here());
        guest.virtual_apic.collect(&mut guest.apic, &guest.mailbox);
        assert!(guest.virtual_apic.wants_to_run(&guest.apic, &guest.processor));
        guest.processor.interrupts_enabled = false;
        assert!(!guest.virtual_apic.wants_to_run(&guest.apic, &guest.processor), "it has disabled interrupts");
    }
}

#[test]
fn the_eoi_of_a_level_exits_and_others_do_not() {
    for mut guest in guests() {
        guest.level(0x51);
        guest.write(0x80b, 0);
        assert_eq!(guest.effects, [Effect::EndOfInterrupt(Vector(0x51))]);
        guest.processor.interrupts_enabled = true;
        let before = guest.processor.entries;
        guest.post(0x52);
        guest.write(0x80b, 0);
        if guest.virtual_apic.way() == ApicWay::Posted {
            assert_eq!(guest.processor.entries, before);
        }
        assert_eq!(guest.effects.len(), 1);
    }
}

#[test]
fn a_disabled_apic_gets_nothing_although_the_processor_would_post() {
    for mut guest in guests() {
        guest.write(0x80f, 0xff);
        guest.post(0x41);
        assert_eq!((guest.processor.taken.as_slice(), guest.apic.dropped()), (&[][..], 1));
        guest.write(0x80f, 0x1ff);
        guest.post(0x42);
        assert_eq!(guest.processor.taken, [0x42]);
    }
}

#[test]
fn msrs_pass_in_x2apic_mode_only() {
    for way in [ApicWay::VirtualDelivery, ApicWay::Posted] {
        let mut guest = Guest::after_reset(way);
        guest.run();
        assert_eq!(guest.processor.hardware.passed, PassedMsrs::NONE);
        guest.write(0x1b, 0xfee0_0c00);
        assert_eq!(guest.processor.hardware.passed, PassedMsrs::NONE, "it is software-disabled");
        guest.write(0x80f, 0x1ff);
        assert_eq!(guest.processor.hardware.passed, PassedMsrs::of(guest.virtual_apic.capability));
        guest.write(0x1b, 0xfee0_0000);
        assert_eq!(guest.processor.hardware.passed, PassedMsrs::NONE);
        assert_eq!(guest.processor.hardware.posted, None);
    }
}

#[test]
fn the_xapic_page_works_over_virtual_delivery() {
    for way in WAYS {
        let mut guest = Guest::after_reset(way);
        guest.processor.interrupts_enabled = true;
        assert_eq!(guest.apic.write_page(0xf0, 0x1ff, 0), None);
        guest.run();
        guest.post(0x41);
        guest.processor.interrupts_enabled = true;
        guest.post(0x31);
        assert_eq!(guest.processor.taken, [0x41]);
        assert_eq!(guest.apic.write_page(0xb0, 0, 0), None);
        guest.run();
        assert_eq!(guest.processor.taken, [0x41, 0x31], "{way:?}");
    }
}

#[test]
fn the_processor_is_told_only_what_has_changed() {
    for way in [ApicWay::VirtualDelivery, ApicWay::Posted] {
        let mut guest = Guest::new(way);
        let before = guest.processor.hardware.told;
        for _ in 0..10 {
            guest.run();
        }
        assert_eq!(guest.processor.hardware.told, before);
    }
}

#[test]
fn a_task_priority_that_is_written_as_a_register_reaches_cr8_and_back() {
    let mut guest = Guest::new(ApicWay::Software);
    guest.write(0x808, 0x57);
    assert_eq!((guest.processor.cr8, guest.read(0x808)), (5, 0x57));
    // Without an exit, and then with one that writes the same register: the later one counts.
    guest.processor.cr8 = 3;
    assert_eq!(guest.read(0x808), 0x30);
    guest.processor.cr8 = 4;
    guest.write(0x808, 0x22);
    assert_eq!((guest.processor.cr8, guest.read(0x808)), (2, 0x22));
}

/// A read that does not exit is answered from the page, whatever is there: it must exist, and must be the page's.
#[test]
fn what_is_read_without_an_exit_exists_and_is_in_the_page() {
    let passed = PassedMsrs::of(ALL);
    let page: &'static VirtualApicPage = std::boxed::Box::leak(std::boxed::Box::default());
    let mut apic = LocalApic::over_page(page, ApicId(3), true, 40);
    apic.write_msr(0x1b, 0xfee0_0c00, 0).unwrap();
    for number in 0..0x100u32 {
        let exists = apic.read_msr(0x800 + number, 0).is_ok();
        // The ICR is not 8 adjacent bytes of the page, and the current count is a matter of time.
        let special = matches!(number, 0x30 | 0x39);
        let passes = passed.reads[number as usize / 64] >> (number % 64) & 1 != 0;
        assert_eq!(passes, exists && !special, "{number:#x}");
    }
}
