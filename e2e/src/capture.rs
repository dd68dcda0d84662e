//! What an onlooker on the LAN hears of ARP and neighbour discovery.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::namespace::Namespace;

/// An announcement to everybody: gratuitous ARP, or an unsolicited neighbour advertisement that overrides what
/// neighbours know (RFC 4861 section 7.2.6).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Announcement {
    /// What is announced.
    pub address: IpAddr,
    /// Who has it, lower case.
    pub mac: String,
}

/// A thread that listens to everything.
#[derive(Debug)]
pub struct Capture {
    heard: Arc<Mutex<Vec<(Instant, Announcement)>>>,
    end: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens in `namespace` from now on.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let protocol = SockProtocol::EthAll;
        let open = || {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                protocol,
            )
        };
        let socket = namespace
            .run(open)?
            .context("failed to listen to the LAN")?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let (hears, ends) = (Arc::clone(&heard), Arc::clone(&end));
        let listener = thread::spawn(move || {
            let mut frame = vec![0; 2048];
            while !ends.load(Ordering::Relaxed) {
                match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                    Ok(length) => {
                        let at = Instant::now();
                        let announcement = frame.get(..length).and_then(announcement_in);
                        hears
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .extend(announcement.map(|announcement| (at, announcement)));
                    }
                    // Quiet for a while, or the interface went down for a moment.
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Self {
            heard,
            end,
            listener: Some(listener),
        })
    }

    /// How often `mac` has announced `address` so far.
    pub fn announcements(&self, address: IpAddr, mac: &str) -> usize {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .iter()
            .filter(|(_, one)| one.address == address && one.mac == mac)
            .count()
    }

    /// Who announced `address`, one after the other: each MAC that announced it once another one had.
    pub fn owners(&self, address: IpAddr) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let announcements = heard.iter().filter(|(_, one)| one.address == address);
        let mut owners: Vec<String> = announcements.map(|(_, one)| one.mac.clone()).collect();
        owners.dedup();
        owners
    }

    /// How long after `since` each address was first announced by somebody other than `mac`.
    pub fn taken_from(&self, mac: &str, since: Instant) -> BTreeMap<IpAddr, Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = BTreeMap::new();
        for (at, one) in heard.iter().filter(|(_, one)| one.mac != mac) {
            if let Some(after) = at.checked_duration_since(since) {
                taken.entry(one.address).or_insert(after);
            }
        }
        taken
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            // A listener that panicked has told so itself.
            let _ = listener.join();
        }
    }
}

fn announcement_in(frame: &[u8]) -> Option<Announcement> {
    let (_, frame) = frame.split_at_checked(6)?;
    let (source, frame) = frame.split_first_chunk::<6>()?;
    let (kind, packet) = frame.split_first_chunk::<2>()?;
    let address = match kind {
        [0x08, 0x06] => announced_by_arp(packet)?.into(),
        [0x86, 0xdd] => announced_by_advertisement(packet)?.into(),
        _ => return None,
    };
    let mac = source.map(|octet| format!("{octet:02x}")).join(":");
    Some(Announcement { address, mac })
}

/// Sender and target are the same, in a request or in a reply (RFC 5227 section 3).
fn announced_by_arp(packet: &[u8]) -> Option<Ipv4Addr> {
    let sender: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    let target = packet.get(24..28)?;
    (sender == target).then_some(Ipv4Addr::from(sender))
}

fn announced_by_advertisement(packet: &[u8]) -> Option<Ipv6Addr> {
    const ICMPV6: u8 = 58;
    const ADVERTISEMENT: u8 = 136;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let to_everybody = packet.get(24..40)? == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let (header, body) = (packet.get(6)?, packet.get(40..)?);
    let flags = body.get(4)? & (SOLICITED | OVERRIDE);
    let target: [u8; 16] = body.get(8..24)?.try_into().ok()?;
    let announces = *header == ICMPV6
        && body.first() == Some(&ADVERTISEMENT)
        && flags == OVERRIDE
        && to_everybody;
    announces.then_some(Ipv6Addr::from(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

    fn frame(kind: [u8; 2], parts: &[&[u8]]) -> Vec<u8> {
        [&[0xff; 6][..], &MAC, &kind, &parts.concat()].concat()
    }

    fn arp(target: [u8; 4]) -> Vec<u8> {
        let fixed = b"\x00\x01\x08\x00\x06\x04\x00\x01";
        frame([8, 6], &[fixed, &MAC, &[192, 0, 2, 1], &[0; 6], &target])
    }

    fn advertisement(destination: &str, flags: u8) -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let header = b"\x60\0\0\0\x00\x18\x3a\xff";
        let icmp = [136, 0, 0, 0, flags, 0, 0, 0];
        let vip = address("2001:db8::1");
        frame(
            [0x86, 0xdd],
            &[header, &vip, &address(destination), &icmp, &vip],
        )
    }

    #[test]
    fn announcements_are_told_from_answers_and_requests() {
        let heard =
            |frame: &[u8]| announcement_in(frame).map(|one| (one.address.to_string(), one.mac));
        let announced = |address: &str| Some((address.to_owned(), "02:00:00:00:00:11".to_owned()));
        assert_eq!(heard(&arp([192, 0, 2, 1])), announced("192.0.2.1"));
        assert_eq!(heard(&arp([192, 0, 2, 9])), None);
        assert_eq!(
            heard(&advertisement("ff02::1", 0x20)),
            announced("2001:db8::1")
        );
        assert_eq!(heard(&advertisement("ff02::1", 0x00)), None);
        assert_eq!(heard(&advertisement("2001:db8::9", 0x60)), None);
        for length in 0..arp([192, 0, 2, 1]).len() {
            assert_eq!(heard(&arp([192, 0, 2, 1])[..length]), None);
        }
    }
}
