//! What the engine needs of the processor: the fields of one control structure, and the way into its guest.

use crate::vcpu::Registers;
use crate::vcpu::vmx::spec::field::{Field, Width, Writability, Writable};
use addr::Vector;

/// Why a guest was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// The instruction failed with a VM-instruction error (ZF).
    Failed {
        /// The VM-instruction error.
        number: u32,
    },
    /// The instruction failed and there was no current control structure to say why (CF).
    NoCurrentStructure,
    /// An earlier VMREAD or VMWRITE failed: the processor lacks a field that the engine relies on.
    NoSuchField {
        /// The field's encoding.
        encoding: u32,
    },
}

/// A virtual-machine control structure, on the processor that it belongs to.
pub trait Processor {
    /// VMREAD.
    fn read(&self, encoding: u32) -> u64;

    /// As [`Self::read`], where it happens at every exit.
    fn read_at_exit(&self, encoding: u32) -> u64 {
        self.read(encoding)
    }

    /// VMWRITE.
    fn write(&mut self, encoding: u32, value: u64);

    /// VMLAUNCH or VMRESUME. RSP and RIP are the control structure's, the other registers and CR2 are given, both
    /// ways. Physical interrupts are disabled, before and after.
    fn enter(&mut self, registers: &mut Registers, cr2: &mut u64) -> Result<(), EntryError>;

    /// Forgets the translations by way of one EPT pointer, and those of one virtual-processor identifier.
    fn invalidate(&mut self, ept_pointer: u64, virtual_processor: Option<u16>);

    /// Lets the hypervisor's handler run for the interrupt that took the guest out: the one with `vector` where the
    /// exit has acknowledged it, otherwise whatever is pending.
    fn serve_interrupt(&mut self, vector: Option<Vector>);

    /// Lets the hypervisor's handler run for the NMI that took the guest out; ends the blocking of NMIs.
    fn serve_nmi(&mut self);

    /// DR6, which entry and exit leave in the processor.
    fn debug_status(&self) -> u64;

    /// Sets DR6.
    fn set_debug_status(&mut self, value: u64);

    /// The value of `field`.
    fn get<W: Width, A: Writability>(&self, field: Field<W, A>) -> W::Value {
        W::truncate(self.read(field.encoding()))
    }

    /// The value of `field`, where it is asked at every exit.
    #[inline(always)]
    fn get_at_exit<W: Width, A: Writability>(&self, field: Field<W, A>) -> W::Value {
        W::truncate(self.read_at_exit(field.encoding()))
    }

    /// Sets `field`.
    fn set<W: Width>(&mut self, field: Field<W, Writable>, value: W::Value) {
        self.write(field.encoding(), value.into());
    }
}
