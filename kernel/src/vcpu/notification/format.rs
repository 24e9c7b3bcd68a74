//! Which format an interrupt remapping entry has: the one place that decides.

use vtd::Trigger;

/// How a passed-through device's interrupt reaches the posted-interrupt descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptFormat {
    /// The entry is in remapped format: it leads to a vector of the hypervisor's, whose handler posts.
    Remapped,
    /// The entry is in posted format: it names the descriptor and the guest's vector, and the unit posts.
    Posted,
}

impl InterruptFormat {
    /// The format for an interrupt behind a unit that can post (CAP.PI) or not, with one vCPU as its destination.
    ///
    /// Whether the *processor* posts does not matter: one that does not leaves the guest for the notification vector,
    /// and collects. That is one exit, as with the remapped format, but for several interrupts at once, and without a
    /// vector of the hypervisor's for each. A level-triggered interrupt is never posted: its EOI must come back to the
    /// I/O APIC that sent it, which compares it with the vector of its own entry.
    pub const fn choose(unit_posts: bool, trigger: Trigger) -> Self {
        match trigger {
            Trigger::Edge if unit_posts => Self::Posted,
            _ => Self::Remapped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_that_posts_is_asked_to_and_only_for_edges() {
        assert_eq!(InterruptFormat::choose(true, Trigger::Edge), InterruptFormat::Posted);
        assert_eq!(InterruptFormat::choose(true, Trigger::Level), InterruptFormat::Remapped);
        assert_eq!(InterruptFormat::choose(false, Trigger::Edge), InterruptFormat::Remapped);
        assert_eq!(InterruptFormat::choose(false, Trigger::Level), InterruptFormat::Remapped);
    }
}
