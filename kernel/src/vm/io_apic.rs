//! A guest's I/O APIC (the 82093AA's registers): lines of the platform's own devices become interrupts of its processor.

use addr::{ApicId, Vector};

/// Its input pins.
pub const PINS: u8 = 24;

/// The index register, and the data register that reaches the register with that index.
const SELECT: u16 = 0x00;
const WINDOW: u16 = 0x10;

/// Registers by index.
mod register {
    pub const ID: u8 = 0x00;
    pub const VERSION: u8 = 0x01;
    pub const ARBITRATION: u8 = 0x02;
    /// The redirection table: two registers a pin.
    pub const TABLE: u8 = 0x10;
}
/// Version 1.1, and the number of the last pin in bits 23:16.
const VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;

/// A redirection table entry.
mod entry {
    /// Delivery mode: fixed and lowest priority are what a line can ask for here.
    pub const DELIVERY_MODE_SHIFT: u32 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    /// Remote IRR: a level-triggered interrupt was accepted and not ended. Read only.
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const DESTINATION_SHIFT: u32 = 56;
    /// What can be written: all that is defined but delivery status and Remote IRR.
    pub const WRITABLE: u64 = 0xff << DESTINATION_SHIFT | 0x1_afff;
}

/// An interrupt that a pin raises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its vector.
    pub vector: Vector,
    /// Whether its end must come back to [`IoApic::end_of_interrupt`].
    pub level: bool,
    /// The destination, 8 bits.
    pub destination: ApicId,
    /// The destination is a set, by logical destination registers.
    pub logical: bool,
}

/// An I/O APIC.
#[derive(Debug)]
pub struct IoApic {
    id: u32,
    select: u8,
    table: [u64; PINS as usize],
    /// The lines that are asserted, one bit a pin.
    lines: u32,
}

impl IoApic {
    /// As after reset: all pins masked.
    pub fn new(id: u8) -> Self {
        Self { id: u32::from(id) << 24, select: 0, table: [entry::MASKED; PINS as usize], lines: 0 }
    }

    /// A read of 32 bits at an offset of the register page.
    pub fn read(&self, offset: u16) -> u32 {
        match offset {
            SELECT => self.select.into(),
            WINDOW => match self.select {
                register::ID => self.id,
                register::VERSION => VERSION,
                register::ARBITRATION => self.id,
                select => match self.pin(select) {
                    Some((pin, upper)) => (self.table[pin] >> if upper { 32 } else { 0 }) as u32,
                    None => 0,
                },
            },
            _ => 0,
        }
    }

    /// A write of 32 bits at an offset of the register page. There may be an interrupt that a line was waiting to raise.
    pub fn write(&mut self, offset: u16, value: u32) -> Option<Request> {
        match (offset, self.select) {
            (SELECT, _) => self.select = value as u8,
            (WINDOW, register::ID) => self.id = value & 0x0f00_0000,
            (WINDOW, select) => {
                let (pin, upper) = self.pin(select)?;
                let shift = if upper { 32 } else { 0 };
                let writable = entry::WRITABLE & 0xffff_ffff << shift;
                let old = self.table[pin];
                let mut new = old & !writable | u64::from(value) << shift & writable;
                if new & entry::LEVEL == 0 {
                    // An edge has no end to wait for; switching to it is how software gets rid of one that never came.
                    new &= !entry::REMOTE_IRR;
                }
                self.table[pin] = new;
                return self.level(pin);
            }
            _ => {}
        }
        None
    }

    /// Sets a line. There may be an interrupt that this raises.
    pub fn set_line(&mut self, pin: u8, asserted: bool) -> Option<Request> {
        let index = usize::from(pin);
        let entry = *self.table.get(index)?;
        let was = self.lines & 1 << pin != 0;
        self.lines = self.lines & !(1 << pin) | u32::from(asserted) << pin;
        if entry & entry::LEVEL != 0 {
            return self.level(index);
        }
        // An edge while the pin is masked is lost.
        (asserted && !was && entry & entry::MASKED == 0).then(|| request(entry)).flatten()
    }

    /// The processor has ended a level-triggered interrupt: each pin with that vector may raise it again. There may be
    /// one that does at once.
    pub fn end_of_interrupt(&mut self, vector: Vector) -> Option<Request> {
        let mut again = None;
        for pin in 0..usize::from(PINS) {
            let entry = &mut self.table[pin];
            if *entry & entry::REMOTE_IRR != 0 && *entry as u8 == vector.0 {
                *entry &= !entry::REMOTE_IRR;
                again = self.level(pin).or(again);
            }
        }
        again
    }

    /// What a level-triggered pin raises now, if anything.
    fn level(&mut self, pin: usize) -> Option<Request> {
        let entry = self.table[pin];
        let quiet = entry & (entry::MASKED | entry::REMOTE_IRR) != 0 || self.lines & 1 << pin == 0;
        if entry & entry::LEVEL == 0 || quiet {
            return None;
        }
        let request = request(entry)?;
        self.table[pin] |= entry::REMOTE_IRR;
        Some(request)
    }

