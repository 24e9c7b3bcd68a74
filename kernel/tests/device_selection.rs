//! Which devices a guest may be given, and what its owner is told where one may not.

use addr::{Bdf, PciAddress};
use config::Device;
use dmar::Dmar;
use pci::{Class, DevicePortType, FunctionInfo, HeaderType};
use postern::passthrough::selection::{check, resolve};

fn at(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress { segment: 0, bdf: Bdf::new(bus, device, function).unwrap() }
}

fn function(address: PciAddress, device_id: u16) -> FunctionInfo {
    FunctionInfo {
        address,
        vendor_id: 0x8086,
        device_id,
        class: Class { base: 2, sub: 0, interface: 0 },
        header_type: HeaderType::Endpoint,
        multi_function: false,
        port_type: Some(DevicePortType::Endpoint),
        isolated_from_peers: false,
    }
}

/// Two network cards of one kind on the root bus, and three devices behind a bridge to conventional PCI.
fn machine() -> Vec<FunctionInfo> {
    let bridge = FunctionInfo {
        header_type: HeaderType::Bridge { secondary: 1, subordinate: 1 },
        port_type: Some(DevicePortType::ExpressToPciBridge),
        ..function(at(0, 5, 0), 0x244e)
    };
    let conventional = |device, id| FunctionInfo { port_type: None, ..function(at(1, device, 0), id) };
    vec![
        function(at(0, 3, 0), 0x10d3),
        function(at(0, 4, 0), 0x10d3),
        bridge,
        conventional(0, 0x11e8),
        conventional(1, 0x100e),
        conventional(2, 0x100f),
    ]
}

/// The devices of a configuration that names these, the first in line 7.
fn devices(names: &[&str]) -> Vec<Device> {
    let list: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let text =
        format!("\n[[guest]]\nname = \"a\"\nkernel = \"a\"\nmemory_mib = 2\ndevices = [\n{}]\n", list.join(",\n"));
    config::parse(&text).unwrap().guests.remove(0).devices
}

/// A DMAR table with one unit for all devices, and `structures`.
fn table(structures: &[u8]) -> Vec<u8> {
    let mut bytes = b"DMAR".to_vec();
    bytes.extend_from_slice(&(64 + structures.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[1, 0]);
    bytes.resize(36, b' ');
    bytes.extend_from_slice(&[47, 1]);
    bytes.resize(48, 0);
    bytes.extend_from_slice(&[0, 0, 16, 0, 1, 0, 0, 0]);
    bytes.extend_from_slice(&0xfed9_0000u64.to_le_bytes());
    bytes.extend_from_slice(structures);
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = bytes[9].wrapping_sub(sum);
    bytes
}

#[test]
fn ids_mean_what_nobody_names_by_address() {
    let machine = machine();
    let chosen = |names: &[&str], taken: &[PciAddress]| resolve(&devices(names), &machine, taken);
    assert_eq!(chosen(&["8086:10d3", "8086:10d3"], &[]), Ok(vec![at(0, 3, 0), at(0, 4, 0)]));
    assert_eq!(chosen(&["8086:10d3", "00:03.0"], &[]), Ok(vec![at(0, 4, 0), at(0, 3, 0)]));
    assert_eq!(chosen(&["8086:10d3"], &[at(0, 3, 0)]), Ok(vec![at(0, 4, 0)]));
    let given = "device 8086:10d3 is given out already; this machine has 2";
    assert_eq!(chosen(&["8086:10d3", "00:03.0", "00:04.0"], &[]), Err(format!("line 7: {given}")));
    assert_eq!(chosen(&["8086:10d3", "8086:10d3", "8086:10d3"], &[]), Err(format!("line 9: {given}")));
    let address = "line 7: device 0000:00:03.0 is given out already; this machine has 1";
    assert_eq!(chosen(&["00:03.0"], &[at(0, 3, 0)]), Err(address.to_string()));
}

#[test]
fn a_device_that_is_not_there_is_told_with_what_is() {
    let there = "0000:00:03.0 (8086:10d3) 0000:00:04.0 (8086:10d3) 0000:01:00.0 (8086:11e8) 0000:01:01.0 (8086:100e) \
                 0000:01:02.0 (8086:100f)";
    for (name, meant) in [
        ("8086:10d4", "8086:10d4; did you mean \"8086:10d3\"?"),
        ("00:03.1", "0000:00:03.1; did you mean \"0000:00:03.0\"?"),
        ("1af4:ffff", "1af4:ffff"),
    ] {
        let error = resolve(&devices(&["00:03.0", name]), &machine(), &[]).unwrap_err();
        assert_eq!(error, format!("line 8: this machine has no device {meant}; it has {there}"));
    }
    let crowd: Vec<FunctionInfo> = (0..30).map(|device| function(at(2, device, 0), 1)).collect();
    let error = resolve(&devices(&["1af4:1041"]), &crowd, &[]).unwrap_err();
    assert!(error.ends_with("0000:02:0f.0 (8086:0001) ..."), "{error}");
    assert_eq!(
        resolve(&devices(&["1af4:1041"]), &[], &[]),
        Err("line 7: this machine has no device 1af4:1041; it has none".to_string())
    );
}

#[test]
fn a_group_goes_as_a_whole_or_not_at_all() {
    let machine = machine();
    let bytes = table(&[]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(check(at(0, 3, 0), &[at(0, 3, 0)], &machine, &dmar), Ok(()));
    let error = check(at(1, 1, 0), &[at(1, 1, 0)], &machine, &dmar).unwrap_err();
    assert_eq!(
        error,
        "it cannot be told apart from 0000:01:00.0 and 0000:01:02.0, which the guest does not get: give it all of them \
         or none"
    );
    let group = [at(1, 0, 0), at(1, 1, 0), at(1, 2, 0)];
    assert_eq!(check(at(1, 1, 0), &group, &machine, &dmar), Ok(()));
    let error = check(at(0, 5, 0), &[at(0, 5, 0)], &machine, &dmar).unwrap_err();
    assert!(error.contains("it is a bridge"), "{error}");
}

#[test]
fn firmware_keeps_what_it_uses() {
    let machine = machine();
    let mut region = vec![1, 0, 32, 0, 0, 0, 0, 0];
    region.extend_from_slice(&0x7b80_0000u64.to_le_bytes());
    region.extend_from_slice(&0x7bff_ffffu64.to_le_bytes());
    region.extend_from_slice(&[1, 8, 0, 0, 0, 0, 3, 0]);
    let bytes = table(&region);
    let dmar = Dmar::parse(&bytes).unwrap();
    let error = check(at(0, 3, 0), &[at(0, 3, 0)], &machine, &dmar).unwrap_err();
    assert_eq!(error, "firmware uses it through reserved memory at 0x7b800000 to 0x7bffffff");
    assert_eq!(check(at(0, 4, 0), &[at(0, 4, 0)], &machine, &dmar), Ok(()));
}
