//! The table as a tree to read, in the table's order.

use std::fmt::Write;

use addr::PciAddress;
use dmar::{Andd, DeviceScope, DeviceScopes, Dmar, DmarError, Drhd, Rmrr, ScopeType, SidpFlags, Structure};

use crate::damage::short;
use crate::index::Index;
use crate::machine::Machine;
use crate::text::{acpi_name, flags, path, plural, printable, size};

/// A line and what stands below it.
struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn leaf(text: impl Into<String>) -> Self {
        Self { text: text.into(), children: Vec::new() }
    }

    fn draw(&self, into: &mut String, indent: &str) {
        for (index, child) in self.children.iter().enumerate() {
            let last = index + 1 == self.children.len();
            let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let _ = writeln!(into, "{indent}{branch}{}", child.text);
            child.draw(into, &format!("{indent}{below}"));
        }
    }
}

/// What a tree is drawn of.
struct Context<'t> {
    index: Index,
    machine: Option<&'t Machine>,
}

/// The whole table. `damage` is what [`Dmar::parse_damaged`] said, `trailing` how many bytes of the file are not the
/// table's; `machine` the machine that the table is of, where that is known.
pub fn to_tree(dmar: &Dmar<'_>, damage: Option<DmarError>, trailing: usize, machine: Option<&Machine>) -> String {
    let context = Context { index: Index::new(dmar), machine };
    let mut text = header(dmar);
    let mut children = Vec::new();
    let mut units = 0;
    for structure in dmar.structures() {
        children.push(match structure {
            Ok(structure) => {
                if matches!(structure, Structure::Drhd(_)) {
                    units += 1;
                }
                context.structure(&structure, units)
            }
            Err(error) => {
                let segment = error.segment().unwrap_or(0);
                Node {
                    text: format!("NOT USABLE: {}", short(&error)),
                    children: context.scopes(segment, error.scopes(), false),
                }
            }
        });
    }
    Node { text: String::new(), children }.draw(&mut text, "");

    let damage = damage.iter().map(|damage| format!("damaged: {}", short(damage)));
    let trailing = (trailing > 0).then(|| format!("{trailing} byte{} of the file follow the table", plural(trailing)));
    let notes: Vec<String> = damage.chain(notes(dmar)).chain(trailing).collect();
    if !notes.is_empty() {
        text += "notes\n";
        Node { text: String::new(), children: notes.into_iter().map(Node::leaf).collect() }.draw(&mut text, "");
    }
    text
}

/// What the driver finds suspicious or odd, one line each, and what it could not use. Everything is checked against
/// everything, so a table longer than any real one is not checked.
pub(crate) fn notes(dmar: &Dmar<'_>) -> Vec<String> {
    const LONGEST: usize = 1 << 15;
    const MOST: usize = 100;
    if dmar.bytes().len() > LONGEST {
        return vec!["longer than any real table: not checked for contradictions".to_string()];
    }
    let findings = dmar.findings().chain(dmar.contradictory_scopes()).map(|finding| short(&finding));
    findings.chain(dmar.oddities().map(|oddity| short(&oddity))).take(MOST).collect()
}

fn header(dmar: &Dmar<'_>) -> String {
    use dmar::spec::table::{CREATOR_ID, OEM_REVISION};
    let bytes = dmar.bytes();
    let field = |offset: usize| bytes.get(offset..offset + 4).and_then(|field| field.try_into().ok()).unwrap_or([0; 4]);
    let (oem, oem_table) = dmar.oem_ids();
    let mut text = format!(
        "DMAR revision {}, {} bytes, by \"{}\" \"{}\" revision {:#x}, made with \"{}\"\n",
        dmar.revision(),
        bytes.len(),
        printable(&oem),
        printable(&oem_table),
        u32::from_le_bytes(field(OEM_REVISION)),
        printable(&field(CREATOR_ID)),
    );
    let flags = flags(dmar);
    let flags = if flags.is_empty() { "no flags".to_string() } else { flags.join(", ") };
    let _ = writeln!(text, "DMA addresses of {} bits; {flags}", dmar.host_address_width());
    text
}

