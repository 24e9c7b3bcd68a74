//! What to do with a device that faults: tell of the first few, keep silent about a storm, and end it.

use addr::Bdf;

/// Time over which a device's faults are counted, in microseconds.
pub const WINDOW_US: u64 = 1_000_000;
/// Faults of one device that are logged in one window.
const LOGGED: u32 = 8;
/// Faults of one device in one window after which it is quarantined, unless the configuration says otherwise.
pub const DEFAULT_LIMIT: u32 = 64;
/// Devices that are watched at the same time. More than are assigned; a table that forged requester ids fill up
/// forgets the device that has been quiet for longest.
const DEVICES: usize = 144;

/// What to do about one fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tell of it.
    Log,
    /// Tell of it, and that further ones will be counted only.
    LogLast,
    /// Count it.
    Count,
    /// Take the device out of service: it has reached the limit. Said once.
    Quarantine,
}

#[derive(Clone, Copy, Debug)]
struct Device {
    source: Bdf,
    window_start_us: u64,
    in_window: u32,
    quarantined: bool,
}

/// The faults of all devices.
#[derive(Debug)]
pub struct FaultWatch {
    devices: [Option<Device>; DEVICES],
    limit: u32,
}

impl FaultWatch {
    /// A watch that ends a device at `limit` faults within [`WINDOW_US`]; at least 1.
    pub fn new(limit: u32) -> Self {
        Self { devices: [None; DEVICES], limit: limit.max(1) }
    }

    /// One fault of `source` at `now_us`.
    pub fn note(&mut self, source: Bdf, now_us: u64) -> Action {
        let limit = self.limit;
        let device = self.device(source, now_us);
        if now_us.saturating_sub(device.window_start_us) >= WINDOW_US {
            device.window_start_us = now_us;
            device.in_window = 0;
        }
        device.in_window = device.in_window.saturating_add(1);
        match device.in_window {
            _ if device.quarantined => Action::Count,
            count if count >= limit => {
                device.quarantined = true;
                Action::Quarantine
            }
            count if count < LOGGED => Action::Log,
            LOGGED => Action::LogLast,
            _ => Action::Count,
        }
    }

    /// The hardware lost faults of unknown devices: every device that has just faulted counts as having reached half
    /// of the limit, for a storm is what fills the records.
    pub fn overflowed(&mut self, source: Bdf, now_us: u64) {
        let half = self.limit / 2;
        let device = self.device(source, now_us);
        device.in_window = device.in_window.max(half);
    }

    fn device(&mut self, source: Bdf, now_us: u64) -> &mut Device {
        let known = self.devices.iter().position(|device| device.is_some_and(|device| device.source == source));
        let index = known.unwrap_or_else(|| {
            let age = |index: &usize| match &self.devices[*index] {
                None => (0, 0),
                // A quarantined device is remembered for as long as there is anybody else to forget.
                Some(device) => (1 + u64::from(device.quarantined), device.window_start_us),
            };
            (0..DEVICES).min_by_key(age).unwrap_or(0)
        });
        if known.is_none() {
            self.devices[index] = None;
        }
        self.devices[index].get_or_insert(Device { source, window_start_us: now_us, in_window: 0, quarantined: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: Bdf = Bdf::from_u16(0x18);

    #[test]
    fn a_few_faults_are_told_and_a_storm_is_ended_once() {
        let mut watch = FaultWatch::new(DEFAULT_LIMIT);
        let actions: [Action; 100] = core::array::from_fn(|number| watch.note(NIC, number as u64));
        assert_eq!(actions[..7], [Action::Log; 7]);
        assert_eq!(actions[7], Action::LogLast);
        assert!(actions[8..63].iter().all(|action| *action == Action::Count));
        assert_eq!(actions[63], Action::Quarantine);
        assert!(actions[64..].iter().all(|action| *action == Action::Count));
    }

    #[test]
    fn slow_faults_are_told_for_ever() {
        let mut watch = FaultWatch::new(DEFAULT_LIMIT);
        for number in 0..1000 {
            assert_eq!(watch.note(NIC, number * WINDOW_US), Action::Log);
        }
    }

    #[test]
    fn a_storm_under_one_id_does_not_hide_or_end_another() {
        let mut watch = FaultWatch::new(4);
        for number in 0..100 {
            let _ = watch.note(NIC, number);
        }
        assert_eq!(watch.note(Bdf::from_u16(0x20), 100), Action::Log);
        // Forged ids push quiet devices out, but not the one that is quarantined.
        for id in 0x100..0x200 {
            assert_eq!(watch.note(Bdf::from_u16(id), 101 + u64::from(id)), Action::Log);
        }
        assert_eq!(watch.note(NIC, 200), Action::Count);
    }

    #[test]
    fn lost_records_bring_the_limit_nearer() {
        let mut watch = FaultWatch::new(8);
        assert_eq!(watch.note(NIC, 0), Action::Log);
        watch.overflowed(NIC, 1);
        let actions: [Action; 4] = core::array::from_fn(|number| watch.note(NIC, 2 + number as u64));
        assert_eq!(actions, [Action::Log, Action::Log, Action::Log, Action::Quarantine]);
    }
}
