//! What IPVS is told, in octets, and what it says.
//!
//! Numbers without a name beside them are those of `linux/ip_vs.h`.

pub(crate) mod rtnetlink;

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use config::address::IpFamily;
use config::scheduler::Scheduler;
use config::service::Protocol;
use proxy_nftables::Key;
use proxy_nftables::attribute::{Writer, find, find_text};
use proxy_table::Endpoint;

/// A message without its sequence number, and what it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    pub(crate) what: String,
    octets: Vec<u8>,
}

impl Request {
    pub(crate) fn new(
        what: impl Into<String>,
        kind: u16,
        flags: u16,
        header: &[u8],
        content: impl FnOnce(&mut Writer),
    ) -> Self {
        let mut writer = Writer::default();
        let [kind_low, kind_high] = kind.to_ne_bytes();
        let [flags_low, flags_high] = (flags | REQUEST).to_ne_bytes();
        writer.raw(&[0; 4]);
        writer.raw(&[kind_low, kind_high, flags_low, flags_high]);
        writer.raw(&[0; 8]);
        writer.raw(header);
        content(&mut writer);
        let length = u32::try_from(writer.len()).unwrap_or(u32::MAX);
        writer.overwrite(0, &length.to_ne_bytes());
        Self {
            what: what.into(),
            octets: writer.into_octets(),
        }
    }

    pub(crate) fn octets(mut self, sequence: u32) -> Vec<u8> {
        if let Some(place) = self.octets.get_mut(8..12) {
            place.copy_from_slice(&sequence.to_ne_bytes());
        }
        self.octets
    }
}

/// What a message about IPVS does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verb {
    NewServer = 1,
    SetServer = 2,
    DeleteServer = 3,
    GetServers = 4,
    NewEndpoint = 5,
    SetEndpoint = 6,
    DeleteEndpoint = 7,
    GetEndpoints = 8,
    SetConfig = 12,
    GetConfig = 13,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::NewServer | Self::NewEndpoint => "add",
            Self::SetServer | Self::SetEndpoint | Self::SetConfig => "change",
            Self::DeleteServer | Self::DeleteEndpoint => "remove",
            Self::GetServers | Self::GetEndpoints | Self::GetConfig => "read",
        }
    }
}

/// Messages to IPVS, whose number among the generic netlink families is this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ToIpvs(pub(crate) u16);

impl ToIpvs {
    fn request(
        self,
        verb: Verb,
        flags: u16,
        what: &str,
        content: impl FnOnce(&mut Writer),
    ) -> Request {
        let what = format!("{} {what}", verb.word());
        // `genlmsghdr`: command, version.
        Request::new(what, self.0, flags, &[verb as u8, 1, 0, 0], content)
    }

    /// Adds or changes a server.
    pub(crate) fn server(
        self,
        verb: Verb,
        key: Key,
        scheduler: Scheduler,
        seconds: Option<NonZeroU32>,
    ) -> Request {
        let what = format!("virtual server {} with scheduler {scheduler}", name(key));
        self.request(verb, ACKNOWLEDGE, &what, |writer| {
            writer.nested(SERVER, |writer| {
                identity(writer, key);
                writer.text(6, scheduler.name());
                let flags = server_flags(scheduler, seconds).to_ne_bytes();
                writer.attribute(7, &[flags, [0xff; 4]].concat());
                let seconds = seconds.map_or(0, NonZeroU32::get);
                writer.attribute(8, &seconds.to_ne_bytes());
                writer.attribute(
                    9,
                    &match IpFamily::of(key.address) {
                        IpFamily::V4 => [0xff; 4],
                        IpFamily::V6 => 128_u32.to_ne_bytes(),
                    },
                );
            });
        })
    }

    pub(crate) fn delete_server(self, key: Key) -> Request {
        let what = format!("virtual server {}", name(key));
        self.request(Verb::DeleteServer, ACKNOWLEDGE, &what, |writer| {
            writer.nested(SERVER, |writer| identity(writer, key));
        })
    }

    /// Adds or changes a real server, or removes it.
    pub(crate) fn endpoint(self, verb: Verb, key: Key, endpoint: Endpoint, weight: u32) -> Request {
        let what = format!("real server {endpoint} of {}", name(key));
        self.request(verb, ACKNOWLEDGE, &what, |writer| {
            writer.nested(SERVER, |writer| identity(writer, key));
            writer.nested(ENDPOINT, |writer| {
                writer.attribute(1, &address_octets(endpoint.address));
                writer.attribute(2, &endpoint.port.get().to_be_bytes());
                // Masquerading, and no thresholds.
                writer.attribute(3, &0_u32.to_ne_bytes());
                writer.attribute(4, &weight.to_ne_bytes());
                writer.attribute(5, &0_u32.to_ne_bytes());
                writer.attribute(6, &0_u32.to_ne_bytes());
                let family = family_number(IpFamily::of(endpoint.address));
                writer.attribute(11, &u16::from(family).to_ne_bytes());
            });
        })
    }

