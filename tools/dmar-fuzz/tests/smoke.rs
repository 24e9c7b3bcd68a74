//! The fuzzer itself: its inputs can be made again, reach everything, and pass.

use dmar_fuzz::{Reached, built_in, check, input};

#[test]
fn some_inputs_of_a_fixed_seed_pass() {
    let seeds = built_in();
    assert_eq!(seeds.len(), 2, "a table that is built in is not good");
    let mut reached = Reached::default();
    for number in 0..3_000 {
        check(&input(&seeds, 1, number), number % 128 == 0, &mut reached);
    }
    // A window that wraps needs eight bytes to be right: that is for the long run.
    let missing = reached.missing();
    assert!(missing.iter().all(|name| *name == "structure: window wraps"), "not reached: {missing:?}");
    assert!(reached.tables > 2_900, "{} of 3000 were read", reached.tables);
}

#[test]
fn an_input_can_be_made_again() {
    let seeds = built_in();
    for number in 0..100 {
        assert_eq!(input(&seeds, 7, number), input(&seeds, 7, number));
        assert_ne!(input(&seeds, 7, number), input(&seeds, 8, number));
        assert_ne!(input(&seeds, 7, number), input(&seeds, 7, number + 1));
    }
}
