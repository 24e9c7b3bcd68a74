//! What the kernel command line asks for.

/// What exitprobe does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// All probes, then power off.
    Probes,
    /// What exits and interrupts cost, then power off.
    Bench,
    /// Something that no processor or platform goes on from: the hypervisor must end the guest, and nothing else.
    End(End),
}

/// The ways to end by the hypervisor's hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A fault that cannot be delivered, nor the fault of that.
    TripleFault,
    /// Execution where no memory is.
    JumpNowhere,
    /// Page tables where no memory is.
    PageTableNowhere,
    /// An interrupt whose frame goes where no memory is.
    StackNowhere,
    /// A descriptor table where no memory is, and an exception.
    DescriptorTableNowhere,
    /// An interrupt whose frame goes to read-only memory.
    StackReadOnly,
    /// PUSH to read-only memory, which is more than a store.
    PushReadOnly,
    /// One store to memory and to read-only memory.
    StoreAcross,
    /// An INIT to itself.
    InitSelf,
    /// A value in CR0 that a processor refuses, on an emulator that takes it: then it is the entry that is refused.
    EntryRefused,
    /// HLT with interrupts disabled, which nothing ends.
    HaltForever,
}

/// A word that is not understood: a test that asked for something must not pass without having done it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadOption<'a>(pub &'a str);

impl Task {
    /// Reads the command line: nothing, or one word. A first word with a slash is the path of the kernel, which some
    /// boot loaders put there.
    pub fn parse(line: &str) -> Result<Self, BadOption<'_>> {
        let mut words = line.split_ascii_whitespace().enumerate();
        let mut task = Self::Probes;
        for (index, word) in &mut words {
            if index == 0 && word.contains('/') {
                continue;
            }
            let asked = match End::ALL.into_iter().find(|end| end.name() == word) {
                Some(end) => Self::End(end),
                None if word == "bench" => Self::Bench,
                None => return Err(BadOption(word)),
            };
            if task != Self::Probes {
                return Err(BadOption(word));
            }
            task = asked;
        }
        Ok(task)
    }
}

impl End {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::TripleFault,
        Self::JumpNowhere,
        Self::PageTableNowhere,
        Self::StackNowhere,
        Self::DescriptorTableNowhere,
        Self::StackReadOnly,
        Self::PushReadOnly,
        Self::StoreAcross,
        Self::InitSelf,
        Self::EntryRefused,
        Self::HaltForever,
    ];

    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TripleFault => "triple-fault",
            Self::JumpNowhere => "jump-nowhere",
            Self::PageTableNowhere => "page-table-nowhere",
            Self::StackNowhere => "stack-nowhere",
            Self::DescriptorTableNowhere => "descriptor-table-nowhere",
            Self::StackReadOnly => "stack-read-only",
            Self::PushReadOnly => "push-read-only",
            Self::StoreAcross => "store-across",
            Self::InitSelf => "init-self",
            Self::EntryRefused => "entry-refused",
            Self::HaltForever => "halt-forever",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_everything() {
        assert_eq!(Task::parse(" "), Ok(Task::Probes));
        assert_eq!(Task::parse("/boot/exitprobe"), Ok(Task::Probes));
    }

    #[test]
    fn every_end_has_a_word_of_its_own() {
        for end in End::ALL {
            assert_eq!(Task::parse(end.name()), Ok(Task::End(end)));
        }
        assert_eq!(Task::parse("/boot/exitprobe jump-nowhere"), Ok(Task::End(End::JumpNowhere)));
    }

    #[test]
    fn costs_are_measured_alone() {
        assert_eq!(Task::parse("bench"), Ok(Task::Bench));
        assert_eq!(Task::parse("bench jump-nowhere"), Err(BadOption("jump-nowhere")));
        assert_eq!(Task::parse("jump-nowhere bench"), Err(BadOption("bench")));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(Task::parse("tripel-fault"), Err(BadOption("tripel-fault")));
        assert_eq!(Task::parse("jump-nowhere read-nowhere"), Err(BadOption("read-nowhere")));
        assert_eq!(Task::parse("jump-nowhere a/b"), Err(BadOption("a/b")));
    }
}
