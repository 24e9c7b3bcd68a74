//! Interrupt remapping and posting (chapter 5).

use crate::fault::{Access, Fault, Reason};
use crate::memory::{Memory, View};
use crate::registers::{CFI, GSTS, IRE};
use crate::unit::Unit;

/// A remapped interrupt as it goes to the processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// The vector.
    pub vector: u8,
    /// The APIC id (physical) or logical destination: 8 bits without extended interrupt mode, 32 with it.
    pub destination: u32,
    /// Destination mode: `true` is logical.
    pub logical: bool,
    /// Redirection hint.
    pub redirection_hint: bool,
    /// Trigger mode: `true` is level.
    pub level: bool,
    /// Delivery mode: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT.
    pub delivery_mode: u8,
}

/// The notification event of a posted interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification {
    /// NV of the descriptor.
    pub vector: u8,
    /// NDST of the descriptor: an APIC id, 8 bits without extended interrupt mode, 32 with it.
    pub destination: u32,
}

/// What became of an interrupt request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// Remapped and delivered.
    Delivered(Delivered),
    /// Posted into the descriptor at this address.
    Posted {
        /// Host-physical address of the posted-interrupt descriptor.
        descriptor: u64,
        /// The bit set in PIR.
        vector: u8,
        /// Sent if ON was clear and SN was clear or the entry urgent.
        notification: Option<Notification>,
    },
    /// Passed on as the device sent it: remapping is off, or compatibility format is let pass.
    Unremapped {
        /// The message's address.
        address: u64,
        /// The message's data.
        data: u32,
    },
    /// Blocked.
    Blocked(Fault),
}

/// Format and fields of an interrupt-remapping entry (9.9, 9.10).
#[derive(Clone, Copy)]
struct Entry(u128);

impl Entry {
    fn low(self) -> u64 {
        self.0 as u64
    }
    fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }
    fn fault_processing_disable(self) -> bool {
        self.low() & 2 != 0
    }
    fn posted(self) -> bool {
        self.low() >> 15 & 1 != 0
    }

    /// Whether a reserved field is set. DST of an xAPIC entry is bits 47:40, the rest of 63:32 is reserved.
    fn malformed(self, posting: bool, extended: bool) -> bool {
        let (low_reserved, high_reserved) = match (self.posted(), extended) {
            // R 7:2, 13:12, 37:24; upper half R 31:20.
            (true, _) => (0x3f_ff00_30fc, 0xfff0_0000),
            (false, true) => (0xff00_7000, !0xf_ffff),
            (false, false) => (0xffff_00ff_ff00_7000, !0xf_ffff),
        };
        self.posted() && !posting
            || self.low() & low_reserved != 0
            || self.high() & high_reserved != 0
            || self.high() >> 18 & 3 == 3
    }

    /// The source-id check (9.9, SVT, SQ, SID).
    fn admits(self, source: u16) -> bool {
        let sid = self.high() as u16;
        match self.high() >> 18 & 3 {
            0 => true,
            1 => {
                let ignored: u16 = [0, 0b100, 0b110, 0b111][(self.high() >> 16) as usize & 3];
                source & !ignored == sid & !ignored
            }
            2 => (sid >> 8..=sid & 0xff).contains(&(source >> 8)),
            _ => false,
        }
    }
}

impl Unit {
    /// A write of `data` to an address in the interrupt range. A fault is recorded.
    pub(crate) fn interrupt(&mut self, memory: &mut Memory, source: u16, address: u64, data: u32) -> Interrupt {
        match self.remap_interrupt(memory, source, address, data) {
            Ok(interrupt) => interrupt,
            Err((reason, index, fpd)) => {
                let fault = Fault {
                    pasid: None,
                    reason,
                    source,
                    info: u64::from(index) << 48,
                    access: Access::Write,
                    silenced: fpd && reason.qualified(),
                };
                self.record(&fault);
                Interrupt::Blocked(fault)
            }
        }
    }

