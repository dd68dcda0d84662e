//! What never changes in our tables: the sets and maps.

use config::address::IpFamily;

use crate::netlink::message::SetShape;

/// The name of our tables, one for each family.
pub(crate) const TABLE: &str = "foghorn";

pub(crate) const FRONTENDS: &str = "services";
pub(crate) const OUTSIDE_FRONTENDS: &str = "outside-services";
pub(crate) const ENDPOINTS: &str = "endpoints";
pub(crate) const AFFINITY_SLOTS: &str = "affinity-slots";
pub(crate) const AFFINITY_ENDPOINTS: &str = "affinity-endpoints";
/// The one map that packets write: clients and the names of their endpoints.
pub(crate) const AFFINITY: &str = "affinity";
pub(crate) const MASQUERADE_ALWAYS: &str = "masquerade-always";
pub(crate) const MASQUERADE_UNLESS_POD: &str = "masquerade-unless-pod";
pub(crate) const MASQUERADE_NODE: &str = "masquerade-node";
pub(crate) const MASQUERADE_HAIRPIN: &str = "masquerade-hairpin";
pub(crate) const HAIRPINS: &str = "hairpins";
pub(crate) const GUARDED: &str = "guarded";
pub(crate) const SOURCES: &str = "sources";
pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
pub(crate) const LEFT_ALONE: &str = "left-alone";
pub(crate) const SERVICE_CIDRS: &str = "service-cidrs";
/// Addresses that the node has only for Services; empty unless IPVS forwards.
pub(crate) const BOUND: &str = "bound";
pub(crate) const POD_NETWORKS: &str = "pods";
pub(crate) const CLASSES: &str = "classes";
pub(crate) const OUTSIDE_CLASSES: &str = "outside-classes";

/// The names of all sets and maps.
pub(crate) const SETS: [&str; 20] = [
    FRONTENDS,
    OUTSIDE_FRONTENDS,
    ENDPOINTS,
    AFFINITY_SLOTS,
    AFFINITY_ENDPOINTS,
    AFFINITY,
    MASQUERADE_ALWAYS,
    MASQUERADE_UNLESS_POD,
    MASQUERADE_NODE,
    MASQUERADE_HAIRPIN,
    HAIRPINS,
    GUARDED,
    SOURCES,
    CLUSTER_IPS,
    LEFT_ALONE,
    SERVICE_CIDRS,
    BOUND,
    POD_NETWORKS,
    CLASSES,
    OUTSIDE_CLASSES,
];

/// `NFPROTO_*`.
pub(crate) fn family_number(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

/// Octets of an address.
pub(crate) fn address_length(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 4,
        IpFamily::V6 => 16,
    }
}

/// The shape of the set of this name.
pub(crate) fn set_shape(name: &'static str, family: IpFamily) -> SetShape {
    let address = u32::from(address_length(family));
    let address_type = match family {
        IpFamily::V4 => 7,
        IpFamily::V6 => 8,
    };
    let (types, key_length): (&[u32], u32) = match name {
        ENDPOINTS | AFFINITY_SLOTS => (
            &[address_type, INET_PROTO, INET_SERVICE, INTEGER],
            address + 12,
        ),
        AFFINITY_ENDPOINTS => (
            &[address_type, INET_PROTO, INET_SERVICE, CLASSID],
            address + 12,
        ),
        AFFINITY | HAIRPINS => (
            &[address_type, address_type, INET_PROTO, INET_SERVICE],
            2 * address + 8,
        ),
        SOURCES => (
            &[address_type, INET_PROTO, INET_SERVICE, address_type],
            2 * address + 8,
        ),
        CLUSTER_IPS | LEFT_ALONE | BOUND | SERVICE_CIDRS | POD_NETWORKS => {
            (&[address_type], address)
        }
        CLASSES | OUTSIDE_CLASSES => (&[CLASSID], 4),
        _ => (&[address_type, INET_PROTO, INET_SERVICE], address + 8),
    };
    let (flags, data) = match name {
        FRONTENDS | OUTSIDE_FRONTENDS | AFFINITY_SLOTS => (MAP, Some((CLASSID, 4))),
        ENDPOINTS | AFFINITY_ENDPOINTS => (
            MAP,
            Some((concatenated(&[address_type, INET_SERVICE]), address + 4)),
        ),
        AFFINITY => (MAP | TIMEOUT | EVALUATED, Some((CLASSID, 4))),
        CLASSES | OUTSIDE_CLASSES => (MAP, Some((VERDICT, 0))),
        SOURCES => (INTERVAL | CONCATENATED, None),
        SERVICE_CIDRS | POD_NETWORKS => (INTERVAL, None),
        _ => (0, None),
    };
    SetShape {
        name,
        flags,
        key_type: concatenated(types),
        key_length,
        data,
        size: if name == AFFINITY { MOST_CLIENTS } else { 0 },
        timeout_ms: if name == AFFINITY {
            DEFAULT_AFFINITY_MS
        } else {
            0
        },
        fields: match (name, family) {
            (SOURCES, IpFamily::V4) => &[4, 1, 2, 4],
            (SOURCES, IpFamily::V6) => &[16, 1, 2, 16],
            _ => &[],
        },
    }
}

