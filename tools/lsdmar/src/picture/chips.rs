//! Devices as chips that hang from their bus.

use std::collections::BTreeSet;

use addr::{Bdf, PciAddress};
use dmar::{Ats, SidpFlags, Topology};

use crate::index::Index;
use crate::machine::Machine;
use crate::picture::canvas::{Block, Face, flow, pill, shorten, text_width};
use crate::picture::places::{Key, Kind, Naming, Place, Places};
use crate::tree::property_names;

/// The widest that a line of a chip may be, and how many regions it shows by number.
const WIDEST: u32 = 280;
const MOST_REGIONS: usize = 7;

/// What the drawing of a device needs to know.
pub struct Surroundings<'t> {
    pub index: Index,
    pub machine: Option<&'t Machine>,
}

/// A bus that places hang from. Its number is known if its bridge is, or if it is where paths begin.
pub struct Bus<'p> {
    pub segment: u16,
    pub number: Option<u8>,
    /// Written at the rail's beginning.
    pub label: String,
    pub places: &'p Places,
}

/// A bus with all that hangs from it, wrapped at this width; `rest` hangs from it last.
pub fn bus(surroundings: &Surroundings<'_>, bus: &Bus<'_>, width: u32, rest: Option<Block>) -> Block {
    const INDENT: u32 = 22;
    const DROP: u32 = 14;
    const GAP: u32 = 10;
    let groups = hpets_together(bus.places);
    let blocks = groups.iter().map(|group| match group {
        Group::One(key, place) => device(surroundings, bus, key, place, width.saturating_sub(INDENT)),
        Group::Hpet { number, device, functions, hops } => hpet(bus, *number, *device, functions, hops),
    });
    let mut label = pill(&bus.label, "bus");
    label.height += 2;
    let mut all = Block::new(0, 0);
    all.put(0, 0, &label);
    let mut rails = Block::new(0, 0);
    let (mut x, mut y, mut row) = (INDENT, label.height + 8, 0);
    let mut last_rail = 0;
    let mut first_of_row = true;
    for block in blocks.chain(rest) {
        if !first_of_row && x + block.width > width {
            (x, y, row) = (INDENT, y + row + GAP + 6, 0);
        }
        // The rail of this row, as far as this block's stub.
        let stub = x + 24.min(block.width / 2);
        rails.line((8, y), (stub, y), "rail");
        rails.line((stub, y), (stub, y + DROP), "rail");
        last_rail = y;
        all.put(x, y + DROP, &block);
        x += block.width + GAP;
        row = row.max(block.height + DROP);
        first_of_row = false;
    }
    rails.line((8, label.height - 2), (8, last_rail), "rail");
    rails.svg.push_str(&all.svg);
    Block { width: all.width, height: all.height, svg: rails.svg }
}

/// What hangs from a bus as one block.
enum Group<'p> {
    One(&'p Key, &'p Place),
    /// An HPET with a source-id for each of its comparators.
    Hpet {
        number: u8,
        device: u8,
        functions: BTreeSet<u8>,
        hops: Vec<(u8, u8)>,
    },
}

fn hpets_together(places: &Places) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (key, place) in places {
        if let (hops, Kind::Hpet(number)) = key
            && let [.., (device, function)] = hops[..]
        {
            let same = groups.iter_mut().find_map(|group| match group {
                Group::Hpet { number: other, device: at, functions, .. } if (*other, *at) == (*number, device) => {
                    Some(functions)
                }
                _ => None,
            });
            match same {
                Some(functions) => {
                    functions.insert(function);
                }
                None => groups.push(Group::Hpet {
                    number: *number,
                    device,
                    functions: BTreeSet::from([function]),
                    hops: hops.clone(),
                }),
            }
        } else {
            groups.push(Group::One(key, place));
        }
    }
    groups
}

fn hpet(bus: &Bus<'_>, number: u8, device: u8, functions: &BTreeSet<u8>, hops: &[(u8, u8)]) -> Block {
    let first = functions.first().copied().unwrap_or(0);
    let mut hops = hops.to_vec();
    if let Some(last) = hops.last_mut() {
        *last = (device, first);
    }
    let mut address = address_text(bus, &hops);
    if let (Some(last), true) = (functions.last(), functions.len() > 1) {
        address += &format!(" … {last:x}");
    }
    chip("hpet", &[(address, Face::Mono, "ink"), (format!("HPET {number}"), Face::Sans, "soft")], &[])
}

/// `00:1f.7` on a bus whose number is known, `1f.7` elsewhere.
fn address_text(bus: &Bus<'_>, hops: &[(u8, u8)]) -> String {
    let hops: Vec<String> = hops.iter().map(|(device, function)| format!("{device:02x}.{function:x}")).collect();
    let hops = hops.join(" → ");
    match bus.number {
        Some(number) => format!("{number:02x}:{hops}"),
        None => hops,
    }
}