    /// The pin whose entry the register with this index is a half of, and whether it is the upper.
    fn pin(&self, select: u8) -> Option<(usize, bool)> {
        let index = select.checked_sub(register::TABLE)?;
        (index < 2 * PINS).then_some((usize::from(index / 2), index % 2 == 1))
    }
}

/// What an entry asks for; `None` where it is a kind that no line raises, or a vector that no processor takes.
fn request(entry: u64) -> Option<Request> {
    let delivery_mode = entry >> entry::DELIVERY_MODE_SHIFT & 7;
    let vector = Vector(entry as u8);
    (delivery_mode <= 1 && vector.0 >= 16).then_some(Request {
        vector,
        level: entry & entry::LEVEL != 0,
        destination: ApicId((entry >> entry::DESTINATION_SHIFT) as u32),
        logical: entry & entry::LOGICAL != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(apic: &mut IoApic, pin: u8, entry: u64) -> Option<Request> {
        apic.write(SELECT, (0x11 + 2 * pin).into());
        let upper = apic.write(WINDOW, (entry >> 32) as u32);
        apic.write(SELECT, (0x10 + 2 * pin).into());
        upper.or(apic.write(WINDOW, entry as u32))
    }

    fn entry(apic: &mut IoApic, pin: u8) -> u64 {
        apic.write(SELECT, (0x11 + 2 * pin).into());
        let upper = apic.read(WINDOW);
        apic.write(SELECT, (0x10 + 2 * pin).into());
        u64::from(upper) << 32 | u64::from(apic.read(WINDOW))
    }

    #[test]
    fn a_driver_finds_24_masked_pins() {
        let mut apic = IoApic::new(0xf);
        let mut at = |index: u32| {
            apic.write(SELECT, index);
            (apic.read(SELECT), apic.read(WINDOW))
        };
        assert_eq!(at(0), (0, 0x0f00_0000));
        assert_eq!(at(1), (1, 0x0017_0011));
        assert_eq!(at(0x3f), (0x3f, 0));
        assert_eq!(at(0x40), (0x40, 0));
        assert_eq!(at(3), (3, 0));
        assert!((0..PINS).all(|pin| entry(&mut apic, pin) == entry::MASKED));
        apic.write(SELECT, 0);
        apic.write(WINDOW, u32::MAX);
        assert_eq!((apic.read(WINDOW), apic.read(0x20)), (0x0f00_0000, 0));
    }

    #[test]
    fn an_edge_is_raised_once_and_lost_while_masked() {
        let mut apic = IoApic::new(0);
        apic.set_line(4, true);
        assert_eq!(set(&mut apic, 4, 0x31), None, "the edge is over");
        assert_eq!(apic.set_line(4, true), None);
        assert_eq!(apic.set_line(4, false), None);
        let expected = Request { vector: Vector(0x31), level: false, destination: ApicId(0), logical: false };
        assert_eq!(apic.set_line(4, true), Some(expected));
        assert_eq!(apic.end_of_interrupt(Vector(0x31)), None);
        assert_eq!(apic.set_line(24, true), None);
    }

    #[test]
    fn a_level_is_raised_until_its_line_falls() {
        let mut apic = IoApic::new(0);
        assert_eq!(apic.set_line(9, true), None);
        let expected = Request { vector: Vector(0x41), level: true, destination: ApicId(3), logical: true };
        assert_eq!(set(&mut apic, 9, 3 << 56 | 0x8941), Some(expected));
        assert_eq!(entry(&mut apic, 9), 3 << 56 | 0xc941, "Remote IRR");
        assert_eq!(apic.set_line(9, true), None);
        assert_eq!(apic.end_of_interrupt(Vector(0x40)), None);
        assert_eq!(apic.end_of_interrupt(Vector(0x41)), Some(expected));
        apic.set_line(9, false);
        assert_eq!(apic.end_of_interrupt(Vector(0x41)), None);
        assert_eq!(apic.set_line(9, true), Some(expected));
        // Masked meanwhile: it comes when it is not any more.
        set(&mut apic, 9, 0x1_8941);
        assert_eq!(apic.end_of_interrupt(Vector(0x41)), None);
        assert_eq!(set(&mut apic, 9, 3 << 56 | 0x8941), Some(expected));
        // Made an edge and a level again: Remote IRR is gone.
        set(&mut apic, 9, 0x0941);
        assert_eq!(set(&mut apic, 9, 3 << 56 | 0x8941), Some(expected));
    }

    #[test]
    fn what_no_line_can_be_is_not_raised() {
        let mut apic = IoApic::new(0);
        for entry in [0x0f, 0x0241, 0x0441, 0x0541, 0x0741] {
            set(&mut apic, 2, entry);
            assert_eq!(apic.set_line(2, true), None, "{entry:#x}");
            apic.set_line(2, false);
        }
        set(&mut apic, 2, u64::MAX);
        assert_eq!(entry(&mut apic, 2), 0xff << 56 | 0x1_afff);
    }
}
