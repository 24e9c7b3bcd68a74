//! The table as a picture: units, the buses and bridges below them, the devices that they serve, and reserved memory.

mod canvas;
mod chips;
mod places;
mod widths;

use dmar::{Dmar, DmarError, Drhd};

use crate::damage::{damages, short};
use crate::index::Index;
use crate::machine::Machine;
use crate::picture::canvas::{Block, Face, flow, pill, shorten, text_width, wrap};
use crate::picture::chips::{Bus, Surroundings, bus, chip};
use crate::picture::places::{Served, places};
use crate::text::{path, plural, printable, size};
use crate::tree::notes;

const MARGIN: u32 = 32;
/// Of one column; wide enough for the widest chip below the deepest bridge that is drawn.
const COLUMN: u32 = 680;
const GAP: u32 = 20;

/// DejaVu and Verdana have the widths that the layout reckons with; others are narrower.
const STYLE: &str = "\
.s,.b{font-family:'DejaVu Sans',Verdana,Arial,sans-serif}.b{font-weight:bold}\
.m{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace;font-weight:bold}\
.ink{fill:#0f172a}.soft{fill:#475569}.white{fill:#fff}\
.page{fill:#f8fafc}.card{fill:#fff;stroke:#cbd5e1}.behind{fill:#f1f5f9;stroke:#94a3b8;stroke-dasharray:2 3}\
.unit{fill:#1e3a8a}.lost{fill:#991b1b}.memory{fill:#9f1239}.note{fill:#b45309}\
.rail{fill:none;stroke:#64748b;stroke-width:2;stroke-linecap:round}\
.endpoint{fill:#dbeafe;stroke:#2563eb}.bridge{fill:#dcfce7;stroke:#15803d}.ioapic{fill:#ffedd5;stroke:#c2410c}\
.hpet{fill:#fef9c3;stroke:#a16207}.acpi{fill:#f3e8ff;stroke:#7e22ce}.unknown{fill:#e2e8f0;stroke:#334155}\
.unnamed{fill:#fff;stroke:#2563eb;stroke-dasharray:4 3}.rest{fill:#fff;stroke:#1e3a8a;stroke-dasharray:4 3}\
.bus{fill:#64748b}.bus-text{fill:#fff}.region{fill:#be123c}.region-text{fill:#fff}\
.unit-flag{fill:#4338ca}.unit-flag-text{fill:#fff}.ats{fill:#0e7490}.ats-text{fill:#fff}.sidp{fill:#475569}.sidp-text{fill:#fff}\
.fact{fill:#e0e7ff}.fact-text{fill:#1e3a8a}.off{fill:#e2e8f0}.off-text{fill:#64748b}.pale{fill:#c7d2fe}";

/// The whole picture. `damage` is what [`Dmar::parse_damaged`] said; `machine` the machine that the table is of, where
/// that is known.
pub fn to_svg(dmar: &Dmar<'_>, damage: Option<DmarError>, machine: Option<&Machine>) -> String {
    let surroundings = Surroundings { index: Index::new(dmar), machine };
    let width = 2 * COLUMN + GAP;
    let (units, nobodys) = places(dmar);
    let mut cards: Vec<Block> = dmar
        .drhds()
        .zip(&units)
        .enumerate()
        .map(|(index, (drhd, served))| unit_card(&surroundings, index, &drhd, served))
        .collect();
    if !nobodys.buses.is_empty() {
        cards.push(nobodys_card(&surroundings, &nobodys));
    }
    let damages = damages(dmar, damage);
    // What is damaged is not usable either, and said once.
    let unusable = dmar.structures().filter_map(Result::err).map(|error| short(&error));
    let unusable = unusable.filter(|what| !damages.contains(what)).map(|what| format!("not usable: {what}"));
    let sections = [
        header(dmar, width),
        columns(&cards),
        columns(&region_cards(dmar)),
        notes_card(&damages, &unusable.chain(notes(dmar)).collect::<Vec<_>>(), width),
        legend(width),
    ];
    let mut page = Block::new(0, 0);
    let mut y = MARGIN;
    for section in sections.iter().filter(|section| section.height > 0) {
        page.put(MARGIN, y, section);
        y += section.height + GAP;
    }
    let (width, height) = (width + 2 * MARGIN, y + MARGIN - GAP);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\"><title>DMAR table</title><style>{STYLE}</style>\
         <rect width=\"{width}\" height=\"{height}\" class=\"page\"/>{}</svg>\n",
        page.svg
    )
}