fn device(surroundings: &Surroundings<'_>, bus: &Bus<'_>, key: &Key, place: &Place, width: u32) -> Block {
    let chip = place_chip(surroundings, bus, key, place);
    if place.behind.is_empty() {
        return chip;
    }
    const MARGIN: u32 = 10;
    let behind = address(bus, &key.0).and_then(|bridge| surroundings.machine?.bridge_buses(bridge));
    let behind = behind.map(|(secondary, _)| secondary).filter(|secondary| *secondary != 0);
    let label = behind.map_or_else(|| "behind it".to_string(), |number| format!("bus {number:02x}"));
    let below = Bus { segment: bus.segment, number: behind, label, places: &place.behind };
    let below = self::bus(surroundings, &below, width.saturating_sub(2 * MARGIN), None);
    let mut all = Block::new(0, 0);
    all.put(MARGIN, MARGIN, &chip);
    all.put(MARGIN, MARGIN + chip.height + 8, &below);
    let mut group = Block::new(all.width + MARGIN, all.height + MARGIN);
    group.rectangle((0, 0), (all.width + MARGIN, all.height + MARGIN), 8, "behind");
    group.put(0, 0, &all);
    group
}

fn address(bus: &Bus<'_>, hops: &[(u8, u8)]) -> Option<PciAddress> {
    let ([(device, function)], Some(number)) = (hops, bus.number) else { return None };
    Some(PciAddress { segment: bus.segment, bdf: Bdf::new(number, *device, *function)? })
}

fn place_chip(surroundings: &Surroundings<'_>, bus: &Bus<'_>, key: &Key, place: &Place) -> Block {
    let (hops, kind) = key;
    let (class, what) = match (kind, place.naming) {
        (Kind::Pci, Naming::AllBelow) => {
            ("bridge", (if place.root_port { "root port and all below" } else { "bridge and all below" }).to_string())
        }
        (Kind::Pci, Naming::Itself) => ("endpoint", "endpoint".to_string()),
        (Kind::Pci, Naming::Nothing) if place.root_port => ("unnamed", "root port".to_string()),
        (Kind::Pci, Naming::Nothing) if !place.behind.is_empty() => ("unnamed", "bridge".to_string()),
        (Kind::Pci, Naming::Nothing) => ("unnamed", "PCI device".to_string()),
        (Kind::IoApic(id), _) => ("ioapic", format!("I/O APIC {id}")),
        (Kind::Hpet(number), _) => ("hpet", format!("HPET {number}")),
        (Kind::Acpi(number), _) => {
            let name = surroundings.index.name(*number);
            ("acpi", name.map_or_else(|| format!("ACPI device {number}"), str::to_string))
        }
        (Kind::Unknown(scope_type), _) => ("unknown", format!("scope type {scope_type}")),
    };
    let mut lines = vec![(address_text(bus, hops), Face::Mono, "ink"), (what, Face::Sans, "soft")];
    if *kind == Kind::Pci
        && let Some(name) = address(bus, hops).and_then(|at| surroundings.machine?.name(at))
    {
        lines.push((name, Face::Sans, "soft"));
    }
    chip(class, &lines, &tags(place))
}

fn tags(place: &Place) -> Vec<Block> {
    let shown = place.regions.iter().take(MOST_REGIONS);
    let mut tags: Vec<Block> = shown.map(|region| pill(&format!("R{region}"), "region")).collect();
    if place.regions.len() > MOST_REGIONS {
        tags.push(pill(&format!("+{}", place.regions.len() - MOST_REGIONS), "region"));
    }
    if place.lacks_region {
        tags.push(pill("R?", "region"));
    }
    match place.ats {
        Some(Ats::Required) => tags.push(pill("ATS needed", "ats")),
        Some(_) => tags.push(pill("ATS", "ats")),
        None => {}
    }
    if let Some(properties) = place.properties {
        let mut tag = pill("SIDP", "sidp");
        tag.tooltip(&property_names(SidpFlags(properties)).join(", "));
        tags.push(tag);
    }
    tags
}

/// A chip with lines of text and tags below them; a bridge that stands for what is below it looks like a stack.
pub fn chip(class: &str, lines: &[(String, Face, &str)], tags: &[Block]) -> Block {
    const SIDE: u32 = 12;
    const LINE: u32 = 16;
    let tags = flow(tags, WIDEST, 4);
    let size = |face| if face == Face::Mono { 13 } else { 11 };
    let short: Vec<_> =
        lines.iter().map(|(text, face, ink)| (shorten(text, WIDEST, size(*face), *face), *face, *ink)).collect();
    let text = short.iter().map(|(text, face, _)| text_width(text, size(*face), *face)).max().unwrap_or(0);
    let width = (text.max(tags.width) + 2 * SIDE).max(74);
    let lines_height = u32::try_from(short.len()).unwrap_or(0) * LINE;
    let height = lines_height + 11 + if tags.height > 0 { tags.height + 5 } else { 0 };
    let mut block = Block::new(width, height);
    if class == "bridge" {
        block.rectangle((6, 6), (width, height), 6, "bridge");
        block.rectangle((3, 3), (width, height), 6, "bridge");
        (block.width, block.height) = (width + 6, height + 6);
    }
    block.rectangle((0, 0), (width, height), 6, class);
    for (index, (text, face, ink)) in short.iter().enumerate() {
        let baseline = 17 + u32::try_from(index).unwrap_or(0) * LINE;
        block.text(SIDE, baseline, text, size(*face), *face, ink);
    }
    block.put(SIDE, lines_height + 8, &tags);
    let whole: Vec<&str> = lines.iter().map(|(text, ..)| text.as_str()).collect();
    block.tooltip(&whole.join("\n"));
    block
}