    fn remap_interrupt(
        &mut self,
        memory: &mut Memory,
        source: u16,
        address: u64,
        data: u32,
    ) -> Result<Interrupt, (Reason, u32, bool)> {
        let status = self.registers.get32(GSTS);
        if status & IRE == 0 {
            return Ok(Interrupt::Unremapped { address, data });
        }
        let extended = self.interrupt_table >> 11 & 1 != 0;
        if address & 1 << 4 == 0 {
            return match status & CFI != 0 && !extended {
                true => Ok(Interrupt::Unremapped { address, data }),
                false => Err((Reason::COMPATIBILITY_BLOCKED, 0, false)),
            };
        }
        // Handle 14:0 in 19:5, SHV in 3, handle 15 in 2 (5.1.2.2).
        let handle = (address >> 5 & 0x7fff | (address >> 2 & 1) << 15) as u32;
        let index = match address >> 3 & 1 {
            1 if data >> 16 != 0 => return Err((Reason::INTERRUPT_RESERVED, handle, false)),
            1 => handle + (data & 0xffff),
            _ => handle,
        };
        if index >= 2 << (self.interrupt_table & 0xf) {
            return Err((Reason::INDEX, index & 0xffff, false));
        }
        let entry = self.interrupt_entry(memory, index).map_err(|reason| (reason, index, false))?;
        let fpd = entry.fault_processing_disable();
        if entry.low() & 1 == 0 {
            return Err((Reason::IRTE_NOT_PRESENT, index, fpd));
        }
        if entry.malformed(self.configuration.posted_interrupts, extended) {
            return Err((Reason::IRTE_RESERVED, index, fpd));
        }
        if !entry.admits(source) {
            return Err((Reason::SOURCE_ID, index, fpd));
        }
        if entry.posted() {
            return self.post(memory, entry, extended).map_err(|reason| (reason, index, fpd));
        }
        let low = entry.low();
        let destination = if extended { (low >> 32) as u32 } else { (low >> 40) as u32 & 0xff };
        Ok(Interrupt::Delivered(Delivered {
            vector: (low >> 16) as u8,
            destination,
            logical: low >> 2 & 1 != 0,
            redirection_hint: low >> 3 & 1 != 0,
            level: low >> 4 & 1 != 0,
            delivery_mode: (low >> 5) as u8 & 7,
        }))
    }

    /// The entry at an index: cached, or from the table in one 128-bit fetch.
    fn interrupt_entry(&mut self, memory: &Memory, index: u32) -> Result<Entry, Reason> {
        if let Some(entry) = self.caches.interrupt(index) {
            return Ok(Entry(entry));
        }
        let at = (self.interrupt_table & !0xfff) + 16 * u64::from(index);
        let entry = memory.read_u128(at, self.view()).ok_or(Reason::IRTE_ACCESS)?;
        let extended = self.interrupt_table >> 11 & 1 != 0;
        let good = entry & 1 != 0 && !Entry(entry).malformed(self.configuration.posted_interrupts, extended);
        // What is not present or erroneous is remembered only in caching mode (6.1).
        if good || self.configuration.caching_mode {
            self.caches.keep_interrupt(index, entry);
        }
        Ok(Entry(entry))
    }

    /// Posts into the descriptor in one atomic step (5.2.3). Accesses to the descriptor are always coherent.
    fn post(&mut self, memory: &mut Memory, entry: Entry, extended: bool) -> Result<Interrupt, Reason> {
        let vector = (entry.low() >> 16) as u8;
        let urgent = entry.low() >> 14 & 1 != 0;
        let descriptor = entry.high() & 0xffff_ffff_0000_0000 | entry.low() >> 32 & 0xffff_ffc0;
        let mut bytes = [0; 64];
        if !memory.read(descriptor, &mut bytes, View::COHERENT) {
            return Err(Reason::POSTED_ACCESS);
        }
        // PIR 255:0, ON 256, SN 257, NV 279:272, NDST 319:288 (9.11).
        let reserved = bytes[32] & !3 | bytes[33] | bytes[35] | bytes[40..].iter().fold(0, |all, byte| all | byte);
        let ndst = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]);
        if reserved != 0 || !extended && ndst & !0xff00 != 0 {
            return Err(Reason::POSTED_RESERVED);
        }
        bytes[usize::from(vector / 8)] |= 1 << (vector % 8);
        let (outstanding, suppressed) = (bytes[32] & 1 != 0, bytes[32] & 2 != 0);
        let notify = !outstanding && (urgent || !suppressed);
        bytes[32] |= u8::from(notify);
        if !self.traceless {
            memory.device_write(descriptor, &bytes);
        }
        let destination = if extended { ndst } else { ndst >> 8 };
        let notification = notify.then_some(Notification { vector: bytes[34], destination });
        Ok(Interrupt::Posted { descriptor, vector, notification })
    }
}
