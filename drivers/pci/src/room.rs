//! Where there is room for ranges to which the firmware gave no place, as some do with those of virtual functions.

use crate::spec::header::{
    BAR0, MEMORY_BASE, MEMORY_LIMIT, PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER, PREFETCHABLE_LIMIT,
    PREFETCHABLE_LIMIT_UPPER, WINDOW_64_BIT, WINDOW_ADDRESS, bar,
};
use crate::{Bar, ConfigSpace, FunctionDescription, FunctionInfo, HeaderType, bridges_above};
use addr::{HostPhys, PciAddress};
use core::ops::Range;

/// How far from a function of a root bus its host bridge is taken to carry what it carries to the function: no register
/// tells where its windows end. 16 MiB.
const NEAR: u64 = 16 << 20;
/// Most places that are tried in one window.
const MAXIMUM_TRIES: usize = 4096;

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// How many bytes.
    pub bytes: u64,
    /// What the first address is a multiple of, a power of two.
    pub alignment: u64,
    /// Whether it may be where reads are made ahead.
    pub prefetchable: bool,
    /// Whether it may be above 4 GiB.
    pub is_64_bit: bool,
}

/// The first place for `room` in memory space that reaches the device of `near`, and that no other function of `functions`
/// (all of the machine) claims: below the bridge right above it, or near its own ranges on a root bus. `is_free` knows what
/// else there is.
///
/// Only reads. How large the ranges of others are is not asked of them, because they are in use: a range is a multiple of
/// its size, so it is taken to be as large as its address lets it be.
#[inline(never)]
pub fn find_room(
    config: &dyn ConfigSpace,
    functions: &[FunctionInfo],
    near: &FunctionDescription,
    room: &Room,
    is_free: &dyn Fn(&Range<u64>) -> bool,
) -> Option<HostPhys> {
    let mut windows = [0..0, around(near)];
    if let Some(bridge) = bridges_above(functions, near.address()).next() {
        windows = bridge_windows(config, bridge);
        // Behind a bridge, the first is the prefetchable one: the better one for what may be there.
        if let [prefetchable, _] = &mut windows
            && (!room.prefetchable || !room.is_64_bit && prefetchable.end > 1 << 32)
        {
            *prefetchable = 0..0;
        }
    }
    for window in windows {
        let mut next = window.start;
        for _ in 0..MAXIMUM_TRIES {
            let start = next.checked_next_multiple_of(room.alignment)?;
            let end = start.checked_add(room.bytes)?;
            if end > window.end {
                break;
            }
            next = match end_of_claim(config, functions, near, &(start..end)) {
                Some(end) => end,
                None if is_free(&(start..end)) => return Some(HostPhys::new(start)),
                None => start.checked_add(room.alignment)?,
            };
        }
    }
    None
}

/// What is near the ranges of a function, on the same side of 4 GiB.
fn around(near: &FunctionDescription) -> Range<u64> {
    let Some((start, end)) = memory_ranges(near).next() else { return 0..0 };
    let (low, high) = if start < 1 << 32 { (0, 1 << 32) } else { (1 << 32, u64::MAX) };
    start.saturating_sub(NEAR).max(low)..end.saturating_add(NEAR).min(high)
}

fn memory_ranges(function: &FunctionDescription) -> impl Iterator<Item = (u64, u64)> + '_ {
    function.bars.iter().filter_map(|(_, range)| match range {
        Bar::Memory { address, size, .. } => Some((address.as_u64(), address.as_u64().saturating_add(size))),
        Bar::Io { .. } => None,
    })
}

/// What a bridge carries down in memory space: the prefetchable window, and the other. PCI-to-PCI Bridge Architecture 1.2 sections
/// 3.2.5.6 to 3.2.5.10.
fn bridge_windows(config: &dyn ConfigSpace, bridge: PciAddress) -> [Range<u64>; 2] {
    let part = |register| u64::from(config.read16(bridge, register) & WINDOW_ADDRESS) << 16;
    let wide = config.read16(bridge, PREFETCHABLE_BASE) & !WINDOW_ADDRESS == WINDOW_64_BIT;
    let upper = |register| if wide { u64::from(config.read32(bridge, register)) << 32 } else { 0 };
    // The limit is the last MiB; one below the base is how a window is switched off.
    let window = |base: u64, limit: u64| base..(limit | 0xF_FFFF).saturating_add(1);
    [
        window(
            part(PREFETCHABLE_BASE) | upper(PREFETCHABLE_BASE_UPPER),
            part(PREFETCHABLE_LIMIT) | upper(PREFETCHABLE_LIMIT_UPPER),
        ),
        window(part(MEMORY_BASE), part(MEMORY_LIMIT)),
    ]
}

