//! String instructions at I/O ports and at device registers.

use super::*;
use crate::vcpu::Start;

/// Where the tests have their strings.
const TEXT: u64 = 0x30_0000;
const SCRATCH: u16 = 0x3ff;

fn io(port: u16, direction: Direction, width: IoWidth) -> Exit {
    Exit::Io(IoAccess { port, direction, width, string: true, repeat: true })
}

/// A guest in protected mode without paging that is about to execute `code`, with RSI and RDI at [`TEXT`], RCX and RDX.
fn bench(code: &[u8], count: u64, port: u16) -> Bench {
    let mut bench = Bench::with(code);
    let registers = bench.vcpu.registers_mut();
    (registers.rsi, registers.rdi, registers.rcx, registers.rdx) = (TEXT, TEXT, count, port.into());
    bench
}

impl Bench {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.platform.memory.write(GuestPhys::new(at), bytes).unwrap();
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.platform.memory.read(GuestPhys::new(at), &mut bytes).unwrap();
        bytes
    }

    /// RSI, RDI and RCX, the first two from [`TEXT`] on.
    fn pointers(&self) -> (i64, i64, u64) {
        let registers = self.vcpu.registers();
        (registers.rsi.wrapping_sub(TEXT) as i64, registers.rdi.wrapping_sub(TEXT) as i64, registers.rcx)
    }
}

#[test]
fn a_text_is_printed_by_one_instruction() {
    // rep outsb
    let mut bench = bench(&[0xf3, 0x6e], 6, 0x3f8);
    bench.put(TEXT, b"hello\n!");
    assert_eq!(bench.serve(io(0x3f8, Direction::Out, IoWidth::Byte)), Next::Run);
    assert_eq!(
        (bench.lines.0.as_slice(), bench.pointers(), bench.advanced()),
        (&["hello".to_string()][..], (6, 0, 0), 2)
    );
}

#[test]
fn all_widths_and_both_directions() {
    for (code, width, bytes) in [
        (&[0xf3, 0x6c][..], IoWidth::Byte, 1u64),
        (&[0xf3, 0x66, 0x6d], IoWidth::Word, 2),
        (&[0xf3, 0x6d], IoWidth::Dword, 4),
        (&[0x6d], IoWidth::Dword, 4),
    ] {
        for down in [false, true] {
            // From the serial port's scratch register, as far as the width goes.
            let mut bench = bench(code, 3, SCRATCH);
            let count = if code.len() == 1 { 1 } else { 3 };
            let services = &mut Services { config: &mut NoFunctions, host: &mut bench.lines };
            assert_eq!(bench.platform.write_port(SCRATCH, 1, 0x5a, services), Outcome::Continue);
            bench.vcpu.set_rflags(if down { 0x402 } else { 2 });
            assert_eq!(bench.serve(io(SCRATCH, Direction::In, width)), Next::Run);
            let moved = if down { -1 } else { 1 } * (bytes * count) as i64;
            let rest = if count == 1 { 3 } else { 0 };
            assert_eq!((bench.pointers(), bench.advanced()), ((0, moved, rest), code.len() as u64), "{code:x?}");
            let mut expected = [0; 32];
            for number in 0..count as i64 {
                let at = (16 + number * if down { -1 } else { 1 } * bytes as i64) as usize;
                expected[at..at + bytes as usize].fill(0xff);
                expected[at] = 0x5a;
            }
            assert_eq!(bench.bytes::<32>(TEXT - 16), expected, "{code:x?} {down}");
        }
    }
}

#[test]
fn an_exit_moves_a_bounded_number_and_the_guest_comes_back() {
    let mut bench = bench(&[0xf3, 0x6c], 600, 0x80);
    for (left, advanced) in [(344, 0), (88, 0), (0, 2)] {
        assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Byte)), Next::Run);
        assert_eq!((bench.pointers(), bench.advanced()), ((0, 600 - left as i64, left), advanced));
    }
    assert_eq!(bench.bytes::<601>(TEXT)[599..], [0xff, 0]);
    // None at all: the instruction is over, and nothing was written.
    let mut bench = self::bench(&[0xf3, 0x6c], 0, 0x80);
    assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Byte)), Next::Run);
    assert_eq!((bench.pointers(), bench.advanced(), bench.bytes::<1>(TEXT)), ((0, 0, 0), 2, [0]));
}

#[test]
fn addresses_have_their_own_size_and_wrap_at_it() {
    // rep insb with 16-bit addresses: DI wraps, CX counts, what is above them stays.
    let mut bench = bench(&[0xf3, 0x67, 0x6c], 0x7_0003, 0x80);
    bench.vcpu.registers_mut().rdi = 0x5_ffff;
    assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Byte)), Next::Run);
    assert_eq!((bench.vcpu.registers().rdi, bench.vcpu.registers().rcx), (0x5_0002, 0x7_0000));
    assert_eq!((bench.bytes::<1>(0xffff), bench.bytes::<3>(0)), ([0xff], [0xff, 0xff, 0]));
}

