//! Why an image cannot be started.

/// What the loader handed over and cannot be worked with. None of them can be repaired here: the machine stops with
/// the message on COM1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// `hvm_start_info` does not begin with its magic number.
    Magic,
    /// A structure does not lie whole in the mapped physical memory, or a length in it is too small.
    Truncated,
    /// The loader gave no memory map.
    NoMemoryMap,
    /// The memory map has more entries than there is room for. Leaving some out could turn reserved memory into usable.
    MemoryMapTooLong,
    /// More modules than there is room for: memory of one left out would be handed out as usable.
    TooManyModules,
}

impl Error {
    /// One line for the serial port.
    #[cfg(target_os = "none")]
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Magic => "boot: hvm_start_info has a wrong magic number\n",
            Self::Truncated => "boot: the loader's information is cut off or lies above 4 GiB\n",
            Self::NoMemoryMap => "boot: the loader gave no memory map\n",
            Self::MemoryMapTooLong => "boot: the memory map has more than 256 entries\n",
            Self::TooManyModules => "boot: more than 32 modules\n",
        }
    }
}
