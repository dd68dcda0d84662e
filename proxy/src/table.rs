//! Whole tables of nf_tables: whether one is there, and how it goes.

use std::io;

use netlink_packet_netfilter::nftables::{
    NfTablesMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessageInner, NetfilterProtoFamily};
use proxy_nftables::wait_for_packets_on_their_way;

use crate::netfilter::Netfilter;

/// The handle of a table, which a table made anew does not share; none if there is no such table.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn table_handle(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    name: &str,
) -> io::Result<Option<u64>> {
    let mut found = None;
    let wanted = TableAttribute::Name(name.to_owned());
    let all = TableMessage {
        attributes: Vec::new(),
    };
    netfilter.dump(family, NfTablesMessage::GetTable(all), |message| {
        if let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner
            && table.attributes.contains(&wanted)
        {
            let handle = table
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    TableAttribute::Handle(handle) => Some(*handle),
                    _ => None,
                });
            found = Some(handle.unwrap_or_default());
        }
    })?;
    Ok(found)
}

/// Deletes a table that exists, with everything in it, and lets no packet meet a part of it: see [`proxy_nftables::Kernel::remove`].
///
/// # Errors
/// If the kernel refuses.
pub fn delete_table(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    name: &str,
) -> io::Result<()> {
    let table = |flags: Option<TableFlags>| {
        let name = TableAttribute::Name(name.to_owned());
        let flags = flags.map(TableAttribute::Flags);
        TableMessage {
            attributes: [name].into_iter().chain(flags).collect(),
        }
    };
    let sleep = NfTablesMessage::NewTable(table(Some(TableFlags::Dormant)));
    commit(netfilter, family, sleep)?;
    wait_for_packets_on_their_way();
    commit(netfilter, family, NfTablesMessage::DeleteTable(table(None)))
}

/// Changes one thing.
fn commit(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    change: NfTablesMessage,
) -> io::Result<()> {
    let edge = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    netfilter.transact([
        (edge(), ControlMessage::BatchBegin.into()),
        (NetfilterHeader::new(family, 0, 0), change.into()),
        (edge(), ControlMessage::BatchEnd.into()),
    ])
}

/// `include/uapi/linux/netfilter/nfnetlink.h`.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
