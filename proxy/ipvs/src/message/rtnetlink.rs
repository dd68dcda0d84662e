//! What the kernel is told about interfaces, routes and addresses, in octets, and what it says.
//!
//! Numbers without a name beside them are those of `linux/rtnetlink.h` and `linux/if_link.h`.

use std::net::IpAddr;

use config::address::IpFamily;
use proxy_nftables::attribute::{Writer, attributes, find, find_text};

use super::{
    ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, Request, address_length, address_octets, bare,
    family_number, family_of, read_address,
};

/// An interface as the kernel tells it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) is_up: bool,
    pub(crate) is_dummy: bool,
    pub(crate) alias: String,
}

pub(crate) fn get_link(name: &str) -> Request {
    Request::new(
        format!("look for interface {name}"),
        18,
        0,
        &[0; 16],
        |writer| {
            writer.text(3, name);
        },
    )
}

/// A dummy interface, down.
pub(crate) fn new_link(name: &str) -> Request {
    let what = format!("add interface {name}: the module dummy may be missing");
    Request::new(
        what,
        16,
        ACKNOWLEDGE | CREATE | EXCLUSIVE,
        &[0; 16],
        |writer| {
            writer.text(3, name);
            writer.nested(18, |writer| writer.text(1, "dummy"));
        },
    )
}

pub(crate) fn delete_link(index: u32) -> Request {
    let header = link_header(index, 0);
    Request::new("remove the interface", 17, ACKNOWLEDGE, &header, |_| {})
}

/// Gives an interface an alias.
pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    let header = link_header(index, 0);
    let what = "note at the interface what was set before";
    Request::new(what, 16, ACKNOWLEDGE, &header, |writer| {
        writer.text(20, alias);
    })
}

/// Keeps an interface from having an IPv6 address of its own (`IN6_ADDR_GEN_MODE_NONE`).
pub(crate) fn set_no_address(index: u32) -> Request {
    let header = link_header(index, 0);
    let what = "keep the interface from having an address";
    Request::new(what, 16, ACKNOWLEDGE, &header, |writer| {
        writer.nested(26, |writer| {
            writer.nested(10, |writer| writer.attribute(8, &[1]));
        });
    })
}

pub(crate) fn set_up(index: u32) -> Request {
    let header = link_header(index, 1);
    Request::new("set the interface up", 16, ACKNOWLEDGE, &header, |_| {})
}

pub(crate) fn read_link(answer: &[u8]) -> Option<Link> {
    let number = |start| Some(u32::from_ne_bytes(*answer.get(start..)?.first_chunk()?));
    let found = answer.get(16..)?;
    let kind = find(found, 18).and_then(|information| find_text(information, 1));
    Some(Link {
        index: number(4)?,
        is_up: number(8)? & 1 != 0,
        is_dummy: kind == Some("dummy"),
        alias: find_text(found, 20).unwrap_or_default().to_owned(),
    })
}

/// Routes an address to the node, behind the route that an interface has which has this very address: so it is in force as
/// soon as that one goes.
pub(crate) fn new_route(address: IpAddr, source: Option<IpAddr>, link: u32) -> Request {
    let what = format!("add a local route for {address}");
    let flags = ACKNOWLEDGE | CREATE | EXCLUSIVE;
    Request::new(what, 24, flags, &route_header(address), |writer| {
        route(writer, address, link);
        writer.attribute(6, &1_u32.to_ne_bytes());
        if let Some(source) = source {
            writer.attribute(7, bare(&address_octets(source), source));
        }
    })
}

pub(crate) fn delete_route(address: IpAddr, link: u32) -> Request {
    let what = format!("remove the local route for {address}");
    Request::new(what, 25, ACKNOWLEDGE, &route_header(address), |writer| {
        route(writer, address, link);
    })
}

pub(crate) fn get_routes(family: IpFamily) -> Request {
    let mut header = [0; 12];
    header[0] = family_number(family);
    Request::new("read the routes", 26, DUMP, &header, |_| {})
}

