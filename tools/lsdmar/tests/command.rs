//! The command as a user meets it: what it prints where, and how it ends.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{NAME, REGION, REST, UNIT, real_tables, repair_checksum, table};

/// Runs the command with this standard input.
fn lsdmar(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lsdmar"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Asserts that a run ended with this status and one line that has these words, and returns what it printed else.
fn one_line(output: &Output, status: i32, words: &str) -> String {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(line.starts_with("lsdmar: ") && line.ends_with('\n') && line.contains(words), "{line:?} lacks {words:?}");
    text(&output.stdout).to_string()
}

/// The JSON of a table that is not damaged, or that is damaged so.
fn as_json(bytes: &[u8], damage: Option<&str>) -> Value {
    let output = lsdmar(&["--json", "-"], bytes);
    let printed = match damage {
        Some(words) => one_line(&output, 1, words),
        None => {
            assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
            text(&output.stdout).to_string()
        }
    };
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn help_and_version_are_told() {
    for option in ["--help", "-h"] {
        let output = lsdmar(&[option], b"");
        assert!(output.status.success() && output.stderr.is_empty());
        assert!(text(&output.stdout).contains("usage: lsdmar [--json | --svg] [FILE]"));
    }
    for option in ["--version", "-V"] {
        let output = lsdmar(&[option], b"");
        assert_eq!(text(&output.stdout), concat!("lsdmar ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn a_wrong_usage_ends_with_2() {
    for (arguments, words) in [
        (&["--xml"][..], "--xml"),
        (&["-q"], "-q"),
        (&["--json", "--svg"], "exclude"),
        (&["--svg", "--json"], "exclude"),
        (&["a", "b"], "more than one FILE"),
        (&["--sys"], "--sys"),
        (&["--json=yes"], "--json"),
    ] {
        assert_eq!(one_line(&lsdmar(arguments, b""), 2, words), "");
    }
}

#[test]
fn a_bad_file_ends_with_1() {
    let whole = table(&[UNIT]);
    for (input, words) in [
        (&b""[..], "empty"),
        (b"SSDT and more", "not a DMAR table: it begins with \"SSDT\""),
        (b"\x7fELF\x02\x01\x01", "begins with \"\\x7fELF\""),
        (b"DM", "2 bytes cannot hold"),
        (&whole[..47], "47 bytes cannot hold"),
        (&vec![0; (1 << 20) + 1], "longer than 1024 KiB"),
    ] {
        for format in [&["-"][..], &["--json", "-"], &["--svg", "-"]] {
            assert_eq!(one_line(&lsdmar(format, input), 1, words), "");
        }
    }
    let missing = "no/such/file";
    assert_eq!(one_line(&lsdmar(&[missing], b""), 1, "no/such/file: No such file"), "");
    assert_eq!(one_line(&lsdmar(&["."], b""), 1, ".: Is a directory"), "");
    assert_eq!(one_line(&lsdmar(&["--sys", "no/such/folder"], b""), 1, "not there"), "");
    // What never ends is not read to its end.
    assert_eq!(one_line(&lsdmar(&["/dev/zero"], b""), 1, "longer than"), "");
    // A name with a line break in it makes no second line.
    assert_eq!(one_line(&lsdmar(&["no\nsuch"], b""), 1, "no such"), "");
}

#[test]
fn a_pipe_that_nobody_reads_is_no_error() {
    let many: Vec<&[u8]> = vec![UNIT; 2000];
    for format in ["--json", "--svg"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lsdmar"))
            .args([format, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        child.stdin.take().unwrap().write_all(&table(&many)).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{format}");
    }
}

#[test]
fn the_tree_shows_every_structure() {
    let output = lsdmar(&["-"], &table(&[UNIT, REST, REGION, NAME, b"\x09\0\x06\0ab"]));
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        "\
DMAR revision 1, 164 bytes, by \"OEMID\" \"OEMTABLE\" revision 0x2, made with \"TEST\"
DMA addresses of 39 bits; INTR_REMAP, DMA_CTRL_PLATFORM_OPT_IN
├─ unit 0: registers at 0xfed90000 (4 KiB), segment 0
│  └─ PCI endpoint  00:02.0
├─ unit 1: registers at 0xfed91000 (4 KiB), segment 0
│  ├─ I/O APIC 2         f0:1f.0
│  ├─ HPET 0             00:1f.0
│  ├─ ACPI device 1 \\_A  00:15.0
│  └─ every other PCI device of the segment (INCLUDE_PCI_ALL)
├─ reserved memory 0x8000000 to 0x8ffffff (16 MiB), segment 0
│  └─ PCI endpoint  00:1c.0 → 00.0
├─ ACPI device 1: \\_A
└─ structure of unknown type 9, 6 bytes
"
    );
}

#[test]
fn json_has_every_field() {
    let sidp = b"\x06\0\x10\0\x34\x12\x01\0\x01\x08\x1f\x55\x03\x04\x02\0";
    let rhsa = b"\x03\0\x14\0\x04\x03\x02\x01\0\0\xd9\xfe\0\0\0\0\x07\0\0\x80";
    let printed = as_json(&table(&[UNIT, REGION, rhsa, NAME, sidp, b"\x09\0\x06\0ab"]), None);
    let scope = |offset: u32, path: Value| {
        json!({ "offset": offset, "type": 1, "path": path, "length": 8, "flags": 0, "reserved": 0, "enumeration_id": 0,
                "start_bus": 0 })
    };
    let mut behind_bridge = scope(96, json!([[28, 0], [0, 0]]));
    behind_bridge["length"] = 10.into();
    let mut with_properties = scope(146, json!([[2, 0]]));
    (with_properties["flags"], with_properties["reserved"]) = (31.into(), 0x55.into());
    (with_properties["enumeration_id"], with_properties["start_bus"]) = (3.into(), 4.into());
    assert_eq!(
        printed,
        json!({
            "length": 160, "revision": 1, "checksum_ok": true, "oem_revision": 2, "host_address_width": 38, "flags": 5,
            "structures": [
                { "offset": 48, "type": 0, "length": 24, "flags": 0, "size": 0, "size_log2_pages": 0, "segment": 0,
                  "register_base": 0xfed9_0000_u32, "scopes": [scope(64, json!([[2, 0]]))] },
                { "offset": 72, "type": 1, "length": 34, "reserved": 0, "segment": 0, "base": 0x800_0000,
                  "end": 0x8ff_ffff, "scopes": [behind_bridge] },
                { "offset": 106, "type": 3, "length": 20, "reserved": 0x0102_0304, "base": 0xfed9_0000_u32,
                  "proximity_domain": 0x8000_0007_u32 },
                { "offset": 126, "type": 4, "length": 12, "reserved": 0, "device_number": 1, "device_name": "\\_A" },
                { "offset": 138, "type": 6, "length": 16, "reserved": 0x1234, "segment": 1,
                  "scopes": [with_properties] },
                { "offset": 154, "type": 9, "length": 6 },
            ]
        })
    );
}

#[test]
fn json_is_that_of_another_decoder_for_every_real_table() {
    for (name, bytes, mut decoding) in real_tables("json_is_that_of_another_decoder_for_every_real_table") {
        for from_elsewhere in ["name", "machine", "source"] {
            decoding.as_object_mut().unwrap().shift_remove(from_elsewhere);
        }
        let output = lsdmar(&["--json", "-"], &bytes);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", text(&output.stderr));
        let mut expected = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        serde::Serialize::serialize(&decoding, &mut serde_json::Serializer::with_formatter(&mut expected, formatter))
            .unwrap();
        // The order of the fields and the form of the text too.
        assert_eq!(text(&output.stdout).trim_end(), text(&expected), "{name}");
    }
}

/// How many structures the JSON of a table has, and how many errors.
fn counts(printed: &Value) -> (usize, usize) {
    let count = |name: &str| printed[name].as_array().map_or(0, Vec::len);
    (count("structures"), count("errors"))
}

#[test]
fn what_can_be_read_of_a_damaged_table_is_shown() {
    let good = table(&[UNIT, REST, REGION]);

    let mut wrong_sum = good.clone();
    wrong_sum[11] ^= 1;
    let printed = as_json(&wrong_sum, Some("bytes add up to 0x"));
    assert_eq!((counts(&printed), &printed["checksum_ok"]), ((3, 1), &json!(false)));

    let printed = as_json(&good[..good.len() - 1], Some("length field is 146, 145 bytes are there; and 1 more"));
    assert_eq!(counts(&printed), (2, 2));
    assert_eq!(printed["length"], 146);

    let mut zero_length = table(&[UNIT, REST, REGION]);
    zero_length[74] = 0;
    repair_checksum(&mut zero_length);
    assert_eq!(counts(&as_json(&zero_length, Some("structure at 0x48 of type 0: length below 4"))), (1, 1));

    let too_short = table(&[b"\0\0\x08\0\x01\0\x02\0", UNIT]);
    let printed = as_json(&too_short, Some("structure at 0x30 of type 0: 8 bytes, its type needs 16"));
    assert_eq!(counts(&printed), (2, 1));
    // The fields that it has room for.
    let fields =
        json!({ "offset": 48, "type": 0, "length": 8, "flags": 1, "size": 0, "size_log2_pages": 0, "segment": 2 });
    assert_eq!(printed["structures"][0], fields);

    // A scope that goes on beyond its unit, one without a length, and one with half a hop.
    for (length, scopes, words) in [(9, 0, "length 9, but 8"), (0, 0, "0 bytes cannot hold"), (7, 1, "length 7 leaves")]
    {
        let mut bytes = table(&[UNIT, REST]);
        bytes[65] = length;
        repair_checksum(&mut bytes);
        let printed = as_json(&bytes, Some(words));
        assert_eq!(printed["structures"].as_array().unwrap().len(), 2);
        assert_eq!(printed["structures"][0]["scopes"].as_array().unwrap().len(), scopes, "{length}");
        assert_eq!(printed["structures"][1]["scopes"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn what_real_tables_have_is_no_damage() {
    // A register base of 0, a region that ends below its base, a hop to a device that cannot be, unknown types and flags.
    let mut unit_off = UNIT.to_vec();
    unit_off[8..16].fill(0);
    let mut backwards = REGION.to_vec();
    backwards[19] = 0;
    let mut no_device = UNIT.to_vec();
    no_device[22] = 32;
    let mut bytes = table(&[&unit_off, &no_device, &backwards, b"\xff\xff\x04\0"]);
    bytes[37] = 0xff;
    repair_checksum(&mut bytes);
    // Nor is what follows the table in its file.
    bytes.extend(b"rubbish");
    let printed = as_json(&bytes, None);
    assert_eq!(counts(&printed), (4, 0));
    assert_eq!(printed["structures"][0]["register_base"], 0);
    assert_eq!(printed["structures"][1]["scopes"][0]["path"], json!([[32, 0]]));
    assert_eq!(printed["structures"][2]["end"], 0xff_ffff);
    assert_eq!(printed["structures"][3], json!({ "offset": 130, "type": 65535, "length": 4 }));
    let output = lsdmar(&["-"], &bytes);
    let tree = text(&output.stdout);
    for words in ["NOT USABLE: structure at 0x30 of type 0: register base 0", "7 bytes of the file follow the table"] {
        assert!(tree.contains(words), "{tree}");
    }
}

#[test]
fn names_are_text_whatever_firmware_wrote() {
    let mut bytes = table(&[b"\x04\0\x0f\0\0\0\0\x01<\xff\x1b&\0x\0"]);
    bytes[10..16].copy_from_slice(b"\x1b[31m<");
    repair_checksum(&mut bytes);
    assert_eq!(as_json(&bytes, None)["structures"][0]["device_name"], "<\u{fffd}\u{1b}&");
    for format in ["--svg", "-"] {
        let output = lsdmar(&[format, "-"][..if format == "-" { 1 } else { 2 }], &bytes);
        assert!(!output.stdout.contains(&0x1b), "{format}");
    }
}

#[test]
fn the_devices_of_the_machine_are_named() {
    let sys = std::env::temp_dir().join(format!("lsdmar-sys-{}", std::process::id()));
    let device = |address: &str, config: &[(usize, u8)]| {
        let folder = sys.join("bus/pci/devices").join(address);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("vendor"), "0xfffe\n").unwrap();
        std::fs::write(folder.join("device"), "0x10d3\n").unwrap();
        let mut bytes = [0; 64];
        for (offset, value) in config {
            bytes[*offset] = *value;
        }
        std::fs::write(folder.join("config"), bytes).unwrap();
    };
    device("0000:00:02.0", &[]);
    device("0000:00:1c.0", &[(0xe, 1), (0x19, 5), (0x1a, 6)]);
    device("0000:05:00.0", &[]);
    std::fs::create_dir_all(sys.join("firmware/acpi/tables")).unwrap();
    std::fs::write(sys.join("firmware/acpi/tables/DMAR"), table(&[UNIT, REST, REGION, NAME])).unwrap();
    let sys_option = sys.to_string_lossy();
    let output = lsdmar(&["--sys", &sys_option], b"");
    let picture = lsdmar(&["--svg", "--sys", &sys_option], b"");
    std::fs::remove_dir_all(&sys).unwrap();
    let tree = text(&output.stdout);
    assert!(output.status.success() && picture.status.success(), "{}", text(&output.stderr));
    assert!(tree.contains("PCI endpoint  00:02.0  fffe:10d3\n"), "{tree}");
    assert!(tree.contains("PCI endpoint  00:1c.0 → 00.0  = 05:00.0: fffe:10d3\n"), "{tree}");
    for words in ["bus 05", "05:00.0", "fffe:10d3"] {
        assert!(text(&picture.stdout).contains(words), "{words}");
    }
}

#[test]
fn the_longest_table_does_not_take_the_square_of_its_length() {
    // Units with ACPI devices, their names and affinities: what is looked up for every line. Searching the table for each
    // would take minutes.
    let unit = b"\0\0\x18\0\0\0\0\0\0\0\xd9\xfe\0\0\0\0\x05\x08\0\0\x77\0\x02\0";
    let affinity = b"\x03\0\x14\0\0\0\0\0\0\x10\xd9\xfe\0\0\0\0\0\0\0\0";
    let name = b"\x04\0\x08\0\0\0\0\x01";
    let structures: Vec<&[u8]> = [&unit[..], &affinity[..], &name[..]].repeat(20_000);
    let bytes = table(&structures);
    for format in ["-", "--svg"] {
        let started = std::time::Instant::now();
        let output = lsdmar(&[format, "-"][..if format == "-" { 1 } else { 2 }], &bytes);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{format}: {:?}", started.elapsed());
    }
}