#[test]
fn a_guest_that_single_steps_stops_after_each_element() {
    let mut bench = bench(&[0xf3, 0x6c], 2, 0x80);
    bench.vcpu.set_rflags(0x102);
    for (left, advanced) in [(1, 0), (0, 2)] {
        assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Byte)), Next::Run);
        assert_eq!((bench.vcpu.registers().rcx, bench.advanced()), (left, advanced));
        assert!(matches!(bench.vcpu.take_pending_event(), Some(Event::Exception { vector: 1, .. })));
    }
}

#[test]
fn a_string_that_ends_the_guest_ends_it() {
    // outsw to the port that switches off, and rep outsb to the debug-exit port: the first element decides.
    let mut off = bench(&[0x66, 0x6f], 0, 0x604);
    off.put(TEXT, &0x2000u16.to_le_bytes());
    assert_eq!(off.serve(io(0x604, Direction::Out, IoWidth::Word)), Next::PowerOff);
    let mut failed = bench(&[0xf3, 0x6e], 5, 0x501);
    failed.platform.debug_exit_port = Some(0x501);
    failed.put(TEXT, &[3, 4]);
    failed.stops(io(0x501, Direction::Out, IoWidth::Byte), "ended with status 0x3");
}

#[test]
fn code_that_changed_since_the_exit_is_executed_again() {
    for code in [&[0x90][..], &[0xa4], &[0x6c], &[0xa1, 0, 0, 0, 0]] {
        let mut bench = bench(code, 5, 0x3f8);
        let next = bench.serve(io(0x3f8, Direction::Out, IoWidth::Byte));
        let unknown = code[0] == 0x90;
        assert_eq!((next == Next::Run, bench.advanced(), bench.pointers()), (!unknown, 0, (0, 0, 5)), "{code:x?}");
    }
    // Elements in memory, though device registers were accessed.
    let mut bench = bench(&[0xf3, 0xa5], 5, 0);
    assert_eq!(bench.access(0xfee0_0020, Access::Read), Next::Run);
    assert_eq!((bench.advanced(), bench.pointers()), (0, (0, 0, 5)));
}

/// A 64-bit guest with tables at 0x10_0000: 2 MiB at 0 to itself, and pages of 4 KiB at [`TEXT`], the second of which is
/// not present.
fn long_mode(code: &[u8]) -> Bench {
    let mut bench = Bench::with(&[]);
    for (at, entry) in [
        (0x10_0000u64, 0x10_1003u64),
        (0x10_1000, 0x10_2003),
        (0x10_2000, 0x83),
        (0x10_2008, 0x10_3003),
        (0x10_3800, TEXT | 3),
        (0x10_1010, 0x8000_0083),
        (0x10_1018, 0xc000_0083),
    ] {
        bench.put(at, &entry.to_le_bytes());
    }
    bench.put(0x8000, code);
    bench.vcpu.start(Start::Long {
        entry: 0x8000,
        information: 0,
        page_tables: 0x10_0000,
        descriptor_table: 0x9000,
        descriptor_table_limit: 0x2f,
    });
    bench
}

#[test]
fn an_element_that_the_guest_cannot_reach_is_its_page_fault() {
    // rep insd over the end of a page: the last element that fits is done, and of the next the port is not read.
    let mut bench = long_mode(&[0xf3, 0x6d]);
    let registers = bench.vcpu.registers_mut();
    (registers.rdi, registers.rcx, registers.rdx) = (TEXT + 0xffb, 9, 0x80);
    assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Dword)), Next::Run);
    assert_eq!((bench.pointers().1, bench.vcpu.registers().rcx, bench.vcpu.rip()), (0xfff, 8, 0x8000));
    assert_eq!(bench.raised(), Some(Event::Exception { vector: 14, error_code: Some(2) }));
    assert_eq!(bench.vcpu.control().cr2, TEXT + 0x1000, "the first byte that cannot be reached");
    assert_eq!(bench.bytes::<5>(TEXT + 0xffb), [0xff, 0xff, 0xff, 0xff, 0]);
    // With the page there, the element is in both.
    bench.put(0x10_3808, &((TEXT + 0x1000) | 3).to_le_bytes());
    assert!(bench.vcpu.take_pending_event().is_some());
    bench.vcpu.registers_mut().rcx = 1;
    assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Dword)), Next::Run);
    assert_eq!((bench.bytes::<5>(TEXT + 0xfff), bench.vcpu.rip()), ([0xff, 0xff, 0xff, 0xff, 0], 0x8002));
    // No page fault, but an address that is none.
    let mut bench = long_mode(&[0x6c]);
    bench.vcpu.registers_mut().rdi = 1 << 47;
    assert_eq!(bench.serve(io(0x80, Direction::In, IoWidth::Byte)), Next::Run);
    assert_eq!(bench.raised(), Some(GENERAL_PROTECTION_FAULT));
}

