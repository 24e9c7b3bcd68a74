//! What the hardware that walks a table can do, where it is less than the format.

use crate::Format;
use addr::PageSize;

/// What the hardware that walks a table can do. Whatever is beyond it is refused when it is to be mapped: in use it
/// would be a fault, or, where hardware ignores what it does not know, a right that nobody meant to give.
///
/// ```
/// use paging::{Limits, SecondStage};
/// use addr::PageSize;
///
/// // A unit with CAP.SAGAW = 0b00110 (3 and 4 levels), CAP.MGAW = 47 (48 bits), 1 GiB pages, a host address width of
/// // 39 bits, no snoop control (ECAP.SC = 0) and no zero-length reads (CAP.ZLR = 0).
/// let levels = SecondStage::levels(0b00110, 48).unwrap();
/// let limits = Limits::new(levels, PageSize::Size1G)
///     .with_input_bits(48)
///     .with_host_bits(39)
///     .without(SecondStage::SNOOP)
///     .without_write_only();
/// # assert_eq!(levels, 4);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub(crate) levels: u8,
    pub(crate) largest: PageSize,
    pub(crate) input_bits: u8,
    pub(crate) host_bits: u8,
    pub(crate) reserved: u64,
    pub(crate) write_only: bool,
}

impl Limits {
    /// Hardware that walks `levels` levels, has pages of `largest` size and all smaller ones, and everything else that
    /// the format can express.
    pub const fn new(levels: u8, largest: PageSize) -> Self {
        Self { levels, largest, input_bits: u8::MAX, host_bits: u8::MAX, reserved: 0, write_only: true }
    }

    /// Input addresses have `bits` bits at most, if that is fewer than the levels translate: CAP.MGAW + 1 of a
    /// remapping unit.
    pub const fn with_input_bits(self, bits: u8) -> Self {
        Self { input_bits: bits, ..self }
    }

    /// Host addresses have `bits` bits, if that is fewer than the 52 that an entry holds: MAXPHYADDR of a processor, the
    /// host address width (DMAR table) of a remapping unit. Bits above are reserved in entries.
    pub const fn with_host_bits(self, bits: u8) -> Self {
        Self { host_bits: bits, ..self }
    }

    /// Hardware reserves `bits` of a leaf, which the format otherwise has: [`SecondStage::SNOOP`] without ECAP.SC.
    ///
    /// [`SecondStage::SNOOP`]: crate::SecondStage::SNOOP
    pub const fn without(self, bits: u64) -> Self {
        Self { reserved: self.reserved | bits, ..self }
    }

    /// Pages that can be written and not read are refused. A unit with CAP.ZLR = 0 blocks the zero-length reads by
    /// which a device finds out that its writes have arrived, where a page cannot be read.
    pub const fn without_write_only(self) -> Self {
        Self { write_only: false, ..self }
    }

    /// The number of bits of the input addresses that a table in the format `F` translates within these limits.
    pub(crate) fn width<F: Format>(&self) -> u32 {
        F::input_bits(self.levels).min(u32::from(self.input_bits))
    }

    /// The number of bits of the host addresses that an entry holds within these limits.
    pub(crate) fn host_width(&self) -> u32 {
        u32::from(self.host_bits).min(52)
    }
}
