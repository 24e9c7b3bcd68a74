//! What the unit can do: CAP and ECAP (11.4.2, 11.4.3).

/// The choices that a unit's designer makes. [`Configuration::default`] is a coherent server unit with everything
/// that the model knows except CM and RWBF.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// CAP.CM: the unit may cache entries that are not present or erroneous, as emulated units do.
    pub caching_mode: bool,
    /// ECAP.C: the unit's reads of root, context, paging and interrupt-remapping tables snoop the processor's cache.
    pub coherent: bool,
    /// CAP.RWBF: stores stay in a write buffer until GCMD.WBF or an invalidation.
    pub write_buffer: bool,
    /// CAP.ESRTPS: SRTP invalidates context cache, IOTLB and paging-structure cache by itself.
    pub srtp_invalidates: bool,
    /// CAP.ESIRTPS: SIRTP invalidates the interrupt entry cache by itself.
    pub sirtp_invalidates: bool,
    /// CAP.SAGAW: bit 1 is 39 bits (3 levels), bit 2 is 48 bits (4 levels), bit 3 is 57 bits (5 levels).
    pub sagaw: u8,
    /// CAP.MGAW + 1: the largest address that a device can use, in bits.
    pub guest_address_width: u8,
    /// Width of a host-physical address, in bits (DMAR's Host Address Width + 1): the bits above are reserved.
    pub host_address_width: u8,
    /// CAP.PSI: page-selective IOTLB invalidation.
    pub page_selective: bool,
    /// CAP.MAMV: the largest address mask of a page-selective invalidation.
    pub max_address_mask: u8,
    /// CAP.NFR + 1: number of fault recording registers, 1 to 256.
    pub fault_records: u16,
    /// CAP.ND: 2^(4 + 2*ND) domains, 0 to 6.
    pub domains: u8,
    /// CAP.SSLPS bit 0 (2 MiB leaves).
    pub pages_2m: bool,
    /// CAP.SSLPS bit 1 (1 GiB leaves).
    pub pages_1g: bool,
    /// CAP.PI: posted interrupts.
    pub posted_interrupts: bool,
    /// CAP.PLMR and CAP.PHMR: protected memory regions.
    pub protected_regions: bool,
    /// ECAP.QI: queued invalidation.
    pub queued_invalidation: bool,
    /// ECAP.IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// ECAP.EIM: extended interrupt mode (32-bit destinations).
    pub extended_interrupt_mode: bool,
    /// ECAP.PT: pass-through context entries.
    pub pass_through: bool,
    /// ECAP.SC: bit 11 of a leaf is SNP; otherwise it is reserved.
    pub snoop_control: bool,
    /// ECAP.MHMV: the largest index mask of an IEC invalidation.
    pub max_handle_mask: u8,
    /// CAP.FRO * 16: offset of the first fault recording register.
    pub fault_offset: u16,
    /// ECAP.IRO * 16: offset of the IVA and IOTLB registers.
    pub iotlb_offset: u16,
    /// ECAP.SMTS: scalable mode.
    pub scalable_mode: bool,
    /// ECAP.SSTS: second-stage translation in scalable mode.
    pub second_stage: bool,
    /// ECAP.SSADS: accessed and dirty bits in the second stage.
    pub second_stage_accessed_dirty: bool,
    /// ECAP.FSTS: first-stage translation in scalable mode.
    pub first_stage: bool,
    /// CAP.FS5LP: first-stage tables of five levels, besides four.
    pub first_stage_five_levels: bool,
    /// CAP.FS1GP: 1 GiB leaves in the first stage, besides 2 MiB.
    pub first_stage_1g: bool,
    /// ECAP.EAFS: the extended accessed flag in the first stage.
    pub extended_accessed: bool,
    /// ECAP.NEST: nested translation.
    pub nested: bool,
    /// ECAP.PASID: requests with PASID.
    pub pasid: bool,
    /// ECAP.PSS + 1: bits of a PASID, 1 to 20.
    pub pasid_bits: u8,
    /// ECAP.RPS: RID_PASID may be other than 0.
    pub rid_pasid: bool,
    /// ECAP.SRS: supervisor requests.
    pub supervisor_requests: bool,
    /// ECAP.SMPWC: page walks of scalable mode snoop where PWSNP of the PASID table entry says so.
    pub page_walk_coherency: bool,
    /// ECAP.ADMS: abort-DMA mode.
    pub abort_dma: bool,
    /// With CAP.CM, a PASID table entry that is not present is cached under the domain id that stands in it. The
    /// specification reserves domain id 0 for such entries, and emulated units look at the field.
    pub absent_keeps_domain: bool,
    /// CAP.DWD and CAP.DRD: an IOTLB invalidation can wait for requests in flight.
    pub draining: bool,
    /// CAP.ZLR: reads of no byte pass where writing is permitted.
    pub zero_length_reads: bool,
    /// ECAP.DT: device-TLBs.
    pub device_tlb: bool,
    /// ECAP.PRS: page requests.
    pub page_requests: bool,
    /// IQERCD names the device that did not answer; older units do not.
    pub names_silent_devices: bool,
    /// A second fault of a source that already has a pending record is not recorded (7.2.1 lets a unit choose).
    pub compress_faults: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            caching_mode: false,
            coherent: true,
            write_buffer: false,
            srtp_invalidates: true,
            sirtp_invalidates: true,
            sagaw: 0b0110,
            guest_address_width: 48,
            host_address_width: 46,
            page_selective: true,
            max_address_mask: 18,
            fault_records: 8,
            domains: 6,
            pages_2m: true,
            pages_1g: true,
            posted_interrupts: true,
            protected_regions: false,
            queued_invalidation: true,
            interrupt_remapping: true,
            extended_interrupt_mode: true,
            pass_through: true,
            snoop_control: true,
            max_handle_mask: 15,
            fault_offset: 0x400,
            iotlb_offset: 0x500,
            scalable_mode: false,
            second_stage: false,
            second_stage_accessed_dirty: false,
            first_stage: false,
            first_stage_five_levels: false,
            first_stage_1g: false,
            extended_accessed: false,
            nested: false,
            pasid: false,
            pasid_bits: 1,
            rid_pasid: false,
            supervisor_requests: false,
            page_walk_coherency: false,
            abort_dma: false,
            absent_keeps_domain: false,
            draining: true,
            zero_length_reads: true,
            device_tlb: false,
            page_requests: false,
            names_silent_devices: true,
            compress_faults: false,
        }
    }
}

