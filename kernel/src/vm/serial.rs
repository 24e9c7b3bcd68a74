//! A guest's serial port: a 16550 whose line leads to the hypervisor's console. What is sent has been sent at once.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Registers of a guest's COM1, by I/O port.
pub const FIRST_PORT: u16 = 0x3f8;
/// Number of its ports.
pub const PORTS: u16 = 8;

/// Its interrupt line: the I/O APIC's pin.
pub const LINE: u8 = 4;

/// What is typed and not read yet is kept up to so many bytes; more is lost, as on a line without flow control.
const MAXIMUM_TYPED: usize = 256;
/// Longest line that is kept together; a longer one is broken.
const MAXIMUM_LINE: usize = 240;

mod register {
    pub const DATA: u16 = 0;
    pub const INTERRUPT_ENABLE: u16 = 1;
    pub const INTERRUPT_IDENTIFICATION: u16 = 2;
    pub const LINE_CONTROL: u16 = 3;
    pub const MODEM_CONTROL: u16 = 4;
    pub const LINE_STATUS: u16 = 5;
    pub const MODEM_STATUS: u16 = 6;
    pub const SCRATCH: u16 = 7;
}
const LINE_CONTROL_DIVISOR_LATCH: u8 = 1 << 7;
const LINE_STATUS_DATA_READY: u8 = 1 << 0;
const LINE_STATUS_TRANSMITTER_EMPTY: u8 = 0x60;
const INTERRUPT_NONE: u8 = 1;
const INTERRUPT_TRANSMITTER_EMPTY: u8 = 2;
const INTERRUPT_DATA_AVAILABLE: u8 = 4;
const ENABLE_DATA_AVAILABLE: u8 = 1;
const ENABLE_TRANSMITTER_EMPTY: u8 = 2;
/// OUT2: on a PC, the gate between the port and its interrupt line.
const MODEM_CONTROL_INTERRUPTS: u8 = 1 << 3;
/// Clears what was received.
const FIFO_CLEAR_RECEIVED: u8 = 1 << 1;
const FIFO_ENABLED: u8 = 0xc0;
const MODEM_CONTROL_LOOPBACK: u8 = 1 << 4;
/// Carrier, data set ready, clear to send: somebody listens.
const MODEM_STATUS_CONNECTED: u8 = 0xb0;

/// The port's registers, and the line that is being written.
#[derive(Debug, Default)]
pub struct SerialPort {
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    looped_back: Option<u8>,
    typed: VecDeque<u8>,
    /// The transmitter has become empty, and the guest was not told yet.
    transmitter_empty: bool,
    line: String,
    escape: Escape,
}

/// How far a terminal's control sequence has come (ECMA-48: ESC, `[`, parameters, a final byte).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Parameters,
}

impl SerialPort {
    /// A read of the register `offset` (0 to 7).
    pub fn read(&mut self, offset: u16) -> u8 {
        let latch = self.line_control & LINE_CONTROL_DIVISOR_LATCH != 0;
        match offset {
            register::DATA if latch => self.divisor[0],
            register::DATA => self.looped_back.take().or_else(|| self.typed.pop_front()).unwrap_or(0),
            register::INTERRUPT_ENABLE if latch => self.divisor[1],
            register::INTERRUPT_ENABLE => self.interrupt_enable,
            register::INTERRUPT_IDENTIFICATION => {
                let reason = self.interrupt();
                if reason == INTERRUPT_TRANSMITTER_EMPTY {
                    // Told is told.
                    self.transmitter_empty = false;
                }
                if self.fifo_control & 1 != 0 { reason | FIFO_ENABLED } else { reason }
            }
            register::LINE_CONTROL => self.line_control,
            register::MODEM_CONTROL => self.modem_control,
            register::LINE_STATUS if self.looped_back.is_some() || !self.typed.is_empty() => {
                LINE_STATUS_TRANSMITTER_EMPTY | LINE_STATUS_DATA_READY
            }
            register::LINE_STATUS => LINE_STATUS_TRANSMITTER_EMPTY,
            register::MODEM_STATUS => self.modem_status(),
            register::SCRATCH => self.scratch,
            _ => 0xff,
        }
    }

