use crate::posted::{Control, Notification};
use crate::{DestinationMode, PostedInterruptDescriptor};
use addr::{ApicId, Vector};

fn empty() -> PostedInterruptDescriptor {
    let descriptor = PostedInterruptDescriptor::new();
    assert!(descriptor.direct(Vector(0xf2), ApicId(3), DestinationMode::X2Apic));
    descriptor.set_suppressed(false);
    descriptor
}

#[test]
fn the_first_post_notifies_and_the_next_does_not() {
    let descriptor = empty();
    assert!(descriptor.post(Vector(0x41)).is_some());
    assert_eq!(descriptor.post(Vector(0xff)), None);
    assert!(descriptor.is_outstanding() && descriptor.has_pending());
    assert_eq!(descriptor.take(), [0, 1 << 1, 0, 1 << 63]);
    assert!(!descriptor.is_outstanding() && !descriptor.has_pending());
    assert!(descriptor.post(Vector(0x41)).is_some(), "after a take, the next post notifies again");
}

#[test]
fn a_suppressed_post_is_kept_and_not_notified() {
    let descriptor = empty();
    descriptor.set_suppressed(true);
    assert_eq!(descriptor.post(Vector(0x41)), None);
    assert!(!descriptor.is_outstanding());
    descriptor.set_suppressed(false);
    assert!(descriptor.has_pending());
    assert_eq!(descriptor.take()[1], 2);
}

#[test]
fn notifications_go_where_they_are_directed_and_nothing_else_changes() {
    let descriptor = empty();
    assert!(descriptor.post(Vector(0x20)).is_some());
    assert!(descriptor.direct(Vector(0xf3), ApicId(0x1234_5678), DestinationMode::X2Apic));
    let notification = |destination| Notification { vector: Vector(0xf3), destination };
    assert_eq!(descriptor.notification(), notification(0x1234_5678));
    assert!(descriptor.is_outstanding() && !descriptor.is_suppressed());
    assert!(descriptor.direct(Vector(0xf3), ApicId(5), DestinationMode::XApic));
    assert_eq!(descriptor.notification(), notification(0x500));
    assert!(!descriptor.direct(Vector(0xf4), ApicId(0x100), DestinationMode::XApic));
    assert_eq!(descriptor.notification(), notification(0x500));
}

#[test]
fn a_post_notifies_where_its_claim_found_the_destination() {
    let descriptor = empty();
    let first = descriptor.post(Vector(0x20));
    assert!(descriptor.direct(Vector(0xf3), ApicId(9), DestinationMode::X2Apic));
    assert_eq!(first, Some(Notification { vector: Vector(0xf2), destination: 3 }));
    assert_eq!(descriptor.post(Vector(0x21)), None, "the first is still under way");
    let _ = descriptor.take();
    assert_eq!(descriptor.post(Vector(0x21)), Some(Notification { vector: Vector(0xf3), destination: 9 }));
}

#[test]
fn control_changes_as_a_whole_or_not_at_all() {
    let descriptor = empty();
    let to = Notification { vector: Vector(0xf4), destination: 7 };
    let old = descriptor.update_control(|control| Some(control.suppressed(true).directed(to).outstanding(true)));
    assert!(old.is_ok_and(|old| !old.is_suppressed() && !old.is_outstanding() && old.notification().destination == 3));
    assert!(descriptor.is_suppressed() && descriptor.is_outstanding());
    assert_eq!(descriptor.update_control(|_| None), Err(descriptor.control()));
    assert_eq!(descriptor.notification(), to);
}

#[test]
fn each_part_of_control_is_set_and_cleared_alone() {
    let to = Notification { vector: Vector(0xa5), destination: 0x89ab_cdef };
    let none = Control::SUPPRESSED.suppressed(false);
    let parts = |control: Control| (control.is_outstanding(), control.is_suppressed(), control.notification());
    let nobody = Notification { vector: Vector(0), destination: 0 };
    assert_eq!(parts(none), (false, false, nobody));
    assert_eq!(parts(Control::SUPPRESSED), (false, true, nobody));
    for outstanding in [false, true] {
        for suppressed in [false, true] {
            for start in [none, Control::SUPPRESSED, none.outstanding(true), none.directed(to)] {
                let all = start.outstanding(outstanding).suppressed(suppressed);
                assert_eq!(parts(all), (outstanding, suppressed, start.notification()));
                assert_eq!(parts(all.directed(to)), (outstanding, suppressed, to));
                assert_eq!(parts(all.directed(to).directed(nobody)), (outstanding, suppressed, nobody));
                let claimed = (!outstanding && !suppressed).then_some((true, false, start.notification()));
                assert_eq!(all.claimed().map(parts), claimed);
            }
        }
    }
}

