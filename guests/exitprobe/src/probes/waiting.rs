//! Time that passes without exits.

use guest_support::clock;

/// Looks at `condition` until it holds, with an eye on the clock and without exits. False if it does not within
/// `microseconds`.
pub fn wait_for(microseconds: u64, condition: impl Fn() -> bool) -> bool {
    let deadline = clock::now_us() + microseconds;
    while !condition() {
        if clock::now_us() >= deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Lets time pass, without exits.
pub fn pass(microseconds: u64) {
    wait_for(microseconds, || false);
}
