//! The archive that holds the guests and their configuration: a plain tar file, handed over as the ramdisk.
//!
//! Every member is checked against `SHA256SUMS` (the format of sha256sum) in the same archive, so that a damaged
//! guest is an error with a name and not a guest that crashes.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use sha2::{Digest, Sha256};
use tar_no_std::TarArchiveRef;

/// The member that describes the guests.
pub const CONFIGURATION: &str = "postern.toml";
/// The member that lists the checksums of all others.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// Most members that are looked at for [`Archive::names`].
const MAXIMUM_NAMES: usize = 256;

/// Why an archive, or a member of it, cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// There is none: the loader handed over no ramdisk.
    Missing,
    /// It is not a tar archive, or it ends in the middle of one.
    Damaged(String),
    /// It has no member of this name.
    NoMember(String),
    /// The member is not listed in `SHA256SUMS`.
    Unlisted(String),
    /// The member's contents are not those that `SHA256SUMS` names.
    ChecksumMismatch(String),
    /// The member is not text.
    NotText(String),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no guest archive: pass one as the ramdisk (QEMU -initrd, GRUB module2)"),
            Self::Damaged(why) => write!(f, "the guest archive is damaged: {why}"),
            Self::NoMember(name) => write!(f, "the guest archive has no member {name:?}"),
            Self::Unlisted(name) => write!(f, "the guest archive's {CHECKSUMS} does not list {name:?}"),
            Self::ChecksumMismatch(name) => {
                write!(f, "the guest archive is damaged: {name:?} is not what {CHECKSUMS} says")
            }
            Self::NotText(name) => write!(f, "the guest archive's member {name:?} is not UTF-8 text"),
        }
    }
}

/// An archive whose structure was checked.
pub struct Archive<'a> {
    tar: TarArchiveRef<'a>,
    checksums: &'a str,
}

impl<'a> Archive<'a> {
    /// Opens the archive in `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        if bytes.is_empty() {
            return Err(ArchiveError::Missing);
        }
        let tar = TarArchiveRef::new(bytes).map_err(|error| ArchiveError::Damaged(format!("{error}")))?;
        let mut archive = Self { tar, checksums: "" };
        archive.checksums = archive.text(CHECKSUMS)?;
        Ok(archive)
    }

    /// The contents of a member, checked.
    pub fn member(&self, name: &str) -> Result<&'a [u8], ArchiveError> {
        let data = self.find(name)?;
        let listed = self.checksums.lines().find_map(|line| {
            // "<64 hexadecimal digits>  <name>", with '*' before the name for a binary file.
            let (sum, rest) = line.split_once(' ')?;
            let listed = rest.strip_prefix([' ', '*'])?;
            (plain(listed) == name).then_some(sum)
        });
        let listed = listed.ok_or_else(|| ArchiveError::Unlisted(name.to_string()))?;
        let actual = Sha256::digest(data);
        let matches = listed.len() == 2 * actual.len()
            && listed.as_bytes().chunks(2).zip(actual.iter()).all(|(digits, byte)| {
                core::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()) == Some(*byte)
            });
        if matches { Ok(data) } else { Err(ArchiveError::ChecksumMismatch(name.to_string())) }
    }

    /// The configuration's text, checked.
    pub fn configuration(&self) -> Result<&'a str, ArchiveError> {
        self.member(CONFIGURATION)?;
        self.text(CONFIGURATION)
    }

    /// The names of its members, but for its own two.
    pub fn names(&self) -> Vec<String> {
        let names = self.tar.entries().filter_map(|entry| Some(plain(entry.filename().as_str().ok()?).to_string()));
        names.filter(|name| name != CONFIGURATION && name != CHECKSUMS).take(MAXIMUM_NAMES).collect()
    }

    fn text(&self, name: &str) -> Result<&'a str, ArchiveError> {
        core::str::from_utf8(self.find(name)?).map_err(|_| ArchiveError::NotText(name.to_string()))
    }

    fn find(&self, name: &str) -> Result<&'a [u8], ArchiveError> {
        for entry in self.tar.entries() {
            if entry.filename().as_str().is_ok_and(|found| plain(found) == name) {
                return Ok(entry.data());
            }
        }
        Err(ArchiveError::NoMember(name.to_string()))
    }
}

/// A member's name without the `./` that some programs put before it.
fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, data) in members {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000644\0");
            header[108..116].copy_from_slice(b"0000000\0");
            header[116..124].copy_from_slice(b"0000000\0");
            header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
            header[136..148].copy_from_slice(b"00000000000\0");
            header[148..156].fill(b' ');
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn sums(members: &[(&str, &[u8])]) -> String {
        members
            .iter()
            .map(|(name, data)| {
                let digits: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{digits}  {name}\n")
            })
            .collect()
    }

    #[test]
    fn members_are_found_and_checked() {
        let guest = b"guest".as_slice();
        let configuration = b"# nothing".as_slice();
        let list = sums(&[("postern.toml", configuration), ("guest", guest)]);
        let bytes = tar(&[("postern.toml", configuration), ("SHA256SUMS", list.as_bytes()), ("guest", guest)]);
        let archive = Archive::open(&bytes).unwrap();
        assert_eq!(archive.member("guest"), Ok(guest));
        assert_eq!(archive.configuration(), Ok("# nothing"));
        assert_eq!(archive.names(), ["guest"]);
        assert_eq!(archive.member("other"), Err(ArchiveError::NoMember("other".into())));
    }

    #[test]
    fn every_flipped_bit_of_a_member_is_noticed() {
        let guest = b"guest".as_slice();
        let list = sums(&[("guest", guest)]);
        let good = tar(&[("SHA256SUMS", list.as_bytes()), ("guest", guest)]);
        let at = good.windows(5).rposition(|window| window == guest).unwrap();
        for bit in 0..40 {
            let mut bytes = good.clone();
            bytes[at + bit / 8] ^= 1 << (bit % 8);
            let archive = Archive::open(&bytes).unwrap();
            assert_eq!(archive.member("guest"), Err(ArchiveError::ChecksumMismatch("guest".into())));
        }
    }

    #[test]
    fn what_is_no_archive_is_an_error_and_never_a_panic() {
        assert_eq!(Archive::open(&[]).err(), Some(ArchiveError::Missing));
        assert!(Archive::open(&[0xff; 100]).is_err());
        assert!(Archive::open(&[0xff; 5120]).is_err());
        assert!(Archive::open(&[0; 5120]).is_err());
        let guest = [7u8; 3000];
        let list = sums(&[("guest", &guest)]);
        let good = tar(&[("SHA256SUMS", list.as_bytes()), ("guest", &guest)]);
        for length in (0..good.len() - 1024).step_by(64) {
            let usable = Archive::open(&good[..length]).and_then(|archive| archive.member("guest").map(|_| ()));
            assert!(usable.is_err(), "cut at {length}");
        }
        // Any byte of the headers damaged in any way: an error or the right contents.
        for at in (0..512).chain(1024..1536) {
            for value in [0, 0xff, b'7', good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(data) = Archive::open(&bytes).and_then(|archive| archive.member("guest")) {
                    assert_eq!(data, guest);
                }
            }
        }
    }

    #[test]
    fn an_unlisted_member_is_not_used() {
        let bytes = tar(&[("SHA256SUMS", b"nonsense\n\n  \nabc  guest2\n"), ("guest", b"x")]);
        assert_eq!(Archive::open(&bytes).unwrap().member("guest"), Err(ArchiveError::Unlisted("guest".into())));
    }
}
