//! Which QEMU, and what it can judge.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A QEMU version: major, minor, micro.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// From the first line of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("QEMU emulator version ")?;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        let mut parts = digits.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Self(next()?, next()?, next().unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A QEMU that runs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What it says that it is.
    pub version: Version,
    /// What `-device intel-iommu,help` says.
    options: String,
}

impl Program {
    /// Asks the program at `path` who it is, or says why it is no QEMU that one can use.
    ///
    /// # Errors
    /// In words.
    pub fn ask(path: &Path) -> Result<Self, String> {
        let run = |arguments: &[&str]| {
            let output = Command::new(path).args(arguments).output();
            let output = output.map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let text = run(&["--version"])?;
        let version = Version::parse(&text).ok_or(format!("{}: says `{}`", path.display(), text.trim()))?;
        let options = run(&["-device", "intel-iommu,help"])?;
        if !options.contains("intremap=") {
            return Err(format!("{}: has no intel-iommu", path.display()));
        }
        Ok(Self { path: path.into(), version, options })
    }

    /// The programs that `QTEST_QEMU` lists, separated by colons, or `qemu-system-x86_64`; with the reason for each that
    /// cannot be used.
    pub fn from_environment() -> Vec<Result<Self, String>> {
        let list = std::env::var("QTEST_QEMU").unwrap_or("qemu-system-x86_64".into());
        list.split(':').filter(|path| !path.is_empty()).map(|path| Self::ask(Path::new(path))).collect()
    }

    /// Whether its intel-iommu has an option.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.lines().any(|line| line.trim_start().starts_with(&format!("{name}=")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright";
        assert_eq!(Version::parse(debian), Some(Version(7, 2, 22)));
        assert_eq!(Version::parse("QEMU emulator version 10.0"), Some(Version(10, 0, 0)));
        assert_eq!(Version::parse("QEMU emulator version 10.1.0-rc2"), Some(Version(10, 1, 0)));
        assert_eq!(Version::parse("bash: no such file"), None);
        assert!(Version(10, 0, 2) > Version(7, 2, 22));
    }
}
