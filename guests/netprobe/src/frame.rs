//! The few Ethernet frames that netprobe makes by hand, because a protocol stack would not send them.

/// A MAC address.
pub type Mac = [u8; 6];
/// An IPv4 address.
pub type Ipv4 = [u8; 4];

/// The smallest Ethernet frame without its frame check sequence, in bytes.
pub const MINIMUM_FRAME: usize = 60;

const BROADCAST: Mac = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4 (RFC 826).
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

/// A broadcast that asks who has `target`. With `target` equal to `sender` it asks nothing and announces the
/// sender's MAC address (a gratuitous ARP): neighbours then send to that one.
pub fn arp_request(sender_mac: Mac, sender: Ipv4, target: Ipv4) -> [u8; MINIMUM_FRAME] {
    arp(BROADCAST, sender_mac, ARP_REQUEST, sender, [0; 6], target)
}

/// The answer to an [`arp_request`] of `target_mac`, as a neighbour sends it.
pub fn arp_reply(sender_mac: Mac, sender: Ipv4, target_mac: Mac, target: Ipv4) -> [u8; MINIMUM_FRAME] {
    arp(target_mac, sender_mac, ARP_REPLY, sender, target_mac, target)
}

fn arp(to: Mac, from: Mac, operation: [u8; 2], sender: Ipv4, target_mac: Mac, target: Ipv4) -> [u8; MINIMUM_FRAME] {
    let fields: [&[u8]; 9] =
        [&to, &from, &ETHERTYPE_ARP, &ARP_ETHERNET_IPV4, &operation, &from, &sender, &target_mac, &target];
    let mut frame = [0; MINIMUM_FRAME];
    for (place, byte) in frame.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn a_request_is_laid_out_as_rfc_826_says() {
        let frame = arp_request(US, [10, 0, 2, 15], [10, 0, 2, 2]);
        assert_eq!(&frame[..14], &[255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6]);
        assert_eq!(&frame[14..22], &[0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(&frame[22..32], &[0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15]);
        assert_eq!(&frame[32..42], &[0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
        assert!(frame[42..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_reply_goes_to_who_asked() {
        let frame = arp_reply([2; 6], [10, 0, 2, 2], US, [10, 0, 2, 15]);
        assert_eq!(frame[..6], US);
        assert_eq!(frame[21], 2);
        assert_eq!(frame[32..38], US);
        assert_eq!(frame[38..42], [10, 0, 2, 15]);
    }
}