impl Configuration {
    /// QEMU's unit as it is with interrupt remapping and extended interrupt mode.
    pub fn qemu() -> Self {
        Self {
            coherent: false,
            srtp_invalidates: false,
            sirtp_invalidates: false,
            fault_records: 1,
            fault_offset: 0x220,
            iotlb_offset: 0xf0,
            posted_interrupts: false,
            snoop_control: false,
            zero_length_reads: false,
            ..Self::default()
        }
    }

    /// The oldest kind of unit: nothing coherent, nothing invalidated by itself, one fault record, 4 KiB pages.
    pub fn minimal() -> Self {
        Self {
            coherent: false,
            srtp_invalidates: false,
            sirtp_invalidates: false,
            sagaw: 0b0010,
            guest_address_width: 39,
            host_address_width: 39,
            fault_records: 1,
            pages_2m: false,
            pages_1g: false,
            posted_interrupts: false,
            extended_interrupt_mode: false,
            pass_through: false,
            snoop_control: false,
            max_address_mask: 0,
            fault_offset: 0x220,
            iotlb_offset: 0xf0,
            ..Self::default()
        }
    }

    /// The default with scalable mode and everything that belongs to it.
    pub fn scalable() -> Self {
        Self {
            scalable_mode: true,
            second_stage: true,
            second_stage_accessed_dirty: true,
            first_stage: true,
            first_stage_five_levels: true,
            first_stage_1g: true,
            extended_accessed: true,
            nested: true,
            pasid: true,
            pasid_bits: 20,
            rid_pasid: true,
            supervisor_requests: true,
            page_walk_coherency: true,
            abort_dma: true,
            ..Self::default()
        }
    }

