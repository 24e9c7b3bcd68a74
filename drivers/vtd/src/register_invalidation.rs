//! Invalidation by registers (section 6.5.1), for a unit that has no queue: one command at a time, each awaited. Only
//! the context cache and the IOTLB have registers; without a queue there are no device-TLBs and no interrupt remapping.

use crate::error::QueueError;
use crate::registers::Registers;
use crate::ring::Port;
use crate::spec::invalidation::{Descriptor, DescriptorType};
use crate::spec::registers::*;
use crate::wait::{Clock, Deadline};

/// Does what a descriptor says.
pub(crate) fn perform<R: Registers, C: Clock>(
    port: &mut Port<'_, R, C>,
    descriptor: Descriptor,
) -> Result<(), QueueError> {
    let refused = QueueError::Refused { index: 0, descriptor, record: 0 };
    match descriptor.descriptor_type() {
        DescriptorType::ContextCache => command(port, CCMD, descriptor.context_command(), CCMD_BUSY, CCMD_DONE),
        DescriptorType::Iotlb => {
            let base = port.capabilities.iotlb_register_offset();
            let register = iotlb(base).ok_or(refused)?;
            port.window.write(iva(base), descriptor.high);
            command(port, register, descriptor.iotlb_command(), IOTLB_BUSY, IOTLB_DONE)
        }
        _ => Err(refused),
    }
}

/// Gives a command and waits until it is done. The command before it was awaited: one that is given while another is in
/// progress is undefined.
fn command<R: Registers, C: Clock>(
    port: &mut Port<'_, R, C>,
    register: Register<u64, ReadWrite>,
    value: u64,
    busy: u64,
    done: u64,
) -> Result<(), QueueError> {
    port.window.write(register, value);
    let deadline = Deadline::new(port.clock, port.timeout_us);
    loop {
        let late = deadline.passed(port.clock);
        let last = port.window.read(register);
        if last & busy == 0 {
            // Hardware says by 0 that it has done nothing; it may do more than was asked.
            let performed = last & done != 0;
            return if performed {
                Ok(())
            } else {
                Err(QueueError::NotPerformed { register: register.name(), value: last })
            };
        }
        if late {
            return Err(QueueError::NotPerformed { register: register.name(), value: last });
        }
        port.clock.relax();
    }
}
