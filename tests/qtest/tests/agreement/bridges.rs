//! Source-ids: under which id a device behind a bridge reaches the unit, by DMA and by MSI. `drivers/pci` must say the same.

use crate::case::Case;
use addr::{ApicId, Bdf, PAGE_SIZE, PciAddress, Vector};
use paging::Permissions;
use pci::{FunctionInfo, Functions, requester_ids};
use qtest::ports::Ports;
use qtest::{Bench, Edu, Machine};
use vtd::{FaultKind, Route, Trigger};

const IOVA: u64 = 0x9000;

/// A machine with one edu, the one of whose bridges that matters, and the id that it must have: its own, or that of its
/// bus or bridge, by the number of the bus and the place on it.
struct Topology {
    name: &'static str,
    devices: &'static [&'static str],
    own: (u8, u8),
    seen: (u8, u8),
}

const TOPOLOGIES: [Topology; 6] = [
    Topology { name: "on the root bus", devices: &["edu,bus=pcie.0,addr=4"], own: (0, 4), seen: (0, 4) },
    Topology {
        name: "behind a root port",
        devices: &["pcie-root-port,id=rp,bus=pcie.0,addr=6,chassis=1", "edu,bus=rp,addr=0"],
        own: (1, 0),
        seen: (1, 0),
    },
    Topology {
        name: "behind a switch",
        devices: &[
            "pcie-root-port,id=rp,bus=pcie.0,addr=6,chassis=1",
            "x3130-upstream,id=up,bus=rp",
            "xio3130-downstream,id=down,bus=up,chassis=2",
            "edu,bus=down,addr=0",
        ],
        own: (3, 0),
        seen: (3, 0),
    },
    Topology {
        name: "behind a bridge to conventional PCI",
        devices: &["pcie-pci-bridge,id=bridge,bus=pcie.0,addr=7", "edu,bus=bridge,addr=3"],
        own: (1, 3),
        seen: (1, 0),
    },
    Topology {
        name: "behind a root port and a bridge to conventional PCI",
        devices: &[
            "pcie-root-port,id=rp,bus=pcie.0,addr=6,chassis=1",
            "pcie-pci-bridge,id=bridge,bus=rp",
            "edu,bus=bridge,addr=3",
        ],
        own: (2, 3),
        seen: (2, 0),
    },
    Topology {
        name: "behind a conventional bridge",
        devices: &["i82801b11-bridge,id=bridge,bus=pcie.0,addr=8", "edu,bus=bridge,addr=3"],
        own: (1, 3),
        seen: (0, 8),
    },
];

pub fn cases() -> Vec<Case> {
    let case = |topology: &'static Topology| {
        let devices = topology.devices.iter().map(|device| match device.strip_prefix("edu,") {
            Some(properties) => Edu::option(properties),
            None => device.to_string(),
        });
        let name = format!("source-ids: a device {}", topology.name);
        Case::new(name, "", |machine| seen_as(machine, topology)).devices(&devices.collect::<Vec<_>>())
    };
    const { &TOPOLOGIES }.iter().map(case).collect()
}

fn seen_as(machine: &Machine, topology: &Topology) {
    let bdf = |(bus, device)| Bdf::new(bus, device, 0).expect("a device number");
    let (own, seen) = (bdf(topology.own), bdf(topology.seen));
    let mut bench = Bench::new(machine);
    bench.edus = (0..=topology.own.0).flat_map(|bus| Edu::on(machine, bus)).collect();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    bench.edus.iter().for_each(|edu| edu.fill_buffer(page));
    bench.bring_up(&qtest::bench::CONFIGURATION);
    let edu = bench.edus[0].clone();
    assert_eq!(edu.bdf(), own);

    // What the PCI driver says of it.
    let functions: Vec<FunctionInfo> = Functions::new(&Ports(machine.clone()), 0, 0).collect();
    let ids = requester_ids(&functions, PciAddress { segment: 0, bdf: own }).expect("the bridges make a tree");
    assert_eq!(ids.upstream(), seen);
    assert!(ids.as_slice().contains(&own));

    dma(&mut bench, own, seen);
    interrupts(&mut bench, own, seen);
}

fn dma(bench: &mut Bench, own: Bdf, seen: Bdf) {
    let edu = bench.edus[0].clone();
    let page = bench.memory.take_pages(PAGE_SIZE, PAGE_SIZE);
    let refused = |bench: &mut Bench, reason| {
        let before = bench.at(page, 0);
        edu.write(addr::Iova::new(IOVA));
        assert_eq!(bench.at(page, 0), before);
        bench.expect_dma_fault(seen, FaultKind::Write, IOVA, reason);
    };
    refused(bench, 0x01);
    let mut space = bench.preferred_space();
    bench.map(&mut space, IOVA, page, PAGE_SIZE, Permissions::READ_WRITE);
    if own != seen {
        // What is given to another id does not help.
        bench.assign(own, &space);
        refused(bench, if own.bus() == seen.bus() { 0x02 } else { 0x01 });
        bench.clear(own);
    }
    bench.assign(seen, &space);
    bench.expect_write(0, IOVA, page);
    bench.clear(seen);
    refused(bench, 0x02);
}

fn interrupts(bench: &mut Bench, own: Bdf, seen: Bdf) {
    let edu = bench.edus[0].clone();
    let handle = bench.interrupts(1).get(0).expect("one");
    let message = handle.message();
    edu.program_msi(message.address, message.data as u16);
    let arrivals = |bench: &mut Bench, source| {
        let route = Route { vector: Vector(0x71), destination: ApicId(0), trigger: Trigger::Edge, source };
        bench.unit.route_interrupt(&mut bench.memory, handle, &route).expect("the entry is routed");
        bench.machine.events();
        edu.interrupt();
        let outcome = bench.outcome();
        // QEMU 7.2 drops it and records nothing.
        assert!(outcome.faults.iter().all(|fault| (fault.source, fault.reason.0) == (seen, 0x26)));
        outcome.events.interrupts()
    };
    assert_eq!(arrivals(bench, seen), [(0, 0x71)]);
    if own != seen {
        assert_eq!(arrivals(bench, own), []);
    }
    assert_eq!(arrivals(bench, Bdf::from_u16(seen.as_u16() ^ 1)), []);
    assert_eq!(arrivals(bench, seen), [(0, 0x71)]);
}
