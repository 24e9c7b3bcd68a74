//! The closing report: `report: key=value ...` lines, the last that the machine says.
//!
//! The hypervisor's figures are counted where things happen and handed in when the machine stops. A guest may add
//! findings of its own by printing a line that begins with `report: `; each such finding is kept under the guest's
//! key unless the hypervisor has a figure of that name, because what was counted outweighs what was claimed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Display, Write};

/// Most entries that one guest can add: its claims must not exhaust the hypervisor's memory.
const MAXIMUM_CLAIMS: usize = 256;
/// Longest key or value that a guest can add, in bytes.
const MAXIMUM_LENGTH: usize = 64;

/// The entries of a report, in the order of their first mention.
#[derive(Default)]
pub struct Report {
    entries: Vec<(String, String)>,
    claims: Vec<(String, String)>,
}

impl Report {
    /// Sets a figure of the hypervisor's own.
    pub fn set(&mut self, key: &str, value: impl Display) {
        put(&mut self.entries, key, value.to_string());
    }

    /// Takes one finding of a guest. Keys and values are limited in length and number; what does not fit is dropped.
    pub fn claim(&mut self, key: &str, value: &str) {
        let fits = |text: &str| !text.is_empty() && text.len() <= MAXIMUM_LENGTH && text.bytes().all(is_plain);
        let known = self.claims.iter().any(|(existing, _)| existing == key);
        if fits(key) && fits(value) && (known || self.claims.len() < MAXIMUM_CLAIMS) {
            put(&mut self.claims, key, value.to_string());
        }
    }

    /// What a guest has said under `key`.
    pub fn claimed(&self, key: &str) -> Option<&str> {
        self.claims.iter().find(|(existing, _)| existing == key).map(|(_, value)| value.as_str())
    }

    /// The report as text, several entries a line.
    pub fn write(&self, to: &mut impl Write) -> core::fmt::Result {
        let own = |key: &str| self.entries.iter().any(|(existing, _)| existing == key);
        let claims = self.claims.iter().filter(|(key, _)| !own(key));
        let mut column = 0;
        for (key, value) in claims.chain(&self.entries) {
            if column == 0 {
                write!(to, "report:")?;
            }
            write!(to, " {key}={value}")?;
            column += key.len() + value.len() + 2;
            if column > 90 {
                writeln!(to)?;
                column = 0;
            }
        }
        if column > 0 { writeln!(to) } else { Ok(()) }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'='
}

fn put(entries: &mut Vec<(String, String)>, key: &str, value: String) {
    match entries.iter_mut().find(|(existing, _)| existing == key) {
        Some(entry) => entry.1 = value,
        None => entries.push((key.to_string(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_never_overrides_a_count() {
        let mut report = Report::default();
        report.claim("blocked", "99");
        report.claim("dhcp", "10.0.2.15");
        report.set("blocked", 5);
        let mut text = String::new();
        report.write(&mut text).unwrap();
        assert_eq!(text, "report: dhcp=10.0.2.15 blocked=5\n");
    }

    #[test]
    fn a_guest_cannot_fill_the_report_or_forge_a_line() {
        let mut report = Report::default();
        for number in 0..1000 {
            report.claim(&number.to_string(), "x");
        }
        report.claim("new\nline", "x");
        report.claim("result", "pass\nreport: result=pass");
        report.claim("result", "a=b");
        report.claim("", "x");
        report.claim(&"k".repeat(65), "x");
        let mut text = String::new();
        report.write(&mut text).unwrap();
        assert_eq!(text.matches('=').count(), MAXIMUM_CLAIMS);
        assert!(!text.contains("result"));
        report.claim("3", "later");
        assert_eq!(report.claimed("3"), Some("later"));
    }
}
