//! A guest: its memory, its nested tables, its processor and its platform, built from its configuration.

use crate::cpu::{extended_state, interrupts, speculation};
use crate::memory::frames::Owner;
use crate::memory::tables::Tables;
use crate::memory::{frames, physical};
use crate::vcpu::{ApicWay, Engine, FrameSource, NestedFormat, Start, VirtualCpu};
use crate::vm::acpi;
use crate::vm::archive::Archive;
use crate::vm::exits::ExitCounts;
use crate::vm::extended_state::ExtendedState;
use crate::vm::loader;
use crate::vm::memory::GuestMemory;
use crate::vm::paravirtual_eoi::ParavirtualEoi;
use crate::vm::pci::{AssignedFunction, GuestAddressSpace, GuestPciBus, MappingEffect};
use crate::vm::platform::Platform;
use crate::vm::register_mapping;
use crate::vm::rom;
use crate::vm::speculation::Speculation;
use crate::vm::virtual_apic::VirtualApic;
use addr::{ApicId, GuestPhys, HostPhys, PAGE_SIZE, PageSize};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ptr::NonNull;
use paging::{MemoryType, PageTable, Permissions};

/// The levels of a guest's nested tables: 48 bits of guest-physical address.
const NESTED_LEVELS: u8 = 4;

/// Frames for the engine's control structures.
pub struct EngineFrames;

#[expect(unsafe_code, reason = "promises that the frames are nobody else's")]
// SAFETY: the frame table gives each frame out once, as the hypervisor's, and the physical map covers it for ever.
unsafe impl FrameSource for EngineFrames {
    fn allocate(&mut self, count: usize) -> Option<(HostPhys, NonNull<u8>)> {
        let start = frames().table().allocate(count, PAGE_SIZE, Owner::Hypervisor)?;
        physical::zero(start, count);
        Some((start, NonNull::new(physical::virtual_address(start) as *mut u8)?))
    }
}

/// A guest.
pub struct Guest<E: Engine> {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Its processor.
    pub vcpu: E::Cpu,
    /// How its processor's interrupts are delivered.
    pub virtual_apic: VirtualApic,
    /// What is around its processor.
    pub platform: Platform,
    /// How often it exited.
    pub exits: ExitCounts,
    nested: PageTable<E::Nested>,
}

/// The part of a guest that exists before its processor: devices are assigned to its memory.
pub struct Prepared {
    /// Its memory, with the kernel in it.
    pub memory: GuestMemory,
    start: Start,
}

/// Allocates a guest's memory and loads its kernel and what belongs to it, which is in `archive`.
pub fn prepare(number: u8, config: &config::Guest, archive: &Archive<'_>) -> Result<Prepared, String> {
    let member = |name: &str| archive.member(name).map_err(|error| error.to_string());
    let mut modules = Vec::new();
    for wanted in config.initrd.iter().chain(&config.modules) {
        modules.push((wanted.name.as_str(), member(&wanted.name)?));
    }
    let kernel = member(&config.kernel.name)?;
    let images = loader::Images { kernel, command_line: &config.command_line, modules: &modules };
    let bytes = config.memory_mib << 20;
    let mut memory = GuestMemory::allocate(number, bytes).ok_or_else(|| {
        let free = frames().table().count(Owner::Free) / 256;
        format!(
            "too little memory for guest {:?}: it wants {} MiB in one piece, and {free} MiB are free in all",
            config.name, config.memory_mib
        )
    })?;
    let start =
        loader::load(&images, &mut memory, bytes).map_err(|error| format!("guest {:?}: {error}", config.name))?;
    Ok(Prepared { memory, start })
}

