//! Whether connections go through a VIP: one that may go back to a better node should wait until none does.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable as _};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, ProtoInfo, ProtoInfoTCP,
};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem};
use tokio::sync::watch;

use super::tuple::ends;
use crate::netfilter::Netfilter;
use crate::speaker_socket::Said;

/// Looks again and again which of the VIPs that the speaker watches are idle, for ever.
pub async fn follow(mut said: watch::Receiver<Said>, idle: watch::Sender<BTreeSet<IpAddr>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let watched = said.borrow_and_update().watched.clone();
        let found = if watched.is_empty() {
            Ok(Ok(BTreeSet::new()))
        } else {
            tokio::task::spawn_blocking(move || find_idle(&watched)).await
        };
        match found {
            Ok(Ok(found)) => {
                idle.send_if_modified(|held| std::mem::replace(held, found.clone()) != found);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "Connections of addresses that may go back not looked for");
            }
            // The runtime is shutting down.
            Err(_) => return,
        }
        let nobody_asks = said.borrow().watched.is_empty();
        tokio::select! {
            // Both are cancel-safe.
            changed = said.changed() => if changed.is_err() { return },
            _ = ticks.tick(), if !nobody_asks => {}
        }
    }
}

/// Those of the VIPs that no connection goes through.
///
/// # Errors
/// If the kernel refuses.
pub fn find_idle(vips: &BTreeSet<IpAddr>) -> io::Result<BTreeSet<IpAddr>> {
    let mut netfilter = Netfilter::open()?;
    let mut idle = BTreeSet::new();
    for &vip in vips {
        let family = match vip {
            IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
            IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        let mut busy = false;
        netfilter.dump(family, request(vip), |message| {
            if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) =
                message.inner
            {
                busy |= is_connection_to(&attributes, vip);
            }
        })?;
        if !busy {
            idle.insert(vip);
        }
    }
    Ok(idle)
}

/// Asks for the connections whose first packet went to this address, or for all of its family: kernels before 5.8 do not
/// heed the filter, and for IPv6 those up to 6.18 at least answer with exactly the connections to other addresses
/// (`ctnetlink_filter_match_tuple` has the comparison upside down).
///
/// The library's own attributes of conntrack cannot say that the filter is nested, and the kernel insists on that.
fn request(vip: IpAddr) -> NetfilterMessageInner {
    let flags = CTA_FILTER_IP_DESTINATION.to_ne_bytes();
    let flags = DefaultNla::new(CTA_FILTER_ORIG_FLAGS, flags.to_vec());
    let attributes = match vip {
        IpAddr::V4(address) => {
            let destination = DefaultNla::new(CTA_IP_V4_DST, address.octets().to_vec());
            let tuple = nested(CTA_TUPLE_ORIG, &nested(CTA_TUPLE_IP, &destination));
            vec![tuple, nested(CTA_FILTER, &flags)]
        }
        IpAddr::V6(_) => Vec::new(),
    };
    NetfilterMessageInner::Other {
        subsys: NetfilterSubsystem::Conntrack,
        message_type: IPCTNL_MSG_CT_GET,
        attributes,
    }
}

fn nested(kind: u16, inner: &DefaultNla) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// Whether an entry is of a connection to `vip` that both ends have not ended yet.
fn is_connection_to(attributes: &[ConntrackAttribute], vip: IpAddr) -> bool {
    let destination = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuple) => ends(tuple).map(|ends| ends.destination.ip()),
        _ => None,
    });
    let state = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaProtoInfo(infos) => infos.iter().find_map(tcp_state),
        _ => None,
    });
    destination == Some(vip) && state.is_none_or(|state| !TCP_ENDED.contains(&state))
}

fn tcp_state(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(parts) = info else {
        return None;
    };
    parts.iter().find_map(|part| match part {
        ProtoInfoTCP::State(state) => Some(*state),
        _ => None,
    })
}

/// How often it is looked while a speaker watches a VIP.
const PERIOD: Duration = Duration::from_secs(1);

// `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_tcp.h` and `net/netfilter/nf_conntrack_netlink.c`.
const IPCTNL_MSG_CT_GET: u8 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_IP_DESTINATION: u32 = 1 << 1;
/// `LAST_ACK`, `TIME_WAIT`, `CLOSE`.
const TCP_ENDED: [u8; 3] = [6, 7, 8];
const NLA_F_NESTED: u16 = 1 << 15;
