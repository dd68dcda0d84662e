//! What kube-proxy left behind in the kernel, and what of ours cannot be removed.

use std::io;

use netlink_packet_netfilter::nftables::{ChainAttribute, ChainMessage, NfTablesMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use proxy_iptables::kube_proxy;
use proxy_nftables::Nftables;

use crate::netfilter::Netfilter;
use crate::table::{delete_table, table_handle};

/// What was found of kube-proxy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Leftovers {
    /// Families (`ip`, `ip6`) whose nftables table `kube-proxy` was removed.
    pub removed_tables: Vec<&'static str>,
    /// Families and back ends of iptables (`ip (legacy)`) from which the chains of its iptables mode were removed.
    pub removed_chains: Vec<String>,
    /// Tables of iptables-nft that, without the programs of iptables to remove them, still have chains of kube-proxy's iptables mode, as `ip nat`.
    pub iptables_tables: Vec<String>,
}

/// Removes kube-proxy's nftables tables and, with the programs of iptables, the chains of its iptables mode.
///
/// # Errors
/// If the kernel cannot be asked, or refuses.
pub fn remove() -> io::Result<Leftovers> {
    let mut leftovers = Leftovers::default();
    // Where there is no nf_tables there is nothing in it.
    let mut nftables = match Nftables::answers() {
        Ok(()) => Some(Netfilter::open()?),
        Err(_) => None,
    };
    if let Some(netfilter) = &mut nftables {
        for (family, name) in FAMILIES {
            if table_handle(netfilter, family, KUBE_PROXY_TABLE)?.is_some() {
                delete_table(netfilter, family, KUBE_PROXY_TABLE)?;
                leftovers.removed_tables.push(name);
            }
        }
    }
    // After the tables: somebody who holds the lock of iptables must not keep those too.
    leftovers.removed_chains = kube_proxy::remove().map_err(io::Error::other)?;
    if let Some(netfilter) = &mut nftables
        && !proxy_iptables::is_installed()
    {
        leftovers.iptables_tables = tables_with(netfilter, &CHAINS_OF_KUBE_PROXY)?;
    }
    Ok(leftovers)
}

/// Why what our iptables mode made is still there.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum OursStay {
    #[error(
        "{} still has chains of our iptables mode, which go on translating, and no iptables is here to remove them with: take the image \
         whose tag ends in -iptables, with the chart by proxy.iptablesPrograms=true", tables.join(", ")
    )]
    NoPrograms { tables: Vec<String> },
    #[error("failed to ask the kernel for its chains")]
    Unknown(#[source] io::Error),
}

/// Looks for chains that our iptables mode made with nf_tables, where no program of iptables could have removed them. Of the other
/// back end nobody can tell without its programs.
///
/// # Errors
/// If there are any, or the kernel cannot be asked.
pub fn expect_none_of_ours() -> Result<(), OursStay> {
    if proxy_iptables::is_installed() || Nftables::answers().is_err() {
        return Ok(());
    }
    let mut netfilter = Netfilter::open().map_err(OursStay::Unknown)?;
    let tables = tables_with(&mut netfilter, &OUR_CHAINS).map_err(OursStay::Unknown)?;
    if tables.is_empty() {
        Ok(())
    } else {
        Err(OursStay::NoPrograms { tables })
    }
}

/// The tables that have one of these chains, as `ip nat`.
fn tables_with(netfilter: &mut Netfilter, chains: &[&str]) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for (family, name) in FAMILIES {
        let tables = tables_of_family_with(netfilter, family, chains)?;
        all.extend(tables.into_iter().map(|table| format!("{name} {table}")));
    }
    Ok(all)
}

fn tables_of_family_with(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    chains: &[&str],
) -> io::Result<Vec<String>> {
    let mut tables = Vec::new();
    let all = ChainMessage {
        attributes: Vec::new(),
    };
    netfilter.dump(family, NfTablesMessage::GetChain(all), |message| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = message.inner
        else {
            return;
        };
        let (mut table, mut name) = (None, None);
        for attribute in chain.attributes {
            match attribute {
                ChainAttribute::Table(text) => table = Some(text),
                ChainAttribute::Name(text) => name = Some(text),
                _ => {}
            }
        }
        if let (Some(table), Some(name)) = (table, name)
            && chains.contains(&name.as_str())
            && !tables.contains(&table)
        {
            tables.push(table);
        }
    })?;
    Ok(tables)
}

const FAMILIES: [(NetfilterProtoFamily, &str); 2] = [
    (NetfilterProtoFamily::IPv4, "ip"),
    (NetfilterProtoFamily::IPv6, "ip6"),
];
const KUBE_PROXY_TABLE: &str = "kube-proxy";
/// The chains that every sync of kube-proxy's iptables mode writes, and nobody else needs: plug-ins for host ports lead to others.
const CHAINS_OF_KUBE_PROXY: [&str; 2] = ["KUBE-SERVICES", "KUBE-NODEPORTS"];
/// Those that each of our programs has in `nat` and in `filter`.
const OUR_CHAINS: [&str; 1] = ["FOGHORN-SERVICES"];
