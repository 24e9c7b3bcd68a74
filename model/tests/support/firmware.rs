//! What firmware, or a kernel before this one, may leave a unit doing.

use super::Board;
use model::Latency;
use model::registers::{GCMD, IQA, IQT, IRE, IRTA, QIE, RTADDR, SIRTP, SRTP, TE};

/// Tables of firmware's own, and everything on: [`super::NIC`] reaches `page` at 0x1000 under domain id 1, and message 5 is
/// vector 0x66 for processor 1, whoever sends it. The queue stands in the midst of its ring.
pub fn set_to_work(board: &Board, page: u64) {
    let machine = &board.machine;
    let levels = u64::from(board.levels().count());
    let extended = board.capabilities().extended_interrupt_mode();
    let (root, contexts, tables, ring, irt) = (0x8_0000, 0x8_1000, 0x8_2000, 0x8_8000, 0x8_9000);
    for page in (root..0x8_a000).step_by(4096) {
        for at in (page..page + 4096).step_by(8) {
            machine.unit(0, |_, memory| assert!(memory.store(at, &[0; 8])));
        }
    }
    machine.store_u64(root, contexts | 1);
    machine.store_u64(contexts + 16 * 0x18 + 8, 1 << 8 | (levels - 2));
    machine.store_u64(contexts + 16 * 0x18, tables | 1);
    for level in 0..levels - 1 {
        machine.store_u64(tables + level * 4096, (tables + (level + 1) * 4096) | 3);
    }
    machine.store_u64(tables + (levels - 1) * 4096 + 8, page | 3);
    // Entry 5 delivers vector 0x66 to processor 1, from anybody.
    machine.store_u64(irt + 16 * 5, 0x66_0001 | if extended { 1 << 32 } else { 1 << 40 });
    machine.unit(0, |unit, memory| {
        memory.flush_all();
        unit.set_latency(Latency::Immediate);
    });
    machine.write64(0, RTADDR, root);
    machine.write32(0, GCMD, SRTP);
    machine.write64(0, IQA, ring);
    machine.write32(0, GCMD, QIE);
    for (slot, low) in [0x11u64, 0x12].into_iter().enumerate() {
        machine.store_u64(ring + 16 * slot as u64, low);
    }
    machine.write64(0, IQT, 32);
    machine.write32(0, GCMD, QIE | TE);
    machine.write64(0, IRTA, irt | u64::from(extended) << 11 | 7);
    machine.write32(0, GCMD, QIE | TE | SIRTP);
    machine.store_u64(ring + 32, 0x04);
    machine.write64(0, IQT, 48);
    machine.write32(0, GCMD, QIE | TE | IRE);
    machine.unit(0, |unit, memory| {
        memory.flush_all();
        unit.set_latency(Latency::Looks(3));
    });
}
