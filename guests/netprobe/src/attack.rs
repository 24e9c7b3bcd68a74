//! Misuse of the NIC's DMA. Each attempt is announced before and closed after, so that the hypervisor can tell which
//! faults belong to it; after each, the NIC is set up afresh.

use crate::e1000e::{E1000e, RECEIVE_BUFFER, Receive, Setup};
use crate::network::Addresses;
use crate::{clock, report};
use addr::Iova;
use core::fmt;
use netprobe::{frame, interrupt_message};

/// An address above the guest's memory: 1 GiB.
const ABOVE_RAM: Iova = Iova::new(0x4000_0000);
/// How much the NIC is made to read, in bytes: one packet.
const READ_LENGTH: u16 = 256;
/// How long an attempt may take to reach memory.
const ATTEMPT_TIMEOUT_US: u64 = 100_000;
/// How long to wait after the NIC says that it is done: faults are reported by an interrupt of their own.
const SETTLE_US: u64 = 10_000;

/// How long faults are provoked, at most.
const STORM_US: u64 = 3_000_000;
/// Packets that the NIC is given at a time.
const STORM_BATCH: u64 = 16;
/// The distance between the addresses of a storm: each fault is one of a page of its own.
const STORM_STRIDE: u64 = 0x1000;

/// Somebody who owns a NIC and means ill.
pub struct Attacker<'a> {
    nic: &'a mut E1000e,
    addresses: Addresses,
}

impl<'a> Attacker<'a> {
    pub fn new(nic: &'a mut E1000e, addresses: Addresses) -> Self {
        Self { nic, addresses }
    }

    /// Every attempt, one after the other; those on the hypervisor's image only if its address is known. Fails only
    /// if the NIC cannot be set up between them; the error is a word for the report.
    pub fn everything(&mut self, image: Option<Iova>) -> Result<(), &'static str> {
        self.read("above-ram-read", ABOVE_RAM)?;
        self.write("above-ram-write", ABOVE_RAM)?;
        if let Some(image) = image {
            self.read("image-read", image)?;
            self.write("image-write", image)?;
        } else {
            report::say(format_args!("no image= on the command line: the hypervisor's image is left alone"));
        }
        self.forge_interrupts()
    }

    /// Makes the NIC send what is at `target`.
    fn read(&mut self, name: &str, target: Iova) -> Result<(), &'static str> {
        announce(name, target, u64::from(READ_LENGTH));
        self.nic.transmit_from(target, READ_LENGTH);
        let done = self.nic.wait_until(ATTEMPT_TIMEOUT_US, E1000e::is_all_transmitted);
        self.close(name, if done { "the NIC sent a packet" } else { "the NIC sent nothing" })
    }

    /// Makes the NIC write a packet to `target`.
    fn write(&mut self, name: &str, target: Iova) -> Result<(), &'static str> {
        announce(name, target, RECEIVE_BUFFER);
        let mac = self.nic.mac();
        self.nic.initialize(&Setup { mac, receive: Receive::AllAt(target) })?;
        let received = self.provoke_answer(mac);
        self.close(name, received)
    }

    /// Makes the NIC write a packet to the interrupt range: see [`interrupt_message`] for what it means there.
    fn forge_interrupts(&mut self) -> Result<(), &'static str> {
        self.forge("forged-msi", interrupt_message::MAC)
    }

    /// The same, with non-maskable interrupts in it: the hypervisor's processor gets them where messages in compatibility
    /// format pass, while the guest runs. They are no business of the guest's.
    pub fn forge_non_maskable(&mut self) -> Result<(), &'static str> {
        self.forge("forged-nmi", interrupt_message::NON_MASKABLE_MAC)
    }

    fn forge(&mut self, name: &str, mac: frame::Mac) -> Result<(), &'static str> {
        announce(name, interrupt_message::BUFFER, interrupt_message::LENGTH);
        // One descriptor and no broadcasts: the answer is the only packet that can be written there.
        self.nic.initialize(&Setup { mac, receive: Receive::OneAt(interrupt_message::BUFFER) })?;
        let received = self.provoke_answer(mac);
        self.close(name, received)
    }

    /// Asks for the gateway's MAC address, and waits for the answer to have been written. Says what happened.
    fn provoke_answer(&mut self, mac: frame::Mac) -> &'static str {
        self.nic.transmit(&frame::arp_request(mac, self.addresses.own, self.addresses.gateway));
        if self.nic.wait_until(ATTEMPT_TIMEOUT_US, E1000e::has_received) {
            "the NIC took a packet"
        } else {
            "the NIC took no packet"
        }
    }

    /// Ends an attempt, and makes the NIC fit for use.
    fn close(&mut self, name: &str, outcome: &str) -> Result<(), &'static str> {
        self.nic.wait_until(SETTLE_US, |_| false);
        report::say(format_args!("{name}: {outcome}"));
        report::entry("attack-done", format_args!("{name}"));
        self.nic.initialize(&self.nic.ordinary_setup())?;
        // The gateway may have learned another MAC address from an attempt.
        self.nic.transmit(&frame::arp_request(self.nic.mac(), self.addresses.own, self.addresses.own));
        Ok(())
    }

    /// Provokes faults as fast as it can, until the NIC is taken away (nothing that it is given gets done any more) or
    /// the time is over.
    pub fn storm(&mut self) {
        let name = "storm";
        let start = clock::now_us();
        let passed_ms = || (clock::now_us() - start) / 1000;
        // One address after another, over and over in 1 GiB.
        let span = 1 << 30;
        announce(name, ABOVE_RAM, span);
        let mut packets = 0;
        let mut stopped = false;
        while !stopped && clock::now_us() - start < STORM_US {
            for _ in 0..STORM_BATCH {
                let target = ABOVE_RAM.as_u64() + packets * STORM_STRIDE % span;
                self.nic.transmit_from(Iova::new(target), READ_LENGTH);
                packets += 1;
            }
            stopped = !self.nic.wait_until(ATTEMPT_TIMEOUT_US, E1000e::is_all_transmitted);
        }
        report::say(format_args!("storm: {packets} packets in {} ms", passed_ms()));
        report::entry("attack-done", format_args!("{name}"));
        report::entry("storm", format_args!("{} after_ms={}", Outcome { stopped }, passed_ms()));
    }
}

fn announce(name: &str, target: Iova, length: u64) {
    report::entry("attack", format_args!("{name} iova={target:#x} len={length:#x}"));
}

struct Outcome {
    stopped: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.stopped { "stopped" } else { "not-stopped" })
    }
}
