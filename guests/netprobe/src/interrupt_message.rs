//! What a packet means when the NIC writes it where interrupt messages go.
//!
//! A 4-byte write by a device to 0xFEEx_xxxx is an interrupt message, not a memory write (SDM volume 3, "Message
//! Signalled Interrupts"; VT-d section 5.1). A receive buffer there turns each aligned 4 bytes of a packet into one
//! message, its address the place in the buffer and its data the packet's bytes. netprobe provokes a packet whose
//! messages are bold enough to show a hole in the remapping and tame enough not to stop the machine if there is one:
//! never an SMI, an NMI or an INIT, and never a fixed message with a vector of 1 to 15, which some emulators deliver
//! as if it were an exception.
//!
//! The packet is the gateway's ARP reply, and two choices make it tame: the NIC's MAC address ([`MAC`]) and the
//! place of the buffer ([`BUFFER`]). With QEMU's gateway 10.0.2.2 (52:55:0a:00:02:02) asked by 10.0.2.15:
//!
//! | message address | frame offset and bytes | meaning |
//! |---|---|---|
//! | FEE0_001C | 0: 52 00 00 00 | remappable, handle 8000h + subhandle 52h: no such entry |
//! | FEE0_0020 | 4: **52 00** 52 55 | compatibility, physical destination 0, fixed, **vector 52h** |
//! | FEE0_0024 | 8: 0a 00 02 02 | compatibility, logical destination 0: nobody |
//! | FEE0_0028 | 12: 08 06 00 01 | compatibility, physical destination 0, reserved delivery mode 6: nothing |
//! | FEE0_002C | 16: 08 00 06 04 | compatibility, logical destination 0: nobody |
//! | FEE0_0030 | 20: 00 02 52 55 | remappable, handle 1, data unused: **another's entry**, if its source-id is not checked |
//! | FEE0_0034 | 24: 0a 00 02 02 | remappable, handle 8001h: no such entry |
//! | FEE0_0038 | 28: 0a 00 02 02 | remappable with subhandle, reserved data bits not 0: fault |
//! | FEE0_003C | 32: 52 00 00 00 | remappable, handle 8001h + subhandle 52h: no such entry |
//! | FEE0_0040 | 36: **52 00** 0a 00 | compatibility, physical destination 0, fixed, **vector 52h** |
//! | FEE0_0044 | 40: 02 0f 00 00 | compatibility, logical destination 0: nobody |
//! | FEE0_0048 | 44: 00 00 00 00 | compatibility, physical destination 0, fixed, vector 0: illegal, never delivered |
//! | FEE0_004C | 48: 00 00 00 00 | compatibility, logical destination 0: nobody |
//! | FEE0_0050 | 52: 00 00 00 00 | remappable, handle 2 |
//! | FEE0_0054 | 56: 00 00 00 00 | remappable, handle 8002h: no such entry |
//! | FEE0_0058 | 60: 00 00 00 00 | remappable, handle 2 + subhandle 0 (the gateway sends 64 bytes) |
//!
//! QEMU (hw/i386/intel_iommu.c, `vtd_interrupt_remap_msi`; hw/intc/apic.c, `apic_send_msi` and `apic_bus_deliver`)
//! treats each as the table says, with three peculiarities that the choice respects: it passes compatibility-format
//! messages on although remapping is on, it delivers delivery mode 7 (ExtINT) as if it were fixed, and it takes
//! vectors 1 to 15 as deliverable (vector 0 reads as "no interrupt" there).
//!
//! This holds behind a remapping unit that remaps interrupts. Without one QEMU takes such a write for one to the local
//! APIC's registers, and a message that is not remapped can be an SMI: do not try it on a machine that matters.

use crate::frame::Mac;
use addr::{Iova, Vector};

/// The start of the receive buffer. Its offset of 1Ch puts the frame's bytes 4 and 5, and 36 and 37, which are the
/// end of the NIC's own MAC address, where a message names a vector and a delivery mode.
pub const BUFFER: Iova = Iova::new(0xfee0_001c);

/// How much of the range a packet may reach, in bytes: the gateway's reply is 60 or 64 bytes long.
pub const LENGTH: u64 = 64;

/// The MAC address that the NIC takes for this attempt: locally administered, and its last two bytes are the data
/// of a fixed message with vector 52h.
pub const MAC: Mac = [0x52, 0x00, 0x00, 0x00, 0x52, 0x00];

/// As [`MAC`], and its last two bytes are the data of an NMI: the messages at FEE0_0020 and FEE0_0040 are those. Only for a
/// machine that is asked whether it bears them.
pub const NON_MASKABLE_MAC: Mac = [0x52, 0x00, 0x00, 0x00, 0x00, 0x04];

