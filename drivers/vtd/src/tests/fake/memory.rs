//! Memory that the driver shares with the unit.

use super::*;

impl TableMemory for Fake {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        self.allocate_contiguous(1, PAGE_SIZE)
    }
    fn free_table(&mut self, _: HostPhys) {
        panic!("the driver's tables are for ever");
    }
    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.read_u64(HostPhys::new(table.as_u64() + index as u64 * 8))
    }
    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.write_u64(HostPhys::new(table.as_u64() + index as u64 * 8), value);
    }
}

impl DmaMemory for Fake {
    fn allocate_contiguous(&mut self, pages: usize, alignment: u64) -> Option<HostPhys> {
        let mut inner = self.0.borrow_mut();
        inner.frames_left = inner.frames_left.checked_sub(pages)?;
        assert!(pages > 0 && alignment.is_power_of_two() && alignment >= PAGE_SIZE, "{pages} pages at {alignment:#x}");
        let base = inner.next_frame.next_multiple_of(alignment);
        inner.next_frame = base + pages as u64 * PAGE_SIZE;
        for word in (base..inner.next_frame).step_by(8) {
            inner.memory.insert(word, 0);
        }
        Some(HostPhys::new(base))
    }

    fn read_u64(&self, address: HostPhys) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.reads += 1;
        *inner.memory.get(&address.as_u64()).expect("memory that was allocated")
    }

    fn write_u64(&mut self, address: HostPhys, value: u64) {
        let mut inner = self.0.borrow_mut();
        inner.log.push(Event::Store(address.as_u64(), value));
        *inner.memory.get_mut(&address.as_u64()).expect("memory that was allocated") = value;
    }

    fn exchange_u128(&mut self, address: HostPhys, old: [u64; 2], new: [u64; 2]) -> bool {
        let mut inner = self.0.borrow_mut();
        let low = address.as_u64();
        if !inner.exchanges || [inner.memory[&low], inner.memory[&(low + 8)]] != old {
            return false;
        }
        inner.log.push(Event::Exchange(low));
        inner.memory.insert(low, new[0]);
        inner.memory.insert(low + 8, new[1]);
        true
    }

    fn write_back(&mut self, address: HostPhys, bytes: u64) {
        let mut inner = self.0.borrow_mut();
        let first = address.align_down(64).as_u64();
        for word in (first..address.as_u64() + bytes).step_by(8) {
            let value = inner.memory[&word];
            inner.written_back.insert(word, value);
        }
    }
}