#[test]
fn strings_reach_the_registers_of_devices_from_either_side() {
    // rep movsd from the local APIC's id and version: four bytes at multiples of 16 are registers, others are not.
    let mut bench = long_mode(&[0xf3, 0xa5]);
    let registers = bench.vcpu.registers_mut();
    (registers.rsi, registers.rdi, registers.rcx) = (0xfee0_0030, TEXT, 2);
    assert_eq!(bench.access(0xfee0_0030, Access::Read), Next::Run);
    let version = bench.platform.apic.read_page(0x30, 0).to_le_bytes();
    assert_eq!((bench.bytes::<4>(TEXT), bench.vcpu.rip()), (version, 0x8002));
    // stosd and movsd into the task priority.
    for code in [&[0xab][..], &[0xa5]] {
        let mut bench = long_mode(code);
        bench.put(TEXT, &0x40u32.to_le_bytes());
        let registers = bench.vcpu.registers_mut();
        (registers.rax, registers.rsi, registers.rdi) = (0x40, TEXT, 0xfee0_0080);
        assert_eq!(bench.access(0xfee0_0080, Access::Write), Next::Run);
        assert_eq!(
            (bench.platform.apic.tpr(), bench.vcpu.registers().rdi, bench.vcpu.rip()),
            (0x40, 0xfee0_0084, 0x8001)
        );
    }
    // lodsd from it.
    let mut bench = long_mode(&[0xad]);
    let registers = bench.vcpu.registers_mut();
    (registers.rax, registers.rsi) = (u64::MAX, 0xfee0_0030);
    assert_eq!(bench.access(0xfee0_0030, Access::Read), Next::Run);
    assert_eq!(bench.vcpu.registers().rax, u64::from(u32::from_le_bytes(version)));
    // Into read-only memory, where it is lost, and out of it.
    let mut bench = long_mode(&[0xf3, 0xa4]);
    bench.put(0xf_0000, b"rom");
    bench.put(TEXT, b"xyz");
    let registers = bench.vcpu.registers_mut();
    (registers.rsi, registers.rdi, registers.rcx) = (TEXT, 0xf_0000, 3);
    assert_eq!(bench.access(0xf_0000, Access::Write), Next::Run);
    assert_eq!((bench.bytes::<3>(0xf_0000), bench.vcpu.registers().rcx), (*b"rom", 0));
    // Beyond everything.
    let mut bench = long_mode(&[0xf3, 0xa4]);
    let registers = bench.vcpu.registers_mut();
    (registers.rsi, registers.rdi, registers.rcx) = (TEXT, 0xa000_0000, 3);
    assert_eq!(bench.access(0xa000_0000, Access::Write), Next::Run);
    assert_eq!((bench.vcpu.registers().rcx, bench.lines.2.len()), (0, 3));
    // And from there.
    let mut bench = long_mode(&[0xf3, 0xa4]);
    bench.put(TEXT, &[0; 3]);
    let registers = bench.vcpu.registers_mut();
    (registers.rsi, registers.rdi, registers.rcx) = (0xa000_0000, TEXT, 2);
    assert_eq!(bench.access(0xa000_0000, Access::Read), Next::Run);
    assert_eq!(bench.bytes::<3>(TEXT), [0xff, 0xff, 0]);
}

#[test]
fn locked_instructions_and_bits_reach_device_registers() {
    // lock bts dword [0xfee00080], 5; btc dword [0xfee00000], ecx with an index far from the operand; xchg; cmpxchg.
    let code = [
        &[0xf0, 0x0f, 0xba, 0x2d, 0x80, 0, 0xe0, 0xfe, 5][..],
        &[0x0f, 0xbb, 0x0d, 0, 0, 0xe0, 0xfe],
        &[0x87, 0x15, 0x80, 0, 0xe0, 0xfe],
        &[0xf0, 0x0f, 0xb1, 0x0d, 0x80, 0, 0xe0, 0xfe],
    ]
    .concat();
    let mut bench = Bench::with(&code);
    let registers = bench.vcpu.registers_mut();
    (registers.rax, registers.rcx, registers.rdx) = (0x10, 0x80 * 8 + 6, 0x10);
    for (priority, rdx, advanced) in [(0x20, 0x10, 9), (0x60, 0x10, 16), (0x10, 0x60, 22), (0x06, 0x60, 30)] {
        assert_eq!(bench.access(0xfee0_0080, Access::Write), Next::Run);
        assert_eq!((bench.platform.apic.tpr(), bench.advanced()), (priority, advanced));
        assert_eq!(bench.vcpu.registers().rdx, rdx);
    }
}
