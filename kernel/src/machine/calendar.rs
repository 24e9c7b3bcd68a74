//! The time of day, as the PC's real-time clock tells it (MC146818: registers by an index and a data port).

use crate::machine::ports;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Bit 7 of the index masks NMIs on a PC; it stays as it is at reset, clear.
mod register {
    pub const SECONDS: u8 = 0x00;
    pub const MINUTES: u8 = 0x02;
    pub const HOURS: u8 = 0x04;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const STATUS_A: u8 = 0x0a;
    pub const STATUS_B: u8 = 0x0b;
}
/// Status A: the time is being updated.
const UPDATING: u8 = 1 << 7;
/// Status B: 24 hours a day, and numbers in binary.
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
/// Hours: the afternoon, where a day has 12.
const AFTERNOON: u8 = 1 << 7;
/// How often to look for a moment between two updates, which take 2 ms: longer than that.
const MAXIMUM_READS: u32 = 20_000;

/// The registers, as they were at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Registers {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    status_b: u8,
}

/// The time of day in seconds since 1970, taking the clock's for UTC; `None` where no clock answers with sense.
pub fn read_seconds() -> Option<u32> {
    let mut last = None;
    for _ in 0..MAXIMUM_READS {
        if read(register::STATUS_A) & UPDATING != 0 {
            last = None;
            continue;
        }
        let now = Registers {
            seconds: read(register::SECONDS),
            minutes: read(register::MINUTES),
            hours: read(register::HOURS),
            day: read(register::DAY),
            month: read(register::MONTH),
            year: read(register::YEAR),
            status_b: read(register::STATUS_B),
        };
        // The same twice: no update was in between.
        if last == Some(now) {
            return now.unix_seconds();
        }
        last = Some(now);
    }
    None
}

fn read(index: u8) -> u8 {
    ports::write(INDEX, 1, index.into());
    ports::read(DATA, 1) as u8
}

impl Registers {
    fn unix_seconds(self) -> Option<u32> {
        let number = |value: u8| {
            if self.status_b & BINARY != 0 {
                u32::from(value)
            } else {
                u32::from(value >> 4) * 10 + u32::from(value & 0xf)
            }
        };
        let mut hours = number(self.hours & !AFTERNOON);
        if self.status_b & HOURS_24 == 0 {
            hours = hours % 12 + if self.hours & AFTERNOON != 0 { 12 } else { 0 };
        } else if self.hours & AFTERNOON != 0 {
            return None;
        }
        let (seconds, minutes) = (number(self.seconds), number(self.minutes));
        // No PC with this hypervisor is from before 2000, and two digits are what all clocks have.
        let (day, month, year) = (number(self.day), number(self.month), 2000 + number(self.year));
        if seconds > 60
            || minutes > 59
            || hours > 23
            || !(1..=31).contains(&day)
            || !(1..=12).contains(&month)
            || year > 2099
        {
            return None;
        }
        Some(days(year, month, day) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
    }
}

/// Days from 1970 to a day of 2000 to 2099: every fourth of these years is a leap year.
fn days(year: u32, month: u32, day: u32) -> u32 {
    const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const FROM_1970_TO_2000: u32 = 10_957;
    let years = year - 2000;
    let before = BEFORE.get(month as usize - 1).copied().unwrap_or(0);
    let leap_day = u32::from(years.is_multiple_of(4) && month > 2);
    FROM_1970_TO_2000 + years * 365 + years.div_ceil(4) + before + leap_day + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD_24: u8 = HOURS_24;

    fn at(text: [u8; 6], status_b: u8) -> Option<u32> {
        let [year, month, day, hours, minutes, seconds] = text;
        Registers { seconds, minutes, hours, day, month, year, status_b }.unix_seconds()
    }

    #[test]
    fn moments_are_what_the_calendar_says() {
        assert_eq!(at([0x00, 0x01, 0x01, 0, 0, 0], BCD_24), Some(946_684_800));
        assert_eq!(at([0x00, 0x02, 0x29, 0x23, 0x59, 0x59], BCD_24), Some(951_868_799));
        assert_eq!(at([0x00, 0x03, 0x01, 0, 0, 0], BCD_24), Some(951_868_800));
        assert_eq!(at([0x26, 0x11, 0x24, 0x15, 0x08, 0x43], BCD_24), Some(1_795_532_923));
        assert_eq!(at([26, 11, 24, 15, 8, 43], BCD_24 | BINARY), Some(1_795_532_923));
        assert_eq!(at([0x26, 0x11, 0x24, 0x83, 0x08, 0x43], 0), Some(1_795_532_923), "3 in the afternoon");
        assert_eq!(at([0x26, 0x11, 0x24, 0x12, 0, 0], 0), Some(1_795_478_400), "12 at night");
        assert_eq!(at([0x99, 0x12, 0x31, 0x23, 0x59, 0x59], BCD_24), Some(4_102_444_799));
    }

    #[test]
    fn what_no_calendar_has_is_no_time() {
        let good = [0x26, 0x11, 0x24, 0x15, 0x08, 0x43];
        for (place, value) in
            [(1, 0), (1, 0x13), (2, 0), (2, 0x32), (3, 0x24), (3, 0x95), (4, 0x60), (5, 0x61), (0, 0xff)]
        {
            let mut bad = good;
            bad[place] = value;
            assert_eq!(at(bad, BCD_24), None, "{bad:x?}");
        }
        assert_eq!(at([0xff; 6], 0xff), None, "nothing answers");
    }
}
