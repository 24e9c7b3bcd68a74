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
//! Both sides write one word and then read another, so release and acquire do not suffice: each could read the value
//! from before the other's write. All operations are sequentially consistent; on x86-64 the read-modify-writes are
//! locked instructions anyway, and cost the same.

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

/// One virtual processor's posted-interrupt descriptor: 64 bytes, 64-byte aligned, shared with hardware.
#[repr(C, align(64))]
#[derive(Debug, Default)]
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

impl PostedInterruptDescriptor {
    /// An empty descriptor whose notifications are suppressed: it has no destination yet.
    pub const fn new() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; 4],
            control: AtomicU64::new(SUPPRESS),
            unused: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Posts a vector as hardware does (section 5.2.5). True: the caller must send the notification that
    /// [`Self::notification`] names. False: one is under way, or notifications are suppressed and whoever ends that
    /// looks at [`Self::has_pending`].
    #[must_use = "a notification that is not sent is a lost wake-up"]
    pub fn post(&self, vector: Vector) -> bool {
        self.set_request(vector);
        self.claim_notification()
    }

    /// First half of a post.
    pub(crate) fn set_request(&self, vector: Vector) {
        if let Some(word) = self.requests.get(usize::from(vector.0 / 64)) {
            word.fetch_or(1 << (vector.0 % 64), SeqCst);
        }
    }

    /// Second half of a post: sets ON where neither ON nor SN is set. One compare-exchange, for SN must not be set
    /// between the look and the store.
    pub(crate) fn claim_notification(&self) -> bool {
        self.control
            .fetch_update(SeqCst, SeqCst, |control| {
                (control & (OUTSTANDING | SUPPRESS) == 0).then_some(control | OUTSTANDING)
            })
            .is_ok()
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
    pub(crate) fn clear_outstanding(&self) {
        self.control.fetch_and(!OUTSTANDING, SeqCst);
    }

    /// Second half of a take.
    pub(crate) fn take_requests(&self) -> [u64; 4] {
        core::array::from_fn(|i| self.requests.get(i).map_or(0, |word| word.swap(0, SeqCst)))
    }

    /// Whether any vector is requested. Ask after ending suppression and before letting the virtual processor halt.
    pub fn has_pending(&self) -> bool {
        self.requests.iter().any(|word| word.load(SeqCst) != 0)
    }

    /// ON: whether a notification is outstanding.
    pub fn is_outstanding(&self) -> bool {
        self.control.load(SeqCst) & OUTSTANDING != 0
    }

    /// SN: whether notifications are suppressed.
    pub fn is_suppressed(&self) -> bool {
        self.control.load(SeqCst) & SUPPRESS != 0
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
        let Some(field) = mode.field(destination) else { return false };
        let target = u64::from(vector.0) << 16 | u64::from(field) << 32;
        self.control
            .fetch_update(SeqCst, SeqCst, |control| {
                Some(control & !(NOTIFICATION_VECTOR | NOTIFICATION_DESTINATION) | target)
            })
            .is_ok()
    }

    /// NV and NDST: the vector, and the destination field in the form of the mode that it was directed with.
    pub fn notification(&self) -> (Vector, u32) {
        let control = self.control.load(SeqCst);
        (Vector((control >> 16) as u8), (control >> 32) as u32)
    }
}
