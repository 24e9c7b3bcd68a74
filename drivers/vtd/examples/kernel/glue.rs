// What a kernel supplies, here for a machine in software; on a real one, the bodies are loads and stores at the mapped
// addresses.
use addr::HostPhys;
use model::Machine;
use paging::TableMemory;
use vtd::{Clock, DmaMemory, Registers};

pub struct Window(Machine);
impl Window {
    pub fn new(machine: &Machine) -> Self { Self(machine.clone()) }
}
impl Registers for Window {
    fn read32(&self, offset: u16) -> u32 { self.0.read32(0, offset) }
    fn read64(&self, offset: u16) -> u64 { self.0.read64(0, offset) }
    fn write32(&mut self, offset: u16, value: u32) { self.0.write32(0, offset, value) }
    fn write64(&mut self, offset: u16, value: u64) { self.0.write64(0, offset, value) }
}
pub struct Time(Machine);
impl Time {
    pub fn new(machine: &Machine) -> Self { Self(machine.clone()) }
}
impl Clock for Time {
    fn now_us(&self) -> u64 { self.0.now_us() }
    fn relax(&self) { self.0.pass_time(1) }
}
pub struct Frames(Machine, u64);
impl Frames {
    pub fn new(machine: &Machine) -> Self { Self(machine.clone(), 1 << 20) }
}
impl TableMemory for Frames {
    fn allocate_table(&mut self) -> Option<HostPhys> { self.allocate_contiguous(1, 4096) }
    fn free_table(&mut self, _: HostPhys) {}
    fn read_entry(&self, table: HostPhys, index: usize) -> u64 { self.0.load(table.as_u64() + index as u64 * 8) }
    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.0.store_u64(table.as_u64() + index as u64 * 8, value);
    }
}
impl DmaMemory for Frames {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let start = self.1.next_multiple_of(alignment);
        self.1 = start + pages as u64 * 4096;
        (start..self.1).step_by(8).for_each(|word| self.0.store_u64(word, 0));
        Some(HostPhys::new(start))
    }
    fn read_u64(&self, address: HostPhys) -> u64 { self.0.load(address.as_u64()) }
    fn write_u64(&mut self, address: HostPhys, value: u64) { self.0.store_u64(address.as_u64(), value) }
    fn write_back(&mut self, address: HostPhys, bytes: u64) { self.0.flush(address.as_u64(), bytes) }
}
