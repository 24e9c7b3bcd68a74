//! Units in scalable mode, and a guest that has first-stage tables of its own.

use super::{Board, MEMORY, Memory};
use addr::{GuestPhys, HostPhys, Iova, PageSize};
use model::{Access, Configuration, Machine, Reason, Request};
use paging::{FirstStage, Flush, PageTable, Permissions, TableMemory};
use vtd::Pasid;

/// A unit in scalable mode, up. Requests without PASID are those of `rid_pasid`.
pub fn up(configuration: Configuration, rid_pasid: u32) -> Board {
    let mut board = probe(configuration, rid_pasid);
    let settings = board.settings();
    board.unit.bring_up(&mut board.memory, &settings).expect("the unit comes up");
    assert_eq!(board.machine.violations(0), []);
    board.machine.watch_time();
    board
}

/// A unit that will be in scalable mode.
pub fn probe(configuration: Configuration, rid_pasid: u32) -> Board {
    let walks_snoop = configuration.page_walk_coherency;
    let mut board = Board::probe(configuration);
    board.unit.use_scalable_mode(Pasid::new(rid_pasid).unwrap()).expect("scalable mode");
    assert_eq!(board.unit.page_walks_are_coherent(), walks_snoop);
    board.memory.coherent = walks_snoop;
    board
}

/// Units of every kind that makes a driver behave otherwise in scalable mode.
pub fn kinds() -> Vec<(&'static str, Configuration)> {
    let base = Configuration::scalable;
    let qemu = Configuration {
        scalable_mode: true,
        coherent: false,
        srtp_invalidates: false,
        sirtp_invalidates: false,
        fault_records: 1,
        posted_interrupts: false,
        snoop_control: false,
        ..Configuration::default()
    };
    vec![
        ("everything", base()),
        ("caching mode", Configuration { caching_mode: true, ..base() }),
        ("caching mode by field", Configuration { caching_mode: true, absent_keeps_domain: true, ..base() }),
        ("not coherent", Configuration { coherent: false, page_walk_coherency: false, ..base() }),
        ("walks not coherent", Configuration { page_walk_coherency: false, ..base() }),
        ("walks coherent, tables not", Configuration { coherent: false, ..base() }),
        ("write buffer", Configuration { write_buffer: true, srtp_invalidates: false, ..base() }),
        ("owes invalidations", Configuration { srtp_invalidates: false, ..base() }),
        ("no page-selective invalidation", Configuration { page_selective: false, max_address_mask: 0, ..base() }),
        ("five levels", Configuration { sagaw: 0b1000, guest_address_width: 57, ..base() }),
        ("PASIDs of 7 bits", Configuration { pasid_bits: 7, rid_pasid: false, ..base() }),
        ("QEMU's second stage", Configuration { second_stage: true, ..qemu.clone() }),
        ("QEMU's first stage", Configuration { first_stage: true, first_stage_1g: true, ..qemu.clone() }),
        (
            "QEMU's, caching",
            Configuration { caching_mode: true, absent_keeps_domain: true, second_stage: true, ..qemu },
        ),
    ]
}

/// Where a device's write with a PASID ends up, by what the unit remembers.
pub fn write(machine: &Machine, source: u16, pasid: Option<u32>, iova: u64) -> Result<u64, Reason> {
    let request = Request { pasid, ..Request::new(source, Access::Write) };
    machine.request(0, &request, iova, 4).map(|parts| parts[0].0).map_err(|fault| fault.reason)
}

/// The same if the unit remembers nothing.
pub fn write_cold(machine: &Machine, source: u16, pasid: Option<u32>, iova: u64) -> Result<u64, Reason> {
    let request = Request { pasid, ..Request::new(source, Access::Write) };
    machine.request_cold(0, &request, iova, 4).map(|parts| parts[0].0).map_err(|fault| fault.reason)
}

/// The same if the unit fetches entries in pieces, the first 64 bits some stores ago: an answer for each store since the
/// last wait.
pub fn write_torn(machine: &Machine, source: u16, pasid: Option<u32>, iova: u64) -> Vec<u64> {
    let request = Request { pasid, ..Request::new(source, Access::Write) };
    machine.request_torn(0, &request, iova, 4).into_iter().flatten().map(|parts| parts[0].0).collect()
}

/// Where the write of a device with a device-TLB ends up.
pub fn device_write(machine: &Machine, source: u16, pasid: Option<u32>, iova: u64) -> Result<u64, Reason> {
    let request = Request { pasid, ..Request::new(source, Access::Write) };
    machine.device_request(0, &request, iova).map_err(|fault| fault.reason)
}

/// A first-stage table in the host's memory.
pub fn first_stage(board: &mut Board, levels: u8) -> PageTable<FirstStage> {
    PageTable::new(levels, PageSize::Size2M, &mut board.memory).unwrap()
}

/// Maps for reading and writing.
pub fn map(
    table: &mut PageTable<FirstStage>,
    memory: &mut impl TableMemory,
    iova: u64,
    to: u64,
    len: u64,
) -> Flush<Iova> {
    table.map(memory, Iova::new(iova), HostPhys::new(to), len, Permissions::READ_WRITE, ()).unwrap()
}

/// What a guest sees as memory: `bytes` from `base` are the host's from `host`. Tables are allocated from its end.
pub struct GuestMemory {
    memory: Memory,
    base: u64,
    host: u64,
    free: Vec<u64>,
}

impl GuestMemory {
    pub fn new(memory: &Memory, base: u64, host: u64, bytes: u64) -> Self {
        assert!(host + bytes <= MEMORY);
        let free = (base..base + bytes).step_by(4096).collect();
        Self { memory: memory.clone(), base, host, free }
    }

    fn to_host(&self, guest: HostPhys) -> HostPhys {
        HostPhys::new(guest.as_u64() - self.base + self.host)
    }
}

impl TableMemory for GuestMemory {
    fn allocate_table(&mut self) -> Option<HostPhys> {
        let table = HostPhys::new(self.free.pop()?);
        for index in 0..512 {
            self.memory.write_entry(self.to_host(table), index, 0);
        }
        Some(table)
    }

    fn free_table(&mut self, table: HostPhys) {
        self.free.push(table.as_u64());
    }

    fn read_entry(&self, table: HostPhys, index: usize) -> u64 {
        self.memory.read_entry(self.to_host(table), index)
    }

    fn write_entry(&mut self, table: HostPhys, index: usize, value: u64) {
        self.memory.write_entry(self.to_host(table), index, value);
    }
}

/// The address of a guest's table as the guest sees it.
pub fn guest_root(table: &PageTable<FirstStage>) -> GuestPhys {
    GuestPhys::new(table.root().as_u64())
}