#[test]
fn a_word_that_is_taken_is_gone_and_one_that_is_looked_at_is_not() {
    let descriptor = empty();
    assert!(descriptor.post(Vector(0xc1)).is_some());
    assert_eq!((descriptor.word(3), descriptor.word(3), descriptor.word(4)), (2, 2, 0));
    assert_eq!((descriptor.take_word(3), descriptor.take_word(3), descriptor.take_word(4)), (2, 0, 0));
}

#[test]
fn a_post_in_the_middle_of_a_take_is_notified() {
    let descriptor = empty();
    assert!(descriptor.post(Vector(0x41)).is_some());
    // The other order would find ON set here, notify nobody, and leave the vector lying.
    let taken = descriptor.take_with(|| assert!(descriptor.post(Vector(0x42)).is_some()));
    assert_eq!(taken[1] | descriptor.take()[1], 6);
}

#[test]
fn a_new_descriptor_notifies_nobody() {
    let descriptor = PostedInterruptDescriptor::new();
    assert_eq!(descriptor.post(Vector(0x41)), None);
}

#[test]
fn the_fields_are_where_hardware_looks_for_them() {
    let descriptor = empty();
    assert!(descriptor.post(Vector(0x80)).is_some());
    let [low, ..] = descriptor_words(&descriptor)[4..] else { panic!() };
    assert_eq!(low, 3 << 32 | 0xf2 << 16 | 1);
    assert_eq!(descriptor_words(&descriptor)[2], 1);
}

fn descriptor_words(descriptor: &PostedInterruptDescriptor) -> [u64; 8] {
    // Debug prints the words in the order of the structure; the type itself lets nobody read them raw.
    let text = super::std::format!("{descriptor:?}");
    let mut words = [0; 8];
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = number;
    }
    words
}

/// Every interleaving of two posters, of two steps each, and one collector that takes whenever it is notified: when all
/// is quiet, no vector lies uncollected, and none is collected twice.
#[test]
fn no_interleaving_of_posts_and_takes_loses_a_vector() {
    #[derive(Clone, Copy)]
    struct Poster {
        vector: u8,
        step: u8,
    }
    #[derive(Clone, Copy)]
    struct World {
        posters: [Poster; 2],
        /// The collector's step: 0 waits for a notification, 1 has cleared ON.
        collector: u8,
        notifications: u8,
    }
    let mut ends = 0;
    // Each schedule is a sequence of choices; a choice that is not possible ends it early as a duplicate.
    for schedule in 0..3u32.pow(10) {
        let descriptor = empty();
        let poster = |vector| Poster { vector, step: 0 };
        let mut world = World { posters: [poster(0x41), poster(0xa1)], collector: 0, notifications: 0 };
        let mut collected = [0u64; 4];
        let (mut choices, mut possible) = (schedule, true);
        for _ in 0..10 {
            let choice = (choices % 3) as usize;
            choices /= 3;
            match choice {
                2 if world.collector == 1 => {
                    for (all, new) in collected.iter_mut().zip(descriptor.take_requests()) {
                        assert_eq!(*all & new, 0, "collected twice");
                        *all |= new;
                    }
                    world.collector = 0;
                }
                2 if world.notifications > 0 => {
                    world.notifications -= 1;
                    descriptor.clear_outstanding();
                    world.collector = 1;
                }
                0 | 1 if world.posters[choice].step == 0 => {
                    descriptor.set_request(Vector(world.posters[choice].vector));
                    world.posters[choice].step = 1;
                }
                0 | 1 if world.posters[choice].step == 1 => {
                    world.notifications += u8::from(descriptor.claim_notification().is_some());
                    world.posters[choice].step = 2;
                }
                _ => {
                    possible = false;
                    break;
                }
            }
            let quiet = world.posters.iter().all(|poster| poster.step == 2);
            if quiet && world.collector == 0 && world.notifications == 0 {
                ends += 1;
                assert!(!descriptor.has_pending(), "a vector lies there and nobody was told");
                assert_eq!(collected, [0, 1 << 1, 1 << 33, 0]);
                possible = false;
                break;
            }
        }
        assert!(!possible, "every schedule ends");
    }
    assert!(ends > 0);
}
