//! Bringing a function back to the state after power-on, so that nothing of one owner reaches the next.

use crate::command::{disable_bus_mastering, set_command_bits};
use crate::spec::capability::{advanced_features, power_management};
use crate::spec::express::{DEVICE_CONTROL, INITIATE_FUNCTION_LEVEL_RESET};
use crate::spec::header::{BAR0, CACHE_LINE_SIZE, COMMAND, EXPANSION_ROM, INTERRUPT_LINE, VENDOR_ID, command};
use crate::{ConfigSpace, FunctionDescription, HeaderType};
use addr::PciAddress;
use core::fmt;

/// How a function was reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetMethod {
    /// Function level reset of PCI Express.
    FunctionLevel,
    /// Function level reset of Advanced Features.
    AdvancedFeatures,
    /// From D3hot to D0.
    PowerManagement,
}

/// Why a function was not reset. Its bus mastering is off in every case where it obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetError {
    /// The function has no way of its own. What is left is a reset of the bus above it, with all that is on the bus, or one
    /// that the function's kind has.
    NoMethod,
    /// The function does not let go of bus mastering.
    BusMasterStuck,
    /// A bridge: its reset would reset what is below it.
    NotAnEndpoint,
    /// The function had not come back at the end of the wait; what its vendor id register held last is given, or the command
    /// register of a virtual function, which has no vendor id.
    NotReady {
        /// The low half is the vendor id, or the command.
        vendor_and_device_id: u32,
    },
}

impl fmt::Display for ResetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMethod => write!(f, "the function has no reset of its own"),
            Self::BusMasterStuck => write!(f, "bus mastering stays on"),
            Self::NotAnEndpoint => write!(f, "not an endpoint"),
            Self::NotReady { vendor_and_device_id } => {
                write!(f, "not back after reset: vendor id register {vendor_and_device_id:#010x}")
            }
        }
    }
}

impl core::error::Error for ResetError {}

/// How long requests may stay pending before the reset is done all the same, in microseconds.
const PENDING_LIMIT_US: u64 = 100_000;
/// How long a function may take from the start of a function level reset until it may be accessed, in microseconds. PCI
/// Express Base section 6.6.2.
const FUNCTION_LEVEL_RESET_US: u64 = 100_000;
/// How long a change to or from D3hot takes, in microseconds. PCI Power Management 1.2 section 5.4.
const D3_HOT_US: u64 = 10_000;
/// How long a function may then ask for retries, in microseconds. PCI Express Base section 6.6.1.
const READY_LIMIT_US: u64 = 1_000_000;

/// Resets `function` by the best way that it has itself: PCI Express FLR, Advanced Features FLR, or D3hot to D0 where
/// that resets. Its ranges and the other settings of the firmware in the header are put back, with bus mastering off, INTx
/// off and both address spaces as they were; MSI and MSI-X are off after it, and their table is as after power-on.
///
/// `now_us` gives monotonic microseconds. Takes up to about 1.2 s, and 0.1 s when all goes well.
///
/// # Errors
/// [`ResetError`]; bus mastering is off then too, unless it is [`ResetError::BusMasterStuck`] or
/// [`ResetError::NotAnEndpoint`].
pub fn reset_function(
    config: &mut dyn ConfigSpace,
    function: &FunctionDescription,
    now_us: &mut dyn FnMut() -> u64,
) -> Result<ResetMethod, ResetError> {
    let address = function.address();
    if function.info.header_type != HeaderType::Endpoint {
        return Err(ResetError::NotAnEndpoint);
    }
    if !disable_bus_mastering(config, address) {
        return Err(ResetError::BusMasterStuck);
    }
    let method = method(config, function).ok_or(ResetError::NoMethod)?;
    let saved = SavedHeader::read(config, address);
    // Requests on their way would be answered to a function that has forgotten them. One that never finishes is reset
    // all the same: that is what mends it.
    wait_until(now_us, PENDING_LIMIT_US, &mut || !pending(config, function, method));

    match method {
        ResetMethod::FunctionLevel => {
            if let Some(offset) = function.express.and_then(|express| express.register(DEVICE_CONTROL)) {
                let control = config.read16(address, offset);
                config.write16(address, offset, control | INITIATE_FUNCTION_LEVEL_RESET);
            }
            pause(now_us, FUNCTION_LEVEL_RESET_US);
        }
        ResetMethod::AdvancedFeatures => {
            if let Some(offset) = function.advanced_features {
                let offset = u16::from(offset) + advanced_features::CONTROL;
                config.write8(address, offset, advanced_features::INITIATE_RESET);
            }
            pause(now_us, FUNCTION_LEVEL_RESET_US);
        }
        ResetMethod::PowerManagement => {
            for state in [power_management::D3_HOT, 0] {
                if let Some(offset) = function.power_management {
                    let offset = u16::from(offset) + power_management::CONTROL_STATUS;
                    // The PME status is write-1-to-clear: not ours to clear.
                    let keep = !(power_management::STATE | power_management::PME_STATUS);
                    let value = config.read16(address, offset) & keep | state;
                    config.write16(address, offset, value);
                }
                pause(now_us, D3_HOT_US);
            }
        }
    }

    let mut identity = 0;
    let ready = wait_until(now_us, READY_LIMIT_US, &mut || {
        identity = config.read32(address, saved.identity);
        // 0x0001 is "retry" where the root port makes it visible.
        identity as u16 != 0xFFFF && identity as u16 != 0x0001
    });
    if !ready {
        return Err(ResetError::NotReady { vendor_and_device_id: identity });
    }
    saved.restore(config, address);
    Ok(method)
}

