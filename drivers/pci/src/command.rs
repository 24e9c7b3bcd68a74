//! The command register: always by 16-bit writes, because the status register beside it is write-1-to-clear.

use crate::ConfigSpace;
use crate::spec::header::{COMMAND, command};
use addr::PciAddress;

/// Reads the command register.
pub fn read_command(config: &dyn ConfigSpace, function: PciAddress) -> u16 {
    config.read16(function, COMMAND)
}

/// Sets and clears bits of the command register, and returns what it held before. Nothing is written when nothing
/// changes.
pub fn set_command_bits(config: &mut dyn ConfigSpace, function: PciAddress, set: u16, clear: u16) -> u16 {
    let before = read_command(config, function);
    let after = (before & !clear) | set;
    if after != before {
        config.write16(function, COMMAND, after);
    }
    before
}

/// Stops DMA, MSI and MSI-X of the function, and reads back, so that the write has arrived when this returns. What the
/// function sent before may still be on its way.
///
/// Returns whether it took effect: a function that keeps the bit must not be trusted to be quiet.
pub fn disable_bus_mastering(config: &mut dyn ConfigSpace, function: PciAddress) -> bool {
    set_command_bits(config, function, 0, command::BUS_MASTER);
    read_command(config, function) & command::BUS_MASTER == 0
}

/// Lets the function answer in memory and I/O space, without bus mastering and without INTx. Returns what the command
/// register held before.
pub fn enable(config: &mut dyn ConfigSpace, function: PciAddress) -> u16 {
    set_command_bits(
        config,
        function,
        command::IO_SPACE | command::MEMORY_SPACE | command::INTERRUPT_DISABLE,
        command::BUS_MASTER,
    )
}

/// Lets the function neither answer nor start transactions, nor raise INTx. Returns what the command register held
/// before.
pub fn disable(config: &mut dyn ConfigSpace, function: PciAddress) -> u16 {
    set_command_bits(
        config,
        function,
        command::INTERRUPT_DISABLE,
        command::IO_SPACE | command::MEMORY_SPACE | command::BUS_MASTER,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, at};

    #[test]
    fn the_status_register_is_not_written() {
        let mut config = Fake::new();
        let nic = at(0, 3, 0);
        config.add(nic).header(0x8086, 0x10D3, 0x02_0000, 0).word(0x04, 0x0107);
        assert!(disable_bus_mastering(&mut config, nic));
        enable(&mut config, nic);
        disable(&mut config, nic);
        let writes: std::vec::Vec<_> = config.writes.iter().map(|w| (w.offset, w.width, w.value)).collect();
        let word = crate::Width::Word;
        assert_eq!(writes, [(4, word, 0x0103), (4, word, 0x0503), (4, word, 0x0500)]);
    }

    #[test]
    fn an_absent_function_is_not_said_to_be_quiet() {
        assert!(!disable_bus_mastering(&mut Fake::new(), at(0, 3, 0)));
    }
}
