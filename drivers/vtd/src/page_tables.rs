//! What page tables must be like for a unit of this kind.

use crate::spec::capability::{Capabilities, Levels};
use paging::{Limits, Permissions, SecondStage, SecondStageAttributes};

impl Capabilities {
    /// What a second-stage table of so many levels ([`Self::second_stage_levels`]) may hold: the unit's page sizes, the
    /// widths of a device's address (CAP.MGAW) and of a host address, bit 11 only with ECAP.SC, pages that are only
    /// written only with CAP.ZLR. `host_address_width` is the DMAR table's, in bits.
    pub fn second_stage_limits(self, levels: Levels, host_address_width: u16) -> Limits {
        let limits = Limits::new(levels.count(), self.largest_page())
            .with_input_bits(self.maximum_guest_address_width() as u8)
            .with_host_bits(host_bits(host_address_width));
        let limits = if self.snoop_control() { limits } else { limits.without(SecondStage::SNOOP) };
        if self.zero_length_read() { limits } else { limits.without_write_only() }
    }

    /// What a first-stage table of so many levels (4, or 5 with CAP.FS5LP) may hold.
    pub fn first_stage_limits(self, levels: Levels, host_address_width: u16) -> Limits {
        Limits::new(levels.count(), self.largest_first_stage_page()).with_host_bits(host_bits(host_address_width))
    }

    /// The permissions that let a device do what `wanted` says. Where the unit faults a read of no byte in a page that
    /// permits writing only (CAP.ZLR = 0), permission to read comes with permission to write.
    pub const fn device_permissions(self, wanted: Permissions) -> Permissions {
        Permissions { read: wanted.read || wanted.write && !self.zero_length_read(), ..wanted }
    }

    /// The attributes of second-stage entries: the device's accesses snoop the processors' caches as far as the unit can
    /// make them (ECAP.SC); where it cannot, bit 11 is reserved. Then a device that asks not to snoop does not.
    pub const fn second_stage_attributes(self) -> SecondStageAttributes {
        SecondStageAttributes { snoop: self.snoop_control() }
    }
}

/// An entry has 52 bits of address at most.
fn host_bits(host_address_width: u16) -> u8 {
    host_address_width.min(52) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::PageSize;

    #[test]
    fn limits_are_what_the_registers_say() {
        // MGAW 39 bits; ZLR; 2 MiB pages. ECAP.SC.
        let unit = Capabilities { cap: 38 << 16 | 1 << 22 | 1 << 34, ecap: 0x80 };
        let all = Limits::new(3, PageSize::Size2M).with_input_bits(39).with_host_bits(46);
        assert_eq!(unit.second_stage_limits(Levels::Three, 46), all);
        let unsnooped = Capabilities { ecap: 0, ..unit }.second_stage_limits(Levels::Three, 46);
        assert_eq!(unsnooped, all.without(SecondStage::SNOOP));
        let faulting = Capabilities { cap: unit.cap & !(1 << 22), ..unit }.second_stage_limits(Levels::Three, 46);
        assert_eq!(faulting, all.without_write_only());
        // Firmware may say up to 256 bits.
        assert_eq!(unit.second_stage_limits(Levels::Three, 256), all.with_host_bits(52));
        let first = Capabilities { cap: 1 << 56, ecap: 0 }.first_stage_limits(Levels::Four, 39);
        assert_eq!(first, Limits::new(4, PageSize::Size1G).with_host_bits(39));
        assert_ne!(Capabilities { cap: 0, ecap: 0 }.first_stage_limits(Levels::Four, 39), first);
    }

    #[test]
    fn permission_to_read_comes_with_permission_to_write_where_reading_nothing_faults() {
        let with = Capabilities { cap: 1 << 22, ecap: 0 };
        let without = Capabilities { cap: !(1 << 22), ecap: 0 };
        let write = Permissions { read: false, write: true, execute: false };
        for wanted in [write, Permissions::READ_WRITE, Permissions { write: false, ..Permissions::READ_WRITE }] {
            assert_eq!(with.device_permissions(wanted), wanted);
            assert_eq!(without.device_permissions(wanted), Permissions { read: true, ..wanted });
        }
        let none = Permissions { write: false, ..write };
        assert_eq!(without.device_permissions(none), none);
    }

    #[test]
    fn snooping_is_asked_for_where_it_can_be() {
        assert!(
            Capabilities { cap: 0, ecap: !0x80 }.second_stage_attributes() == SecondStageAttributes { snoop: false }
        );
        let snoops = Capabilities { cap: 0, ecap: 0x80 };
        assert!(snoops.second_stage_attributes() == SecondStageAttributes { snoop: true });
    }
}