impl<E: Engine> Guest<E> {
    /// Builds the guest around what was prepared: nested tables with its memory and its functions' registers, its PCI
    /// bus, and its processor.
    pub fn new(
        number: u8,
        config: &config::Guest,
        prepared: Prepared,
        functions: Vec<AssignedFunction>,
        engine: &mut E,
    ) -> Result<Self, String> {
        let Prepared { memory, start } = prepared;
        let fail = |why: String| format!("guest {:?}: {why}", config.name);
        let nested = map::<E::Nested>(&memory, engine.largest_nested_page()).map_err(fail)?;
        let physical_address_bits = core::arch::x86_64::__cpuid(0x8000_0008).eax as u8;
        let physical_address_bits = physical_address_bits.clamp(32, 52);
        let space = GuestAddressSpace { memory_end: memory.bytes(), address_bits: physical_address_bits };
        let mut bus = GuestPciBus::new(space);
        for function in functions {
            bus.add(function).map_err(|error| fail(error.to_string()))?;
        }
        let vcpu = engine.new_virtual_cpu(&mut EngineFrames, nested.root());
        let mut vcpu = vcpu.map_err(|error| fail(error.to_string()))?;
        vcpu.start(start);
        let mut platform = Platform::new(memory, bus, physical_address_bits);
        let posted = interrupts::posted_processing(number).ok_or_else(|| fail("it has no mailbox".to_string()))?;
        let hardware = vcpu.apic_virtualization();
        let (virtual_apic, apic) = VirtualApic::new(hardware, posted, ApicId(0), true, physical_address_bits);
        platform.apic = apic;
        platform.paravirtual_eoi = (virtual_apic.way() == ApicWay::Software).then(ParavirtualEoi::default);
        acpi::write(&mut platform.memory, physical_address_bits).map_err(|error| fail(error.to_string()))?;
        platform.extended_state = ExtendedState::new(extended_state::supported());
        if vcpu.has_speculation_control() {
            let (features, capabilities) = speculation::read();
            platform.msrs.speculation = Speculation::new(features, capabilities);
        }
        platform.doorbell_port = config.doorbell_port;
        platform.debug_exit_port = config.debug_exit_port;
        let name = config.name.clone();
        Ok(Self { number, name, vcpu, virtual_apic, platform, exits: ExitCounts::default(), nested })
    }

    /// Changes what the guest reaches of its functions' registers.
    ///
    /// # Errors
    /// In words; the guest reaches less than it should then, and never more.
    pub fn change_mapping(&mut self, change: MappingEffect) -> Result<(), String> {
        register_mapping::change(&mut self.nested, &mut Tables { coherent: true }, &mut self.vcpu, change)
    }

    /// Checks, page by page, that the guest reaches its own memory and registers of its own functions, and nothing else.
    pub fn verify(&self) -> Result<(), String> {
        let tables = Tables { coherent: true };
        let mut stranger = None;
        self.nested.for_each_leaf(&tables, |leaf| {
            let (start, end) = (leaf.page.host.as_u64(), leaf.page.host.as_u64() + leaf.page.size.bytes());
            let registers = self.platform.pci.functions().any(|function| {
                let mut ranges = function.host_ranges();
                let trapped = function
                    .trapped_pages()
                    .is_some_and(|(trap, bytes)| start < trap.as_u64() + bytes && end > trap.as_u64());
                !trapped && ranges.any(|(bar, size)| start >= bar.as_u64() && end <= bar.as_u64() + size)
            });
            if registers {
                return;
            }
            let mut frames = frames();
            let mut pages = (start..end).step_by(PAGE_SIZE as usize).map(HostPhys::new);
            stranger = stranger.or(pages.find(|page| frames.table().owner(*page) != Owner::Guest(self.number)));
        });
        match stranger {
            None => Ok(()),
            Some(page) => Err(format!("guest {:?} reaches {page}, which is not its own", self.name)),
        }
    }
}

/// The nested tables of a guest: its memory. Registers of its functions come as it switches them on.
fn map<F: NestedFormat>(memory: &GuestMemory, largest: PageSize) -> Result<PageTable<F>, String> {
    let mut tables = Tables { coherent: true };
    let mut nested = PageTable::new(NESTED_LEVELS, largest, &mut tables).map_err(|error| error.to_string())?;
    let (rom, end) = (rom::START.as_u64(), rom::END.as_u64());
    for (from, to, permissions) in [
        (0, rom, Permissions::READ_WRITE_EXECUTE),
        (rom, end, Permissions::READ_EXECUTE),
        (end, memory.bytes(), Permissions::READ_WRITE_EXECUTE),
    ] {
        let host = HostPhys::new(memory.start().as_u64() + from);
        let attributes = F::Attributes::from(MemoryType::WriteBack);
        let flush = nested
            .map(&mut tables, GuestPhys::new(from), host, to - from, permissions, attributes)
            .map_err(|error| error.to_string())?;
        // No processor has been pointed to these tables yet.
        flush.complete(&paging::NeverLoaded, &mut tables).map_err(|_| "a new table was in use".to_string())?;
    }
    Ok(nested)
}