/// Cards in two columns, each next one where there is more room.
fn columns(cards: &[Block]) -> Block {
    let mut all = Block::new(0, 0);
    let mut heights = [0; 2];
    for card in cards {
        let column = usize::from(heights[1] < heights[0]);
        let x = if column == 0 { 0 } else { COLUMN + GAP };
        all.put(x, heights[column], card);
        heights[column] += card.height + GAP;
    }
    all
}

fn header(dmar: &Dmar<'_>, width: u32) -> Block {
    use dmar::spec::table::{FLAG_DMA_CTRL_PLATFORM_OPT_IN, FLAG_INTR_REMAP, FLAG_X2APIC_OPT_OUT};
    let (oem, oem_table) = dmar.oem_ids();
    let mut block = Block::new(width, 0);
    let x = block.text(0, 26, "DMAR", 30, Face::Bold, "ink");
    let names = format!("{}  {}", printable(&oem), printable(&oem_table));
    block.text(x + 14, 26, &names, 18, Face::Sans, "soft");
    let count = |number: usize, what: &str| format!("{number} {what}{}", plural(number));
    let mut facts: Vec<Block> = [
        count(dmar.drhds().count(), "unit"),
        count(dmar.rmrrs().count(), "reserved region"),
        format!("DMA addresses of {} bits", dmar.host_address_width()),
        format!("revision {}", dmar.revision()),
        format!("{} bytes", dmar.bytes().len()),
    ]
    .iter()
    .map(|fact| pill(fact, "fact"))
    .collect();
    for (flag, name) in [
        (FLAG_INTR_REMAP, "INTR_REMAP"),
        (FLAG_X2APIC_OPT_OUT, "X2APIC_OPT_OUT"),
        (FLAG_DMA_CTRL_PLATFORM_OPT_IN, "DMA_CTRL_PLATFORM_OPT_IN"),
    ] {
        let set = dmar.flags() & flag != 0;
        facts.push(if set { pill(name, "unit-flag") } else { pill(&format!("no {name}"), "off") });
    }
    let all_ports = dmar.atsrs().filter(|atsr| atsr.all_ports());
    facts.extend(all_ports.map(|atsr| pill(&format!("ATS below all root ports of segment {}", atsr.segment), "ats")));
    block.put(0, 42, &flow(&facts, width, 8));
    block
}

/// A card with a coloured head.
fn card(class: &str, title: &str, details: &str, labels: &[Block], body: &Block) -> Block {
    const HEAD: u32 = 40;
    const SIDE: u32 = 16;
    let labels = flow(labels, COLUMN, 6);
    let height = HEAD + if body.height > 0 { body.height + 2 * SIDE } else { 0 };
    let mut card = Block::new(COLUMN, height);
    card.rectangle((0, 0), (COLUMN, height), 10, "card");
    card.rectangle((0, 0), (COLUMN, HEAD), 10, class);
    if body.height > 0 {
        // The head's lower corners are not round.
        card.rectangle((0, HEAD / 2), (COLUMN, HEAD / 2), 0, class);
    }
    let x = SIDE + card.text(SIDE, 26, title, 16, Face::Bold, "white") + 12;
    let room = COLUMN.saturating_sub(x + labels.width + SIDE + 8);
    card.text(x, 26, &shorten(details, room, 13, Face::Mono), 13, Face::Mono, "pale");
    card.put(COLUMN.saturating_sub(labels.width + SIDE), 11, &labels);
    if body.height > 0 {
        card.put(SIDE, HEAD + SIDE, body);
    }
    card
}

fn unit_card(surroundings: &Surroundings<'_>, index: usize, drhd: &Drhd<'_>, served: &Served) -> Block {
    let segment = drhd.segment;
    let mut labels = Vec::new();
    if segment != 0 {
        labels.push(pill(&format!("segment {segment:04x}"), "fact"));
    }
    if let Some(domain) = surroundings.index.proximity_domain(drhd.register_base) {
        labels.push(pill(&format!("domain {domain}"), "fact"));
    }
    if drhd.include_pci_all() {
        labels.push(pill("INCLUDE_PCI_ALL", "fact"));
    }
    let rest = drhd.include_pci_all().then(|| {
        let lines = [
            ("everything else".to_string(), Face::Bold, "ink"),
            (format!("on the PCI buses of segment {segment}"), Face::Sans, "soft"),
        ];
        chip("rest", &lines, &[])
    });
    let mut details = format!("{} · {}", drhd.register_base, size(drhd.register_size.into()));
    if served.buses.is_empty() && !drhd.include_pci_all() {
        details += " · names no device";
    }
    card("unit", &format!("Unit {index}"), &details, &labels, &buses(surroundings, served, rest))
}

