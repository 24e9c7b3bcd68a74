//! The ACPI tables of a guest's platform: hardware-reduced, so that nothing of a PC is promised that is not there.
//!
//! The tables are in the guest's ROM; the root pointer is where `memory_map::ACPI_TABLES` begins, at a multiple of 16
//! below 1 MiB, where every kernel looks.

use crate::vm::memory::{GuestMemoryAccess, OutOfRange};
use crate::vm::memory_map::{ACPI_TABLES, IO_APIC, LOCAL_APIC};
use crate::vm::pci::address_space::{ECAM, ECAM_BYTES, HIGH_WINDOW, HIGH_WINDOW_BITS, LOW_WINDOW};
use crate::vm::serial;
use acpi_tables::aml::{self, Path};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use alloc::vec;
use alloc::vec::Vec;

/// SLEEP_CONTROL_REG (ACPI 4.8.3.7), an I/O port: SLP_TYP in bits 4:2, SLP_EN in bit 5.
pub const SLEEP_CONTROL: u16 = 0x608;
/// SLEEP_STATUS_REG, an I/O port.
const SLEEP_STATUS: u16 = 0x609;
/// What `\_S5` says for SLP_TYP.
const SLEEP_TYPE_OFF: u8 = 5;
/// What is written to [`SLEEP_CONTROL`] to switch off.
pub const SLEEP_OFF: u8 = SLEEP_TYPE_OFF << 2 | 1 << 5;
/// RESET_REG (ACPI 4.8.3.6), an I/O port: that of every PC's chipset.
pub const RESET_CONTROL: u16 = 0xcf9;
/// What is written to it: full reset.
pub const RESET: u8 = 0x06;
/// The I/O APIC's id: behind those of all processors that a guest may have.
pub const IO_APIC_ID: u8 = 0xf0;

const OEM_ID: [u8; 6] = *b"POSTRN";
const OEM_TABLE_ID: [u8; 8] = *b"POSTERN ";
const OEM_REVISION: u32 = 1;
/// IAPC_BOOT_ARCH: no VGA, and no CMOS clock. (No legacy devices and no 8042 are two bits that are clear.)
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;

/// The end of a list that is written from its beginning.
struct Writer {
    bytes: Vec<u8>,
}

impl AmlSink for Writer {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn vec(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Writer {
    /// Appends a table at a multiple of 16. Returns its address.
    fn put(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = ACPI_TABLES.start.as_u64() + self.bytes.len() as u64;
        table.to_aml_bytes(self);
        address
    }
}

/// Writes the tables for a guest with one processor, whose addresses have `physical_address_bits` bits.
pub fn write(memory: &mut impl GuestMemoryAccess, physical_address_bits: u8) -> Result<(), OutOfRange> {
    // The root pointer, which says where the last table is, comes first.
    let mut tables = Writer { bytes: vec![0; Rsdp::len()] };
    let dsdt = tables.put(&dsdt(physical_address_bits));
    let fadt = tables.put(&fadt(dsdt));
    let madt = tables.put(&madt());
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM.as_u64(), 0, 0, 0);
    let mcfg = tables.put(&mcfg);
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = tables.put(&xsdt);
    let mut root = Writer { bytes: Vec::new() };
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut root);
    if ACPI_TABLES.start.as_u64() + tables.bytes.len() as u64 > ACPI_TABLES.end.as_u64() {
        return Err(OutOfRange(ACPI_TABLES.end));
    }
    memory.write(ACPI_TABLES.start, &tables.bytes)?;
    memory.write(ACPI_TABLES.start, &root.bytes)
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless)
        .dsdt_64(dsdt);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    (fadt.reset_reg, fadt.reset_value) = (port(RESET_CONTROL), RESET);
    (fadt.sleep_control_reg, fadt.sleep_status_reg) = (port(SLEEP_CONTROL), port(SLEEP_STATUS));
    fadt.finalize()
}

fn madt() -> impl Aml {
    let address = LocalInterruptController::Address(LOCAL_APIC.as_u64() as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    madt.add_structure(ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled));
    madt.add_structure(IoApic::new(IO_APIC_ID, IO_APIC.as_u64() as u32, 0));
    madt
}