    /// The value of the Capability Register.
    pub fn cap(&self) -> u64 {
        let flag = |set: bool, bit: u32| u64::from(set) << bit;
        u64::from(self.domains & 7)
            | flag(self.write_buffer, 4)
            | flag(self.protected_regions, 5)
            | flag(self.protected_regions, 6)
            | flag(self.caching_mode, 7)
            | u64::from(self.sagaw & 0x1f) << 8
            | u64::from(self.guest_address_width.saturating_sub(1) & 0x3f) << 16
            | flag(self.zero_length_reads, 22)
            | u64::from(self.fault_offset / 16) << 24
            | flag(self.pages_2m, 34)
            | flag(self.pages_1g, 35)
            | flag(self.page_selective, 39)
            | u64::from(self.fault_records.saturating_sub(1) & 0xff) << 40
            | u64::from(self.max_address_mask & 0x3f) << 48
            | flag(self.draining, 54)
            | flag(self.draining, 55)
            | flag(self.first_stage_1g, 56)
            | flag(self.posted_interrupts, 59)
            | flag(self.first_stage_five_levels, 60)
            | flag(self.sirtp_invalidates, 62)
            | flag(self.srtp_invalidates, 63)
    }

    /// The value of the Extended Capability Register.
    pub fn ecap(&self) -> u64 {
        let flag = |set: bool, bit: u32| u64::from(set) << bit;
        flag(self.coherent, 0)
            | flag(self.queued_invalidation, 1)
            | flag(self.device_tlb, 2)
            | flag(self.interrupt_remapping, 3)
            | flag(self.extended_interrupt_mode, 4)
            | flag(self.pass_through, 6)
            | flag(self.snoop_control, 7)
            | u64::from(self.iotlb_offset / 16) << 8
            | u64::from(self.max_handle_mask & 0xf) << 20
            | flag(self.nested, 26)
            | flag(self.page_requests, 29)
            | flag(self.supervisor_requests, 31)
            | flag(self.extended_accessed, 34)
            | u64::from(self.pasid_bits.saturating_sub(1) & 0x1f) << 35
            | flag(self.pasid, 40)
            | flag(self.scalable_mode, 43)
            | flag(self.second_stage_accessed_dirty, 45)
            | flag(self.second_stage, 46)
            | flag(self.first_stage, 47)
            | flag(self.page_walk_coherency, 48)
            | flag(self.rid_pasid, 49)
            | flag(self.abort_dma, 52)
    }

    /// Number of domain ids, 16 to 65536.
    pub(crate) fn domain_count(&self) -> u32 {
        1 << (4 + 2 * u32::from(self.domains.min(6)))
    }

    /// The bits of an address in a table entry that this unit has no wires for.
    pub(crate) fn beyond_host_width(&self) -> u64 {
        !0u64 << self.host_address_width.min(52)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_bits_stand_where_qemu_reports_them() {
        // QEMU 10 with intremap=on,eim=on: CAP 00d2008c222f0606, ECAP f00f5a.
        let qemu = Configuration::qemu();
        assert_eq!(qemu.cap(), 0x00d2_008c_222f_0606);
        assert_eq!(qemu.ecap(), 0x00f0_0f5a);
        // The same with x-scalable-mode=on and x-pasid-mode=on, then with x-scalable-mode=on,x-flts=on; eim=off.
        let scalable = Configuration { extended_interrupt_mode: false, scalable_mode: true, ..qemu };
        let second = Configuration { second_stage: true, supervisor_requests: true, pasid: true, ..scalable.clone() };
        assert_eq!((second.cap(), second.ecap()), (0x00d2_008c_222f_0606, 0x4900_80f0_0f4a));
        let first = Configuration { first_stage: true, first_stage_1g: true, ..scalable };
        assert_eq!((first.cap(), first.ecap()), (0x01d2_008c_222f_0606, 0x8800_00f0_0f4a));
    }
}
