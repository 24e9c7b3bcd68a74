//! What is asked for twice and there only once.

use crate::section::Section;
use crate::{DeviceName, Guest, Quoted};

/// Notes what two guests, or two keys of one, both want. `sections` are those that the guests are from.
pub(crate) fn check(guests: &[Guest], sections: &[Section<'_>]) {
    for (number, (guest, section)) in guests.iter().zip(sections).enumerate() {
        let earlier = guests.get(..number).unwrap_or_default();
        if !guest.name.is_empty() && earlier.iter().any(|other| other.name == guest.name) {
            let name = Quoted(&guest.name);
            section.complain_of("name", format_args!("two guests are called {name}: give one another name"));
        }
        for (at, device) in guest.devices.iter().enumerate() {
            // The same id twice means two such devices; the same address twice cannot be meant.
            if !matches!(device.name, DeviceName::Address(_)) {
                continue;
            }
            let mut before = earlier.iter().flat_map(|other| &other.devices).chain(guest.devices.iter().take(at));
            if let Some(first) = before.find(|other| other.name == device.name) {
                section.complain_at_line(
                    device.line,
                    format_args!("devices: {} is given out twice; line {} has it already", device.name, first.line),
                );
            }
        }
        // A module may be the kernel's own image; but nobody wants one module twice.
        let members = guest.members();
        for (at, (key, member)) in members.iter().enumerate().skip(1) {
            let mut before = members.get(1..at).unwrap_or_default().iter();
            if before.any(|(_, other)| other.name == member.name) {
                let name = Quoted(&member.name);
                section.complain_at_line(member.line, format_args!("{key}: {name} is named twice: take one out"));
            }
        }
        if guest.doorbell_port.is_some() && guest.doorbell_port == guest.debug_exit_port {
            section.complain_of("doorbell_port", format_args!("debug_exit_port is the same port: change one of them"));
        }
    }
}
