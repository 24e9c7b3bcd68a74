//! What a file says, and what its writer is told.

use config::{Config, DeviceName, MAXIMUM_BYTES, check_members, parse};

const GOOD: &str = r#"
[hypervisor]
debug_exit_port = 0xf4
[[guest]]
name = "netprobe"
kernel = "netprobe"
memory_mib = 16
cpus = 1
command_line = "attack"
debug_exit_port = 0x501
initrd = "initrd.img"
modules = ["environment", "netprobe"]
devices = ["8086:10d3", "8086:10d3", "0000:00:03.0", "1f:1f.7"]
"#;

/// All that is said about a file.
fn words(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(|complaint| complaint.to_string()).collect()
}

/// The good file with one thing replaced has exactly this complaint.
fn wrong(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    assert_eq!(words(&GOOD.replacen(from, to, 1)), [expected], "{from} as {to}");
}

#[test]
fn a_configuration_is_read() {
    let Config { hypervisor, guests } = parse(GOOD).unwrap();
    assert_eq!((hypervisor.debug_exit_port, hypervisor.fault_limit), (Some(0xf4), None));
    let [guest] = guests.as_slice() else { panic!("{guests:?}") };
    assert_eq!((guest.name.as_str(), guest.memory_mib, guest.command_line.as_str()), ("netprobe", 16, "attack"));
    assert_eq!((guest.debug_exit_port, guest.doorbell_port, guest.virtual_functions), (Some(0x501), None, 0));
    let more = parse(&GOOD.replace("cpus = 1", "virtual_functions = 64")).unwrap();
    assert_eq!(more.guests[0].virtual_functions, 64);
    let members: Vec<_> =
        guest.members().into_iter().map(|(key, member)| (key, member.name.as_str(), member.line)).collect();
    let expected = [
        ("kernel", "netprobe", 6),
        ("initrd", "initrd.img", 11),
        ("modules", "environment", 12),
        ("modules", "netprobe", 12),
    ];
    assert_eq!(members, expected);
    let names: Vec<_> = guest.devices.iter().map(|device| device.name.to_string()).collect();
    assert_eq!(names, ["8086:10d3", "8086:10d3", "0000:00:03.0", "0000:1f:1f.7"]);
    assert!(guest.devices.iter().all(|device| device.line == 13));
    assert!(matches!(guest.devices[0].name, DeviceName::Id { vendor: 0x8086, device: 0x10d3 }));
}

#[test]
fn a_misspelt_key_is_told_with_what_was_meant() {
    wrong(
        "debug_exit_port = 0xf4",
        "debug_exit_prot = 0xf4",
        "line 3: there is no key \"debug_exit_prot\" here; did you mean \"debug_exit_port\"?",
    );
    wrong(
        "command_line",
        "commandline",
        "line 9: there is no key \"commandline\" here; did you mean \"command_line\"?",
    );
    wrong("[hypervisor]", "[hypervizor]", "line 2: there is no key \"hypervizor\" here; did you mean \"hypervisor\"?");
    wrong(
        "cpus = 1",
        "colour = 1",
        "line 8: there is no key \"colour\" here; there are: name, kernel, initrd, modules, memory_mib, cpus, \
           command_line, devices, virtual_functions, debug_exit_port, doorbell_port",
    );
    // What is needed and misspelt is missing too; complaints are in the order of the lines.
    assert_eq!(
        words(&GOOD.replace("memory_mib", "memory_mb")),
        [
            "line 4: the key \"memory_mib\" is missing here",
            "line 7: there is no key \"memory_mb\" here; did you mean \"memory_mib\"?",
        ]
    );
}

