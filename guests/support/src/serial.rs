//! The first serial port, COM1 of a PC: 115200 baud, written by polling.

use crate::cpu::{read_port8, write_port8};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

const BASE: u16 = 0x3f8;
/// Transmit holding register; with DLAB the divisor's low byte.
const DATA: u16 = BASE;
/// Interrupt enable; with DLAB the divisor's high byte.
const INTERRUPT_ENABLE: u16 = BASE + 1;
/// Written: FIFO control. Read: interrupt identification, whose top two bits tell that there is a FIFO.
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const LINE_STATUS: u16 = BASE + 5;
/// Line control: divisor latch access bit.
const DLAB: u8 = 1 << 7;
/// Line control: 8 data bits, no parity, one stop bit.
const EIGHT_N_ONE: u8 = 3;
/// Line status: the transmit holding register is empty.
const HOLDING_EMPTY: u8 = 1 << 5;
/// Interrupt identification: the FIFOs are on.
const FIFOS_ENABLED: u8 = 3 << 6;
/// The depth of a 16550A's FIFO, in bytes.
const FIFO_DEPTH: u32 = 16;
/// A byte takes 87 µs on the wire; a port that is not ready after this many looks is not there.
const PATIENCE: u32 = 100_000;

/// How many bytes the port takes each time that it is empty. Fewer looks at the port are fewer exits to a hypervisor.
static DEPTH: AtomicU32 = AtomicU32::new(1);
/// How many of them are left.
static ROOM: AtomicU32 = AtomicU32::new(0);

/// Sets speed and format. The port's interrupts stay off.
pub fn initialize() {
    write_port8(INTERRUPT_ENABLE, 0);
    write_port8(LINE_CONTROL, DLAB);
    write_port8(DATA, 1);
    write_port8(INTERRUPT_ENABLE, 0);
    write_port8(LINE_CONTROL, EIGHT_N_ONE);
    write_port8(FIFO_CONTROL, 1);
    let fifo = read_port8(FIFO_CONTROL) & FIFOS_ENABLED == FIFOS_ENABLED;
    DEPTH.store(if fifo { FIFO_DEPTH } else { 1 }, Ordering::Relaxed);
}

/// The port as something to format into.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    if ROOM.load(Ordering::Relaxed) == 0 {
        for _ in 0..PATIENCE {
            if read_port8(LINE_STATUS) & HOLDING_EMPTY != 0 {
                break;
            }
            core::hint::spin_loop();
        }
        ROOM.store(DEPTH.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    ROOM.fetch_sub(1, Ordering::Relaxed);
    write_port8(DATA, byte);
}
