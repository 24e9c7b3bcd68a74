//! The machine that a table is of, as Linux shows it under `/sys`: which functions are on its PCI buses, what they are
//! called, and where its bridges lead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use addr::{Bdf, PciAddress};
use dmar::Topology;

use crate::pci_ids;

/// Where Linux shows the table.
const TABLE: &str = "firmware/acpi/tables/DMAR";

/// The PCI functions of a machine.
pub struct Machine {
    functions: BTreeMap<(u16, u16), Function>,
}

struct Function {
    name: String,
    /// Secondary and subordinate bus, of a bridge.
    buses: Option<(u8, u8)>,
}

impl Machine {
    /// Where the table of the machine is whose `/sys` is this folder.
    pub fn table(sys: &Path) -> PathBuf {
        sys.join(TABLE)
    }

    /// Reads what is on the PCI buses of the machine whose `/sys` is this folder. What cannot be read is left out.
    pub fn read(sys: &Path) -> Self {
        let folders = fs::read_dir(sys.join("bus/pci/devices")).into_iter().flatten().flatten();
        let found: Vec<_> = folders.filter_map(|folder| Found::read(&folder.path())).collect();
        let names = pci_ids::names(found.iter().map(|found| (found.vendor, found.device)));
        let functions = found.into_iter().map(|found| {
            let name = names.get(&(found.vendor, found.device)).cloned();
            let name = name.unwrap_or_else(|| format!("{:04x}:{:04x}", found.vendor, found.device));
            let name = match found.driver {
                Some(driver) => format!("{name} [{driver}]"),
                None => name,
            };
            ((found.address.segment, found.address.bdf.as_u16()), Function { name, buses: found.buses })
        });
        Self { functions: functions.collect() }
    }

    /// What the function at this address is called; `None` if none is there.
    pub fn name(&self, address: PciAddress) -> Option<String> {
        self.function(address).map(|function| function.name.clone())
    }

    fn function(&self, address: PciAddress) -> Option<&Function> {
        self.functions.get(&(address.segment, address.bdf.as_u16()))
    }
}

impl Topology for Machine {
    fn bridge_buses(&self, bridge: PciAddress) -> Option<(u8, u8)> {
        self.function(bridge)?.buses
    }
}

/// What Linux's folder of a function says.
struct Found {
    address: PciAddress,
    vendor: u16,
    device: u16,
    driver: Option<String>,
    buses: Option<(u8, u8)>,
}

impl Found {
    fn read(folder: &Path) -> Option<Self> {
        let address = parse_address(folder.file_name()?.to_str()?)?;
        let id = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        let driver = fs::read_link(folder.join("driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let buses = fs::read(folder.join("config")).ok().and_then(|config| buses(&config));
        Some(Self { address, vendor: id("vendor")?, device: id("device")?, driver, buses })
    }
}

/// Secondary and subordinate bus (registers 0x19 and 0x1a) of a PCI-PCI bridge (header type 1).
fn buses(config: &[u8]) -> Option<(u8, u8)> {
    let header_type = config.get(0xe)? & 0x7f;
    (header_type == 1).then_some(())?;
    Some((*config.get(0x19)?, *config.get(0x1a)?))
}

/// `0000:00:1f.3`. Linux gives some devices segments of more than 16 bits (those behind Intel's VMD): no table names
/// them.
fn parse_address(text: &str) -> Option<PciAddress> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let byte = |text| u8::from_str_radix(text, 16).ok();
    let bdf = Bdf::new(byte(bus)?, byte(device)?, byte(function)?)?;
    Some(PciAddress { segment: u16::from_str_radix(segment, 16).ok()?, bdf })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read() {
        let address = parse_address("0001:3a:1f.7").unwrap();
        assert_eq!((address.segment, address.bdf), (1, Bdf::new(0x3a, 31, 7).unwrap()));
        for other in ["10000:00:00.0", "0000:00:20.0", "0000:00:00.8", "0000:00.0", "", "pci0"] {
            assert_eq!(parse_address(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_bridge_has_buses_behind_it() {
        let mut config = [0; 64];
        (config[0x19], config[0x1a]) = (2, 5);
        assert_eq!(buses(&config), None);
        config[0xe] = 0x81;
        assert_eq!(buses(&config), Some((2, 5)));
        assert_eq!(buses(&config[..0x1a]), None);
    }
}
