use super::*;
use std::collections::BTreeMap;
use std::vec::Vec;

/// Registers in a map, every write in a list.
struct Fake {
    mode: ApicMode,
    registers: BTreeMap<Register, u32>,
    writes: Vec<(Register, u32)>,
    commands: Vec<u64>,
    latched_errors: u32,
}

impl Fake {
    fn new(mode: ApicMode) -> Self {
        let registers = BTreeMap::from([(Register::VERSION, 0x0005_0014)]);
        Self { mode, registers, writes: Vec::new(), commands: Vec::new(), latched_errors: 0 }
    }
}

impl LocalApicAccess for Fake {
    fn mode(&self) -> ApicMode {
        self.mode
    }
    fn read(&self, register: Register) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0)
    }
    fn write(&mut self, register: Register, value: u32) {
        self.writes.push((register, value));
        let stored = if register == Register::ERROR_STATUS { self.latched_errors } else { value };
        self.registers.insert(register, stored);
    }
    fn write_icr(&mut self, value: u64) {
        self.commands.push(value);
    }
}

#[test]
fn enabling_masks_first_and_enables_last() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::X2Apic));
    apic.access.registers.insert(Register::LVT_LINT0, 0x0700);
    apic.enable(Vector(0xEF)).unwrap();
    let writes = &apic.access.writes;
    assert!(writes[..writes.len() - 2].iter().all(|(_, value)| value & lvt::MASKED != 0));
    assert!(writes.contains(&(Register::LVT_LINT0, 0x1_0700)), "delivery mode lost");
    assert!(writes.contains(&(Register::LVT_THERMAL, 0x1_0000)));
    assert!(!writes.iter().any(|(register, _)| *register == Register::LVT_CMCI), "touches an entry that is not there");
    assert_eq!(
        writes[writes.len() - 2..],
        [(Register::TASK_PRIORITY, 0x10), (Register::SPURIOUS_INTERRUPT_VECTOR, 0x1EF)]
    );
}

#[test]
fn illegal_vectors_and_absent_apics_are_refused_untouched() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::XApic));
    assert_eq!(apic.enable(Vector(15)), Err(LocalApicError::IllegalVector(Vector(15))));
    assert!(apic.start_timer_one_shot(Vector(3), TimerDivide::By1, 1).is_err());
    assert!(apic.send(InterruptCommand::Fixed(Vector(0)), Destination::SelfOnly).is_err());
    apic.access.registers.insert(Register::VERSION, u32::MAX);
    assert_eq!(apic.enable(Vector(0xEF)), Err(LocalApicError::Absent));
    assert!(apic.access.writes.is_empty());
}

#[test]
fn the_id_has_the_width_of_the_mode() {
    for (mode, id) in [(ApicMode::XApic, 0x12), (ApicMode::X2Apic, 0x1234_5678)] {
        let mut apic = LocalApic::new(Fake::new(mode));
        apic.access.registers.insert(Register::ID, 0x1234_5678);
        assert_eq!(apic.read_id(), ApicId(id));
    }
}

#[test]
fn the_timer_starts_with_the_last_write() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::X2Apic));
    apic.start_timer_one_shot(Vector(0x40), TimerDivide::By16, 1000).unwrap();
    assert_eq!(
        apic.access.writes,
        [(Register::TIMER_DIVIDE, 3), (Register::LVT_TIMER, 0x40), (Register::TIMER_INITIAL_COUNT, 1000)]
    );
    apic.access.writes.clear();
    apic.start_timer_masked(TimerDivide::By1, u32::MAX);
    assert_eq!(
        apic.access.writes,
        [(Register::TIMER_DIVIDE, 11), (Register::LVT_TIMER, 0x1_0040), (Register::TIMER_INITIAL_COUNT, u32::MAX)]
    );
}

#[test]
fn the_deadline_mode_is_one_write_of_the_timers_entry() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::X2Apic));
    assert!(apic.set_timer_deadline_mode(Vector(15)).is_err());
    apic.set_timer_deadline_mode(Vector(0x40)).unwrap();
    assert_eq!(apic.access.writes, [(Register::LVT_TIMER, 0x4_0040)]);
}

#[test]
fn errors_are_latched_before_they_are_read() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::X2Apic));
    apic.access.latched_errors = 0x40;
    assert_eq!(apic.take_error_status(), 0x40);
    assert_eq!(apic.access.writes, [(Register::ERROR_STATUS, 0)]);
}

#[test]
fn service_and_request_bits_are_found_by_vector() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::XApic));
    apic.access.registers.insert(Register::in_service(0x41), 1 << 1);
    apic.access.registers.insert(Register::interrupt_request(0xFF), 1 << 31);
    assert!(apic.read_in_service(Vector(0x41)) && !apic.read_in_service(Vector(0x61)));
    assert!(apic.read_interrupt_request(Vector(0xFF)) && !apic.read_interrupt_request(Vector(0x41)));
}

#[test]
fn a_pending_command_is_waited_for_only_in_xapic_mode_and_not_for_ever() {
    for (mode, expected) in [(ApicMode::XApic, Err(LocalApicError::SendPending(0x1000))), (ApicMode::X2Apic, Ok(()))] {
        let mut apic = LocalApic::new(Fake::new(mode));
        apic.access.registers.insert(Register::INTERRUPT_COMMAND, icr::DELIVERY_PENDING);
        assert_eq!(apic.send(InterruptCommand::Nmi, Destination::AllButSelf), expected);
        assert_eq!(apic.access.commands.is_empty(), expected.is_err(), "overwrites a pending command");
    }
}

#[test]
fn the_task_priority_is_a_class() {
    let mut apic = LocalApic::new(Fake::new(ApicMode::X2Apic));
    apic.set_task_priority(1);
    apic.set_task_priority(200);
    assert_eq!(apic.access.writes, [(Register::TASK_PRIORITY, 0x10), (Register::TASK_PRIORITY, 0xF0)]);
}
