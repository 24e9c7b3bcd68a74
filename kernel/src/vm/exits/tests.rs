//! Exits of a guest in 32-bit protected mode without paging, served on the host.

mod strings;

use super::*;
use crate::vcpu::svm::fake;
use crate::vcpu::{Event, IoWidth};
use crate::vm::extended_state::ExtendedState;
use crate::vm::local_apic::Effect;
use crate::vm::pci::{GuestPciBus, PciEffect};
use crate::vm::platform::Host;
use addr::{ApicId, HostPhys, PciAddress, Vector};
use alloc::vec;
use alloc::vec::Vec;
use pci::Width;

/// A machine without any PCI function.
struct NoFunctions;

impl ConfigSpace for NoFunctions {
    fn read(&self, _: PciAddress, _: u16, width: Width) -> u32 {
        width.mask()
    }

    fn write(&mut self, _: PciAddress, _: u16, _: Width, _: u32) {}
}

#[derive(Default)]
struct Lines(Vec<String>, Vec<Vector>, Vec<GuestPhys>, Vec<u64>);

impl Host for Lines {
    fn pci_effect(&mut self, _: PciEffect) -> bool {
        true
    }
    fn xcr0(&self) -> u64 {
        self.3.last().copied().unwrap_or(1)
    }
    fn set_xcr0(&mut self, value: u64) {
        self.3.push(value);
    }
    fn apic_effect(&mut self, _: Effect) {}
    fn doorbell(&mut self, vector: Vector) {
        self.1.push(vector);
    }

    fn line(&mut self, line: String) {
        self.0.push(line);
    }
    fn nothing_there(&mut self, address: GuestPhys) {
        self.2.push(address);
    }
    fn read_register(&mut self, _: HostPhys, _: u8) -> u64 {
        0
    }
    fn write_register(&mut self, _: HostPhys, _: u8, _: u64) {}
    fn read_real_port(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn write_real_port(&mut self, _: u16, _: u8, _: u32) {}
}

struct Bench {
    vcpu: crate::vcpu::svm::SvmVirtualCpu<fake::Script>,
    platform: Platform<Vec<u8>>,
    counts: ExitCounts,
    lines: Lines,
}

impl Bench {
    /// A guest that is about to execute `code`.
    fn with(code: &[u8]) -> Self {
        let mut memory = vec![0; 4 << 20];
        memory.write(GuestPhys::new(fake::ENTRY), code).unwrap();
        let platform = Platform::new(memory, GuestPciBus::default(), 40);
        let vcpu = fake::cpu(fake::Script::default());
        Self { vcpu, platform, counts: ExitCounts::default(), lines: Lines::default() }
    }

    fn serve(&mut self, exit: Exit) -> Next {
        let mut services = Services { config: &mut NoFunctions, host: &mut self.lines };
        serve(exit, &mut self.vcpu, &mut self.platform, &mut self.counts, 1000, 2_500_000, &mut services)
    }

    /// How far the guest has come.
    fn advanced(&self) -> u64 {
        self.vcpu.rip() - fake::ENTRY
    }

    fn raised(&self) -> Option<Event> {
        self.vcpu.pending_event()
    }

    fn access(&mut self, address: u64, access: Access) -> Next {
        let address = GuestPhys::new(address);
        self.serve(Exit::NestedPageFault(NestedPageFault {
            address,
            access,
            present: false,
            table_walk: false,
            malformed: false,
            during_delivery: false,
        }))
    }