/// The end of a range of any function that has something in common with `wanted`.
fn end_of_claim(
    config: &dyn ConfigSpace,
    functions: &[FunctionInfo],
    near: &FunctionDescription,
    wanted: &Range<u64>,
) -> Option<u64> {
    let mut end = None;
    let mut note = |claim: Range<u64>| {
        if claim.start < wanted.end && wanted.start < claim.end {
            end = end.max(Some(claim.end));
        }
    };
    for info in functions {
        let address = info.address;
        if address == near.address() {
            memory_ranges(near).for_each(|(start, end)| note(start..end));
            continue;
        }
        let registers = match info.header_type {
            HeaderType::Endpoint => 6,
            HeaderType::Bridge { .. } => 2,
            HeaderType::Other(_) => 0,
        };
        // An upper half passes for a range of its own, low in memory, where nobody looks for room.
        for offset in (BAR0..).step_by(4).take(registers) {
            let low = config.read32(address, offset);
            let wide = low & (bar::MEMORY_TYPE | bar::IO) == bar::MEMORY_TYPE_64;
            let high = if wide { config.read32(address, offset + 4) } else { 0 };
            let start = u64::from(low & !bar::MEMORY_FLAGS) | u64::from(high) << 32;
            if low & bar::IO == 0 && start != 0 {
                note(start..start.saturating_add(start & start.wrapping_neg()));
            }
        }
        let carries = matches!(info.header_type, HeaderType::Bridge { .. });
        if carries && !bridges_above(functions, near.address()).any(|bridge| bridge == address) {
            bridge_windows(config, address).into_iter().for_each(&mut note);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Functions;
    use crate::fake::{Fake, at};
    use std::vec::Vec;

    const ROOM: Room = Room { bytes: 0x2_0000, alignment: 0x4000, prefetchable: true, is_64_bit: true };

    fn find(config: &mut Fake, near: PciAddress, room: &Room, is_free: impl Fn(&Range<u64>) -> bool) -> Option<u64> {
        let near = FunctionDescription::read(config, near).unwrap();
        let functions: Vec<_> = Functions::new(config, 0, 0).collect();
        let found = find_room(config, &functions, &near, room, &is_free);
        found.map(HostPhys::as_u64)
    }

    /// A card on the root bus, and other functions around it.
    fn root() -> Fake {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(1, 1, 0, 0).bar(0, 0xFEB8_0000, 0xFFFE_0000).bar(2, 0xC001, 0xFFE0);
        config
    }

    #[test]
    fn on_a_root_bus_it_is_near_the_function_and_beside_all_others() {
        let mut config = root();
        let lowest = 0xFDB8_0000;
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), Some(lowest));
        // Taken to be as large as its address lets it be: 512 KiB, and by a 64-bit one 2 MiB.
        config.add(at(0, 4, 0)).header(1, 1, 0, 0).dword(0x10, 0xFDB8_0000);
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), Some(0xFDC0_0000));
        config.add(at(0, 5, 0)).header(1, 1, 0, 0).dword(0x14, 0xFDC0_000C).dword(0x18, 0);
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), Some(0xFE00_0000));
        // Ports, and what is above 4 GiB, are not in the way.
        config.add(at(0, 6, 0)).header(1, 1, 0, 0).dword(0x10, 0xFE00_0001);
        config.add(at(0, 6, 0)).dword(0x14, 0xFE00_0004).dword(0x18, 1);
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), Some(0xFE00_0000));
        // What another bridge carries.
        config
            .add(at(0, 7, 0))
            .header(1, 1, 0x06_0400, 1)
            .buses(0, 7, 7)
            .express(4)
            .word(0x20, 0xFE00)
            .word(0x22, 0xFE30);
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), Some(0xFE40_0000));
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |range| range.start >= 0xFE4C_0000), Some(0xFE4C_0000));
        // Its own ranges, of which the sizes are known.
        let own = find(&mut config, at(0, 3, 0), &ROOM, |range| range.start >= 0xFEB7_0000);
        assert_eq!(own, Some(0xFEBA_0000));
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| false), None);
        assert_eq!(find(&mut config, at(0, 3, 0), &Room { bytes: 1 << 62, ..ROOM }, |_| true), None);
        assert_eq!(find(&mut config, at(0, 3, 0), &Room { bytes: u64::MAX, ..ROOM }, |_| true), None);
    }

    #[test]
    fn below_a_bridge_it_is_in_a_window_of_the_bridge() {
        let mut config = root();
        let bridge = config.add(at(0, 1, 0)).header(1, 1, 0x06_0400, 1).buses(0, 2, 2).express(4);
        bridge.word(0x20, 0xFE80).word(0x22, 0xFE90).word(0x24, 0x0001).word(0x26, 0x0011);
        bridge.dword(0x28, 0x80).dword(0x2C, 0x80);
        config.add(at(2, 0, 0)).header(1, 1, 0, 0).express(0).bar(0, 0xFE80_0000, 0xFFFE_0000);
        let card = at(2, 0, 0);
        assert_eq!(find(&mut config, card, &ROOM, |_| true), Some(0x80_0000_0000));
        for room in [Room { prefetchable: false, ..ROOM }, Room { is_64_bit: false, ..ROOM }] {
            assert_eq!(find(&mut config, card, &room, |_| true), Some(0xFE82_0000), "{room:?}");
        }
        // Windows that end before they begin are none; the last MiB counts.
        config.add(at(0, 1, 0)).word(0x24, 0xFFF1).word(0x26, 0x0001);
        assert_eq!(find(&mut config, card, &ROOM, |range| range.start > 0xFE9D_8000), Some(0xFE9D_C000));
        assert_eq!(find(&mut config, card, &ROOM, |range| range.start > 0xFE9D_C000), Some(0xFE9E_0000));
        assert_eq!(find(&mut config, card, &ROOM, |range| range.start > 0xFE9E_0000), None, "its end is outside");
        config.add(at(0, 1, 0)).word(0x20, 0xFFF0);
        assert_eq!(find(&mut config, card, &ROOM, |_| true), None);
    }

    #[test]
    fn a_function_without_a_range_has_nothing_near() {
        let mut config = Fake::new();
        config.add(at(0, 3, 0)).header(1, 1, 0, 0);
        assert_eq!(find(&mut config, at(0, 3, 0), &ROOM, |_| true), None);
    }
}
