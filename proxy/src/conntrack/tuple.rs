//! The two ends of a connection, as the kernel tells them.

use std::net::{IpAddr, SocketAddr};

use config::service::Protocol;
use netlink_packet_netfilter::conntrack::{IPTuple, ProtoTuple, Protocol as Number, Tuple};

/// Whence and where the packets of one direction go.
pub(super) struct Ends {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// The ends, if the protocol is one that Services have.
pub(super) fn ends(tuple: &[Tuple]) -> Option<Ends> {
    let (mut source, mut destination) = (None::<IpAddr>, None::<IpAddr>);
    let (mut protocol, mut source_port, mut destination_port) = (None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => protocol = tracked(*number),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Ends {
        protocol: protocol?,
        source: SocketAddr::new(source?, source_port?),
        destination: SocketAddr::new(destination?, destination_port?),
    })
}

fn tracked(number: Number) -> Option<Protocol> {
    match number {
        Number::Tcp => Some(Protocol::Tcp),
        Number::Udp => Some(Protocol::Udp),
        Number::Sctp => Some(Protocol::Sctp),
        _ => None,
    }
}