    pub(crate) fn get_servers(self) -> Request {
        self.request(Verb::GetServers, DUMP, "virtual servers", |_| {})
    }

    pub(crate) fn get_endpoints(self, key: Key) -> Request {
        let what = format!("real servers of {}", name(key));
        self.request(Verb::GetEndpoints, DUMP, &what, |writer| {
            writer.nested(SERVER, |writer| identity(writer, key));
        })
    }

    /// Seconds after which silent connections are forgotten: TCP, TCP after a FIN, UDP; 0 leaves one as it is.
    pub(crate) fn set_timeouts(self, seconds: [u32; 3]) -> Request {
        self.request(Verb::SetConfig, ACKNOWLEDGE, "timeouts", |writer| {
            for (kind, seconds) in (4..).zip(seconds) {
                writer.attribute(kind, &seconds.to_ne_bytes());
            }
        })
    }

    pub(crate) fn get_timeouts(self) -> Request {
        self.request(Verb::GetConfig, 0, "timeouts", |_| {})
    }
}

/// Destroys a set of `ipset` (`linux/netfilter/ipset/ip_set.h`).
pub(crate) fn destroy_set(name: &str) -> Request {
    // `NFNL_SUBSYS_IPSET`, `IPSET_CMD_DESTROY`; `nfgenmsg`: any family, version 0.
    let what = format!("destroy the set {name}");
    Request::new(what, 6 << 8 | 3, ACKNOWLEDGE, &[0; 4], |writer| {
        // The oldest protocol that every kernel takes.
        writer.attribute(1, &[6]);
        writer.text(2, name);
    })
}

/// Asks for the number of the family of IPVS, and loads the module where it is missing.
pub(crate) fn get_family() -> Request {
    // `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`.
    Request::new("find IPVS in the kernel", 16, 0, &[3, 1, 0, 0], |writer| {
        writer.text(2, "IPVS");
    })
}

/// `CTRL_ATTR_FAMILY_ID`.
pub(crate) fn read_family(answer: &[u8]) -> Option<u16> {
    let number = find(answer.get(4..)?, 1)?;
    Some(u16::from_ne_bytes(*number.first_chunk()?))
}

/// A virtual server as the kernel tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Told {
    pub(crate) key: Key,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) persistence_seconds: Option<NonZeroU32>,
    pub(crate) ours: bool,
}

/// Reads a virtual server; none if it is one by mark, or of a protocol of no Service.
pub(crate) fn read_server(answer: &[u8]) -> Option<Told> {
    let server = find(answer.get(4..)?, SERVER)?;
    let short = |kind| Some(u16::from_ne_bytes(*find(server, kind)?.first_chunk()?));
    let family = family_of(short(1)?)?;
    let key = Key {
        address: read_address(family, find(server, 3)?)?,
        protocol: protocol_of(short(2)?)?,
        port: read_port(find(server, 4)?)?,
    };
    let flags = u32::from_ne_bytes(*find(server, 7)?.first_chunk()?);
    let seconds = find(server, 8).and_then(|value| value.first_chunk());
    let seconds = seconds.map_or(0, |seconds| u32::from_ne_bytes(*seconds));
    Some(Told {
        key,
        scheduler: find_text(server, 6).and_then(|name| name.parse().ok()),
        persistence_seconds: NonZeroU32::new(seconds).filter(|_| flags & PERSISTENT != 0),
        ours: flags & SIGNATURE_BITS == SIGNATURE,
    })
}

/// Reads a real server: its weight, and its connections, those that end included. One to which packets are not translated
/// weighs what none of ours does.
pub(crate) fn read_endpoint(family: IpFamily, answer: &[u8]) -> Option<(Endpoint, u32, u32)> {
    let found = find(answer.get(4..)?, ENDPOINT)?;
    let number = |kind| Some(u32::from_ne_bytes(*find(found, kind)?.first_chunk()?));
    let endpoint = Endpoint {
        address: read_address(family, find(found, 1)?)?,
        port: read_port(find(found, 2)?)?,
    };
    let connections = number(7)?.saturating_add(number(8)?);
    let is_translated = number(3)? & FORWARDING <= LOCAL_NODE;
    let weight = if is_translated { number(4)? } else { u32::MAX };
    Some((endpoint, weight, connections))
}

/// Reads the three timeouts.
pub(crate) fn read_timeouts(answer: &[u8]) -> Option<[u32; 3]> {
    let found = answer.get(4..)?;
    let number = |kind| Some(u32::from_ne_bytes(*find(found, kind)?.first_chunk()?));
    Some([number(4)?, number(5)?, number(6)?])
}

