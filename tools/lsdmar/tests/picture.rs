//! The picture: sound XML, nothing outside of it, no chip over another, every device in it.

mod support;

use std::collections::BTreeSet;

use lsdmar::{Input, to_svg};
use roxmltree::{Document, Node};
use support::{NAME, REGION, REST, UNIT, real_tables, repair_checksum, table};

fn picture(bytes: &[u8]) -> String {
    let input = Input::new(bytes.to_vec()).unwrap();
    let (dmar, damage) = input.table().unwrap();
    to_svg(&dmar, damage, None)
}

/// Left, top, right and bottom.
type Extent = (i64, i64, i64, i64);

/// Where a shape is on the page: its own place and those of the groups around it.
fn origin(node: Node<'_, '_>) -> (i64, i64) {
    let shifts = node.ancestors().filter_map(|node| {
        let shift = node.attribute("transform")?.strip_prefix("translate(")?.strip_suffix(')')?;
        let (x, y) = shift.split_once(' ')?;
        Some((x.parse::<i64>().unwrap(), y.parse::<i64>().unwrap()))
    });
    shifts.fold((0, 0), |(x, y), (dx, dy)| (x + dx, y + dy))
}

fn number(node: Node<'_, '_>, name: &str) -> i64 {
    node.attribute(name).map_or(0, |value| value.parse().unwrap())
}

fn extent(rectangle: Node<'_, '_>) -> Extent {
    let (x, y) = origin(rectangle);
    let (x, y) = (x + number(rectangle, "x"), y + number(rectangle, "y"));
    (x, y, x + number(rectangle, "width"), y + number(rectangle, "height"))
}

fn inside(inner: Extent, outer: Extent) -> bool {
    inner.0 >= outer.0 && inner.1 >= outer.1 && inner.2 <= outer.2 && inner.3 <= outer.3
}

fn overlap(a: Extent, b: Extent) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// A text's extent, its letters taken as wide as those of DejaVu Sans are on the average of such texts, which is less
/// than the layout reckons with.
fn text_extent(node: Node<'_, '_>) -> Extent {
    let (x, y) = origin(node);
    let (x, baseline, size) = (x + number(node, "x"), y + number(node, "y"), number(node, "font-size"));
    let letters = i64::try_from(node.text().unwrap_or("").chars().count()).unwrap();
    (x, baseline - size * 3 / 4, x + letters * size / 2, baseline + size / 4)
}

/// Checks the layout of a picture and returns the texts in it.
fn check(name: &str, svg: &str) -> BTreeSet<String> {
    let document = Document::parse(svg).unwrap_or_else(|error| panic!("{name}: {error}"));
    let root = document.root_element();
    let page = (0, 0, number(root, "width"), number(root, "height"));
    let rectangles: Vec<_> = document.descendants().filter(|node| node.has_tag_name("rect")).collect();
    let of_class = |classes: &[&str]| -> Vec<Extent> {
        let matching = rectangles.iter().filter(|node| node.attribute("class").is_some_and(|c| classes.contains(&c)));
        matching.map(|node| extent(*node)).collect()
    };
    for rectangle in &rectangles {
        assert!(inside(extent(*rectangle), page), "{name}: {rectangle:?} lies outside");
    }
    let chips = of_class(&["endpoint", "ioapic", "hpet", "acpi", "unknown", "unnamed", "rest"]);
    let cards = of_class(&["card"]);
    for boxes in [&chips, &cards] {
        for (index, first) in boxes.iter().enumerate() {
            for second in &boxes[index + 1..] {
                assert!(!overlap(*first, *second), "{name}: {first:?} over {second:?}");
            }
        }
    }
    for group in of_class(&["behind"]) {
        assert!(cards.iter().any(|card| inside(group, *card)), "{name}: a bridge outside of its card");
        for chip in chips.iter().filter(|chip| overlap(**chip, group)) {
            assert!(inside(*chip, group), "{name}: a chip sticks out of its bridge");
        }
    }
    let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
    for (index, first) in texts.iter().enumerate() {
        assert!(inside(text_extent(*first), page), "{name}: {:?} lies outside", first.text());
        for second in &texts[index + 1..] {
            let (a, b) = (text_extent(*first), text_extent(*second));
            assert!(!overlap(a, b), "{name}: {:?} over {:?}", first.text(), second.text());
        }
    }
    texts.iter().filter_map(|node| node.text()).map(str::to_string).collect()
}

