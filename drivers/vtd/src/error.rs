//! What can fail, with what the hardware said.

use crate::spec::invalidation::Descriptor;
use crate::spec::pasid::Pasid;
use addr::{ApicId, Bdf, DomainId, GuestPhys, HostPhys, Vector};
use core::fmt;

/// The step of a command that hardware did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Turning off translation: what firmware left on, or the driver's own.
    StopTranslation,
    /// Turning off interrupt remapping.
    StopInterruptRemapping,
    /// Blocking the compatibility-format interrupts that firmware let pass.
    BlockCompatibilityFormat,
    /// Emptying the invalidation queue that is to be turned off.
    DrainQueue,
    /// Turning off the invalidation queue.
    StopQueue,
    /// Clearing the faults that firmware left.
    ClearFaults,
    /// Turning on the invalidation queue.
    EnableQueue,
    /// Setting the root table pointer.
    SetRootTable,
    /// Setting the interrupt remapping table pointer.
    SetInterruptTable,
    /// Turning on interrupt remapping.
    EnableInterruptRemapping,
    /// Turning on translation.
    EnableTranslation,
    /// Turning on the protected memory regions.
    ProtectMemory,
    /// Turning off the protected memory regions.
    DisableProtectedMemory,
    /// Flushing the write buffers (CAP.RWBF).
    FlushWriteBuffer,
    /// Programming the fault interrupt.
    EnableFaultInterrupt,
    /// Letting hardware report page requests.
    EnablePageRequests,
    /// Invalidating a cache.
    Invalidate,
    /// Setting up or changing an assignment of a device.
    Assign,
    /// Allocating or changing an interrupt entry.
    Route,
}

/// Why an invalidation did not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueError {
    /// The status word did not reach the awaited sequence number in time.
    Timeout {
        /// The sequence number that the wait descriptor was to write.
        expected: u32,
        /// The status word as last read.
        last: u32,
        /// FSTS_REG as last read.
        fault_status: u32,
        /// IQH_REG as last read.
        head: u64,
    },
    /// FSTS.IQE: hardware refused a descriptor and the one that says more in its place. A harmless one has taken its
    /// place and the queue goes on, but what it should have invalidated is still cached.
    Refused {
        /// Index of the descriptor in the queue.
        index: u16,
        /// The descriptor as it stood there.
        descriptor: Descriptor,
        /// IQERCD_REG as read: why (IQEI, bits 3:0), where the unit says.
        record: u64,
    },
    /// FSTS.ITE: a device did not answer an invalidation of its device-TLB. All else that was asked is done.
    DeviceTimeout {
        /// The device; `None` where invalidations time out again and again and no device is to be found.
        source: Option<Bdf>,
    },
    /// An invalidation by register was not done: it stays in progress (ICC, IVT), or the granularity that was performed
    /// reads 0 (CAIG, IAIG).
    NotPerformed {
        /// The specification's name of the register.
        register: &'static str,
        /// The register as last read.
        value: u64,
    },
    /// No room: hardware consumes nothing, or more was submitted than the queue holds.
    Full {
        /// IQH_REG as last read.
        head: u64,
        /// The driver's tail, as an index.
        tail: u16,
    },
    /// The queue has not been turned on.
    Off,
    /// IQH_REG names no descriptor of the queue.
    BadHead {
        /// IQH_REG as read.
        head: u64,
    },
}

