//! What a node holds of a proxy's: rules, virtual servers and routes, in a form that can be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use e2e::node::Node;
use serde_json::{Value, json};

/// Whether the node's proxy was told to use this data plane.
pub(crate) fn runs_with(node: &Node, data_plane: &str) -> bool {
    let arguments = node
        .proxy
        .iter()
        .flat_map(|proxy| &proxy.recipe().arguments);
    arguments.into_iter().any(|argument| argument == data_plane)
}

/// What both families and both back ends of iptables hold.
pub(crate) fn tables_of_iptables(node: &Node) -> Result<Vec<String>> {
    let programs = [
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "iptables-nft-save",
        "ip6tables-nft-save",
    ];
    let save = |program: &&str| {
        let tables = ["filter", "nat"];
        let tables = tables.map(|table| node.namespace.output(program, &["-t", table]));
        Ok(tables.into_iter().collect::<Result<Vec<_>>>()?.concat())
    };
    programs.iter().map(save).collect()
}

/// The rules by chain, in their order; chains without rules that iptables has by itself are left out.
fn rules_of_iptables(node: &Node) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut objects = BTreeMap::<String, Vec<Value>>::new();
    for (number, text) in tables_of_iptables(node)?.iter().enumerate() {
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(declared) = line.strip_prefix(':') {
                let (chain, policy) = declared.split_once(' ').context("not a chain")?;
                if policy.starts_with('-') {
                    objects
                        .entry(format!("{number} {table} {chain}"))
                        .or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (chain, rule) = rule.split_once(' ').context("not a rule")?;
                let rules = objects.entry(format!("{number} {table} {chain}"));
                rules.or_default().push(json!(rule));
            }
        }
    }
    Ok(objects)
}

/// Everything that the node holds: rules by chain in their order, elements by set in a fixed order.
pub(crate) fn rules(node: &Node) -> Result<BTreeMap<String, Vec<Value>>> {
    if runs_with(node, "iptables") {
        return rules_of_iptables(node);
    }
    let mut objects = normalise(&node.namespace.output("nft", &["-j", "list", "ruleset"])?)?;
    if runs_with(node, "ipvs") {
        let texts = [
            ("servers", servers(node)?),
            ("routes of IPv4", routes(node, "-4")?),
            ("routes of IPv6", routes(node, "-6")?),
        ];
        for (name, text) in texts {
            let mut lines: Vec<Value> = text.lines().map(|line| json!(line)).collect();
            lines.sort_by_cached_key(Value::to_string);
            if !lines.is_empty() {
                objects.insert(name.to_owned(), lines);
            }
        }
    }
    Ok(objects)
}

/// The virtual servers of IPVS, each of their endpoints in a line of its own.
pub(crate) fn servers(node: &Node) -> Result<String> {
    let text = node.namespace.output("cat", &["/proc/net/ip_vs"])?;
    readable(&text)
}

/// The kernel's listing, with addresses as people write them, without what connections count.
fn readable(listing: &str) -> Result<String> {
    let (mut text, mut server) = (String::new(), String::new());
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [protocol @ ("TCP" | "UDP" | "SCTP"), address, options @ ..] => {
                server = format!("{protocol} {} {}", socket(address)?, options.join(" "));
                writeln!(text, "{server}")?;
            }
            ["->", address, method, weight, ..] if *address != "RemoteAddress:Port" => {
                let draining = if *weight == "0" { " draining" } else { "" };
                writeln!(
                    text,
                    "{server} -> {} {method} {weight}{draining}",
                    socket(address)?
                )?;
            }
            _ => {}
        }
    }
    Ok(text)
}

/// `0A600001:0050`, or `[fd00:...]:0050`, as a socket's address.
fn socket(text: &str) -> Result<SocketAddr> {
    let (address, port) = text.rsplit_once(':').context("no port")?;
    let address = match address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse()?,
        None => IpAddr::from(u32::from_str_radix(address, 16)?.to_be_bytes()),
    };
    Ok(SocketAddr::new(address, u16::from_str_radix(port, 16)?))
}