#[test]
fn every_device_is_drawn() {
    let texts = check("small", &picture(&table(&[UNIT, REST, REGION, NAME])));
    for expected in [
        "Unit 0",
        "Unit 1",
        "00:02.0",
        "f0:1f.0",
        "I/O APIC 2",
        "00:1f.0",
        "HPET 0",
        "00:15.0",
        "\\_A",
        "00:1c.0",
        "00.0",
        "R0",
        "0x8000000 – 0x8ffffff",
        "16 MiB",
        "INCLUDE_PCI_ALL",
        "everything else",
        "no X2APIC_OPT_OUT",
    ] {
        assert!(texts.contains(expected), "{expected} is not in {texts:?}");
    }
    assert!(!texts.contains("No unit"));
}

#[test]
fn what_no_unit_serves_is_drawn_apart() {
    let mut unit_off = UNIT.to_vec();
    unit_off[8..16].fill(0);
    for structures in [&[UNIT, REGION][..], &[&unit_off, REST, NAME]] {
        let texts = check("nobody's", &picture(&table(structures)));
        assert!(texts.contains("No unit"), "{texts:?}");
    }
    let texts = check("off", &picture(&table(&[&unit_off, REST, NAME])));
    assert!(texts.contains("not usable: structure at 0x30 of type 0: register base 0"), "{texts:?}");
}

#[test]
fn pictures_of_real_tables_are_legible() {
    for (name, bytes, decoding) in real_tables("pictures_of_real_tables_are_legible") {
        let texts = check(&name, &picture(&bytes));
        for scope in
            decoding["structures"].as_array().unwrap().iter().filter_map(|structure| structure["scopes"][0].as_object())
        {
            let number = |value: &serde_json::Value| value.as_u64().unwrap();
            let hop = scope["path"].as_array().unwrap().last().unwrap();
            let end = format!("{:02x}.{:x}", number(&hop[0]), number(&hop[1]));
            assert!(texts.iter().any(|text| text.contains(&end)), "{name}: {end} is not in {texts:?}");
        }
    }
}

#[test]
fn strange_tables_have_sound_pictures() {
    // The deepest path that a scope can have, a name of the greatest length in wide letters, and many of everything.
    let hops = [[3, 1]; 124].concat();
    let deep = [&[2, 254, 0, 0, 0, 7][..], &hops].concat();
    let length = u16::try_from(16 + deep.len()).unwrap().to_le_bytes();
    let deep = [&b"\0\0"[..], &length, b"\0\0\x05\0\0\0\xd8\xfe\0\0\0\0", &deep].concat();
    let name = "Ж&<".repeat(80);
    let length = u16::try_from(9 + name.len()).unwrap().to_le_bytes();
    let name = [&b"\x04\0"[..], &length, b"\0\0\0\x01", name.as_bytes(), b"\0"].concat();
    check("deep", &picture(&table(&[UNIT, REST, &deep, &name, REGION])));
    let regions: Vec<&[u8]> = [UNIT, REST].into_iter().chain(vec![REGION; 60]).collect();
    check("many regions", &picture(&table(&regions)));
    let mut wrong_sum = table(&[UNIT, &[0; 8]]);
    wrong_sum[40] = 3;
    check("damaged", &picture(&wrong_sum));
    let mut empty = table(&[]);
    empty[10..24].fill(b'W');
    repair_checksum(&mut empty);
    check("empty", &picture(&empty));
}
