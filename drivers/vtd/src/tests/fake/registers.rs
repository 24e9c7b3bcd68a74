//! The registers, as the driver reaches them.

use super::*;

impl Registers for Fake {
    fn read32(&self, offset: u16) -> u32 {
        let mut inner = self.0.borrow_mut();
        if offset == 0x34 && inner.resting > 0 {
            inner.resting -= 1;
            inner.run_queue();
        }
        match offset {
            0x00 => inner.ver,
            0x1c => inner.gsts,
            0x34 => inner.fsts,
            0x38 => inner.fectl,
            0x64 => inner.pmen,
            0x3c | 0x40 | 0x44 | 0x68 | 0x6c | 0xdc..=0xec => *inner.others.get(&offset).unwrap_or(&0) as u32,
            _ => panic!("32-bit read of {offset:#x}"),
        }
    }

    fn read64(&self, offset: u16) -> u64 {
        let inner = self.0.borrow();
        match offset {
            0x08 => inner.cap,
            0x10 => inner.ecap,
            0x80 => inner.iqh,
            0x88 => inner.iqt,
            0xb0 => inner.iqercd,
            0x20 | 0xb8 | 0x28 | 0xf8 | 0x70 | 0x78 | 0xc0 | 0xc8 => inner.others.get(&offset).copied().unwrap_or(0),
            FAULT_RECORDS.. => {
                let record = inner.records[usize::from(offset - FAULT_RECORDS) / 16];
                if offset.is_multiple_of(16) { record.0 } else { record.1 }
            }
            _ => panic!("64-bit read of {offset:#x}"),
        }
    }

    fn write32(&mut self, offset: u16, value: u32) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Write32(offset, value));
        match offset {
            0x18 => {
                if value & 1 << 27 == 0 {
                    inner.check_written_back();
                }
                inner.command(value);
            }
            0x34 => {
                inner.fsts &= !(value & 0xfd);
                if value & 1 << 6 != 0 && inner.names_another > 0 {
                    inner.names_another -= 1;
                    inner.iqercd += 8 << 32;
                    inner.fsts |= 1 << 6;
                }
                if !inner.wants_tail {
                    inner.run_queue();
                }
            }
            0x38 => inner.fectl = inner.fectl & 1 << 30 | value & !(1 << 30),
            0x68 | 0x6c => {
                assert_eq!(inner.pmen & 1, 0, "not while they are on");
                inner.others.insert(offset, (value & !0x1f_ffff).into());
            }
            0xdc => {
                let status = inner.others.entry(offset).or_default();
                *status &= !u64::from(value);
            }
            0x3c | 0x40 | 0x44 | 0xe0..=0xec => drop(inner.others.insert(offset, value.into())),
            0x64 => {
                let stuck = inner.pmen & u32::from(inner.pmen_stuck);
                inner.pmen = value & 1 << 31 | value >> 31 | stuck;
            }
            _ => panic!("32-bit write of {offset:#x}"),
        }
    }

    fn write64(&mut self, offset: u16, value: u64) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Write64(offset, value));
        match offset {
            0x20 | 0xb8 | 0xc0 | 0xc8 | 0xd0 => drop(inner.others.insert(offset, value)),
            0x88 => {
                inner.check_written_back();
                inner.iqt = value;
                inner.resting = inner.rests.pop().unwrap_or(0);
                if let Some((address, data)) = inner.dropped.take() {
                    inner.status_write(address, data);
                }
                inner.run_queue();
            }
            0x90 => inner.iqa = value,
            0x70 | 0x78 => {
                assert_eq!(inner.pmen & 1, 0, "not while they are on");
                inner.others.insert(offset, value & 0x7f_ffff_ffff & !0x1f_ffff);
            }
            0xf0 => drop(inner.others.insert(offset, value)),
            0x28 | 0xf8 => {
                assert_eq!(inner.gsts & 1 << 26, 0, "ignored while the queue is on");
                assert_ne!(value >> 63, 0, "nothing is asked");
                let (busy, done) =
                    (u64::from(inner.stalled) << 63, u64::from(inner.performs) << if offset == 0x28 { 59 } else { 57 });
                inner.others.insert(offset, value & !(1 << 63) | busy | done);
            }
            FAULT_RECORDS.. => {
                assert_eq!(offset % 16, 8, "the low half of a record is read-only");
                let index = usize::from(offset - FAULT_RECORDS) / 16;
                if value >> 63 != 0 {
                    inner.records[index].1 &= !(1 << 63);
                }
                if inner.new_fault_after_clear > 0 {
                    inner.new_fault_after_clear -= 1;
                    inner.records[index].1 |= 1 << 63;
                }
                let pending = inner.records.iter().position(|record| record.1 >> 63 != 0);
                inner.fsts &= !2;
                if let Some(first) = pending {
                    inner.fsts = inner.fsts & !0xff00 | (first as u32) << 8 | 2;
                }
            }
            _ => panic!("64-bit write of {offset:#x}"),
        }
    }
}
