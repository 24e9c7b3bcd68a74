//! The same checks with inputs that libFuzzer finds by the code that they reach.
#![no_main]

use dmar_fuzz::{Reached, check, repair};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut table = bytes.to_vec();
    table.truncate(4096);
    // As it is, and so that it is not refused at the door.
    check(&table, false, &mut Reached::default());
    repair(&mut table);
    check(&table, true, &mut Reached::default());
});
