//! A kernel that uses the driver: a unit that the DMAR table names, a device that moves between two guests, its interrupts and
//! faults, and the end; then the unit in scalable mode, where one interface of a device goes to a guest of its own.
//!
//! ```sh
//! cargo run -p vtd --example kernel
//! ```

// As it stands in the documentation, where each line counts.
#[rustfmt::skip]
mod glue;

use addr::{ApicId, Bdf, DomainId, HostPhys, Iova, PciAddress, Vector};
use dmar::Dmar;
use glue::{Frames, Time, Window};
use model::{Access, Machine, Request};
use paging::{PageTable, Permissions, SecondStage};
use std::error::Error;
use vtd::{
    Batch, Configuration, DestinationMode, FaultInterrupt, FaultRecord, Levels, Pasid, Platform, Route, Translation,
    Trigger, Unit,
};

/// The network card.
const CARD: Bdf = Bdf::from_u16(0x0200);

/// A DMAR table as firmware makes it: one unit, for every PCI device; host addresses of 39 bits.
fn firmware_table() -> Vec<u8> {
    let mut table = Vec::from(*b"DMAR\x40\0\0\0\x01\0OEMID OEMTABLE\0\0\0\0TEST\0\0\0\0\x26\x01");
    table.resize(48, 0);
    table.extend(*b"\0\0\x10\0\x01\0\0\0\0\0\xd9\xfe\0\0\0\0");
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    table
}

/// What the devices of one guest reach.
struct Guest {
    domain: DomainId,
    levels: Levels,
    table: PageTable<SecondStage>,
}

/// The kernel: one unit, and the memory for its tables and the guests'.
struct Kernel {
    unit: Unit<Window, Time>,
    memory: Frames,
    host_address_width: u16,
}

impl Kernel {
    /// Finds the unit of the card and brings it up. Nothing is on in it when this begins, or what is on is taken over.
    fn start(machine: &Machine, table: &[u8], scalable: bool) -> Result<Self, Box<dyn Error>> {
        let dmar = Dmar::parse(table)?;
        // No bridges here; a kernel reads their bus numbers from configuration space.
        let bridges = |_: PciAddress| None;
        let card = PciAddress { segment: 0, bdf: CARD };
        let drhd = dmar.unit_for(card, &bridges).map_err(|error| error.to_string())?;
        println!("{card}: unit at {}, {} bytes of registers", drhd.register_base, drhd.register_size);

        let mut unit = Unit::probe(Window::new(machine), Time::new(machine))?;
        let mut memory = Frames::new(machine);
        if scalable {
            unit.use_scalable_mode(Pasid::ZERO)?;
        }
        let destination_mode = match unit.capabilities().extended_interrupt_mode() && !dmar.x2apic_opt_out() {
            true => DestinationMode::X2Apic,
            false => DestinationMode::XApic,
        };
        let configuration = Configuration {
            interrupt_entries: dmar.interrupt_remapping().then_some(256),
            destination_mode,
            fault_interrupt: Some(FaultInterrupt { vector: Vector(0x31), destination: ApicId(0) }),
            handover: unit.suggest_handover(scalable, destination_mode),
            platform: Platform { dma_control_opt_in: dmar.dma_control_opt_in(), x2apic_opt_out: dmar.x2apic_opt_out() },
        };
        unit.bring_up(&mut memory, &configuration)?;
        Ok(Self { unit, memory, host_address_width: dmar.host_address_width() })
    }

    /// A guest without memory.
    fn guest(&mut self, domain: u16) -> Result<Guest, Box<dyn Error>> {
        let capabilities = self.unit.capabilities();
        let levels = capabilities.second_stage_levels().ok_or("no second stage")?;
        let limits = capabilities.second_stage_limits(levels, self.host_address_width);
        let table = PageTable::with_limits(limits, &mut self.memory)?;
        Ok(Guest { domain: DomainId(domain), levels, table })
    }

    fn map(&mut self, guest: &mut Guest, iova: u64, host: u64, len: u64) -> Result<(), Box<dyn Error>> {
        let capabilities = self.unit.capabilities();
        let permissions = capabilities.device_permissions(Permissions::READ_WRITE);
        let attributes = capabilities.second_stage_attributes();
        let (iova, host) = (Iova::new(iova), HostPhys::new(host));
        let flush = guest.table.map(&mut self.memory, iova, host, len, permissions, attributes)?;
        Ok(self.unit.finish(&mut self.memory, guest.domain, flush)?)
    }

    fn assign(&mut self, guest: &Guest) -> Result<(), vtd::Error> {
        self.unit.assign(&mut self.memory, CARD, guest.domain, guest.table.root(), guest.levels)
    }

    /// Takes a guest's tables down. No device has them any more.
    fn end(&mut self, guest: Guest) -> Result<(), vtd::Error> {
        let flush = guest.table.destroy(&mut self.memory);
        self.unit.finish(&mut self.memory, guest.domain, flush)
    }

