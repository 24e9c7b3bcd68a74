//! How far down a port reaches the functions of its device: alternative routing ids (ARI). PCI Express Base section 6.13.

use crate::spec::capability::{extended_id::ALTERNATIVE_ROUTING_ID, id};
use crate::spec::express::{ARI_FORWARDING, ARI_FORWARDING_SUPPORTED, DEVICE_CAPABILITIES_2, DEVICE_CONTROL_2};
use crate::{ConfigSpace, ExpressCapability, find_capability, find_extended_capability};
use addr::PciAddress;

/// Which functions of a device can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routing {
    /// Any that is on the bus: there is no port above.
    Bus,
    /// Those of device 0: the port above takes a device number for that of another device, which a link does not have.
    DeviceZero,
    /// All 256, by alternative routing ids.
    Alternative,
}

/// Lets the port `above`, right above `function`, reach all functions of its device if both can do that, and says what is
/// reached then. The functions of device 0 are reached in either way.
#[inline(never)]
pub fn open_routing(config: &mut dyn ConfigSpace, above: Option<PciAddress>, function: PciAddress) -> Routing {
    let Some(port) = above else { return Routing::Bus };
    let opened = find_extended_capability(config, function, ALTERNATIVE_ROUTING_ID)
        .and_then(|_| find_capability(config, port, id::PCI_EXPRESS))
        .map(|found| ExpressCapability::read(config, port, found.offset))
        .filter(|express| express.version() >= 2)
        .and_then(|express| Some((express.register(DEVICE_CAPABILITIES_2)?, express.register(DEVICE_CONTROL_2)?)))
        .filter(|(capabilities, _)| config.read32(port, *capabilities) & ARI_FORWARDING_SUPPORTED != 0)
        .is_some_and(|(_, control)| {
            let before = config.read16(port, control);
            config.write16(port, control, before | ARI_FORWARDING);
            config.read16(port, control) & ARI_FORWARDING != 0
        });
    if opened { Routing::Alternative } else { Routing::DeviceZero }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};

    /// A port with or without forwarding, and a device below that has or has not the capability.
    fn port(capabilities: u32, extended: u32) -> Fake {
        let mut config = Fake::new();
        let port = config.add(at(0, 1, 0)).header(1, 1, 0x06_0400, 1).buses(0, 2, 2).express(4);
        port.dword(0x64, capabilities).word(0x68, 0x0001).allow(0x68, 0x003F, 2);
        config.add(at(2, 0, 0)).header(1, 2, 0, 0).express(0).dword(0x100, extended);
        config
    }

    #[test]
    fn a_port_is_opened_if_both_ends_can() {
        let open = |config: &mut Fake, above| open_routing(config, above, at(2, 0, 0));
        let mut config = port(1 << 5, 0x0001_000E);
        assert_eq!(open(&mut config, None), Routing::Bus);
        assert!(config.writes.is_empty());
        assert_eq!(open(&mut config, Some(at(0, 1, 0))), Routing::Alternative);
        assert_eq!(config.read16(at(0, 1, 0), 0x68), 0x0021, "what else is set there is kept");
        for mut config in [port(0, 0x0001_000E), port(1 << 5, 0x0001_0001)] {
            assert_eq!(open(&mut config, Some(at(0, 1, 0))), Routing::DeviceZero);
            assert!(config.writes.is_empty());
        }
        // One that says it can, and does not keep the bit; and a version 1 capability, behind which is something else.
        let mut config = port(1 << 5, 0x0001_000E);
        config.add(at(0, 1, 0)).allow(0x68, 0, 2);
        assert_eq!(open(&mut config, Some(at(0, 1, 0))), Routing::DeviceZero);
        let mut config = port(1 << 5, 0x0001_000E);
        config.add(at(0, 1, 0)).word(0x42, 0x0041);
        assert_eq!(open(&mut config, Some(at(0, 1, 0))), Routing::DeviceZero);
        assert!(config.writes.is_empty());
    }
}
