//! The protocol stack on the NIC: a DHCP lease, and pings.

use crate::e1000e::{E1000e, LONGEST_FRAME};
use crate::{clock, interrupts, report};
use netprobe::frame::Ipv4;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address};

/// How long the lease may take.
const LEASE_TIMEOUT_US: u64 = 10_000_000;
/// How long the answer to a ping may take.
const PING_TIMEOUT_US: u64 = 1_000_000;
/// The pause between two pings.
const PING_INTERVAL_US: u64 = 20_000;
/// The identifier of the echo requests.
const PING_IDENTIFIER: u16 = 0x4e50;
const PING_PAYLOAD: &[u8; 16] = b"netprobe netprob";
/// The addresses of QEMU's user network, for a probe that was told not to ask.
const DEFAULT_ADDRESSES: Addresses = Addresses { own: [10, 0, 2, 15], gateway: [10, 0, 2, 2] };

/// Who the guest is, and who is the way out.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub own: Ipv4,
    pub gateway: Ipv4,
}

/// The memory of the sockets.
pub struct Storage<'a> {
    sockets: [SocketStorage<'a>; 2],
    receive: ([icmp::PacketMetadata; 4], [u8; 512]),
    transmit: ([icmp::PacketMetadata; 4], [u8; 512]),
}

impl Storage<'_> {
    pub const fn new() -> Self {
        const NOTHING: ([icmp::PacketMetadata; 4], [u8; 512]) = ([icmp::PacketMetadata::EMPTY; 4], [0; 512]);
        Self { sockets: [SocketStorage::EMPTY; 2], receive: NOTHING, transmit: NOTHING }
    }
}

/// The protocol stack.
pub struct Network<'a> {
    interface: Interface,
    sockets: SocketSet<'a>,
    dhcp: SocketHandle,
    icmp: SocketHandle,
    addresses: Addresses,
    sequence: u16,
}

impl<'a> Network<'a> {
    /// A stack without addresses.
    pub fn new(nic: &mut E1000e, storage: &'a mut Storage<'a>) -> Self {
        let mut config = Config::new(EthernetAddress(nic.mac()).into());
        config.random_seed = clock::now_us();
        let interface = Interface::new(config, &mut Wire(nic), now());
        let mut sockets = SocketSet::new(&mut storage.sockets[..]);
        let receive = icmp::PacketBuffer::new(&mut storage.receive.0[..], &mut storage.receive.1[..]);
        let transmit = icmp::PacketBuffer::new(&mut storage.transmit.0[..], &mut storage.transmit.1[..]);
        let dhcp = sockets.add(dhcpv4::Socket::new());
        let icmp = sockets.add(icmp::Socket::new(receive, transmit));
        Self { interface, sockets, dhcp, icmp, addresses: DEFAULT_ADDRESSES, sequence: 0 }
    }

    /// The guest's address and its gateway's.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Lets the stack work, halted between interrupts, until `condition` holds. False if it does not in time.
    fn run_until(&mut self, nic: &mut E1000e, timeout_us: u64, mut condition: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = clock::now_us() + timeout_us;
        loop {
            nic.rearm(interrupts::take_pending());
            self.interface.poll(now(), &mut Wire(nic), &mut self.sockets);
            if condition(self) {
                return true;
            }
            let now_us = clock::now_us();
            if now_us >= deadline {
                return false;
            }
            let wish = self.interface.poll_delay(now(), &self.sockets);
            let wake = wish.map_or(deadline, |delay| deadline.min(now_us.saturating_add(delay.total_micros())));
            clock::halt_until(wake, interrupts::is_pending);
        }
    }

