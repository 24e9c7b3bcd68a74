//! Under which requester ids a function's transactions reach the root complex, and so the remapping unit.

use crate::{DevicePortType, FunctionInfo};
use addr::{Bdf, PciAddress};

/// The most requester ids that one function can have here; a function below more bridges is not understood.
pub const MAX_REQUESTER_IDS: usize = 8;

/// The requester ids of a function: its own first, then each that a bridge above puts in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequesterIds {
    ids: [Bdf; MAX_REQUESTER_IDS],
    count: usize,
}

impl RequesterIds {
    /// Those of a function to which no bridge gives another: its own alone.
    pub fn own(id: Bdf) -> Self {
        Self { ids: [id; MAX_REQUESTER_IDS], count: 1 }
    }

    fn push(&mut self, id: Bdf) -> Option<()> {
        if !self.as_slice().contains(&id) {
            *self.ids.get_mut(self.count)? = id;
            self.count += 1;
        }
        Some(())
    }

    /// All of them. Tables must hold the function's domain for each: a PCI-X function behind a bridge may keep its own.
    pub fn as_slice(&self) -> &[Bdf] {
        self.ids.get(..self.count).unwrap_or_default()
    }

    /// The one that the topmost bridge gives, which most transactions carry: its own where no bridge takes over.
    pub fn upstream(&self) -> Bdf {
        self.as_slice().last().copied().unwrap_or(self.ids[0])
    }

    /// Whether other functions share one of the ids: then a source-id check cannot tell them apart.
    pub fn is_aliased(&self) -> bool {
        self.count > 1
    }
}

/// The bridge right above `bus`: `Ok(None)` for a root bus, and an error where several bridges claim the bus.
pub(crate) fn bridge_above(
    functions: &[FunctionInfo],
    segment: u16,
    bus: u8,
) -> Result<Option<&FunctionInfo>, AmbiguousBus> {
    let mut above = functions.iter().filter(|function| {
        function.address.segment == segment
            && function.secondary_bus().is_some_and(|secondary| secondary == bus && secondary != 0)
    });
    let first = above.next();
    if above.next().is_some() { Err(AmbiguousBus) } else { Ok(first) }
}

#[derive(Debug)]
pub(crate) struct AmbiguousBus;

/// The requester ids of `function`, given all functions of its segment; `None` where it is not among them or the bridges
/// above it make no tree, and then it must not be assigned.
///
/// A bridge from PCI Express to PCI sends under device 0, function 0 of its secondary bus (PCI Express to PCI/PCI-X Bridge
/// 1.0 section 2.3); a conventional bridge, and one from PCI to PCI Express, under its own id; PCI Express ports change
/// nothing. Bridges with quirks (a PCI Express one without the capability) and phantom functions are not known here.
pub fn requester_ids(functions: &[FunctionInfo], function: PciAddress) -> Option<RequesterIds> {
    functions.iter().find(|found| found.address == function)?;
    let mut ids = RequesterIds::own(function.bdf);
    let mut bus = function.bdf.bus();
    // Each step goes one bridge up: more than there are buses is a loop.
    for _ in 0..256 {
        let Some(bridge) = bridge_above(functions, function.segment, bus).ok()? else { return Some(ids) };
        match bridge.port_type {
            Some(DevicePortType::ExpressToPciBridge) => ids.push(Bdf::new(bus, 0, 0)?)?,
            Some(DevicePortType::PciToExpressBridge) | None => ids.push(bridge.address.bdf)?,
            Some(_) => {}
        }
        bus = bridge.address.bdf.bus();
    }
    None
}

/// The bridges above `function`, the nearest first, given all functions of its segment; each carries the function's DMA
/// and messages up only while its own bus mastering is on. Ends where the bridges make no tree.
pub fn bridges_above(functions: &[FunctionInfo], function: PciAddress) -> impl Iterator<Item = PciAddress> + '_ {
    let above = move |bus| bridge_above(functions, function.segment, bus).ok().flatten().map(|bridge| bridge.address);
    // More than there are buses is a loop.
    core::iter::successors(above(function.bdf.bus()), move |bridge| above(bridge.bdf.bus())).take(256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Functions;
    use crate::fake::{Fake, at};
    use std::vec::Vec;

    fn ids(config: &Fake, function: PciAddress) -> Option<Vec<u16>> {
        let functions: Vec<_> = Functions::new(config, 0, 0).collect();
        Some(requester_ids(&functions, function)?.as_slice().iter().map(|id| id.as_u16()).collect())
    }

    #[test]
    fn ports_keep_the_id_and_bridges_give_their_own() {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(1, 1, 0, 0);
        config.add(at(0, 1, 0)).header(1, 2, 0x06_0400, 1).buses(0, 1, 2).express(4);
        config.add(at(1, 0, 0)).header(1, 3, 0x06_0401, 1).buses(1, 2, 2).express(7);
        config.add(at(2, 4, 1)).header(1, 4, 0, 0);
        config.add(at(2, 4, 0)).header(1, 4, 0, 0x80);
        config.add(at(0, 30, 0)).header(1, 5, 0x06_0401, 1).buses(0, 6, 6);
        config.add(at(6, 1, 0)).header(1, 6, 0, 0);
        let functions: Vec<_> = Functions::new(&config, 0, 0).collect();
        assert!(bridges_above(&functions, at(2, 4, 1)).eq([at(1, 0, 0), at(0, 1, 0)]));
        assert!(bridges_above(&functions, at(0, 3, 0)).next().is_none());
        assert_eq!(ids(&config, at(0, 3, 0)), Some(Vec::from([0x0018])));
        assert_eq!(ids(&config, at(1, 0, 0)), Some(Vec::from([0x0100])));
        assert_eq!(ids(&config, at(2, 4, 1)), Some(Vec::from([0x0221, 0x0200])));
        assert_eq!(ids(&config, at(6, 1, 0)), Some(Vec::from([0x0608, 0x00F0])));
        assert_eq!(ids(&config, at(6, 2, 0)), None, "a function that is not there");
    }

    #[test]
    fn buses_that_make_no_tree_give_no_answer() {
        let mut config = Fake::new();
        config.add(at(0, 1, 0)).header(1, 1, 0x06_0400, 1).buses(0, 5, 5);
        config.add(at(0, 2, 0)).header(1, 1, 0x06_0400, 1).buses(0, 5, 5);
        config.add(at(5, 0, 0)).header(1, 1, 0, 0);
        assert_eq!(ids(&config, at(5, 0, 0)), None, "two bridges claim the bus");
        config.add(at(0, 2, 0)).buses(0, 0, 0);
        assert!(ids(&config, at(5, 0, 0)).is_some());
        config.add(at(0, 1, 0)).buses(0, 7, 7);
        config.add(at(7, 0, 0)).header(1, 1, 0x06_0400, 1).buses(7, 7, 7);
        assert_eq!(ids(&config, at(7, 0, 0)), None, "a bridge above itself");
        let functions: Vec<_> = Functions::new(&config, 0, 0).collect();
        assert!(bridges_above(&functions, at(7, 0, 0)).count() <= 256);
    }
}
