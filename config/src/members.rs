//! Whether what the guests need is in the archive.

use crate::{Complaint, Config, DidYouMean, MAXIMUM_COMPLAINTS, Quoted, nearest};
use alloc::vec::Vec;
use core::fmt;

/// Most names that are listed where one is wrong.
const MAXIMUM_LISTED: usize = 16;

/// What the guests of `config` name and is not among `members`, the names of the archive's members. At most
/// [`MAXIMUM_COMPLAINTS`] complaints.
pub fn check_members(config: &Config, members: &[&str]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (key, member) in config.guests.iter().flat_map(|guest| guest.members()) {
        let name: &str = &member.name;
        if members.contains(&name) || complaints.len() >= MAXIMUM_COMPLAINTS {
            continue;
        }
        let meant = DidYouMean(nearest(name, &mut members.iter().copied()));
        complaints.push(Complaint::new(
            member.line,
            format_args!("{key}: the archive has no member {}{meant}{}", Quoted(name), Has(members)),
        ));
    }
    complaints
}

/// Prints what there is.
struct Has<'a>(&'a [&'a str]);

impl fmt::Display for Has<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; it has none");
        }
        for (number, name) in self.0.iter().take(MAXIMUM_LISTED).enumerate() {
            write!(f, "{}{}", if number == 0 { "; it has: " } else { ", " }, Quoted(name))?;
        }
        f.write_str(if self.0.len() > MAXIMUM_LISTED { ", ..." } else { "" })
    }
}