/// What `nft` keeps with a set in order to print it (`NFTNL_UDATA_SET_*`), captured from `nft --debug=mnl`.
pub(crate) fn set_remarks(name: &str, family: IpFamily) -> Vec<u8> {
    /// Byte order of the key: none for a concatenation, 1 for the host's, 2 for the network's.
    fn key_order(order: u8) -> Vec<u8> {
        vec![0, 4, order, 0, 0, 0]
    }
    const CONCATENATED_KEY: &[u8] = b"\x03\x08\x00\x04\x0d\0\0\0\x01\x00";
    const CONCATENATED_DATA: &[u8] = b"\x04\x08\x00\x04\x0d\0\0\0\x01\x00";
    const DATA_HOST_ORDER: &[u8] = b"\x01\x04\x01\0\0\0";
    const DATA_NO_ORDER: &[u8] = b"\x01\x04\0\0\0\0";
    const DATA_NO_INTERVAL: &[u8] = b"\x06\x04\0\0\0\0";
    // `payload`, then the numbers that `nft` has for the header and the field.
    let address: &[u8] = match family {
        IpFamily::V4 => b"\0\x04\x07\0\0\0\x01\x0c\0\x04\x0c\0\0\0\x01\x04\x0c\0\0\0",
        IpFamily::V6 => b"\0\x04\x07\0\0\0\x01\x0c\0\x04\x0d\0\0\0\x01\x04\x09\0\0\0",
    };
    const PROTOCOL: &[u8] = b"\0\x04\x09\0\0\0\x01\x06\0\x04\x10\0\0\0";
    const PORT: &[u8] = b"\0\x04\x07\0\0\0\x01\x0c\0\x04\x0b\0\0\0\x01\x04\x02\0\0\0";
    const NUMGEN: &[u8] =
        b"\0\x04\x17\0\0\0\x01\x12\0\x04\x01\0\0\0\x01\x04\0\0\x01\0\x02\x04\0\0\0\0";
    const PRIORITY: &[u8] = b"\0\x04\x09\0\0\0\x01\x06\0\x04\x02\0\0\0";
    let concatenation = |kind: u8, fields: &[&[u8]]| {
        let mut content = Vec::new();
        for (number, field) in (0..).zip(fields) {
            content.extend_from_slice(&record(number, field));
        }
        let mut whole = b"\0\x04\x0d\0\0\0".to_vec();
        whole.extend_from_slice(&record(1, &content));
        record(kind, &whole)
    };
    match name {
        ENDPOINTS | AFFINITY_SLOTS => {
            let slots = name == AFFINITY_SLOTS;
            let data = match slots {
                true => record(4, PRIORITY),
                false => concatenation(4, &[address, PORT]),
            };
            [
                &*key_order(0),
                if slots {
                    DATA_HOST_ORDER
                } else {
                    DATA_NO_ORDER
                },
                &*concatenation(3, &[address, PROTOCOL, PORT, NUMGEN]),
                &*data,
                DATA_NO_INTERVAL,
            ]
            .concat()
        }
        AFFINITY_ENDPOINTS => {
            let data = [CONCATENATED_KEY, CONCATENATED_DATA, DATA_NO_INTERVAL].concat();
            [&*key_order(0), DATA_NO_ORDER, &*data].concat()
        }
        FRONTENDS | OUTSIDE_FRONTENDS | AFFINITY => [
            &*key_order(0),
            DATA_HOST_ORDER,
            CONCATENATED_KEY,
            DATA_NO_INTERVAL,
        ]
        .concat(),
        CLASSES | OUTSIDE_CLASSES => [&*key_order(1), DATA_NO_ORDER, DATA_NO_INTERVAL].concat(),
        CLUSTER_IPS | LEFT_ALONE | BOUND | SERVICE_CIDRS | POD_NETWORKS => key_order(2),
        _ => [&*key_order(0), CONCATENATED_KEY].concat(),
    }
}

/// A record of the kind, length, content that remarks are made of.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[kind, length], content].concat()
}

/// The types of a concatenation in one number, as `nft` has it.
fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// `NFT_SET_*`.
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVALUATED: u32 = 0x20;
const CONCATENATED: u32 = 0x80;
/// The numbers that `nft` has for types of data.
const INTEGER: u32 = 4;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const CLASSID: u32 = 23;
const VERDICT: u32 = 0xffff_ff00;
/// How many clients keep their endpoint; what comes beyond is spread anew each time.
const MOST_CLIENTS: u32 = 131_072;
const DEFAULT_AFFINITY_MS: u64 = 10_800_000;
