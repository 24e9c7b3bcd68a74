//! Which functions can only be handed out together.

use crate::requester::bridge_above;
use crate::{DevicePortType, FunctionInfo};
use addr::PciAddress;

/// The leader of the isolation group of `function`, given all functions of its segment: two functions are in one group
/// exactly when they have the same leader. `None` where the function is not among them or the bridges above it make
/// no tree, and then it must not be assigned.
///
/// A group is all that may share a requester id, or reach each other without passing the remapping unit:
/// - everything below the topmost conventional bridge or bridge from PCI Express to PCI, with the bridge;
/// - everything below a switch with a downstream port whose Access Control Services are not on;
/// - a root port whose Access Control Services are not on, with all below it;
/// - the functions of one multi-function device, unless all have Access Control Services on.
///
/// Not there yet: switching Access Control Services on, lists of devices that are isolated without saying so
/// or say so and are not, virtual functions, and traffic between root ports inside the root complex, which no register
/// tells. Endpoints of the root bus in different slots count as apart.
pub fn isolation_group(functions: &[FunctionInfo], function: PciAddress) -> Option<PciAddress> {
    let mut current = functions.iter().find(|found| found.address == function)?;
    let mut leader = current.address;
    // Whether what was just left asks for everything below `current` to be one group.
    let mut joined_below = false;
    for _ in 0..256 {
        if joined_below || is_conventional_bridge(current) && current.address != function {
            leader = current.address;
        }
        joined_below = match current.port_type {
            Some(DevicePortType::DownstreamPort) => !current.isolated_from_peers,
            _ => false,
        };
        if current.port_type == Some(DevicePortType::RootPort) && !current.isolated_from_peers {
            leader = current.address;
        }
        if let Some(first) = first_of_joined_functions(functions, current) {
            leader = first;
        }
        let bus = current.address.bdf.bus();
        match bridge_above(functions, function.segment, bus).ok()? {
            Some(bridge) => current = bridge,
            None => return Some(leader),
        }
    }
    None
}

fn is_conventional_bridge(function: &FunctionInfo) -> bool {
    function.secondary_bus().is_some()
        && matches!(
            function.port_type,
            None | Some(DevicePortType::ExpressToPciBridge) | Some(DevicePortType::PciToExpressBridge)
        )
}

/// The lowest function of the device, if it has several and not all are isolated.
fn first_of_joined_functions(functions: &[FunctionInfo], one: &FunctionInfo) -> Option<PciAddress> {
    let same_device = |other: &&FunctionInfo| {
        let (a, b) = (one.address, other.address);
        a.segment == b.segment && a.bdf.bus() == b.bdf.bus() && a.bdf.device() == b.bdf.device()
    };
    let siblings = || functions.iter().filter(same_device);
    if siblings().count() < 2 || siblings().all(|sibling| sibling.isolated_from_peers) {
        return None;
    }
    siblings().map(|sibling| sibling.address).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Functions;
    use crate::fake::{Fake, at};
    use std::vec::Vec;

    fn group(config: &Fake, function: PciAddress) -> PciAddress {
        let functions: Vec<_> = Functions::new(config, 0, 0).collect();
        isolation_group(&functions, function).unwrap()
    }

    fn isolate(config: &mut Fake, function: PciAddress) {
        config.add(function).dword(0x100, 0x0001_000D).dword(0x104, 0x001D_001D);
    }

    #[test]
    fn endpoints_of_the_root_bus_are_apart() {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(1, 1, 0, 0).express(0);
        config.add(at(0, 4, 0)).header(1, 1, 0, 0);
        assert_eq!(group(&config, at(0, 3, 0)), at(0, 3, 0));
        assert_eq!(group(&config, at(0, 4, 0)), at(0, 4, 0));
    }

    #[test]
    fn everything_below_a_conventional_bridge_is_one_group_with_it() {
        let mut config = Fake::new();
        config.add(at(0, 1, 0)).header(1, 1, 0x06_0401, 1).buses(0, 2, 3);
        config.add(at(2, 1, 0)).header(1, 1, 0x06_0401, 1).buses(2, 3, 3);
        config.add(at(2, 2, 0)).header(1, 1, 0, 0);
        config.add(at(3, 1, 0)).header(1, 1, 0, 0);
        for member in [at(0, 1, 0), at(2, 1, 0), at(2, 2, 0), at(3, 1, 0)] {
            assert_eq!(group(&config, member), at(0, 1, 0), "{member}");
        }
    }

    #[test]
    fn functions_of_one_device_are_together_unless_all_are_isolated() {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(1, 1, 0, 0x80).express(0);
        config.add(at(0, 3, 1)).header(1, 1, 0, 0).express(0);
        isolate(&mut config, at(0, 3, 0));
        assert_eq!(group(&config, at(0, 3, 1)), at(0, 3, 0));
        isolate(&mut config, at(0, 3, 1));
        assert_eq!(group(&config, at(0, 3, 1)), at(0, 3, 1));
    }

    /// Root port, switch with two downstream ports, an endpoint below each.
    fn switch() -> Fake {
        let mut config = Fake::new();
        config.add(at(0, 1, 0)).header(1, 1, 0x06_0400, 1).buses(0, 1, 4).express(4);
        config.add(at(1, 0, 0)).header(1, 1, 0x06_0400, 1).buses(1, 2, 4).express(5);
        config.add(at(2, 0, 0)).header(1, 1, 0x06_0400, 1).buses(2, 3, 3).express(6);
        config.add(at(2, 1, 0)).header(1, 1, 0x06_0400, 1).buses(2, 4, 4).express(6);
        config.add(at(3, 0, 0)).header(1, 1, 0, 0).express(0);
        config.add(at(4, 0, 0)).header(1, 1, 0, 0).express(0);
        isolate(&mut config, at(0, 1, 0));
        config
    }

    #[test]
    fn a_switch_joins_what_is_below_unless_its_ports_isolate() {
        let mut config = switch();
        assert_eq!(group(&config, at(3, 0, 0)), at(1, 0, 0));
        assert_eq!(group(&config, at(4, 0, 0)), at(1, 0, 0));
        isolate(&mut config, at(2, 0, 0));
        isolate(&mut config, at(2, 1, 0));
        assert_eq!(group(&config, at(3, 0, 0)), at(3, 0, 0));
        assert_eq!(group(&config, at(4, 0, 0)), at(4, 0, 0));
    }

    #[test]
    fn a_root_port_that_does_not_isolate_is_in_the_group_of_its_device() {
        let mut config = switch();
        config.add(at(0, 1, 0)).dword(0x100, 0);
        assert_eq!(group(&config, at(3, 0, 0)), at(0, 1, 0));
        assert_eq!(group(&config, at(0, 1, 0)), at(0, 1, 0));
    }
}