/// The best way that the function has.
fn method(config: &dyn ConfigSpace, function: &FunctionDescription) -> Option<ResetMethod> {
    let address = function.address();
    if function
        .express
        .is_some_and(|express| express.function_level_reset_capable() && express.register(DEVICE_CONTROL).is_some())
    {
        return Some(ResetMethod::FunctionLevel);
    }
    if let Some(offset) = function.advanced_features {
        let capabilities = config.read8(address, u16::from(offset) + advanced_features::CAPABILITIES);
        if capabilities & advanced_features::FUNCTION_LEVEL_RESET_CAPABLE != 0 {
            return Some(ResetMethod::AdvancedFeatures);
        }
    }
    let offset = u16::from(function.power_management?) + power_management::CONTROL_STATUS;
    let resets = config.read16(address, offset) & power_management::NO_SOFT_RESET == 0;
    resets.then_some(ResetMethod::PowerManagement)
}

fn pending(config: &dyn ConfigSpace, function: &FunctionDescription, method: ResetMethod) -> bool {
    let address = function.address();
    match (function.express, method, function.advanced_features) {
        (Some(express), _, _) => express.read_transactions_pending(config, address),
        (None, ResetMethod::AdvancedFeatures, Some(offset)) => {
            let status = config.read8(address, u16::from(offset) + advanced_features::STATUS);
            status & advanced_features::TRANSACTIONS_PENDING != 0
        }
        _ => false,
    }
}

fn wait_until(now_us: &mut dyn FnMut() -> u64, limit_us: u64, done: &mut dyn FnMut() -> bool) -> bool {
    let start = now_us();
    loop {
        if done() {
            return true;
        }
        if now_us().wrapping_sub(start) >= limit_us {
            return false;
        }
        core::hint::spin_loop();
    }
}

fn pause(now_us: &mut dyn FnMut() -> u64, us: u64) {
    wait_until(now_us, us, &mut || false);
}

/// What the firmware set in the header, and a reset forgets.
struct SavedHeader {
    /// The register that is asked whether the function is back: a virtual function has no vendor id.
    identity: u16,
    command: u16,
    bars: [u32; 6],
    expansion_rom: u32,
    cache_line_size_and_latency: u16,
    interrupt_line: u8,
}

impl SavedHeader {
    fn read(config: &dyn ConfigSpace, address: PciAddress) -> Self {
        let mut bars = [0; 6];
        for (bar, offset) in bars.iter_mut().zip((BAR0..).step_by(4)) {
            *bar = config.read32(address, offset);
        }
        Self {
            identity: if config.read16(address, VENDOR_ID) == 0xFFFF { COMMAND } else { VENDOR_ID },
            command: crate::read_command(config, address),
            bars,
            expansion_rom: config.read32(address, EXPANSION_ROM),
            cache_line_size_and_latency: config.read16(address, CACHE_LINE_SIZE),
            interrupt_line: config.read8(address, INTERRUPT_LINE),
        }
    }

    /// The addresses first: the function must not answer before it has them.
    fn restore(&self, config: &mut dyn ConfigSpace, address: PciAddress) {
        for (bar, offset) in self.bars.iter().zip((BAR0..).step_by(4)) {
            config.write32(address, offset, *bar);
        }
        config.write32(address, EXPANSION_ROM, self.expansion_rom);
        config.write16(address, CACHE_LINE_SIZE, self.cache_line_size_and_latency);
        config.write8(address, INTERRUPT_LINE, self.interrupt_line);
        let keep = !(command::BUS_MASTER | command::INTERRUPT_DISABLE);
        set_command_bits(config, address, self.command & keep | command::INTERRUPT_DISABLE, command::BUS_MASTER);
    }
}

#[cfg(test)]
mod tests;
