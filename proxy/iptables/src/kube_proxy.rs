//! What kube-proxy's iptables and IPVS modes left in iptables: which lines take it away, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use config::address::IpFamily;

use crate::kernel::{
    Found, KernelError, family_name, has_chain, is_unreadable, restore_text, save_all, unreadable,
};
use crate::text::target_name;

/// Removes kube-proxy's chains from both back ends and both families; where there were any, as `ip (legacy)`.
///
/// # Errors
/// If a program of iptables fails, or cannot read a table in which they are, or another one holds its lock for too long: the
/// first that went wrong, after the others were run. Without iptables there is nothing to do.
pub fn remove() -> Result<Vec<String>, KernelError> {
    let all = Found::all();
    let places = all.iter().flat_map(|found| {
        let families = found.families();
        families.map(move |family| (found, family))
    });
    let places = places.filter(|(found, family)| found.may_have_rules(*family));
    let outcomes = places.map(|(found, family)| {
        let place = format!("{} ({})", family_name(family), found.backend());
        remove_from(found, family).map(|any| any.then_some(place))
    });
    let outcomes: Vec<_> = outcomes.collect();
    outcomes.into_iter().filter_map(Result::transpose).collect()
}

/// Removes them from one family in one back end; whether there were any.
fn remove_from(found: &Found, family: IpFamily) -> Result<bool, KernelError> {
    let saved = save_all(found, family)?;
    let script = removal(&saved);
    if let Some(script) = &script {
        restore_text(found, family, script)?;
    }
    for (table, chain) in KNOWN_BY {
        if is_unreadable(&saved, table) && has_chain(found, family, table, chain)? {
            return Err(unreadable(found, family, table));
        }
    }
    Ok(script.is_some())
}

/// One table as it was saved.
#[derive(Debug, Default)]
struct Saved<'a> {
    chains: BTreeSet<&'a str>,
    /// The chain of each rule, and the rest of its line.
    rules: Vec<(&'a str, &'a str)>,
}

/// The input of `iptables-restore --noflush` that takes kube-proxy's chains away from what `iptables-save` printed, and the rules
/// of others that lead there; none if there are none.
///
/// What the rules of another program in a chain of its own lead to stays, as [`MARK`] does where the plug-in for host ports
/// of Pods uses it: and with it the chain that heeds the mark.
pub fn removal(saved: &str) -> Option<String> {
    let mut tables = BTreeMap::<&str, Saved<'_>>::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            tables.entry(table).or_default().chains.insert(name);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rest) = rule.split_once(' ').unwrap_or((rule, ""));
            tables.entry(table).or_default().rules.push((chain, rest));
        }
    }
    let parts = tables
        .iter()
        .filter_map(|(name, table)| table.removal(name));
    let script: String = parts.collect();
    (!script.is_empty()).then_some(script)
}

impl Saved<'_> {
    fn removal(&self, name: &str) -> Option<String> {
        let kept = self.used_by_others();
        let goes = |chain: &str| is_of_kube_proxy(chain) && !kept.contains(chain);
        let gone: Vec<&str> = self
            .chains
            .iter()
            .copied()
            .filter(|chain| goes(chain))
            .collect();
        if gone.is_empty() {
            return None;
        }
        let mut script = format!("*{name}\n");
        // A chain that is declared is emptied, and one that is empty and not led to can go.
        for chain in &gone {
            script.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for (chain, rest) in &self.rules {
            if !goes(chain) && target_name(rest).is_some_and(|target| goes(&target)) {
                script.push_str(&format!("-D {chain} {rest}\n"));
            }
        }
        for chain in &gone {
            script.push_str(&format!("-X {chain}\n"));
        }
        script.push_str("COMMIT\n");
        Some(script)
    }

    /// Chains of kube-proxy that others lead to from chains of their own, and where those lead to in turn.
    fn used_by_others(&self) -> BTreeSet<String> {
        let is_of_others = |chain: &str| !is_of_kube_proxy(chain) && !BUILT_IN.contains(&chain);
        let targets = |from: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            let rules = self.rules.iter().filter(|(chain, _)| from(chain));
            let targets = rules.filter_map(|(_, rest)| target_name(rest));
            targets.filter(|target| is_of_kube_proxy(target)).collect()
        };
        let mut kept = targets(&is_of_others);
        if kept.contains(MARK) {
            kept.insert(POSTROUTING.to_owned());
        }
        loop {
            let further = targets(&|chain| kept.contains(chain));
            let before = kept.len();
            kept.extend(further);
            if kept.len() == before {
                return kept;
            }
        }
    }
}

fn is_of_kube_proxy(chain: &str) -> bool {
    CHAINS.contains(&chain) || PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// Tables with a chain that they have there if they have any.
const KNOWN_BY: [(&str, &str); 2] = [("nat", "KUBE-SERVICES"), ("filter", "KUBE-FORWARD")];
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
const MARK: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &str = "KUBE-POSTROUTING";
/// Not the kubelet's: `KUBE-FIREWALL`, `KUBE-MARK-DROP`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`.
const CHAINS: [&str; 13] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    POSTROUTING,
    "KUBE-FORWARD",
    MARK,
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
const PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-SEP-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-XLB-",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_stays_as_it_is() {
        let saved = "\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals -j MINE\" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j KUBE-SVC-BBBB
-A KUBE-SVC-BBBB -j KUBE-SEP-AAAA
-A MINE -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
COMMIT
";
        let expected = "\
*nat
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BBBB - [0:0]
-D PREROUTING -m comment --comment \"kubernetes service portals -j MINE\" -j KUBE-SERVICES
-X KUBE-PROXY-CANARY
-X KUBE-SEP-AAAA
-X KUBE-SERVICES
-X KUBE-SVC-BBBB
COMMIT
";
        assert_eq!(removal(saved).as_deref(), Some(expected));
        for nothing in [
            "",
            "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n",
            "*nat\n:KUBE-FIREWALL - [0:0]\nCOMMIT\n",
        ] {
            assert_eq!(removal(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_chain_that_others_lead_to_stays_and_so_does_what_heeds_the_mark() {
        let saved = "\
*nat
:POSTROUTING ACCEPT [0:0]
:CNI-DN-1234 - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A POSTROUTING -j KUBE-POSTROUTING
-A CNI-DN-1234 -s 10.244.1.0/24 -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
";
        let expected = "*nat\n:KUBE-SERVICES - [0:0]\n-X KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(removal(saved).as_deref(), Some(expected));
    }
}