/// Why the driver did not do what it was asked. Nothing is half done: what was not completed denies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The register reads as all ones: there is no unit, or it has gone.
    Absent {
        /// The specification's name of the register.
        register: &'static str,
    },
    /// The unit lacks something without which it is of no use.
    Unsupported {
        /// The capability that is missing, by the specification's name.
        capability: &'static str,
    },
    /// Hardware did not do as commanded in time.
    Timeout {
        /// What was being done.
        step: Step,
        /// The specification's name of the register that was polled.
        register: &'static str,
        /// The bits that were looked at.
        mask: u64,
        /// What they should have become.
        expected: u64,
        /// The whole register as last read.
        last: u64,
    },
    /// A step was asked for before one that it needs, or a second time.
    OutOfOrder {
        /// The step that was asked for.
        step: Step,
        /// What it needs.
        needs: &'static str,
    },
    /// Firmware asks for no moment without protection from DMA, and stopping the unit would be one.
    WindowRefused,
    /// Firmware asks for processors not to be in x2APIC mode.
    X2ApicOptOut,
    /// What was taken over is in another mode, and hardware cannot change while it is on; stop the unit instead.
    OtherTableMode {
        /// RTADDR_REG or IRTA_REG as read.
        in_force: u64,
    },
    /// No memory for a table.
    OutOfMemory(Step),
    /// The queue was found not empty right before it was turned on: IQH_REG as read.
    QueueHeadNotZero(u64),
    /// Compatibility-format interrupts pass although remapping is on (GSTS.CFIS): GSTS_REG as read.
    CompatibilityFormatNotBlocked(u32),
    /// An invalidation failed.
    Invalidation(QueueError),
    /// A device did not answer an invalidation of its device-TLB, or answered what was not asked. It has been isolated:
    /// it reaches nothing, and nothing of it is cached. All else that was asked is done; asking again says so.
    DeviceIsolated(Bdf),
    /// An earlier invalidation failed; stale translations may exist, and nothing new is assigned.
    Poisoned,
    /// The batch was given to another unit, or to this one before it was shut down: nothing is known of it here.
    OtherUnit,
    /// The domain id is 0 (reserved in caching mode) or not below CAP.ND.
    DomainOutOfRange(DomainId),
    /// The device's assignment cannot change by one store, as was asked.
    NotAtomic(Bdf),
    /// The unit keeps no list of more devices with device-TLBs.
    TooManyDeviceTlbs(Bdf),
    /// The PASID has more bits than the unit knows (ECAP.PSS), or is that of requests without PASID.
    PasidOutOfRange(Pasid),
    /// The root of a table is not a 4 KiB page below 2^52.
    BadTable(HostPhys),
    /// The root of a guest's first-stage table is not a page that its second stage can translate.
    BadFirstStageTable(GuestPhys),
    /// The unit has no tables of so many levels.
    LevelsUnsupported(u8),
    /// A root entry of the driver's does not read as it was written.
    CorruptTable(Bdf),
    /// The size of the interrupt remapping table is not a power of two from 256 to 65536.
    BadTableSize(usize),
    /// The number of interrupts of a block is not a power of two from 1 to 32 or no such block is free.
    NoInterruptEntries(usize),
    /// PQH_REG or PQT_REG names no place of the page request queue.
    BadPageRequestIndex {
        /// PQH_REG as read.
        head: u64,
        /// PQT_REG as read.
        tail: u64,
    },
    /// The handle is not one that was allocated.
    BadHandle(u16),
    /// The processor's id does not fit the destination mode, or is the broadcast.
    DestinationOutOfRange(ApicId),
    /// Vectors 0 to 15 cannot be delivered.
    BadVector(Vector),
    /// The posted-interrupt descriptor is not 64-byte aligned, or is beyond 2^52.
    BadDescriptor(HostPhys),
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        Error::Invalidation(error)
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { expected, last, fault_status, head } => write!(
                f,
                "wait not completed: status {last:#x}, expected {expected:#x}; FSTS_REG {fault_status:#x}, IQH_REG {head:#x}"
            ),
            Self::Refused { index, descriptor: Descriptor { low, high }, record } => {
                write!(f, "descriptor {index} refused (IQE): {low:#018x} {high:#018x}; IQERCD_REG {record:#x}")
            }
            Self::DeviceTimeout { source: Some(source) } => {
                write!(f, "the device-TLB of {source} did not answer (ITE)")
            }
            Self::DeviceTimeout { source: None } => write!(f, "device-TLB invalidations time out (ITE)"),
            Self::NotPerformed { register, value } => write!(f, "{register} {value:#x}: nothing was invalidated"),
            Self::Full { head, tail } => write!(f, "queue full: IQH_REG {head:#x}, tail index {tail}"),
            Self::Off => write!(f, "the queue is off"),
            Self::BadHead { head } => write!(f, "IQH_REG {head:#x} names no descriptor of the queue"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { register } => write!(f, "{register} reads all ones: no unit answers"),
            Self::Unsupported { capability } => write!(f, "the unit lacks {capability}"),
            Self::Timeout { step, register, mask, expected, last } => {
                write!(f, "{step:?}: {register} is {last:#x}, bits {mask:#x} should have become {expected:#x}")
            }
            Self::OutOfOrder { step, needs } => write!(f, "{step:?} needs {needs}"),
            Self::WindowRefused => write!(f, "firmware asks for no moment without protection from DMA"),
            Self::X2ApicOptOut => write!(f, "firmware asks for no x2APIC mode"),
            Self::OtherTableMode { in_force } => write!(f, "what is in force ({in_force:#x}) has another mode"),
            Self::OutOfMemory(step) => write!(f, "{step:?}: out of memory"),
            Self::QueueHeadNotZero(head) => write!(f, "IQH_REG is {head:#x} before the queue is on"),
            Self::CompatibilityFormatNotBlocked(status) => {
                write!(f, "compatibility-format interrupts pass: GSTS_REG {status:#x}")
            }
            Self::Invalidation(error) => write!(f, "invalidation failed: {error}"),
            Self::DeviceIsolated(source) => write!(f, "the device-TLB of {source} failed; the device is isolated"),
            Self::Poisoned => write!(f, "an earlier invalidation failed; the unit assigns nothing more"),
            Self::OtherUnit => write!(f, "the batch was given to another unit"),
            Self::DomainOutOfRange(domain) => write!(f, "domain id {domain} is out of range"),
            Self::NotAtomic(source) => write!(f, "the assignment of {source} cannot change by one store"),
            Self::TooManyDeviceTlbs(source) => write!(f, "no room for the device-TLB of {source}"),
            Self::PasidOutOfRange(pasid) => write!(f, "PASID {pasid} is out of range"),
            Self::BadTable(table) => write!(f, "{table} is no page table"),
            Self::BadFirstStageTable(table) => write!(f, "{table} is no first-stage table of a guest"),
            Self::LevelsUnsupported(levels) => write!(f, "no page tables of {levels} levels"),
            Self::CorruptTable(source) => write!(f, "the root entry of {source} is not the driver's"),
            Self::BadTableSize(entries) => write!(f, "an interrupt remapping table of {entries} entries is impossible"),
            Self::NoInterruptEntries(count) => write!(f, "no block of {count} interrupt entries"),
            Self::BadPageRequestIndex { head, tail } => {
                write!(f, "page requests: PQH_REG {head:#x}, PQT_REG {tail:#x}")
            }
            Self::BadHandle(handle) => write!(f, "interrupt entry {handle} is not allocated"),
            Self::DestinationOutOfRange(destination) => write!(f, "APIC id {destination} is no destination here"),
            Self::BadVector(vector) => write!(f, "vector {vector} cannot be delivered"),
            Self::BadDescriptor(address) => write!(f, "{address} is no posted-interrupt descriptor"),
        }
    }
}

impl core::error::Error for QueueError {}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Invalidation(error) => Some(error),
            _ => None,
        }
    }
}
