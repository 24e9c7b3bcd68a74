//! The posted-interrupt descriptor (section 9.11; Intel SDM volume 3, "Posted-Interrupt Processing"): one virtual
//! processor's mailbox for interrupts.
//!
//! Three parties touch it at once: remapping hardware posts, the processor that runs the virtual one collects, and
//! software does both where the machine cannot. Whoever posts sets the vector's bit in PIR, *then* looks whether a
//! notification is outstanding (ON) or suppressed (SN), and notifies if neither. Whoever collects clears ON, *then*
//! takes PIR. A post that comes between the two finds ON clear and notifies again: a notification too many, never
//! one too few. The other way round, a post between taking PIR and clearing ON would see ON set, not notify, and its
//! bit would lie there until something else happens.
//!
//! Whoever ends suppression does so *then* looks at PIR, for what was posted before was not notified; whoever posts
//! sets PIR, *then* looks at SN: one of the two sees the other.
//!
//! Both sides write one word and then read another, so release and acquire do not suffice: each could read the value
//! from before the other's write. All operations are sequentially consistent; on x86-64 the read-modify-writes are
//! locked instructions anyway, and cost the same. A look at PIR is a plain load: it follows a locked instruction
//! on the control word, which no later load passes.
//!
//! ON, SN, NV and NDST are one word and change by compare-exchange of the whole word only, so a notification is claimed
//! (ON set) for exactly the vector and the destination that the claim read. Remapping hardware does all of a post in
//! one atomic access to the 64 bytes (section 5.2.3): a special case of the order above.

use crate::spec::interrupt::DestinationMode;
use addr::{ApicId, Vector};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// ON (bit 256 of the descriptor): a notification is outstanding.
const OUTSTANDING: u64 = 1 << 0;
/// SN (bit 257): do not notify, unless the entry is urgent.
const SUPPRESS: u64 = 1 << 1;
/// NV (bits 279:272): the vector of the notification.
const NOTIFICATION_VECTOR: u64 = 0xff << 16;
/// NDST (bits 319:288): the destination of the notification.
const NOTIFICATION_DESTINATION: u64 = 0xffff_ffff << 32;

/// A notification: an interrupt that tells a processor to look into the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Notification {
    /// NV.
    pub vector: Vector,
    /// NDST, in the form of [`DestinationMode::field`].
    pub destination: u32,
}

/// Bits 319:256 of a descriptor: ON, SN, NV and NDST, as they were or shall be at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Control(u64);

impl Control {
    /// Nothing outstanding, notifications suppressed, no destination yet.
    pub const SUPPRESSED: Self = Self(SUPPRESS);

    /// ON.
    pub const fn is_outstanding(self) -> bool {
        self.0 & OUTSTANDING != 0
    }

    /// SN.
    pub const fn is_suppressed(self) -> bool {
        self.0 & SUPPRESS != 0
    }

    /// NV and NDST.
    pub const fn notification(self) -> Notification {
        Notification { vector: Vector((self.0 >> 16) as u8), destination: (self.0 >> 32) as u32 }
    }

    /// With ON as it is said.
    pub const fn outstanding(self, outstanding: bool) -> Self {
        Self(self.0 & !OUTSTANDING | if outstanding { OUTSTANDING } else { 0 })
    }

    /// With SN as it is said.
    pub const fn suppressed(self, suppressed: bool) -> Self {
        Self(self.0 & !SUPPRESS | if suppressed { SUPPRESS } else { 0 })
    }

    /// With this NV and NDST.
    pub const fn directed(self, to: Notification) -> Self {
        let target = (to.vector.0 as u64) << 16 | (to.destination as u64) << 32;
        Self(self.0 & !(NOTIFICATION_VECTOR | NOTIFICATION_DESTINATION) | target)
    }

    /// What a post makes of it that has set its bit in PIR: `None` where it need not notify.
    pub const fn claimed(self) -> Option<Self> {
        if self.0 & (OUTSTANDING | SUPPRESS) == 0 { Some(self.outstanding(true)) } else { None }
    }
}

/// One virtual processor's posted-interrupt descriptor: 64 bytes, 64-byte aligned, shared with hardware.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct PostedInterruptDescriptor {
    /// PIR (bits 255:0): a bit for each requested vector.
    requests: [AtomicU64; 4],
    /// Bits 319:256: ON, SN, NV, NDST.
    control: AtomicU64,
    /// Bits 511:320: not used by hardware.
    unused: [AtomicU64; 3],
}

const _: () = assert!(size_of::<PostedInterruptDescriptor>() == 64);
const _: () = assert!(align_of::<PostedInterruptDescriptor>() == 64);

impl Default for PostedInterruptDescriptor {
    fn default() -> Self {
        Self::new()
    }
}

