//! Names of PCI devices, from the list that distributions install as `pci.ids`.

use std::collections::BTreeMap;
use std::fs;

/// Where distributions put the list.
const PLACES: [&str; 3] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids"];

/// Vendor and device.
type Ids = (u16, u16);

/// The names of these devices that the machine's list knows; none where there is no list.
pub fn names(wanted: impl Iterator<Item = Ids>) -> BTreeMap<Ids, String> {
    let list = PLACES.iter().find_map(|place| fs::read(place).ok()).unwrap_or_default();
    find(&String::from_utf8_lossy(&list), wanted)
}

/// The list has a line a vendor (`8086  Intel Corporation`), and below it a line a device, indented by one tab.
fn find(list: &str, wanted: impl Iterator<Item = Ids>) -> BTreeMap<Ids, String> {
    let wanted: Vec<Ids> = wanted.collect();
    let mut names = BTreeMap::new();
    let mut vendor = None;
    for line in list.lines() {
        // Device classes follow the vendors.
        if line.starts_with("C ") {
            break;
        }
        if let Some(line) = line.strip_prefix('\t') {
            let (Some((id, vendor_name)), Some((device, name))) = (vendor, entry(line)) else { continue };
            if wanted.contains(&(id, device)) {
                names.insert((id, device), format!("{} {name}", without_legal_form(vendor_name)));
            }
        } else if let Some(entry) = entry(line) {
            vendor = Some(entry);
        }
    }
    names
}

fn entry(line: &str) -> Option<(u16, &str)> {
    let (id, name) = line.split_once("  ")?;
    (id.len() == 4).then_some(())?;
    Some((u16::from_str_radix(id, 16).ok()?, name.trim()))
}

fn without_legal_form(vendor: &str) -> &str {
    let end = [" Corporation", " Inc.", ", Inc.", " Co., Ltd.", " Corp.", " Limited", " Ltd."].iter();
    end.fold(vendor, |vendor, end| vendor.strip_suffix(end).unwrap_or(vendor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_below_its_vendor() {
        let list = "# comment\n8085  Other\n\t10d3  Wrong\n8086  Intel Corporation\n\t10d3  82574L\n\t\t8086 a01f  Card\n\
                    C 02  Network\n\t10d4  Class\n";
        let names = find(list, [(0x8086, 0x10d3), (0x8086, 0x10d4)].into_iter());
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [((0x8086, 0x10d3), "Intel 82574L".to_string())]);
    }
}