    /// Asks for an address and takes it, and reports it. The error is a word for the report.
    pub fn get_lease(&mut self, nic: &mut E1000e) -> Result<(), &'static str> {
        let start = clock::now_us();
        let mut router = None;
        if !self.run_until(nic, LEASE_TIMEOUT_US, |network| {
            network.take_lease(&mut router);
            router.is_some()
        }) {
            return Err("no-dhcp-lease");
        }
        let own = self.interface.ipv4_addr().ok_or("no-address-in-lease")?;
        self.addresses = Addresses { own: own.octets(), gateway: router.ok_or("no-router-in-lease")?.octets() };
        let took_ms = (clock::now_us() - start) / 1000;
        report::say(format_args!("DHCP lease for {own} after {took_ms} ms"));
        report::entry("dhcp", format_args!("{own}"));
        Ok(())
    }

    /// If there is news of a lease, takes its addresses over.
    fn take_lease(&mut self, router: &mut Option<Ipv4Address>) {
        let Some(dhcpv4::Event::Configured(lease)) = self.sockets.get_mut::<dhcpv4::Socket>(self.dhcp).poll() else {
            return;
        };
        let gateway = lease.router.unwrap_or(lease.server.address);
        let address = lease.address;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room: the list was just emptied.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        // As above; without the route the pings fail, and that is reported.
        let _ = self.interface.routes_mut().add_default_ipv4_route(gateway);
        *router = Some(gateway);
    }

    /// Pings the gateway `count` times and returns how many answers came.
    pub fn ping_gateway(&mut self, nic: &mut E1000e, count: u16) -> u16 {
        let gateway = Ipv4Address::from(self.addresses.gateway);
        let mut answered = 0;
        for number in 1..=count {
            if number > 1 {
                self.run_until(nic, PING_INTERVAL_US, |_| false);
            }
            let start = clock::now_us();
            if self.ping(nic, gateway) {
                answered += 1;
                report::say(format_args!("ping {number}/{count} {gateway}: {} us", clock::now_us() - start));
            } else {
                report::say(format_args!("ping {number}/{count} {gateway}: no answer"));
            }
        }
        answered
    }

    fn ping(&mut self, nic: &mut E1000e, target: Ipv4Address) -> bool {
        self.sequence += 1;
        let seq_no = self.sequence;
        let request = Icmpv4Repr::EchoRequest { ident: PING_IDENTIFIER, seq_no, data: PING_PAYLOAD };
        let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
        if !socket.is_open() && socket.bind(icmp::Endpoint::Ident(PING_IDENTIFIER)).is_err() {
            return false;
        }
        let Ok(payload) = socket.send(request.buffer_len(), IpAddress::Ipv4(target)) else { return false };
        request.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
        self.run_until(nic, PING_TIMEOUT_US, |network| network.is_answered(seq_no))
    }

    /// Whether the answer to echo request `sequence` has come; older ones are thrown away.
    fn is_answered(&mut self, sequence: u16) -> bool {
        let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
        while let Ok((payload, _)) = socket.recv() {
            let Ok(packet) = Icmpv4Packet::new_checked(payload) else { continue };
            match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()) {
                Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) if seq_no == sequence && data == PING_PAYLOAD => {
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

fn now() -> Instant {
    Instant::from_micros(i64::try_from(clock::now_us()).unwrap_or(i64::MAX))
}

/// The NIC as the protocol stack sees it.
struct Wire<'a>(&'a mut E1000e);

impl Device for Wire<'_> {
    type RxToken<'b>
        = Received
    where
        Self: 'b;
    type TxToken<'b>
        = Transmitter<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received, Transmitter<'_>)> {
        // A packet is taken only if it can be answered at once; else it waits in the ring.
        if !self.0.can_transmit() {
            return None;
        }
        let mut frame = [0; LONGEST_FRAME];
        let length = self.0.receive(&mut frame)?;
        Some((Received { frame, length }, Transmitter(self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmitter<'_>> {
        if self.0.can_transmit() { Some(Transmitter(self.0)) } else { None }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = LONGEST_FRAME;
        capabilities
    }
}

/// A packet that was received.
struct Received {
    frame: [u8; LONGEST_FRAME],
    length: usize,
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame.get(..self.length).unwrap_or_default())
    }
}

/// Leave to send one packet.
struct Transmitter<'a>(&'a mut E1000e);

impl TxToken for Transmitter<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = [0; LONGEST_FRAME];
        // The stack keeps to the longest frame that `capabilities` names.
        let frame = &mut frame[..length.min(LONGEST_FRAME)];
        let result = f(frame);
        self.0.transmit(frame);
        result
    }
}
