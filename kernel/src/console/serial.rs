//! The serial line itself: COM1 at 115200 baud, 8 data bits, no parity, one stop bit.

use core::fmt::{self, Write};
use spin::{Mutex, MutexGuard};
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

/// The I/O port of COM1, and its interrupt line on the I/O APIC of a PC.
pub const COM1_PORT: u16 = 0x3f8;
/// The global system interrupt of COM1 on a PC.
pub const COM1_GSI: u32 = 4;

/// Polls of the transmitter before a byte is given up. A byte takes 87 µs at 115200 baud and a poll at least
/// 0.5 µs on an LPC bus; a line that is not there must not hold the machine up for ever.
const MAXIMUM_POLLS: u32 = 20_000;

/// The serial line, or nothing where no UART answered.
pub struct Serial {
    uart: Option<Uart16550<PioBackend>>,
    /// The last line has no end yet: a guest's, which may go on.
    unfinished: bool,
}

static SERIAL: Mutex<Serial> = Mutex::new(Serial { uart: None, unfinished: false });

impl Serial {
    fn send(&mut self, byte: u8) {
        let Some(uart) = &mut self.uart else { return };
        for _ in 0..MAXIMUM_POLLS {
            if uart.try_send_byte(byte).is_ok() {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}

/// Opens COM1. Output before this call, or on a machine without COM1, goes nowhere.
#[expect(unsafe_code, reason = "takes possession of the I/O ports of COM1")]
pub fn open() {
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
    // SAFETY: the ports of COM1 are used by this module only; reading and writing them has no effect on memory.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1_PORT) }) else { return };
    if uart.init(config).is_ok() {
        SERIAL.lock().uart = Some(uart);
    }
}

/// The line, for one message that begins a line of its own; see [`same_line`].
pub fn line() -> MutexGuard<'static, Serial> {
    let mut serial = same_line();
    if core::mem::take(&mut serial.unfinished) {
        serial.send(b'\r');
        serial.send(b'\n');
    }
    serial
}

/// Says that what was written last is no whole line, and that who wrote it may go on.
pub fn leave_unfinished() {
    same_line().unfinished = true;
}

/// Whether the line that was [left unfinished](leave_unfinished) is still the last one; whoever asks goes on with it.
pub fn go_on() -> bool {
    core::mem::take(&mut same_line().unfinished)
}

/// The line where it is. The hypervisor prints with interrupts disabled and from one CPU, so the lock is free
/// except when a fault or an NMI interrupts a message: then the line is taken over, for a broken line that tells
/// of the fault is worth more than silence.
#[expect(unsafe_code, reason = "breaks a lock whose holder was interrupted by a fault")]
pub fn same_line() -> MutexGuard<'static, Serial> {
    for _ in 0..1000 {
        if let Some(guard) = SERIAL.try_lock() {
            return guard;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder is below us on this CPU's stack and cannot run on until we return; the state that the lock
    // protects is the UART's configuration, which is never changed after `open`.
    unsafe { SERIAL.force_unlock() };
    SERIAL.lock()
}

/// Lets the UART interrupt when something was typed.
pub fn enable_receive_interrupt() {
    if let Some(uart) = &mut line().uart {
        uart.enable_interrupts(IER::DATA_READY);
    }
}

/// What was typed, if anything.
pub fn read_byte() -> Option<u8> {
    line().uart.as_mut()?.try_receive_byte().ok()
}