fn dsdt(physical_address_bits: u8) -> impl Aml {
    let mut body = Writer { bytes: Vec::new() };
    let name = |text: &str| Path::new(text);

    let host_bridge = aml::EISAName::new("PNP0A08");
    let compatible = aml::EISAName::new("PNP0A03");
    let buses = aml::AddressSpace::new_bus_number(0u16, 0u16);
    let configuration_ports = aml::IO::new(0xcf8, 0xcf8, 1, 8);
    let ports = [aml::AddressSpace::new_io(0u16, 0xcf7, None), aml::AddressSpace::new_io(0xd00u16, 0xffff, None)];
    let cacheable = aml::AddressSpaceCacheable::NotCacheable;
    let (first, last) = (LOW_WINDOW.start as u32, (LOW_WINDOW.end - 1) as u32);
    let low_window = aml::AddressSpace::new_memory(cacheable, true, first, last, None);
    let high_window = aml::AddressSpace::new_memory(cacheable, true, HIGH_WINDOW.start, HIGH_WINDOW.end - 1, None);
    let mut resources: Vec<&dyn Aml> = vec![&buses, &configuration_ports, &ports[0], &ports[1], &low_window];
    if physical_address_bits >= HIGH_WINDOW_BITS {
        resources.push(&high_window);
    }
    let resources = aml::ResourceTemplate::new(resources);
    // What the kernel asks to control of PCI Express it gets: nobody else does.
    let grant = aml::Return::new(&aml::Arg(3));
    let bridge = aml::Device::new(
        name("PCI0"),
        vec![
            &aml::Name::new(name("_HID"), &host_bridge),
            &aml::Name::new(name("_CID"), &compatible),
            &aml::Name::new(name("_UID"), &aml::ZERO),
            &aml::Name::new(name("_SEG"), &aml::ZERO),
            &aml::Name::new(name("_BBN"), &aml::ZERO),
            &aml::Name::new(name("_CRS"), &resources),
            &aml::Method::new(name("_OSC"), 4, false, vec![&grant]),
        ],
    )
    .to_bytes();

    // Configuration space, which Linux takes for granted only where it is said to be nobody else's.
    let board = aml::EISAName::new("PNP0C02");
    let ecam = aml::Memory32Fixed::new(false, ECAM.as_u64() as u32, ECAM_BYTES as u32);
    let board_resources = aml::ResourceTemplate::new(vec![&ecam]);
    let board = aml::Device::new(
        name("MBRD"),
        vec![&aml::Name::new(name("_HID"), &board), &aml::Name::new(name("_CRS"), &board_resources)],
    )
    .to_bytes();

    let uart = aml::EISAName::new("PNP0501");
    let uart_ports = aml::IO::new(serial::FIRST_PORT, serial::FIRST_PORT, 1, serial::PORTS as u8);
    let uart_line = aml::Interrupt::new(true, true, false, false, serial::LINE.into());
    let uart_resources = aml::ResourceTemplate::new(vec![&uart_ports, &uart_line]);
    let uart = aml::Device::new(
        name("COM1"),
        vec![
            &aml::Name::new(name("_HID"), &uart),
            &aml::Name::new(name("_UID"), &aml::ONE),
            &aml::Name::new(name("_CRS"), &uart_resources),
        ],
    )
    .to_bytes();

    for device in [bridge, board, uart] {
        body.vec(&aml::Scope::raw(name("\\_SB_"), device));
    }
    let off = aml::Package::new(vec![&SLEEP_TYPE_OFF, &SLEEP_TYPE_OFF, &aml::ZERO, &aml::ZERO]);
    aml::Name::new(name("\\_S5_"), &off).to_aml_bytes(&mut body);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body.bytes);
    table
}

/// The bytes of an AML term.
trait ToBytes {
    fn to_bytes(&self) -> Vec<u8>;
}

impl<T: Aml> ToBytes for T {
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer { bytes: Vec::new() };
        self.to_aml_bytes(&mut writer);
        writer.bytes
    }
}