/// All buses of a unit below each other.
fn buses(surroundings: &Surroundings<'_>, served: &Served, rest: Option<Block>) -> Block {
    let inner = COLUMN - 32;
    let mut body = Block::new(0, 0);
    let mut y = 0;
    for ((segment, number), places) in &served.buses {
        let label = match segment {
            0 => format!("bus {number:02x}"),
            segment => format!("bus {segment:04x}:{number:02x}"),
        };
        let block = bus(surroundings, &Bus { segment: *segment, number: Some(*number), label, places }, inner, None);
        body.put(0, y, &block);
        y += block.height + 14;
    }
    if let Some(rest) = rest {
        body.put(0, y, &rest);
    }
    body
}

fn nobodys_card(surroundings: &Surroundings<'_>, served: &Served) -> Block {
    card("lost", "No unit", "their DMA is not remapped", &[], &buses(surroundings, served, None))
}

fn region_cards(dmar: &Dmar<'_>) -> Vec<Block> {
    let cards = dmar.rmrrs().enumerate().map(|(index, rmrr)| {
        let bytes = u128::from(rmrr.limit.as_u64() - rmrr.base.as_u64()) + 1;
        let devices: Vec<String> =
            rmrr.scopes().iter().flatten().map(|scope| path(rmrr.segment, &scope).replace(' ', "\u{a0}")).collect();
        let devices = if devices.is_empty() { "for no device".to_string() } else { devices.join(",  ") };
        let mut body = Block::new(0, 0);
        let mut baseline = 12;
        for line in wrap(&devices, COLUMN - 32, 12, Face::Mono) {
            body.text(0, baseline, &line.replace('\u{a0}', " "), 12, Face::Mono, "soft");
            baseline += 18;
        }
        (body.width, body.height) = (COLUMN - 32, baseline - 14);
        let details = format!("{} – {}", rmrr.base, rmrr.limit);
        let label = pill(&size(bytes), "fact");
        card("memory", &format!("R{index}  Reserved memory"), &details, &[label], &body)
    });
    cards.collect()
}

fn notes_card(damages: &[String], notes: &[String], width: u32) -> Block {
    let mut block = Block::new(0, 0);
    if damages.is_empty() && notes.is_empty() {
        return block;
    }
    block.text(0, 14, "Notes", 16, Face::Bold, "ink");
    let mut y = 26;
    for (what, class) in damages.iter().map(|what| (what, "lost")).chain(notes.iter().map(|what| (what, "note"))) {
        let text = if class == "lost" { format!("damaged: {what}") } else { what.clone() };
        block.rectangle((0, y + 3), (8, 8), 4, class);
        for line in wrap(&text, width - 20, 13, Face::Sans) {
            block.text(18, y + 12, &line, 13, Face::Sans, "ink");
            y += 20;
        }
    }
    (block.width, block.height) = (width, y);
    block
}

fn legend(width: u32) -> Block {
    let entry = |mark: Block, text: &str| {
        let mut entry = Block::new(0, 0);
        entry.put(0, 0, &mark);
        let length = text_width(text, 12, Face::Sans);
        entry.text(mark.width + 8, 13, text, 12, Face::Sans, "soft");
        (entry.width, entry.height) = (mark.width + 8 + length, 20);
        entry
    };
    let square = |class: &str| {
        let mut square = Block::new(26, 18);
        square.rectangle((0, 0), (26, 18), 4, class);
        square
    };
    let entries = [
        entry(square("endpoint"), "PCI function that the unit names"),
        entry(square("bridge"), "bridge, with all below it"),
        entry(square("unnamed"), "served without being named"),
        entry(square("ioapic"), "I/O APIC"),
        entry(square("hpet"), "HPET"),
        entry(square("acpi"), "ACPI device"),
        entry(square("unknown"), "unknown scope"),
        entry(pill("R0", "region"), "has this reserved memory"),
        entry(pill("R?", "region"), "its reserved memory is not usable"),
        entry(pill("ATS", "ats"), "device-TLB supported"),
        entry(pill("SIDP", "sidp"), "has integrated-device properties"),
    ];
    let mut block = Block::new(0, 0);
    block.line((0, 0), (width, 0), "rail");
    block.put(0, 16, &flow(&entries, width, 22));
    block
}
