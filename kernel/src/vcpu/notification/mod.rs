//! Whom an interrupt for a virtual CPU notifies, and how: the life of its posted-interrupt descriptor.
//!
//! An interrupt for a vCPU is posted: by remapping hardware that can, else by the hypervisor's handler. Then somebody
//! must look: the processor that runs the vCPU, or the one that can wake it. The descriptor says which:
//!
//! | the vCPU | NV | NDST | SN | a post notifies | and then |
//! |---|---|---|---|---|---|
//! | runs, in the guest | notification | its processor | 0 | that processor | it delivers (it posts), or leaves the guest and collects |
//! | runs, in the hypervisor | notification | its processor | 0 | that processor, unless it is itself the poster | [`collect`] before the next entry finds ON |
//! | preempted, or woken and not entered yet after preemption | as it was | as it was | 1 | nobody | [`enter`] looks at PIR |
//! | halted | wakeup | the processor that it halted on | 0 | that processor | [`wake_if_notified`] makes it run |
//! | woken, not entered yet | wakeup | as it was | 0 | once, and needlessly | [`enter`] looks at PIR |
//! | migrating, preempted | as it was | as it was | 1 | nobody | [`enter`] directs it to the new processor |
//! | migrating, halted | wakeup | the new processor | 0 | the new processor | [`migrate`] wakes it if a notification was under way to the old one |
//!
//! | from | to | by | in this order |
//! |---|---|---|---|
//! | preempted, woken, new | runs | [`enter`] | not halted; NV, NDST and SN in one step; look at PIR, set ON if there is anything |
//! | runs, in the hypervisor | in the guest | [`collect`], entry | ON clear; PIR taken; interrupts stay disabled until the guest runs |
//! | in the guest | in the hypervisor | an exit | nothing: notifications of this time are found by the next [`collect`] |
//! | runs | preempted | [`preempt`] | SN |
//! | runs | halted | [`halt`] | halted; NV, NDST and SN in one step; look at ON as it was in that step, and do not halt if it was set |
//! | halted | woken | [`wake_if_notified`], [`wake`] | not halted any more, by whoever gets there first |
//!
//! Why ON suffices to look at when halting: SN was 0, so whoever set a bit in PIR claims ON, before that step (and it
//! sees ON) or after (and the wakeup vector goes out, to a vCPU that says already that it is halted). Why it does not
//! suffice when entering: with SN set, posts did not claim ON.
//!
//! All of this holds whether or not the processor posts ([`ApicWay::Posted`](crate::vcpu::ApicWay)) and whether or not
//! the remapping unit does (CAP.PI): a processor that does not post leaves the guest for the notification vector, whose
//! handler has nothing to do. The tests run every interleaving in all four combinations.

mod format;
mod mailbox;
mod protocol;
#[cfg(test)]
mod tests;

pub use format::InterruptFormat;
pub use mailbox::Mailbox;
pub use protocol::{
    Notify, Processor, Steps, Vectors, collect, enter, halt, migrate, post, preempt, wake, wake_if_notified,
};