    fn faults(&mut self) -> Vec<FaultRecord> {
        let mut faults = Vec::new();
        while self.unit.drain_faults(|fault| faults.push(fault)).more {}
        faults
    }
}

fn legacy_mode(table: &[u8]) -> Result<(), Box<dyn Error>> {
    let machine = Machine::with_unit(16 << 20, model::Configuration::default());
    let mut kernel = Kernel::start(&machine, table, false)?;
    let reaches = |iova| machine.dma(0, CARD.as_u16(), iova, 4, Access::Write).is_ok();

    // The first guest has the card, and gets more memory while it has.
    let mut first = kernel.guest(1)?;
    kernel.map(&mut first, 0, 0x40_0000, 0x20_0000)?;
    kernel.assign(&first)?;
    kernel.map(&mut first, 0x20_0000, 0x80_0000, 0x1000)?;
    assert!(reaches(0x1f_f000) && reaches(0x20_0000) && !reaches(0x20_1000));
    for fault in kernel.faults() {
        println!("{fault}");
    }

    // Its interrupt: what is written into the card's MSI capability, and where it arrives.
    let Kernel { unit, memory, .. } = &mut kernel;
    let block = unit.allocate_interrupts(memory, 1)?;
    let handle = block.get(0).ok_or("a block of one has a first")?;
    let route = Route { vector: Vector(0x41), destination: ApicId(2), trigger: Trigger::Edge, source: CARD };
    unit.route_interrupt(memory, handle, &route)?;
    let message = handle.message();
    println!("{message:x?} becomes {:?}", machine.interrupt(0, CARD.as_u16(), message.address, message.data));

    // It moves. Between the two it reaches nothing, and after the call nothing of the first.
    let mut second = kernel.guest(2)?;
    kernel.map(&mut second, 0x5000, 0xa0_0000, 0x1000)?;
    kernel.assign(&second)?;
    assert!(reaches(0x5000) && !reaches(0x1000));

    // Pages of both guests are taken back, with one wait for all.
    let mut batch = Batch::new();
    let flushes = [
        (first.domain, first.table.unmap(&mut kernel.memory, Iova::new(0x8000), 0x2000)?),
        (second.domain, second.table.unmap(&mut kernel.memory, Iova::new(0x5000), 0x1000)?),
    ];
    for (domain, flush) in &flushes {
        flush.invalidation().iter().for_each(|change| batch.add(*domain, change));
    }
    let submitted = kernel.unit.submit_batch(&mut kernel.memory, batch)?;
    let proof = kernel.unit.complete_batch(&mut kernel.memory, submitted)?;
    for (_, flush) in flushes {
        flush.complete(&proof, &mut kernel.memory).map_err(|_| "the proof is of another change")?;
    }
    assert!(!reaches(0x5000));

    // The end.
    kernel.unit.free_interrupts(&mut kernel.memory, block)?;
    kernel.unit.clear(&mut kernel.memory, CARD)?;
    kernel.end(first)?;
    kernel.end(second)?;
    kernel.unit.shut_down(&mut kernel.memory)?;
    assert_eq!(machine.violations(0), []);
    Ok(())
}

fn scalable_mode(table: &[u8]) -> Result<(), Box<dyn Error>> {
    let machine = Machine::with_unit(16 << 20, model::Configuration::scalable());
    let mut kernel = Kernel::start(&machine, table, true)?;
    let reaches = |pasid, iova| {
        machine.request(0, &Request { pasid, ..Request::new(CARD.as_u16(), Access::Write) }, iova, 4).is_ok()
    };

    // The card itself is the first guest's, and the interface with PASID 0x41 the second's.
    let (mut first, mut second) = (kernel.guest(1)?, kernel.guest(2)?);
    kernel.map(&mut first, 0x1000, 0x40_0000, 0x1000)?;
    kernel.map(&mut second, 0x2000, 0x80_0000, 0x1000)?;
    kernel.assign(&first)?;
    let pasid = Pasid::new(0x41);
    let translation = Translation::SecondStage { table: second.table.root(), levels: second.levels };
    kernel.unit.attach(&mut kernel.memory, CARD, pasid, second.domain, translation)?;
    assert!(reaches(None, 0x1000) && !reaches(None, 0x2000));
    assert!(reaches(Some(0x41), 0x2000) && !reaches(Some(0x41), 0x1000));
    for fault in kernel.faults() {
        println!("{fault}");
    }

    kernel.unit.detach(&mut kernel.memory, CARD, pasid)?;
    assert!(reaches(None, 0x1000) && !reaches(Some(0x41), 0x2000));
    kernel.unit.clear(&mut kernel.memory, CARD)?;
    kernel.end(first)?;
    kernel.end(second)?;
    kernel.unit.shut_down(&mut kernel.memory)?;
    assert_eq!(machine.violations(0), []);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let table = firmware_table();
    legacy_mode(&table)?;
    scalable_mode(&table)
}

#[test]
fn the_example_runs() {
    main().expect("nothing fails");
}