    fn stops(&mut self, exit: Exit, words: &str) {
        match self.serve(exit) {
            Next::Stop(reason) => assert!(reason.contains(words), "{reason}"),
            next => panic!("{next:?}"),
        }
    }
}

const GENERAL_PROTECTION_FAULT: Event = Event::Exception { vector: 13, error_code: Some(0) };
const OUT_BYTE: IoAccess =
    IoAccess { port: 0x3f8, direction: Direction::Out, width: IoWidth::Byte, string: false, repeat: false };

#[test]
fn cpuid_answers_by_the_policy_and_ends_with_its_prefixes() {
    let mut bench = Bench::with(&[0x66, 0xf3, 0x0f, 0xa2]);
    bench.vcpu.registers_mut().rax = 0xffff_ffff_4000_0010;
    assert_eq!(bench.serve(Exit::Cpuid), Next::Run);
    assert_eq!((bench.vcpu.registers().rax, bench.advanced()), (2_500_000, 4));
}

#[test]
fn an_unknown_register_is_a_fault_at_the_instruction() {
    for exit in [Exit::ReadMsr { index: 0x3a }, Exit::WriteMsr { index: 0x3a, value: 5 }] {
        let mut bench = Bench::with(&[0x0f, 0x32]);
        assert_eq!(bench.serve(exit), Next::Run);
        assert_eq!((bench.raised(), bench.advanced()), (Some(GENERAL_PROTECTION_FAULT), 0));
    }
    // EFER bit 12 is SVME, which the guest does not have.
    let mut bench = Bench::with(&[0x0f, 0x30]);
    assert_eq!(bench.serve(Exit::WriteMsr { index: IA32_EFER, value: 1 << 12 }), Next::Run);
    assert_eq!((bench.raised(), bench.advanced()), (Some(GENERAL_PROTECTION_FAULT), 0));
    let mut bench = Bench::with(&[0x0f, 0x30]);
    assert_eq!(bench.serve(Exit::WriteMsr { index: IA32_EFER, value: 1 << 8 }), Next::Run);
    assert_eq!((bench.raised(), bench.advanced(), bench.vcpu.control().efer), (None, 2, 1 << 8));
}

#[test]
fn the_local_apic_is_reached_by_registers_once_the_guest_says_so() {
    let mut bench = Bench::with(&[0x0f, 0x30]);
    assert_eq!(bench.serve(Exit::WriteMsr { index: 0x1b, value: 0xfee0_0d00 }), Next::Run);
    assert_eq!((bench.raised(), bench.advanced()), (None, 2));
    let mut bench = Bench { platform: bench.platform, ..Bench::with(&[]) };
    bench.platform.memory.write(GuestPhys::new(fake::ENTRY), &[0x0f, 0x32]).unwrap();
    bench.vcpu.registers_mut().rax = 77;
    assert_eq!(bench.serve(Exit::ReadMsr { index: 0x802 }), Next::Run);
    assert_eq!((bench.raised(), bench.vcpu.registers().rax), (None, u64::from(ApicId(0).0)));
}

#[test]
fn what_is_printed_comes_out_and_the_switch_ends_the_guest() {
    let mut bench = Bench::with(&[0xee]);
    for byte in b"hello\n" {
        bench.vcpu.registers_mut().rax = (*byte).into();
        // Where the instruction ends is the processor's to say; here it has not.
        bench.stops(Exit::Io(OUT_BYTE), "did not say where its I/O instruction ends");
    }
    assert_eq!(bench.lines.0, ["hello"]);
    let repeated = IoAccess { repeat: true, ..OUT_BYTE };
    bench.stops(Exit::Io(repeated), "did not say where its I/O instruction ends");
    let string = IoAccess { string: true, ..OUT_BYTE };
    bench.platform.memory.write(GuestPhys::new(fake::ENTRY), &[0x0f, 0xff]).unwrap();
    bench.stops(Exit::Io(string), "used I/O port 0x3f8 by an instruction that is not emulated: 0f ff");
    assert_eq!((bench.counts.ports, bench.counts.total), (8, 8));
}

#[test]
fn the_debug_exit_port_ends_the_guest_where_it_has_one() {
    let mut bench = Bench::with(&[]);
    let services = &mut Services { config: &mut NoFunctions, host: &mut bench.lines };
    assert_eq!(bench.platform.write_port(0x501, 4, 0, services), Outcome::Continue);
    bench.platform.debug_exit_port = Some(0x501);
    assert_eq!(bench.platform.write_port(0x501, 4, 0, services), Outcome::PowerOff);
    assert_eq!(bench.platform.write_port(0x501, 1, 3, services), Outcome::Failed(3));
    assert_eq!(bench.platform.write_port(0x502, 1, 3, services), Outcome::Continue);
}

#[test]
fn the_apic_page_answers_to_loads_and_stores() {
    // mov eax, [0xfee00020]: the id; then mov dword [0xfee00080], 0x20: the task priority.
    let mut bench = Bench::with(&[0xa1, 0x20, 0, 0xe0, 0xfe, 0xc7, 0x05, 0x80, 0, 0xe0, 0xfe, 0x20, 0, 0, 0]);
    bench.vcpu.registers_mut().rax = u64::MAX;
    assert_eq!(bench.access(0xfee0_0020, Access::Read), Next::Run);
    assert_eq!((bench.vcpu.registers().rax, bench.advanced()), (0, 5));
    assert_eq!(bench.access(0xfee0_0080, Access::Write), Next::Run);
    assert_eq!((bench.platform.apic.tpr(), bench.advanced()), (0x20, 15));
}

#[test]
fn without_its_apic_nothing_answers_at_the_page_and_cpuid_says_so() {
    let mut bench = Bench::with(&[0xa1, 0x20, 0, 0xe0, 0xfe, 0xa3, 0x80, 0, 0xe0, 0xfe, 0x0f, 0xa2]);
    // Not enabled; then x2APIC mode, where the page is none of the APIC's either.
    for (base, enabled) in [(0xfee0_0100, 0), (0xfee0_0d00, 1)] {
        assert!(bench.platform.apic.write_msr(0x1b, 0xfee0_0100 | base & 0x800, 0).is_ok());
        assert!(bench.platform.apic.write_msr(0x1b, base, 0).is_ok());
        bench.vcpu.set_rip(fake::ENTRY);
        bench.vcpu.registers_mut().rax = 0;
        assert_eq!(bench.access(0xfee0_0020, Access::Read), Next::Run);
        assert_eq!(bench.vcpu.registers().rax, 0xffff_ffff);
        bench.vcpu.registers_mut().rax = 0x20;
        assert_eq!(bench.access(0xfee0_0080, Access::Write), Next::Run);
        assert_eq!((bench.platform.apic.tpr(), bench.advanced()), (0, 10));
        bench.vcpu.registers_mut().rax = 1;
        assert_eq!(bench.serve(Exit::Cpuid), Next::Run);
        assert_eq!(bench.vcpu.registers().rdx >> 9 & 1, enabled);
    }
}

#[test]
fn the_time_stamp_counter_goes_on_from_what_was_written() {
    let mut bench = Bench::with(&[0x0f, 0x30]);
    assert_eq!(bench.serve(Exit::WriteMsr { index: 0x10, value: 400 }), Next::Run);
    assert_eq!((bench.raised(), bench.advanced()), (None, 2));
    assert_eq!(bench.vcpu.time_stamp_offset(), 400u64.wrapping_sub(1000));
    bench.vcpu.registers_mut().rdx = 7;
    assert_eq!(bench.serve(Exit::ReadMsr { index: 0x10 }), Next::Run);
    assert_eq!((bench.vcpu.registers().rax, bench.vcpu.registers().rdx), (400, 0));
}

#[test]
fn flags_follow_an_instruction_that_compares_memory() {
    // cmp dword [0xfee00020], 0: equal.
    let mut bench = Bench::with(&[0x83, 0x3d, 0x20, 0, 0xe0, 0xfe, 0]);
    assert_eq!(bench.access(0xfee0_0020, Access::Read), Next::Run);
    assert_eq!((bench.vcpu.control().rflags & 0x41, bench.advanced()), (0x40, 7));
}

#[test]
fn code_that_changed_since_the_fault_is_executed_again() {
    // mov eax, [0x1000]: not what faulted.
    let mut bench = Bench::with(&[0xa1, 0, 0x10, 0, 0]);
    assert_eq!(bench.access(0xfee0_0020, Access::Read), Next::Run);
    assert_eq!((bench.advanced(), bench.raised()), (0, None));
}

#[test]
fn loads_from_nothing_read_ones_and_stores_are_forgotten() {
    // mov eax, [0xa0000000]; mov [0xa0000000], eax; add [0xa0000002], ax
    let mut bench = Bench::with(&[0xa1, 0, 0, 0, 0xa0, 0xa3, 0, 0, 0, 0xa0, 0x66, 0x01, 0x05, 2, 0, 0, 0xa0]);
    assert_eq!(bench.access(0xa000_0000, Access::Read), Next::Run);
    assert_eq!((bench.vcpu.registers().rax, bench.advanced()), (0xffff_ffff, 5));
    assert_eq!(bench.access(0xa000_0000, Access::Write), Next::Run);
    assert_eq!(bench.advanced(), 10);
    assert_eq!(bench.access(0xa000_0002, Access::Write), Next::Run);
    assert_eq!((bench.advanced(), bench.vcpu.control().rflags & 0x8d5), (17, 0x91), "ones and ones: CF, AF, SF");
    // A load, a store, and both.
    assert_eq!(bench.lines.2, [0xa000_0000, 0xa000_0000, 0xa000_0002, 0xa000_0002].map(GuestPhys::new));
}

#[test]
fn what_cannot_be_done_in_the_guests_stead_stops_it_with_the_place() {
    let read = [0xa1, 0, 0, 0, 0xa0];
    let fault = |access| NestedPageFault {
        address: GuestPhys::new(0xa000_0000),
        access,
        present: false,
        table_walk: false,
        malformed: false,
        during_delivery: false,
    };
    let exit = |fault| Exit::NestedPageFault(fault);
    let mut window = Bench::with(&[0xa1, 0, 0, 0, 0xd0, 0xa3, 0, 0, 0, 0xd0]);
    assert_eq!(window.access(0xd000_0000, Access::Read), Next::Run);
    assert_eq!(window.vcpu.registers().rax, 0xffff_ffff, "where functions may be, nothing answers");
    assert_eq!(window.access(0xd000_0000, Access::Write), Next::Run);
    Bench::with(&[0x0f, 0x6f, 0x05, 0, 0, 0, 0xa0]).stops(exit(fault(Access::Read)), "not emulated");
    Bench::with(&read)
        .stops(exit(fault(Access::Execute)), "jumped to where no memory is, at guest-physical 0xa0000000");
    let walk = NestedPageFault { table_walk: true, ..fault(Access::Read) };
    Bench::with(&read).stops(exit(walk), "page tables are where no memory is");
    let delivery = NestedPageFault { during_delivery: true, ..fault(Access::Write) };
    Bench::with(&read).stops(exit(delivery), "stack or descriptor tables");
    let malformed = NestedPageFault { malformed: true, ..fault(Access::Read) };
    Bench::with(&read).stops(exit(malformed), "malformed");
}

#[test]
fn read_only_memory_is_read_and_keeps_what_it_has() {
    const ROM: u64 = 0xf_0010;
    // mov dword [0xf0010], 7; add dword [0xf0010], 1; mov byte [0xf0013], al.
    let code =
        [&[0xc7, 0x05, 0x10, 0, 0xf, 0, 7, 0, 0, 0][..], &[0x83, 0x05, 0x10, 0, 0xf, 0, 1], &[0xa2, 0x13, 0, 0xf, 0]]
            .concat();
    let mut bench = Bench::with(&code);
    bench.platform.memory.write(GuestPhys::new(ROM), &[0xff, 0xff, 0xff, 0xff, 0x55]).unwrap();
    let fault = NestedPageFault {
        address: GuestPhys::new(ROM),
        access: Access::Write,
        present: true,
        table_walk: false,
        malformed: false,
        during_delivery: false,
    };
    for (advanced, zero_and_carry) in [(10, 0), (17, 0x41), (22, 0x41)] {
        assert_eq!(bench.serve(Exit::NestedPageFault(fault)), Next::Run);
        // The sum is that of what is there, and its flags are kept.
        assert_eq!((bench.advanced(), bench.vcpu.control().rflags & 0x41), (advanced, zero_and_carry));
        assert_eq!(bench.platform.memory.read_u64(GuestPhys::new(ROM)), Ok(0x55_ffff_ffff));
    }
    // PUSH is none of the instructions that are completed; tables and stacks there are none of the guest's.
    Bench::with(&[0x50]).stops(Exit::NestedPageFault(fault), "not emulated");
    let walk = NestedPageFault { table_walk: true, ..fault };
    Bench::with(&[]).stops(Exit::NestedPageFault(walk), "page tables are where that is not permitted, at");
    let delivery = NestedPageFault { during_delivery: true, ..fault };
    Bench::with(&[]).stops(Exit::NestedPageFault(delivery), "where that is not permitted, at guest-physical 0xf0010");
}

#[test]
fn an_access_to_two_pages_stops_the_guest() {
    // mov dword [address], eax: from memory into read-only memory, and out of it; nobody would ever see the other half.
    for (address, faulted) in [(0xe_fffeu32, 0xf_0000), (0xf_ffff, 0xf_ffff), (0xfee0_0ffd, 0xfee0_0ffd)] {
        let mut code = vec![0xa3];
        code.extend_from_slice(&address.to_le_bytes());
        let fault = NestedPageFault {
            address: GuestPhys::new(faulted),
            access: Access::Write,
            present: true,
            table_walk: false,
            malformed: false,
            during_delivery: false,
        };
        Bench::with(&code).stops(Exit::NestedPageFault(fault), "one access of it is to two pages");
    }
}

#[test]
fn exits_that_nobody_expects_stop_the_guest_and_say_so() {
    Bench::with(&[]).stops(Exit::Unknown { code: 0x1234, information: [1, 2] }, "exit 0x1234 is not known");
    Bench::with(&[]).stops(Exit::Shutdown, "triple fault");
    Bench::with(&[]).stops(Exit::TaskSwitch, "task switch");
    for exit in [Exit::Hypercall, Exit::SetExtendedControl { index: 0, value: 7 }] {
        let mut bench = Bench::with(&[0x0f, 0x01, 0xd9]);
        assert_eq!(bench.serve(exit), Next::Run);
        assert_eq!(bench.raised(), UNDEFINED);
    }
    Bench::with(&[0xf4]).stops(Exit::Halt, "halted with interrupts disabled");
    let mut bench = Bench::with(&[0xf4]);
    bench.vcpu.set_rflags(0x202);
    assert_eq!(bench.serve(Exit::Halt), Next::Halt);
    assert_eq!((bench.advanced(), bench.counts.halts), (1, 1));
}

/// Writes the interrupt command register by its page: `high` is the destination.
fn command(bench: &mut Bench, high: u32, low: u32) -> Next {
    for (offset, value) in [(0x10, high), (0, low)] {
        let code = [&[0xc7, 0x05, offset, 3, 0xe0, 0xfe][..], &value.to_le_bytes()].concat();
        bench.platform.memory.write(GuestPhys::new(fake::ENTRY), &code).unwrap();
        bench.vcpu.set_rip(fake::ENTRY);
        let next = bench.access(0xfee0_0300 | u64::from(offset), Access::Write);
        if offset == 0 || next != Next::Run {
            return next;
        }
    }
    Next::Run
}

#[test]
fn what_a_guest_sends_to_itself_reaches_its_processor() {
    const NMI: u32 = 4 << 8;
    const INIT: u32 = 5 << 8 | 1 << 14;
    const LOGICAL: u32 = 1 << 11;
    // Destination and shorthand, and whether it is this processor, whose id is 0 and whose logical id is 4.
    for (high, how, own) in [
        (0, 0, true),
        (1 << 24, 0, false),
        (0xff << 24, 0, true),
        (4 << 24, LOGICAL, true),
        (3 << 24, LOGICAL, false),
        (0, 2 << 18, true),
        (0, 3 << 18, false),
        // The shorthand for itself goes with fixed interrupts only.
        (0, 1 << 18, false),
    ] {
        let mut bench = Bench::with(&[]);
        let _ = bench.platform.apic.write_page(0xf0, 0x1ff, 0);
        let _ = bench.platform.apic.write_page(0xd0, 4 << 24, 0);
        assert_eq!(command(&mut bench, high, how | NMI), Next::Run);
        assert_eq!((bench.vcpu.nmi_waits(), bench.advanced()), (own, 10), "{high:#x}, {how:#x}");
        let next = command(&mut bench, high, how | INIT);
        assert_eq!(matches!(next, Next::Stop(_)), own, "{high:#x}, {how:#x}: {next:?}");
    }
    let mut bench = Bench::with(&[]);
    let (deassert, start_up, smi) = (5 << 8 | 1 << 15, 6 << 8 | 0x9a, 2 << 8);
    for nothing in [deassert, start_up, smi, 3 << 8, 7 << 8] {
        assert_eq!(command(&mut bench, 0, nothing), Next::Run, "{nothing:#x}");
    }
    assert!(!bench.vcpu.nmi_waits());
    let Next::Stop(why) = command(&mut bench, 0, INIT) else { panic!("it runs on") };
    assert!(why.contains("reset its processor by an INIT"), "{why}");
}

#[test]
fn a_guest_that_single_steps_does_not_sleep_in_a_halt() {
    let mut bench = Bench::with(&[0xf4]);
    bench.vcpu.set_rflags(0x102);
    assert_eq!(bench.serve(Exit::Halt), Next::Run);
    assert!(matches!(bench.raised(), Some(Event::Exception { vector: 1, .. })));
}

#[test]
fn a_doorbell_rings_where_it_is_and_nowhere_without_one() {
    let mut bench = Bench::with(&[]);
    let ring = |bench: &mut Bench, port| {
        bench.stops(Exit::Io(IoAccess { port, ..OUT_BYTE }), "did not say where its I/O instruction ends");
    };
    bench.vcpu.registers_mut().rax = 0xffff_ff61;
    ring(&mut bench, 0x81);
    assert!(bench.lines.1.is_empty());
    bench.platform.doorbell_port = Some(0x81);
    ring(&mut bench, 0x80);
    ring(&mut bench, 0x81);
    assert_eq!(bench.lines.1, [Vector(0x61)]);
}

/// A guest that is about to execute XSETBV, with these CR4 and privilege level, on a processor whose XCR0 can be `supported`.
fn before_xsetbv(supported: u64, cr4: u64, privilege_level: u8) -> Bench {
    let mut bench = Bench::with(&[0x66, 0x0f, 0x01, 0xd1]);
    bench.platform.extended_state = ExtendedState::new(supported);
    bench.vcpu = fake::cpu(fake::Script::default().then(move |vmcb, _| {
        (vmcb.save.cr4, vmcb.save.cpl, vmcb.control.exit_code) = (cr4, privilege_level, 0x8d);
    }));
    assert!(matches!(bench.vcpu.run(), Exit::SetExtendedControl { .. }));
    bench
}

const UNDEFINED: Option<Event> = Some(Event::Exception { vector: 6, error_code: None });

#[test]
fn xsetbv_reaches_the_processor_with_legal_values_and_ends() {
    for value in [1, 3, 7] {
        let mut bench = before_xsetbv(7, CR4_OSXSAVE, 0);
        assert_eq!(bench.serve(Exit::SetExtendedControl { index: 0, value }), Next::Run);
        assert_eq!((bench.raised(), bench.advanced()), (None, 4));
        assert_eq!(bench.lines.3, [value]);
    }
}

#[test]
fn xsetbv_that_is_not_legal_reaches_nothing() {
    let refused = Some(GENERAL_PROTECTION_FAULT);
    for (supported, cr4, privilege_level, index, value, expected) in [
        (7, CR4_OSXSAVE, 0, 0, 5, refused),
        (7, CR4_OSXSAVE, 0, 0, 15, refused),
        (7, CR4_OSXSAVE, 0, 1, 7, refused),
        (7, CR4_OSXSAVE, 3, 0, 7, refused),
        (7, 0, 0, 0, 7, UNDEFINED),
        (0, CR4_OSXSAVE, 0, 0, 1, UNDEFINED),
    ] {
        let mut bench = before_xsetbv(supported, cr4, privilege_level);
        assert_eq!(bench.serve(Exit::SetExtendedControl { index, value }), Next::Run);
        assert_eq!((bench.raised(), bench.advanced()), (expected, 0), "{index} {value} {cr4:#x} {privilege_level}");
        assert!(bench.lines.3.is_empty());
    }
}

#[test]
fn cpuid_shows_whether_the_operating_system_has_switched_xsave_on() {
    for cr4 in [0, CR4_OSXSAVE] {
        let mut bench = before_xsetbv(3, cr4, 0);
        bench.vcpu.registers_mut().rax = 1;
        assert_eq!(bench.serve(Exit::Cpuid), Next::Run);
        let shown = bench.vcpu.registers().rcx >> 27 & 1;
        assert_eq!(shown, cr4 >> 18, "{cr4:#x}");
    }
}