fn identity(writer: &mut Writer, key: Key) {
    let family = family_number(IpFamily::of(key.address));
    writer.attribute(1, &u16::from(family).to_ne_bytes());
    writer.attribute(2, &u16::from(key.protocol.number()).to_ne_bytes());
    writer.attribute(3, &address_octets(key.address));
    writer.attribute(4, &key.port.get().to_be_bytes());
}

/// The flags of a server of ours. Hashing schedulers choose another endpoint where theirs ends.
fn server_flags(scheduler: Scheduler, seconds: Option<NonZeroU32>) -> u32 {
    let hashes = matches!(
        scheduler,
        Scheduler::SourceHashing | Scheduler::MaglevHashing
    );
    let persistent = seconds.map_or(0, |_| PERSISTENT);
    SIGNATURE | persistent | if hashes { FALLBACK } else { 0 }
}

fn name(key: Key) -> String {
    let endpoint = Endpoint {
        address: key.address,
        port: key.port,
    };
    format!("{endpoint} {}", key.protocol)
}

fn family_number(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

fn family_of(number: u16) -> Option<IpFamily> {
    match number {
        2 => Some(IpFamily::V4),
        10 => Some(IpFamily::V6),
        _ => None,
    }
}

fn protocol_of(number: u16) -> Option<Protocol> {
    let mut all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    all.find(|protocol| u16::from(protocol.number()) == number)
}

fn address_length(family: IpFamily) -> usize {
    match family {
        IpFamily::V4 => 4,
        IpFamily::V6 => 16,
    }
}

/// `nf_inet_addr`: an IPv4 address has zeros behind it.
fn address_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Without those zeros.
fn bare(octets: &[u8; 16], address: IpAddr) -> &[u8] {
    let length = address_length(IpFamily::of(address));
    octets.get(..length).unwrap_or(octets)
}

fn read_address(family: IpFamily, octets: &[u8]) -> Option<IpAddr> {
    Some(match family {
        IpFamily::V4 => IpAddr::from(*octets.first_chunk::<4>()?),
        IpFamily::V6 => IpAddr::from(*octets.first_chunk::<16>()?),
    })
}

fn read_port(octets: &[u8]) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::from_be_bytes(*octets.first_chunk()?))
}

const SERVER: u16 = 1;
const ENDPOINT: u16 = 2;
/// `IP_VS_CONN_F_FWD_MASK`: `IP_VS_CONN_F_MASQ` is 0.
const FORWARDING: u32 = 7;
/// `IP_VS_CONN_F_LOCALNODE`.
const LOCAL_NODE: u32 = 1;
/// `IP_VS_SVC_F_PERSISTENT`.
const PERSISTENT: u32 = 1;
/// `IP_VS_SVC_F_SCHED_SH_FALLBACK` and `IP_VS_SVC_F_SCHED_MH_FALLBACK`.
const FALLBACK: u32 = 8;
/// By which we know our servers again: flags that the kernel keeps and has no meaning for.
const SIGNATURE: u32 = 0xf090_0000;
const SIGNATURE_BITS: u32 = 0xfff0_0000;
/// `NLM_F_*`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            address: "192.0.2.7".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
        }
    }

    #[test]
    fn a_server_has_the_octets_of_ip_vs_h() {
        let request = ToIpvs(0x21).server(
            Verb::NewServer,
            key(),
            Scheduler::MaglevHashing,
            NonZeroU32::new(60),
        );
        assert_eq!(
            request.what,
            "add virtual server 192.0.2.7:80 TCP with scheduler mh"
        );
        let expected = b"\x68\0\0\0\x21\0\x05\0\x07\0\0\0\0\0\0\0\x01\x01\0\0\
            \x54\0\x01\x80\x06\0\x01\0\x02\0\0\0\x06\0\x02\0\x06\0\0\0\
            \x14\0\x03\0\xc0\0\x02\x07\0\0\0\0\0\0\0\0\0\0\0\0\x06\0\x04\0\0\x50\0\0\
            \x07\0\x06\0mh\0\0\x0c\0\x07\0\x09\0\x90\xf0\xff\xff\xff\xff\
            \x08\0\x08\0\x3c\0\0\0\x08\0\x09\0\xff\xff\xff\xff";
        assert_eq!(request.octets(7), *expected);
        // What the kernel says is the same behind its header, but for `IP_VS_SVC_F_HASHED`.
        let told = read_server(&expected[16..]).unwrap();
        let expected = Told {
            key: key(),
            scheduler: Some(Scheduler::MaglevHashing),
            persistence_seconds: NonZeroU32::new(60),
            ours: true,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn rubbish_is_nothing() {
        for octets in [&b""[..], b"\x01\x01\0\0"] {
            assert_eq!(read_server(octets), None);
            assert_eq!(read_endpoint(IpFamily::V4, octets), None);
            assert_eq!(read_timeouts(octets), None);
        }
    }
}
