//! Finding the firmware's ACPI tables, with the acpi crate: the RSDP, the root table, signatures, checksums. What a
//! table contains is read by `firmware`, from bytes, for firmware is not always right.

#![expect(unsafe_code, reason = "reads firmware tables through the physical map")]

use crate::memory::{address_space, physical};
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiHandler, AcpiTable, AcpiTables, PhysicalMapping};
use addr::{HostPhys, PAGE_SIZE};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;

/// Longest table that is read, in bytes. Real ones of the kinds read here have at most a few KiB.
const MAXIMUM_TABLE: usize = 64 << 10;

#[repr(align(16))]
struct Empty([AtomicU8; PAGE_SIZE as usize]);
/// Stands for memory that is not there: without a signature it is no table. Never written: atomic so that it takes no place
/// in the image's file.
static EMPTY: Empty = Empty([const { AtomicU8::new(0) }; PAGE_SIZE as usize]);

#[derive(Clone)]
struct PhysicalMap;

impl AcpiHandler for PhysicalMap {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let start = physical::virtual_address(HostPhys::new(address as u64));
        let sound = size <= MAXIMUM_TABLE
            && (0..size as u64)
                .step_by(PAGE_SIZE as usize)
                .chain([size.saturating_sub(1) as u64])
                .all(|offset| address_space::is_mapped(start + offset));
        let pointer = if sound { start as *mut u8 } else { (&raw const EMPTY.0).cast_mut().cast() };
        let pointer = NonNull::new(pointer).unwrap_or(NonNull::dangling()).cast();
        // SAFETY: the pages were found mapped, or the region is the empty page, in which the acpi crate reads no
        // further than the header, whose signature fits nothing. The crate never writes.
        unsafe { PhysicalMapping::new(address, pointer, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $signature:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        pub struct $name(SdtHeader);

        // SAFETY: the type is the header, which every table begins with.
        unsafe impl AcpiTable for $name {
            const SIGNATURE: Signature = Signature::$signature;
            fn header(&self) -> &SdtHeader {
                &self.0
            }
        }
    )*};
}

tables! {
    /// DMA remapping reporting.
    Dmar = DMAR,
    /// Interrupt controllers.
    Madt = MADT,
    /// PCI Express configuration space.
    Mcfg = MCFG,
    /// Fixed hardware.
    Fadt = FADT,
}

/// The firmware's tables.
pub struct Tables(AcpiTables<PhysicalMap>);

impl Tables {
    /// Finds the tables: at `rsdp` if the loader named it, else where a BIOS puts it.
    pub fn find(rsdp: Option<u64>) -> Result<Self, acpi::AcpiError> {
        // SAFETY: whatever is at the address is validated by signature and checksum before it is used, and the
        // handler gives no access to memory that is not mapped.
        let tables = unsafe {
            match rsdp {
                Some(address) => AcpiTables::from_rsdp(PhysicalMap, address as usize),
                None => AcpiTables::search_for_rsdp_bios(PhysicalMap),
            }
        };
        tables.map(Self)
    }

    /// A copy of the table of type `T`, if there is a sound one. A copy, because memory that firmware wrote can be
    /// changed by a device's DMA between the check and the use.
    pub fn copy<T: AcpiTable>(&self) -> Option<Vec<u8>> {
        let mapping = self.0.find_table::<T>().ok()?;
        let length = mapping.region_length().min(MAXIMUM_TABLE);
        let mut bytes = alloc::vec![0; length];
        physical::read_bytes(HostPhys::new(mapping.physical_start() as u64), &mut bytes);
        Some(bytes)
    }
}