/// Reads a route: its address and source, if it is one of ours at this interface.
pub(crate) fn read_route(answer: &[u8], link: u32) -> Option<(IpAddr, Option<IpAddr>)> {
    let &[family, length, _, _, table, protocol, _, kind] = answer.first_chunk()?;
    let family = family_of(family.into())?;
    let found = answer.get(12..)?;
    let at = u32::from_ne_bytes(*find(found, 4)?.first_chunk()?);
    let whole = usize::from(length) == 8 * address_length(family);
    let ours = (table, protocol, kind) == (TABLE_LOCAL, OUR_PROTOCOL, LOCAL);
    let address = read_address(family, find(found, 1)?)?;
    let source = find(found, 7).and_then(|source| read_address(family, source));
    (at == link && whole && ours).then_some((address, source))
}

pub(crate) fn get_addresses() -> Request {
    Request::new("read the addresses of the node", 22, DUMP, &[0; 8], |_| {})
}

/// Reads an address of an interface, behind the number of that.
pub(crate) fn read_interface_address(answer: &[u8]) -> Option<(u32, IpAddr)> {
    let family = family_of((*answer.first()?).into())?;
    let found = answer.get(8..)?;
    let index = u32::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let mut own = attributes(found).filter(|(kind, _)| matches!(kind, 1 | 2));
    // `IFA_LOCAL` goes before `IFA_ADDRESS`, which is the other end of a point-to-point link.
    let (_, octets) = find(found, 2)
        .map(|octets| (2, octets))
        .or_else(|| own.next())?;
    Some((index, read_address(family, octets)?))
}

/// Removes an address that an interface has alone, without a network.
pub(crate) fn delete_address(index: u32, address: IpAddr) -> Request {
    let what = format!("remove address {address} of the interface");
    let family = IpFamily::of(address);
    let length = u8::try_from(8 * address_length(family)).unwrap_or(u8::MAX);
    // `ifaddrmsg`: family, length, flags, scope, interface.
    let header = [[family_number(family), length, 0, 0], index.to_ne_bytes()].concat();
    Request::new(what, 21, ACKNOWLEDGE, &header, |writer| {
        writer.attribute(2, bare(&address_octets(address), address));
    })
}

fn link_header(index: u32, up: u32) -> Vec<u8> {
    let (index, up) = (index.to_ne_bytes(), up.to_ne_bytes());
    [[0; 4], index, up, up].concat()
}

fn route_header(address: IpAddr) -> [u8; 12] {
    let family = IpFamily::of(address);
    let length = u8::try_from(8 * address_length(family)).unwrap_or(u8::MAX);
    let number = family_number(family);
    // `rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope (host), type, flags.
    [
        number,
        length,
        0,
        0,
        TABLE_LOCAL,
        OUR_PROTOCOL,
        254,
        LOCAL,
        0,
        0,
        0,
        0,
    ]
}

fn route(writer: &mut Writer, address: IpAddr, link: u32) {
    writer.attribute(1, bare(&address_octets(address), address));
    writer.attribute(4, &link.to_ne_bytes());
}

/// `RT_TABLE_LOCAL`, `RTN_LOCAL`.
const TABLE_LOCAL: u8 = 255;
const LOCAL: u8 = 2;
/// Who made a route: a number of `rtm_protocol` that nobody has registered.
const OUR_PROTOCOL: u8 = 0xf0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_the_octets_of_rtnetlink_h() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let request = new_route(address, Some(source), 5);
        let expected =
            b"\x3c\0\0\0\x18\0\x05\x06\x01\0\0\0\0\0\0\0\x02\x20\0\0\xff\xf0\xfe\x02\0\0\0\0\
            \x08\0\x01\0\xc0\0\x02\x07\x08\0\x04\0\x05\0\0\0\x08\0\x06\0\x01\0\0\0\x08\0\x07\0\xc0\0\x02\x01";
        assert_eq!(request.octets(1), *expected);
        assert_eq!(
            read_route(&expected[16..], 5),
            Some((address, Some(source)))
        );
        assert_eq!(read_route(&expected[16..], 6), None);
    }

    #[test]
    fn rubbish_is_nothing() {
        for octets in [
            &b""[..],
            b"\x01\x01\0\0",
            b"\x02\x20\0\0\xff\xf0\xfe\x02\0\0\0\0\x08",
        ] {
            assert_eq!(read_route(octets, 0), None);
            assert_eq!(read_interface_address(octets), None);
            assert_eq!(read_link(octets), None);
        }
    }
}
