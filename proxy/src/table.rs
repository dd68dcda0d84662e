//! Whole tables of nf_tables: whether one is there, and how it goes.

use std::io;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessageInner, NetfilterProtoFamily};

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

/// Deletes a table that exists, with everything in it.
///
/// # Errors
/// If the kernel refuses.
pub fn delete_table(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    name: &str,
) -> io::Result<()> {
    let delete = NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![TableAttribute::Name(name.to_owned())],
    });
    let edge = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    netfilter.transact([
        (edge(), ControlMessage::BatchBegin.into()),
        (NetfilterHeader::new(family, 0, 0), delete.into()),
        (edge(), ControlMessage::BatchEnd.into()),
    ])
}

/// `include/uapi/linux/netfilter/nfnetlink.h`.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