/// What an interrupt message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Compatibility format: the message itself names destination and vector.
    Compatibility {
        /// The destination, an 8-bit APIC id or logical destination.
        destination: u8,
        /// Whether the destination is logical.
        logical: bool,
        /// The delivery mode, 0 to 7: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT, the rest reserved.
        delivery_mode: u8,
        /// The vector.
        vector: Vector,
    },
    /// Remappable format: the message names an entry of the interrupt remapping table.
    Remappable {
        /// The index of the entry; `None` where the message has reserved bits set and is a fault by itself.
        index: Option<u32>,
    },
}

/// Decodes the message that a 4-byte write of `data` to `address` (within 0xFEE0_0000 to 0xFEEF_FFFF) is on a machine
/// with interrupt remapping (VT-d sections 5.1.2.1 and 5.1.2.2).
pub const fn decode(address: u32, data: u32) -> Message {
    if address & 1 << 4 == 0 {
        return Message::Compatibility {
            destination: (address >> 12) as u8,
            logical: address & 1 << 2 != 0,
            delivery_mode: (data >> 8) as u8 & 7,
            vector: Vector(data as u8),
        };
    }
    let handle = address >> 5 & 0x7fff | (address >> 2 & 1) << 15;
    let subhandle_valid = address & 1 << 3 != 0;
    let index = if !subhandle_valid {
        Some(handle)
    } else if data >> 16 == 0 {
        Some(handle + data)
    } else {
        None
    };
    Message::Remappable { index }
}

/// The messages that a packet of these bytes becomes in a buffer at [`BUFFER`]. A rest of fewer than 4 bytes is
/// no message.
pub fn messages(packet: &[u8]) -> impl Iterator<Item = Message> + '_ {
    let (words, _) = packet.as_chunks::<4>();
    words.iter().enumerate().map(|(index, word)| {
        let address = BUFFER.as_u64() as u32 + index as u32 * 4;
        decode(address, u32::from_le_bytes(*word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    /// What the gateway answers: 60 bytes of frame, and 4 more zeros from QEMU's.
    fn reply(mac: Mac) -> Vec<u8> {
        let mut packet = frame::arp_reply([0x52, 0x55, 10, 0, 2, 2], [10, 0, 2, 2], mac, [10, 0, 2, 15]).to_vec();
        packet.resize(LENGTH as usize, 0);
        packet
    }

    fn compatibility(logical: bool, delivery_mode: u8, vector: u8) -> Message {
        Message::Compatibility { destination: 0, logical, delivery_mode, vector: Vector(vector) }
    }

    #[test]
    fn the_packet_is_the_sixteen_messages_of_the_table() {
        let index = |index| Message::Remappable { index: Some(index) };
        let expected = [
            index(0x8052),
            compatibility(false, 0, 0x52),
            compatibility(true, 0, 0x0a),
            compatibility(false, 6, 0x08),
            compatibility(true, 0, 0x08),
            index(1),
            index(0x8001),
            Message::Remappable { index: None },
            index(0x8053),
            compatibility(false, 0, 0x52),
            compatibility(true, 7, 0x02),
            compatibility(false, 0, 0),
            compatibility(true, 0, 0),
            index(2),
            index(0x8002),
            index(2),
        ];
        assert_eq!(messages(&reply(MAC)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_other_packet_differs_in_two_messages() {
        let (all, others): (Vec<_>, Vec<_>) =
            (messages(&reply(MAC)).collect(), messages(&reply(NON_MASKABLE_MAC)).collect());
        for (index, (message, other)) in all.iter().zip(&others).enumerate() {
            if index == 1 || index == 9 {
                assert_eq!(*other, compatibility(false, 4, 0));
            } else {
                assert_eq!(other, message, "{index}");
            }
        }
        assert_eq!(NON_MASKABLE_MAC[0] & 3, 2, "a local unicast address");
    }

    #[test]
    fn no_message_that_reaches_a_processor_can_stop_it() {
        for message in messages(&reply(MAC)) {
            let Message::Compatibility { destination, logical, delivery_mode, vector } = message else { continue };
            let reaches_nobody = logical && destination == 0;
            let does_nothing = delivery_mode == 6 || delivery_mode == 0 && vector == Vector(0);
            let plain = delivery_mode == 0 && vector.0 >= 32;
            assert!(reaches_nobody || does_nothing || plain, "{message:?}");
        }
    }

    #[test]
    fn the_packet_forges_an_interrupt_in_either_format() {
        let all: Vec<_> = messages(&reply(MAC)).collect();
        assert!(all.contains(&compatibility(false, 0, 0x52)));
        assert!(all.contains(&Message::Remappable { index: Some(1) }));
    }

    #[test]
    fn the_mac_address_is_a_local_unicast_address() {
        assert_eq!(MAC[0] & 3, 2);
    }

    #[test]
    fn the_dangerous_modes_are_recognized() {
        assert_eq!(decode(0xfee0_0000, 0x0200), compatibility(false, 2, 0));
        assert_eq!(
            decode(0xfee0_3004, 0x0531),
            Message::Compatibility { destination: 3, logical: true, delivery_mode: 5, vector: Vector(0x31) }
        );
    }
}
