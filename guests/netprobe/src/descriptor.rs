//! The legacy descriptors of the 82574L (datasheet sections 7.1.4 and 7.2.10): 16 bytes each, as two little-endian
//! 64-bit words.

use addr::Iova;

/// The size of a descriptor, in bytes.
pub const DESCRIPTOR_SIZE: usize = 16;

/// Legacy transmit descriptor, command byte (bits 31:24 of the second word): the last descriptor of a packet.
const COMMAND_EOP: u64 = 1 << 24;
/// Command: the NIC appends the frame check sequence.
const COMMAND_IFCS: u64 = 1 << 25;
/// Command: report status, that is, set `DD` when the descriptor is done.
const COMMAND_RS: u64 = 1 << 27;
/// Status byte (bits 39:32 of the second word, transmit and receive alike): the NIC is done with the descriptor.
const STATUS_DD: u64 = 1 << 32;
/// Receive status: the last descriptor of a packet.
const STATUS_EOP: u64 = 1 << 33;
/// Receive errors (bits 47:40 of the second word).
const ERRORS: u64 = 0xff << 40;

/// A transmit descriptor for one whole packet of `length` bytes at `buffer`.
pub const fn transmit(buffer: Iova, length: u16) -> [u64; 2] {
    [buffer.as_u64(), length as u64 | COMMAND_EOP | COMMAND_IFCS | COMMAND_RS]
}

/// A receive descriptor whose packet will be written to `buffer`.
pub const fn receive(buffer: Iova) -> [u64; 2] {
    [buffer.as_u64(), 0]
}

/// Whether the NIC is done with the descriptor, from its second word.
pub const fn is_done(second_word: u64) -> bool {
    second_word & STATUS_DD != 0
}

/// The length in bytes of the packet that the NIC wrote, from the descriptor's second word; `None` if it is not one
/// whole packet without errors. The length is the NIC's word: compare it with the buffer before use.
pub const fn received_length(second_word: u64) -> Option<usize> {
    if is_done(second_word) && second_word & STATUS_EOP != 0 && second_word & ERRORS == 0 {
        Some((second_word & 0xffff) as usize)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transmit_descriptor_asks_for_one_reported_packet() {
        let [address, second] = transmit(Iova::new(0x1234_5678_9abc), 60);
        assert_eq!(address, 0x1234_5678_9abc);
        assert_eq!(second, 0x0b00_003c, "EOP, IFCS and RS in byte 3, the length in bytes 0 and 1");
        assert!(!is_done(second));
        assert!(is_done(second | 1 << 32));
    }

    #[test]
    fn a_receive_descriptor_is_given_undone() {
        assert_eq!(receive(Iova::new(0x2000)), [0x2000, 0]);
    }

    #[test]
    fn only_a_whole_packet_without_errors_has_a_length() {
        let whole = 0x0003_0000_0040 | 0xabcd << 16;
        assert_eq!(received_length(whole), Some(0x40), "the checksum beside the length is no part of it");
        assert_eq!(received_length(whole & !STATUS_DD), None);
        assert_eq!(received_length(whole & !STATUS_EOP), None);
        assert_eq!(received_length(whole | 1 << 40), None);
    }
}
