//! When what software has asked for is done, and in which order.

use crate::descriptor::Descriptor;
use std::collections::VecDeque;

/// When commands and descriptors take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// At once.
    Immediate,
    /// One piece of work at every n-th look of software (register read or load from memory); n at least 1.
    Looks(u32),
    /// At a look of software, once in `one_in` times, one piece of those that may be next, by a pseudo-random sequence
    /// from `seed`: invalidations pass one another as far as the specification allows (6.5.2.11), and the status of a
    /// wait arrives some time after the wait is complete, after that of a later one perhaps.
    Disorder {
        /// Start of the sequence, not 0.
        seed: u64,
        /// At least 1.
        one_in: u64,
    },
    /// One piece of work at every [`crate::Unit::step`]; without it, never: hardware that hangs.
    Steps,
}

/// Work that software has given and that is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Command(u32),
    ContextRegister,
    IotlbRegister,
    Descriptor(Descriptor),
    /// The status of a complete wait, on its way to memory.
    Status {
        address: u64,
        data: u32,
    },
}

/// All of it, in the order in which it was given.
#[derive(Clone, Default, Debug)]
pub(crate) struct WorkList {
    list: VecDeque<Work>,
}

impl WorkList {
    pub(crate) fn push(&mut self, work: Work) {
        self.list.push_back(work);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Work> {
        self.list.iter()
    }

    pub(crate) fn drop_descriptors(&mut self) {
        self.list.retain(|work| !matches!(work, Work::Descriptor(_)));
    }

    /// The oldest piece.
    pub(crate) fn first(&mut self) -> Option<Work> {
        self.list.pop_front()
    }

    /// One of the pieces that may be next; `choice` picks which.
    pub(crate) fn any(&mut self, choice: u64) -> Option<Work> {
        let open: Vec<usize> = (0..self.list.len()).filter(|&index| self.may_be_next(index)).collect();
        let index = *open.get(choice.checked_rem(open.len() as u64)? as usize)?;
        self.list.remove(index)
    }

    fn may_be_next(&self, index: usize) -> bool {
        let Work::Descriptor(descriptor) = self.list[index] else { return true };
        let before = self.list.iter().take(index).filter_map(|work| match work {
            Work::Descriptor(before) => Some(before),
            _ => None,
        });
        before.into_iter().all(|before| match (descriptor, before) {
            // A wait is complete after all that stands before it; with the fence flag, nothing passes it.
            (Descriptor::Wait { .. }, _) | (_, Descriptor::Wait { fence: true, .. }) => false,
            _ => match (descriptor.rank(), before.rank()) {
                (Some(rank), Some(before)) => before >= rank,
                _ => true,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caches::{ContextScope, InterruptScope, PageScope};
    use crate::descriptor::{DeviceTlbScope, Drain, Tagged};

    #[test]
    fn work_passes_other_work_as_far_as_the_specification_allows() {
        let drain = Drain { writes: false, reads: false };
        let device = DeviceTlbScope { source: 1, of: Tagged::Without, first: 0, last: 1 };
        let wait = Descriptor::Wait { status: None, interrupt: false, fence: true };
        let given = [
            Descriptor::Context(ContextScope::Global),
            Descriptor::Pages(PageScope::Global, drain),
            Descriptor::DeviceTlb(device),
            Descriptor::Interrupts(InterruptScope::Global),
            wait,
            Descriptor::Interrupts(InterruptScope::Index { first: 1, mask: 0 }),
        ];
        let mut orders = std::collections::BTreeSet::new();
        for seed in 0..2000u64 {
            let mut list = WorkList::default();
            given.into_iter().for_each(|descriptor| list.push(Work::Descriptor(descriptor)));
            let mut choices = seed;
            let mut order = Vec::new();
            while let Some(Work::Descriptor(done)) = list.any(choices) {
                choices /= 3;
                order.push(given.iter().position(|&one| one == done).unwrap());
            }
            orders.insert(order);
        }
        // The interrupts' invalidation anywhere among the three that keep their order, then the wait, then what follows.
        let expected = [[3, 0, 1, 2, 4, 5], [0, 3, 1, 2, 4, 5], [0, 1, 3, 2, 4, 5], [0, 1, 2, 3, 4, 5]];
        assert_eq!(orders, expected.map(Vec::from).into());
    }
}
