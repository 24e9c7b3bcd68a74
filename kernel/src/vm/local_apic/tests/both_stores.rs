//! Two local APICs that must never differ: one in an array, one in a virtual-APIC page.

use core::fmt::Debug;
use std::boxed::Box;

use addr::{ApicId, GuestPhys, Vector};

use super::super::{Effect, GeneralProtection, LocalApic, Mode};

/// What is done to one is done to the other, and must have the same result.
pub struct BothStores {
    array: LocalApic,
    page: LocalApic,
}

impl BothStores {
    pub fn new(id: ApicId, bootstrap_processor: bool, physical_address_bits: u8) -> Self {
        Self {
            array: LocalApic::new(id, bootstrap_processor, physical_address_bits),
            page: LocalApic::over_page(Box::leak(Box::default()), id, bootstrap_processor, physical_address_bits),
        }
    }

    pub fn owns_msr(msr: u32) -> bool {
        LocalApic::owns_msr(msr)
    }

    fn same<T: PartialEq + Debug>(&self, ask: impl Fn(&LocalApic) -> T) -> T {
        let answer = ask(&self.array);
        assert_eq!(answer, ask(&self.page), "the stores differ");
        answer
    }

    fn both<T: PartialEq + Debug>(&mut self, act: impl Fn(&mut LocalApic) -> T) -> T {
        let answer = act(&mut self.array);
        assert_eq!(answer, act(&mut self.page), "the stores differ");
        answer
    }

    pub fn read_msr(&mut self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        self.both(|apic| apic.read_msr(msr, now))
    }

    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<Option<Effect>, GeneralProtection> {
        self.both(|apic| apic.write_msr(msr, value, now))
    }

    pub fn read_page(&mut self, offset: u16, now: u64) -> u32 {
        self.both(|apic| apic.read_page(offset, now))
    }

    pub fn write_page(&mut self, offset: u16, value: u32, now: u64) -> Option<Effect> {
        self.both(|apic| apic.write_page(offset, value, now))
    }

    pub fn accept(&mut self, requests: [u64; 4]) {
        self.both(|apic| apic.accept(requests));
    }

    pub fn accept_level(&mut self, vector: Vector) {
        self.both(|apic| apic.accept_level(vector));
    }

    pub fn level_triggered(&self) -> [u64; 4] {
        self.same(LocalApic::level_triggered)
    }

    pub fn acknowledge(&mut self) -> Option<Vector> {
        self.both(LocalApic::acknowledge)
    }

    pub fn end_of_interrupt(&mut self) -> Option<Vector> {
        self.both(LocalApic::end_of_interrupt)
    }

    pub fn init(&mut self) {
        self.both(LocalApic::init);
    }

    pub fn expire(&mut self, now: u64) {
        self.both(|apic| apic.expire(now));
    }

    pub fn offer_timer(&mut self) {
        self.both(LocalApic::offer_timer);
    }

    pub fn timer_moves(&self) -> bool {
        self.same(LocalApic::timer_moves)
    }

    pub fn has_borrowed_timer(&self) -> bool {
        self.same(LocalApic::has_borrowed_timer)
    }

    pub fn recall_timer(&mut self) -> bool {
        self.both(LocalApic::recall_timer)
    }

    pub fn borrow_timer(&mut self) -> u64 {
        self.both(LocalApic::borrow_timer)
    }

    pub fn deadline_reached(&mut self) {
        self.both(LocalApic::deadline_reached);
    }

    pub fn return_timer(&mut self, deadline: u64, reached: bool, now: u64) {
        self.both(|apic| apic.return_timer(deadline, reached, now));
    }

    pub fn set_time_stamp_offset(&mut self, offset: u64, now: u64) {
        self.both(|apic| apic.set_time_stamp_offset(offset, now));
    }

    pub fn set_tpr(&mut self, tpr: u8) {
        self.both(|apic| apic.set_tpr(tpr));
    }

    pub fn set_cr8(&mut self, value: u64) -> Result<(), GeneralProtection> {
        self.both(|apic| apic.set_cr8(value))
    }

    pub fn pending(&self) -> Option<Vector> {
        self.same(LocalApic::pending)
    }

    pub fn ppr(&self) -> u8 {
        self.same(LocalApic::ppr)
    }

    pub fn tpr(&self) -> u8 {
        self.same(LocalApic::tpr)
    }

    pub fn cr8(&self) -> u64 {
        self.same(LocalApic::cr8)
    }

    pub fn dropped(&self) -> u64 {
        self.same(LocalApic::dropped)
    }

    pub fn is_software_enabled(&self) -> bool {
        self.same(LocalApic::is_software_enabled)
    }

    pub fn timer_deadline(&self) -> Option<u64> {
        self.same(LocalApic::timer_deadline)
    }

    pub fn mode(&self) -> Mode {
        self.same(LocalApic::mode)
    }

    pub fn page(&self) -> Option<GuestPhys> {
        self.same(LocalApic::page)
    }

    pub fn matches_logical(&self, destination: u32) -> bool {
        self.same(|apic| apic.matches_logical(destination))
    }
}