    /// A write to the register `offset` (0 to 7). Returns a line of output when it is complete.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<String> {
        let latch = self.line_control & LINE_CONTROL_DIVISOR_LATCH != 0;
        match offset {
            register::DATA if latch => self.divisor[0] = value,
            register::DATA if self.modem_control & MODEM_CONTROL_LOOPBACK != 0 => self.looped_back = Some(value),
            register::DATA => {
                self.transmitter_empty = true;
                return self.transmit(value);
            }
            register::INTERRUPT_ENABLE if latch => self.divisor[1] = value,
            register::INTERRUPT_ENABLE => {
                // Enabling it asks for it: the transmitter is empty.
                self.transmitter_empty |= value & !self.interrupt_enable & ENABLE_TRANSMITTER_EMPTY != 0;
                self.interrupt_enable = value & 0xf;
            }
            register::INTERRUPT_IDENTIFICATION => {
                self.fifo_control = value;
                if value & FIFO_CLEAR_RECEIVED != 0 {
                    self.typed.clear();
                }
            }
            register::LINE_CONTROL => self.line_control = value,
            register::MODEM_CONTROL => self.modem_control = value & 0x1f,
            register::SCRATCH => self.scratch = value,
            _ => {}
        }
        None
    }

    /// Something was typed.
    pub fn receive(&mut self, byte: u8) {
        if self.typed.len() < MAXIMUM_TYPED {
            self.typed.push_back(byte);
        }
    }

    /// Whether the guest wants to be told of what is typed.
    pub fn listens(&self) -> bool {
        self.interrupt_enable & ENABLE_DATA_AVAILABLE != 0 && self.modem_control & MODEM_CONTROL_INTERRUPTS != 0
    }

    /// Whether the interrupt line is asserted.
    pub fn interrupts(&self) -> bool {
        self.interrupt() != INTERRUPT_NONE && self.modem_control & MODEM_CONTROL_INTERRUPTS != 0
    }

    /// The interrupt with the highest priority that is enabled and pending, as the identification register names it.
    fn interrupt(&self) -> u8 {
        if self.interrupt_enable & ENABLE_DATA_AVAILABLE != 0 && !self.typed.is_empty() {
            INTERRUPT_DATA_AVAILABLE
        } else if self.interrupt_enable & ENABLE_TRANSMITTER_EMPTY != 0 && self.transmitter_empty {
            INTERRUPT_TRANSMITTER_EMPTY
        } else {
            INTERRUPT_NONE
        }
    }

    /// What was written of a line that has no end yet.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Takes what was written of a line that has no end yet.
    pub fn take_rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| core::mem::take(&mut self.line))
    }

    fn transmit(&mut self, byte: u8) -> Option<String> {
        // A guest must not be able to move the cursor over the hypervisor's own lines: a control sequence is left out.
        self.escape = match (self.escape, byte) {
            (_, 0x1b) => Escape::Begun,
            (Escape::Begun, b'[') => Escape::Parameters,
            (Escape::Parameters, 0x20..0x40) => Escape::Parameters,
            (Escape::Parameters, 0x40..0x7f) => {
                self.escape = Escape::None;
                return None;
            }
            _ => Escape::None,
        };
        if self.escape != Escape::None {
            return None;
        }
        match byte {
            b'\n' => return Some(core::mem::take(&mut self.line)),
            b'\r' => {}
            b' '..=b'~' | b'\t' => self.line.push(char::from(byte)),
            _ => self.line.push('?'),
        }
        (self.line.len() >= MAXIMUM_LINE).then(|| core::mem::take(&mut self.line))
    }

    fn modem_status(&self) -> u8 {
        if self.modem_control & MODEM_CONTROL_LOOPBACK == 0 {
            return MODEM_STATUS_CONNECTED;
        }
        // In loopback RTS, DTR, OUT1 and OUT2 come back as CTS, DSR, RI and DCD.
        let control = self.modem_control;
        (control & 2) << 3 | (control & 1) << 5 | (control & 4) << 4 | (control & 8) << 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(port: &mut SerialPort, text: &[u8]) -> alloc::vec::Vec<String> {
        text.iter().filter_map(|byte| port.write(0, *byte)).collect()
    }

    #[test]
    fn lines_come_out_whole_and_harmless() {
        let mut port = SerialPort::default();
        assert_eq!(print(&mut port, b"one\r\ntwo\n\nth\x1b[2;3Hr\x1b[Ke\x1b\x07e\x1b"), ["one", "two", ""]);
        assert_eq!(port.take_rest().as_deref(), Some("thre?e"));
        assert_eq!(port.take_rest(), None);
        let lines = print(&mut port, &[b'x'; 1000]);
        assert!(lines.iter().all(|line| line.len() == MAXIMUM_LINE) && lines.len() == 4);
    }

    #[test]
    fn a_driver_finds_a_16550() {
        let mut port = SerialPort::default();
        port.write(7, 0x5a);
        assert_eq!(port.read(7), 0x5a);
        port.write(2, 1);
        assert_eq!(port.read(2), 0xc1);
        port.write(3, 0x83);
        assert_eq!(port.write(0, b'\n'), None, "the divisor latch is no output");
        assert_eq!(port.read(0), b'\n');
        port.write(3, 3);
        assert_eq!(port.read(5), 0x60);
        port.write(4, 0x1a);
        assert_eq!(port.read(6) & 0xf0, 0x90, "RTS and OUT2 come back as CTS and DCD");
        assert_eq!(port.write(0, b'\n'), None, "loopback is no output");
        assert_eq!((port.read(5), port.read(0), port.read(5)), (0x61, b'\n', 0x60));
    }
}