impl PostedInterruptDescriptor {
    /// An empty descriptor whose notifications are suppressed: it has no destination yet.
    ///
    /// ```
    /// use vtd::PostedInterruptDescriptor;
    /// assert!(PostedInterruptDescriptor::new().is_suppressed());
    /// assert!(PostedInterruptDescriptor::default().is_suppressed());
    /// ```
    pub const fn new() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; 4],
            control: AtomicU64::new(Control::SUPPRESSED.0),
            unused: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Posts a vector as hardware does (section 5.2.5). `Some`: the caller must send this notification. `None`: one is
    /// under way, or notifications are suppressed and whoever ends that looks at [`Self::has_pending`].
    #[must_use = "a notification that is not sent is a lost wake-up"]
    pub fn post(&self, vector: Vector) -> Option<Notification> {
        self.set_request(vector);
        self.claim_notification()
    }

    /// First half of a post: PIR.
    pub fn set_request(&self, vector: Vector) {
        if let Some(word) = self.requests.get(usize::from(vector.0 / 64)) {
            word.fetch_or(1 << (vector.0 % 64), SeqCst);
        }
    }

    /// Second half of a post: sets ON where neither ON nor SN is set, and says where the notification goes. One
    /// compare-exchange, for neither SN nor the destination must change between the look and the store.
    #[must_use = "a notification that is not sent is a lost wake-up"]
    pub fn claim_notification(&self) -> Option<Notification> {
        self.update_control(Control::claimed).ok().map(Control::notification)
    }

    /// Takes all requested vectors: bit `v % 64` of word `v / 64`. Call it for every notification and before the
    /// virtual processor runs.
    pub fn take(&self) -> [u64; 4] {
        self.take_with(|| ())
    }

    /// A take during which something happens between its halves; tests post there.
    pub(crate) fn take_with(&self, between: impl FnOnce()) -> [u64; 4] {
        self.clear_outstanding();
        between();
        self.take_requests()
    }

    /// First half of a take.
    pub fn clear_outstanding(&self) {
        self.control.fetch_and(!OUTSTANDING, SeqCst);
    }

    /// Second half of a take.
    pub(crate) fn take_requests(&self) -> [u64; 4] {
        core::array::from_fn(|index| self.take_word(index))
    }

    /// Takes the vectors 64 `index` to 64 `index` + 63 out of PIR; none for an index above 3. Only after
    /// [`Self::clear_outstanding`].
    pub fn take_word(&self, index: usize) -> u64 {
        let Some(word) = self.requests.get(index) else { return 0 };
        // Most words are empty, and a load is far cheaper than a locked exchange. What is posted after the load finds
        // ON clear, and notifies.
        if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) }
    }

    /// The vectors 64 `index` to 64 `index` + 63 in PIR, which stay there; none for an index above 3.
    pub fn word(&self, index: usize) -> u64 {
        self.requests.get(index).map_or(0, |word| word.load(SeqCst))
    }

    /// Whether any vector is requested. Ask after ending suppression and before letting the virtual processor halt.
    pub fn has_pending(&self) -> bool {
        (0..self.requests.len()).any(|index| self.word(index) != 0)
    }

    /// ON, SN, NV and NDST.
    pub fn control(&self) -> Control {
        Control(self.control.load(SeqCst))
    }

    /// Changes ON, SN, NV and NDST in one atomic step, and returns what they were. With `Err` nothing has changed, for
    /// `update` said `None`. It may be asked several times.
    pub fn update_control(&self, mut update: impl FnMut(Control) -> Option<Control>) -> Result<Control, Control> {
        self.control
            .fetch_update(SeqCst, SeqCst, |control| update(Control(control)).map(|control| control.0))
            .map(Control)
            .map_err(Control)
    }

    /// ON: whether a notification is outstanding.
    pub fn is_outstanding(&self) -> bool {
        self.control().is_outstanding()
    }

    /// SN: whether notifications are suppressed.
    pub fn is_suppressed(&self) -> bool {
        self.control().is_suppressed()
    }

    /// Suppresses notifications (while the virtual processor waits for a processor), or ends that. After ending it the
    /// caller must look at [`Self::has_pending`]: what was posted meanwhile was not notified.
    pub fn set_suppressed(&self, suppressed: bool) {
        if suppressed {
            self.control.fetch_or(SUPPRESS, SeqCst);
        } else {
            self.control.fetch_and(!SUPPRESS, SeqCst);
        }
    }

    /// Directs notifications: NV and NDST in one store, so that no notification has one of the old and one of the new.
    /// False, and nothing changed, when the destination does not fit the mode. A notification that is outstanding has
    /// gone or goes to the old destination.
    #[must_use = "on false, notifications go where they went"]
    pub fn direct(&self, vector: Vector, destination: ApicId, mode: DestinationMode) -> bool {
        let Some(destination) = mode.field(destination) else { return false };
        self.update_control(|control| Some(control.directed(Notification { vector, destination }))).is_ok()
    }

    /// NV and NDST: where a notification would go now.
    pub fn notification(&self) -> Notification {
        self.control().notification()
    }
}