#[test]
fn a_wrong_value_is_told_with_what_is_wanted() {
    wrong("= 16", "= 1", "line 7: memory_mib: a whole number from 2 to 2048 is wanted, not \"1\"");
    wrong("= 16", "= -1", "line 7: memory_mib: a whole number from 2 to 2048 is wanted, not \"-1\"");
    wrong("= 16", "= 1.5", "line 7: memory_mib: a whole number from 2 to 2048 is wanted, not \"1.5\"");
    wrong(
        "= 16",
        "= \"16\"",
        "line 7: memory_mib: a whole number from 2 to 2048 without quotation marks is wanted, not \"16\"",
    );
    wrong(
        "= 16",
        "= 99999999999999999999",
        "line 7: memory_mib: a whole number from 2 to 2048 is wanted, not \"99999999999999999999\"",
    );
    wrong("0xf4", "65536", "line 3: debug_exit_port: a whole number from 0 to 65535 is wanted, not \"65536\"");
    wrong("cpus = 1", "cpus = 2", "line 8: cpus: in this version a guest has one processor: write 1, or leave it out");
    wrong("cpus = 1", "cpus = 0", "line 8: cpus: a whole number from 1 to 255 is wanted, not \"0\"");
    wrong(
        "cpus = 1",
        "virtual_functions = 65",
        "line 8: virtual_functions: a whole number from 0 to 64 is wanted, not \"65\"",
    );
    wrong(
        "cpus = 1",
        "virtual_function = 2",
        "line 8: there is no key \"virtual_function\" here; did you mean \"virtual_functions\"?",
    );
    wrong(
        "cpus = 1",
        "doorbell_port = 0x501",
        "line 8: doorbell_port: debug_exit_port is the same port: change one of them",
    );
    wrong(
        "kernel = \"netprobe\"",
        "kernel = netprobe",
        "line 6: invalid float, expected `nan`; a text must stand in quotation marks",
    );
    wrong("kernel = \"netprobe\"", "kernel = 7", "line 6: kernel: a text in quotation marks is wanted");
    wrong(
        "name = \"netprobe\"",
        "name = \"net probe\"",
        "line 5: name: \"net probe\" cannot be one: use 1 to 32 letters, digits, '-' and '_'",
    );
    wrong("\"attack\"", "\"a\\u0000\"", "line 9: command_line: it has 2 bytes; it may have 2000, and no zero byte");
    wrong(
        "\"attack\"",
        &format!("\"{}\"", "a".repeat(2001)),
        "line 9: command_line: it has 2001 bytes; it may have 2000, and no zero byte",
    );
    wrong(
        "\"1f:1f.7\"",
        "\"8086\"",
        "line 13: devices: \"8086\" names no device: write vendor:device such as \"8086:10d3\", or an address such as \
           \"0000:00:03.0\", with all their digits",
    );
    wrong("\"1f:1f.7\"", &"\"8086:10d3\", ".repeat(7), "line 13: devices: at most 8 are possible");
    wrong("[\"environment\", \"netprobe\"]", "\"environment\"", "line 12: modules: a list is wanted: put it in [ ]");
    wrong("[\"environment\", ", "[\"environment\",\n\n 7, ", "line 14: modules: a text in quotation marks is wanted");
    wrong("[[guest]]", "[guest]", "line 4: guest: a list is wanted: write [[guest]]");
    assert_eq!(
        words("hypervisor = 7\n[[guest]]\nname=\"a\"\nkernel=\"a\"\nmemory_mib=2"),
        ["line 1: hypervisor: a table is wanted, with its keys in lines of their own"]
    );
    let many = words("guest = [7]\n");
    assert_eq!(many[0], "line 1: guest: a table is wanted, with its keys in lines of their own");
    wrong("[[guest]]", "[[guest]", "line 4: unclosed array table, expected `]`");
    wrong("cpus = 1", "name = \"again\"", "line 8: duplicate key");
    let none = "line 1: there is no guest: a [[guest]] with name, kernel and memory_mib is wanted";
    for text in ["", "# nothing\n", "\n\n[hypervisor]\n"] {
        assert_eq!(words(text), [none]);
    }
    assert_eq!(
        words("[[guest]]\n"),
        ["name", "kernel", "memory_mib"].map(|key| format!("line 1: the key {key:?} is missing here"))
    );
}

#[test]
fn what_is_asked_for_twice_is_told_with_both_places() {
    wrong("\"1f:1f.7\"", "\n\"00:03.0\"", "line 14: devices: 0000:00:03.0 is given out twice; line 13 has it already");
    wrong("\"netprobe\"]", "\"initrd.img\"]", "line 12: modules: \"initrd.img\" is named twice: take one out");
    let second = GOOD[GOOD.find("[[guest]]").unwrap()..].replace("00:03.0", "00:04.0");
    let both = words(&format!("{GOOD}{second}"));
    assert_eq!(
        both,
        [
            "line 14: this version runs 1 guest, and here is another: take out all but one",
            "line 15: name: two guests are called \"netprobe\": give one another name",
            "line 23: devices: 0000:1f:1f.7 is given out twice; line 13 has it already",
        ]
    );
}

#[test]
fn every_mistake_is_told_at_once_and_no_more_than_sixteen() {
    assert_eq!(words("[hypervisor]\nx = 1\ny = 2\n[[guest]]\nz = 3\nname = 4\n").len(), 6);
    let many: String = (0..100).map(|number| format!("nothing{number} = {number}\n")).collect();
    assert_eq!(words(&many).len(), 16);
    // What is repeated of a file is short, even where the file is not.
    let long = words(&format!("\"{}\" = 1\n", "\u{1}\u{202e}é".repeat(2000)).replace('\u{1}', "\\u0001"));
    assert!(long.iter().all(|words| words.len() < 1000), "{long:?}");
}

#[test]
fn a_file_that_is_too_much_is_not_read() {
    assert_eq!(words(&"#".repeat(MAXIMUM_BYTES + 1)), ["line 1: the file is 12289 bytes long; the limit is 12288"]);
    let told = |text: &str, line: u32, what: &str| {
        let told = words(text);
        assert!(
            told.len() == 1 && told[0].starts_with(&format!("line {line}: ")) && told[0].contains(what),
            "{told:?}"
        );
    };
    told(&"a=1\n".repeat(1000), 513, "words and signs");
    told(&format!("\n\n{}=1", "a.".repeat(100)), 3, "dots");
    told(&format!("\na = '''\n\n''' \nb = {}", "[".repeat(100)), 5, "brackets");
    assert!(words(&format!("# {}\n", ".[{".repeat(1000)))[0].contains("there is no guest"));
}

#[test]
fn what_is_not_packed_is_told_with_what_there_is() {
    let config = parse(GOOD).unwrap();
    let told = |members: &[&str]| -> Vec<String> {
        check_members(&config, members).iter().map(|complaint| complaint.to_string()).collect()
    };
    assert!(told(&["netprobe", "environment", "initrd.img"]).is_empty());
    assert_eq!(
        told(&["netprob", "environment", "initrd.img"]),
        [
            "line 6: kernel: the archive has no member \"netprobe\"; did you mean \"netprob\"?; it has: \"netprob\", \
         \"environment\", \"initrd.img\"",
            "line 12: modules: the archive has no member \"netprobe\"; did you mean \"netprob\"?; it has: \"netprob\", \
         \"environment\", \"initrd.img\"",
        ]
    );
    assert!(told(&[])[0].ends_with("no member \"netprobe\"; it has none"));
    assert!(told(&["x"; 100])[0].matches("\"x\"").count() == 16);
}
