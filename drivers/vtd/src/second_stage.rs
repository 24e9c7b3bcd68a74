//! What second-stage tables must say for a unit of this kind.

use crate::spec::capability::Capabilities;
use paging::{Permissions, SecondStageAttributes};

impl Capabilities {
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

#[cfg(test)]
mod tests {
    use super::*;

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
