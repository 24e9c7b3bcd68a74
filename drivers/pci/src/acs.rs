//! Access Control Services: whether a port or function keeps its traffic from its peers.

use crate::ConfigSpace;
use crate::find_extended_capability;
use crate::spec::capability::acs::{
    CAPABILITY, COMPLETION_REDIRECT, CONTROL, REQUEST_REDIRECT, SOURCE_VALIDATION, UPSTREAM_FORWARDING,
};
use crate::spec::capability::extended_id::ACCESS_CONTROL_SERVICES;
use addr::PciAddress;

/// Whether Access Control Services of the function are there and send all that it starts up to the root complex, where the
/// remapping unit sees it: source validation, request and completion redirect and upstream forwarding, as far as the
/// function has them, are on. Reads extended configuration space: without it, no function is isolated.
///
/// Nothing here switches them on: firmware that leaves them off makes larger groups, which is safe.
pub fn peers_are_isolated(config: &dyn ConfigSpace, function: PciAddress) -> bool {
    let Some(found) = find_extended_capability(config, function, ACCESS_CONTROL_SERVICES) else { return false };
    let Some(control) = found.offset.checked_add(CONTROL).filter(|offset| *offset < 0x1000) else { return false };
    let wanted = SOURCE_VALIDATION | REQUEST_REDIRECT | COMPLETION_REDIRECT | UPSTREAM_FORWARDING;
    let capable = config.read16(function, found.offset + CAPABILITY) & wanted;
    config.read16(function, control) & capable == capable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};

    #[test]
    fn all_services_that_are_there_must_be_on() {
        let mut config = Fake::new();
        let port = at(0, 1, 0);
        config.add(port);
        assert!(!peers_are_isolated(&config, port));
        config.add(port).dword(0x100, 0x0001_000D).word(0x104, 0x001F);
        assert!(!peers_are_isolated(&config, port));
        config.add(port).word(0x106, 0x0015);
        assert!(!peers_are_isolated(&config, port));
        config.add(port).word(0x106, 0x001D);
        assert!(peers_are_isolated(&config, port));
    }
}