/// The addresses that the node takes for its own because they are virtual servers.
fn routes(node: &Node, family: &str) -> Result<String> {
    let everything = node
        .namespace
        .output("ip", &[family, "route", "show", "table", "local"])?;
    let ours = everything
        .lines()
        .filter(|line| line.contains(" dev foghorn0 "));
    Ok(ours.map(|line| format!("{line}\n")).collect())
}

fn normalise(text: &str) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut listing: Value = serde_json::from_str(text)?;
    let mut objects = BTreeMap::<String, Vec<Value>>::new();
    for object in listing["nftables"]
        .as_array_mut()
        .context("not a listing of nftables")?
    {
        let Some((kind, value)) = object
            .as_object_mut()
            .and_then(|object| object.iter_mut().next())
        else {
            continue;
        };
        forget_what_changes_by_itself(value);
        let own_name = if kind == "rule" {
            &value["chain"]
        } else {
            &value["name"]
        };
        let name = format!("{} {} {own_name}", value["family"], value["table"]);
        match kind.as_str() {
            "metainfo" => {}
            "rule" => objects
                .entry(format!("chain {name}"))
                .or_default()
                .push(value["expr"].take()),
            "chain" => objects
                .entry(format!("chain {name}"))
                .or_default()
                .insert(0, value.take()),
            _ => {
                let mut elements = match value["elem"].take() {
                    Value::Array(elements) => elements,
                    _ => Vec::new(),
                };
                elements.sort_by_cached_key(Value::to_string);
                elements.insert(0, value.take());
                objects.insert(format!("{kind} {name}"), elements);
            }
        }
    }
    Ok(objects)
}

fn forget_what_changes_by_itself(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["handle", "packets", "bytes", "expires"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(forget_what_changes_by_itself);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_what_changes_by_itself),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(handle: u8, elements: &Value, rules: [&str; 2]) -> String {
        let rule = |text: &str| json!({"rule": {"family": "ip", "table": "t", "chain": "c", "handle": handle, "expr": [text]}});
        json!({"nftables": [
            {"metainfo": {"version": "1"}},
            {"table": {"family": "ip", "name": "t", "handle": handle}},
            {"map": {"family": "ip", "table": "t", "name": "m", "handle": handle, "elem": elements}},
            {"chain": {"family": "ip", "table": "t", "name": "c", "handle": handle}},
            rule(rules[0]), rule(rules[1]),
        ]})
        .to_string()
    }

    #[test]
    fn servers_read_as_people_write_them() {
        let listing = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr persistent 10800 FFFFFFFF
  -> C0000201:192B      Masq    1      3          0
UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 rr
  -> [2001:0db8:0000:0000:0000:0000:0000:0002]:0035      Masq    0      0          1
";
        let expected = "TCP 10.96.0.1:443 rr persistent 10800 FFFFFFFF
TCP 10.96.0.1:443 rr persistent 10800 FFFFFFFF -> 192.0.2.1:6443 Masq 1
UDP [2001:db8::1]:53 rr
UDP [2001:db8::1]:53 rr -> [2001:db8::2]:53 Masq 0 draining
";
        assert_eq!(readable(listing).unwrap(), expected);
    }

    #[test]
    fn handles_and_the_order_of_elements_do_not_count_and_the_order_of_rules_does() {
        let one = normalise(&listing(1, &json!([["a", 1], ["b", 2]]), ["x", "y"])).unwrap();
        let two = normalise(&listing(9, &json!([["b", 2], ["a", 1]]), ["x", "y"])).unwrap();
        assert_eq!(one, two);
        let other_rules = normalise(&listing(1, &json!([["a", 1], ["b", 2]]), ["y", "x"])).unwrap();
        assert_ne!(one, other_rules);
        let other_elements =
            normalise(&listing(1, &json!([["a", 1], ["b", 3]]), ["x", "y"])).unwrap();
        assert_ne!(one, other_elements);
    }
}