impl Context<'_> {
    /// `units` is how many DRHDs there are up to this structure.
    fn structure(&self, structure: &Structure<'_>, units: usize) -> Node {
        match structure {
            Structure::Drhd(drhd) => self.unit(drhd, units - 1),
            Structure::Rmrr(rmrr) => self.region(rmrr),
            Structure::Atsr(atsr) => {
                let ports = if atsr.all_ports() { "all root ports" } else { "root ports" };
                let text = format!("ATS supported below {ports} of segment {}", atsr.segment);
                Node { text, children: self.scopes(atsr.segment, atsr.scopes(), false) }
            }
            Structure::Rhsa(rhsa) => {
                let unit = self.index.unit(rhsa.register_base);
                let unit = unit.map_or("an unknown unit".to_string(), |unit| format!("unit {unit}"));
                let (base, domain) = (rhsa.register_base, rhsa.proximity_domain);
                Node::leaf(format!("affinity of {unit} at {base}: proximity domain {domain}"))
            }
            Structure::Andd(andd) => Node::leaf(acpi_device(andd)),
            Structure::Satc(satc) => {
                let need = if satc.atc_required() { "required" } else { "supported" };
                let text = format!("device-TLBs of integrated devices, {need}, segment {}", satc.segment);
                Node { text, children: self.scopes(satc.segment, satc.scopes(), false) }
            }
            Structure::Sidp(sidp) => Node {
                text: format!("properties of integrated devices, segment {}", sidp.segment),
                children: self.scopes(sidp.segment, sidp.scopes(), true),
            },
            Structure::Unknown(unknown) => {
                let (structure_type, length) = (unknown.structure_type, unknown.bytes.len());
                Node::leaf(format!("structure of unknown type {structure_type}, {length} bytes"))
            }
        }
    }

    fn unit(&self, drhd: &Drhd<'_>, index: usize) -> Node {
        let mut text = format!(
            "unit {index}: registers at {} ({}), segment {}",
            drhd.register_base,
            size(drhd.register_size.into()),
            drhd.segment
        );
        if let Some(domain) = self.index.proximity_domain(drhd.register_base) {
            let _ = write!(text, ", proximity domain {domain}");
        }
        let mut children = self.scopes(drhd.segment, drhd.scopes(), false);
        if drhd.include_pci_all() {
            children.push(Node::leaf("every other PCI device of the segment (INCLUDE_PCI_ALL)"));
        }
        if children.is_empty() {
            children.push(Node::leaf("no device"));
        }
        Node { text, children }
    }

    fn region(&self, rmrr: &Rmrr<'_>) -> Node {
        let (base, limit) = (rmrr.base, rmrr.limit);
        let bytes = u128::from(limit.as_u64() - base.as_u64()) + 1;
        Node {
            text: format!("reserved memory {base} to {limit} ({}), segment {}", size(bytes), rmrr.segment),
            children: self.scopes(rmrr.segment, rmrr.scopes(), false),
        }
    }

    /// The lines of the scopes; `properties` says whether their flags mean something.
    fn scopes(&self, segment: u16, scopes: DeviceScopes<'_>, properties: bool) -> Vec<Node> {
        let good = scopes.iter().flatten();
        let width = good.map(|scope| self.index.kind(&scope).chars().count()).max().unwrap_or(0);
        let lines = scopes.iter().map(|scope| match scope {
            Ok(scope) => {
                let mut text = format!("{:width$}  {}", self.index.kind(&scope), path(segment, &scope));
                if properties {
                    let _ = write!(text, "  {}", property_names(scope.flags).join(", "));
                }
                if let Some(name) = self.name(segment, &scope) {
                    let _ = write!(text, "  {name}");
                }
                text
            }
            Err(error) => format!("NOT READABLE: {}", short(&error)),
        });
        lines.map(Node::leaf).collect()
    }

    /// The address behind bridges and the device's name, where the machine is known.
    fn name(&self, segment: u16, scope: &DeviceScope<'_>) -> Option<String> {
        let machine = self.machine?;
        if !matches!(scope.scope_type, ScopeType::PciEndpoint | ScopeType::PciSubHierarchy) {
            return None;
        }
        let Some(address) = scope.address(segment, machine) else { return Some("(not there)".into()) };
        let name = machine.name(address).unwrap_or_else(|| "(not there)".into());
        let behind_bridges = scope.path().count() > 1;
        Some(if behind_bridges { format!("= {}: {name}", short_address(address)) } else { name })
    }
}

/// As [`path`] writes it.
fn short_address(address: PciAddress) -> String {
    if address.segment == 0 { address.bdf.to_string() } else { address.to_string() }
}

fn acpi_device(andd: &Andd<'_>) -> String {
    format!("ACPI device {}: {}", andd.device_number, acpi_name(andd))
}

/// The names of a SIDP's flags.
pub(crate) fn property_names(flags: SidpFlags) -> Vec<&'static str> {
    let names = [
        (flags.nested_not_allowed(), "no nested translation"),
        (flags.page_walk_snoop_not_allowed(), "no page-walk snoop"),
        (flags.page_snoop_not_allowed(), "no page snoop"),
        (flags.atc_hardened(), "device-TLB hardened"),
        (flags.atc_required(), "device-TLB required"),
    ];
    let mut set: Vec<_> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    if set.is_empty() {
        set.push("no property");
    }
    set
}
