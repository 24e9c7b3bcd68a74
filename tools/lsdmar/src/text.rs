//! How addresses, sizes and names are written.

use dmar::{Andd, DeviceScope, Dmar};

/// The first hop of a path with its bus, and the further ones behind arrows: `00:1c.0 → 00.0`.
pub fn path(segment: u16, scope: &DeviceScope<'_>) -> String {
    let mut text = if segment == 0 { String::new() } else { format!("{segment:04x}:") };
    text += &format!("{:02x}", scope.start_bus);
    for (index, (device, function)) in scope.path().enumerate() {
        text += if index == 0 { ":" } else { " → " };
        text += &format!("{device:02x}.{function:x}");
    }
    text
}

/// The name in an ANDD.
pub fn acpi_name(andd: &Andd<'_>) -> String {
    printable(andd.name)
}

/// Firmware's text, which may hold anything: padding cut off, what cannot be printed replaced.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(|character: char| character == '\0' || character.is_whitespace());
    text.chars().map(|character| if is_printable(character) { character } else { '·' }).collect()
}

fn is_printable(character: char) -> bool {
    // Beside control characters, those that change the direction or the width of what stands around them.
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        && !matches!(character, '\u{feff}' | '\u{fffd}'..='\u{ffff}')
}

/// A number of bytes, in the largest unit that it is a whole number of.
pub fn size(bytes: u128) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut number = bytes;
    while number >= 1024 && number.is_multiple_of(1024) && unit + 1 < units.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number} {}", units[unit])
}

/// The names of the flags that are set, those without a name as numbers.
pub fn flags(dmar: &Dmar<'_>) -> Vec<String> {
    use dmar::spec::table::{FLAG_DMA_CTRL_PLATFORM_OPT_IN, FLAG_INTR_REMAP, FLAG_X2APIC_OPT_OUT};
    let names = [
        (FLAG_INTR_REMAP, "INTR_REMAP"),
        (FLAG_X2APIC_OPT_OUT, "X2APIC_OPT_OUT"),
        (FLAG_DMA_CTRL_PLATFORM_OPT_IN, "DMA_CTRL_PLATFORM_OPT_IN"),
    ];
    let mut flags = dmar.flags();
    let mut found = Vec::new();
    for (flag, name) in names {
        if flags & flag != 0 {
            found.push(name.to_string());
            flags &= !flag;
        }
    }
    if flags != 0 {
        found.push(format!("reserved {flags:#04x}"));
    }
    found
}

/// `s` where there is more or less than one.
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
