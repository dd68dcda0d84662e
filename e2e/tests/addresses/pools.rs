//! Pools: what they consist of, whom they serve, and what they say of themselves.

use anyhow::{Result, ensure};

use crate::words::{Chapter, Words};

pub(crate) const CHAPTERS: &[Chapter] = &[
    (
        "prefixes, ranges and single addresses of both families",
        kinds_of_addresses,
    ),
    ("a pool that waits to be asked for", not_automatic),
    (
        "addresses that old devices take for broadcasts",
        buggy_addresses,
    ),
    ("priority, namespaces and labels", whom_a_pool_serves),
    ("a reservation for a Service that comes later", reservations),
    ("an edit that strands an address in use", on_in_use),
    ("a pool that serves nobody new", disabled),
    ("no namespace takes more than its part", quota),
    ("an address waits for a Service that was deleted", hold),
    ("columns of kubectl get", columns),
    (
        "overlaps are said by the later object, and nothing else is harmed",
        overlaps,
    ),
];

fn kinds_of_addresses(words: &mut Words<'_>) -> Result<()> {
    words.pool("prefix", "{addresses: [192.168.1.128/31, 'fd12:3456:789a:1::f:0/127'], serviceAllocation: {priority: 1}}")?;
    words.pool("range", "{addresses: [192.168.1.140-192.168.1.141, 'fd12:3456:789a:1::f:10-fd12:3456:789a:1::f:11'], serviceAllocation: {priority: 2}}")?;
    words.pool(
        "single",
        "{addresses: [192.168.1.150, 'fd12:3456:789a:1::f:20'], serviceAllocation: {priority: 3}}",
    )?;
    let both = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]";
    for (name, ipv4, ipv6) in [
        ("a", "192.168.1.128", "fd12:3456:789a:1::f:0"),
        ("b", "192.168.1.129", "fd12:3456:789a:1::f:1"),
        ("c", "192.168.1.140", "fd12:3456:789a:1::f:10"),
        ("d", "192.168.1.141", "fd12:3456:789a:1::f:11"),
        ("e", "192.168.1.150", "fd12:3456:789a:1::f:20"),
    ] {
        words.service(name, "", both)?;
        words.has(name, &[ipv4, ipv6])?;
    }
    words.service("f", "", both)?;
    words.is_refused(
        "f",
        &[
            "pool prefix has no free IPv4 address: 2 of 2 in use",
            "pool range",
            "pool single",
        ],
    )?;
    // As soon as anything that could help changes.
    words.kubectl("delete service c")?;
    words.has("f", &["192.168.1.140", "fd12:3456:789a:1::f:10"])
}

fn not_automatic(words: &mut Words<'_>) -> Result<()> {
    words.pool(
        "special",
        "{addresses: [192.168.1.130-192.168.1.139], autoAssign: false}",
    )?;
    words.service("anybody", "", "")?;
    words.is_refused(
        "anybody",
        &["pool special serves only Services that ask for it (autoAssign: false)"],
    )?;
    words.service(
        "guest",
        "annotations: {foghorn.dev/address-pool: special}",
        "",
    )?;
    words.has("guest", &["192.168.1.130"])
}

fn buggy_addresses(words: &mut Words<'_>) -> Result<()> {
    words.pool(
        "old",
        "{addresses: [192.168.1.254-192.168.2.1], avoidBuggyIPs: true}",
    )?;
    for (name, address) in [("a", "192.168.1.254"), ("b", "192.168.2.1")] {
        words.service(name, "", "")?;
        words.has(name, &[address])?;
    }
    words.service("c", "", "")?;
    words.is_refused("c", &["pool old has no free IPv4 address: 2 of 2 in use"])?;
    Ok(())
}

fn whom_a_pool_serves(words: &mut Words<'_>) -> Result<()> {
    words.kubectl("create namespace shop-1")?;
    words.kubectl("create namespace media-1")?;
    words.kubectl("label namespace media-1 floor=second")?;
    words.pool("first", "{addresses: [192.168.1.130-192.168.1.131], serviceAllocation: {priority: 1, namespaces: [shop-1]}}")?;
    words.pool("second", "{addresses: [192.168.1.132-192.168.1.133], serviceAllocation: {priority: 2, namespaceSelectors: [{matchLabels: {floor: second}}]}}")?;
    words.pool("third", "{addresses: [192.168.1.134-192.168.1.135], serviceAllocation: {priority: 3, serviceSelectors: [{matchExpressions: [{key: tier, operator: In, values: [gold]}]}]}}")?;
    words.pool("last", "{addresses: [192.168.1.136]}")?;
    for (name, metadata, address) in [
        ("shop-1/web", "", "192.168.1.130"),
        ("media-1/jellyfin", "", "192.168.1.132"),
        ("ring", "labels: {tier: gold}", "192.168.1.134"),
        ("plain", "", "192.168.1.136"),
    ] {
        words.service(name, metadata, "")?;
        words.has(name, &[address])?;
    }
    words.service("late", "", "")?;
    words.is_refused(
        "late",
        &[
            "pool first does not serve the namespace default",
            "pool third does not select the labels of the Service",
            "pool last has no free IPv4 address",
        ],
    )?;
    // What helps is taken notice of at once.
    words.kubectl("label service late tier=gold")?;
    words.has("late", &["192.168.1.135"])?;
    words.kubectl("delete service web -n shop-1")?;
    words.kubectl("delete service jellyfin -n media-1")?;
    Ok(())
}

fn reservations(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.132], reservations: [{address: 192.168.1.131, service: default/jellyfin}]}")?;
    for (name, address) in [("a", "192.168.1.130"), ("b", "192.168.1.132")] {
        words.service(name, "", "")?;
        words.has(name, &[address])?;
    }
    words.service("c", "", "")?;
    words.is_refused(
        "c",
        &["pool lan has no free IPv4 address: 2 of 3 in use, 1 reserved or of others"],
    )?;
    words.service(
        "thief",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.131}",
        "",
    )?;
    words.is_refused(
        "thief",
        &["192.168.1.131 is reserved for default/jellyfin in pool lan"],
    )?;
    words.service("jellyfin", "", "")?;
    words.has("jellyfin", &["192.168.1.131"])
}

fn on_in_use(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.131]}")?;
    words.service("web", "", "")?;
    words.has("web", &["192.168.1.130"])?;
    words.pool("lan", "{addresses: [192.168.1.131-192.168.1.132]}")?;
    words.says("web", "True", &["192.168.1.130"])?;
    words.controller_has_seen_everything()?;
    words.has("web", &["192.168.1.130"])?;
    words.pool(
        "lan",
        "{addresses: [192.168.1.131-192.168.1.132], onInUse: Reassign}",
    )?;
    words.controller_has_seen_everything()?;
    // Now the pool may take it away, and gives another one.
    words.has("web", &["192.168.1.131"])
}

fn disabled(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.139]}")?;
    words.service("old", "", "")?;
    words.has("old", &["192.168.1.130"])?;
    words.pool(
        "lan",
        "{addresses: [192.168.1.130-192.168.1.139], disabled: true}",
    )?;
    words.service("new", "", "")?;
    words.is_refused("new", &["pool lan is disabled"])?;
    words.has("old", &["192.168.1.130"])?;
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.139]}")?;
    words.has("new", &["192.168.1.131"])
}

fn quota(words: &mut Words<'_>) -> Result<()> {
    words.kubectl("create namespace shop-3")?;
    words.pool(
        "lan",
        "{addresses: [192.168.1.130-192.168.1.139], quota: {perNamespace: 2}}",
    )?;
    for (name, address) in [("a", "192.168.1.130"), ("b", "192.168.1.131")] {
        words.service(name, "", "")?;
        words.has(name, &[address])?;
    }
    words.service("c", "", "")?;
    words.is_refused(
        "c",
        &["pool lan gives a namespace at most 2 IPv4 addresses (quota), and default has 2"],
    )?;
    words.service("shop-3/web", "", "")?;
    words.has("shop-3/web", &["192.168.1.132"])?;
    words.kubectl("delete service a")?;
    words.has("c", &["192.168.1.130"])?;
    words.kubectl("delete service web -n shop-3")?;
    Ok(())
}

fn hold(words: &mut Words<'_>) -> Result<()> {
    words.pool(
        "lan",
        "{addresses: [192.168.1.130-192.168.1.131], holdAfterDeletion: 1h}",
    )?;
    words.service("jellyfin", "", "")?;
    words.has("jellyfin", &["192.168.1.130"])?;
    words.kubectl("delete service jellyfin")?;
    words.service("new", "", "")?;
    words.has("new", &["192.168.1.131"])?;
    words.service("next", "", "")?;
    words.is_refused(
        "next",
        &["pool lan has no free IPv4 address: 1 of 2 in use, 1 held for deleted Services"],
    )?;
    words.service(
        "thief",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.130}",
        "",
    )?;
    words.is_refused(
        "thief",
        &["192.168.1.130 is held for default/jellyfin, which was deleted, until"],
    )?;
    e2e::wait::until(
        "the hold in the pool's status",
        crate::words::PATIENCE,
        || {
            let pool = words.kubectl("get ipaddresspool lan -o yaml")?;
            Ok(pool.contains("service: default/jellyfin").then_some(()))
        },
    )?;
    let controller = words.lab.controller_mut()?;
    controller.kill()?;
    controller.start_again()?;
    words.controller_acts_again()?;
    words.service("jellyfin", "", "")?;
    words.has("jellyfin", &["192.168.1.130"])?;
    // Whoever waited for the end of the hold is told who has it now.
    words.says(
        "thief",
        "False",
        &["192.168.1.130 is in use by default/jellyfin"],
    )?;
    Ok(())
}

fn columns(words: &mut Words<'_>) -> Result<()> {
    words.pool(
        "lan",
        "{addresses: [192.168.1.130-192.168.1.139, 'fd12:3456:789a:1::f:0/126']}",
    )?;
    for name in ["a", "b", "c"] {
        words.service(name, "", "")?;
    }
    words.has("c", &["192.168.1.132"])?;
    let shown = e2e::wait::until("the numbers of the pool", crate::words::PATIENCE, || {
        let shown = words.kubectl("get ipaddresspools")?;
        let row: Vec<String> = shown
            .lines()
            .nth(1)
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        Ok(row
            .windows(5)
            .any(|some| some == ["true", "3", "7", "0", "True"])
            .then_some(shown))
    })?;
    println!("{shown}");
    ensure!(
        shown.contains("ASSIGNED IPV4") && shown.contains("AVAILABLE IPV4"),
        "{shown}"
    );
    Ok(())
}

fn overlaps(words: &mut Words<'_>) -> Result<()> {
    words.pool("first", "{addresses: [192.168.1.130-192.168.1.139]}")?;
    words.pool_says("first", "Accepted", "True", &[])?;
    for (name, addresses, parts) in [
        (
            "later",
            "192.168.1.135-192.168.1.144",
            &[
                "192.168.1.135-192.168.1.144",
                "192.168.1.130-192.168.1.139 of pool first",
            ][..],
        ),
        (
            "of-a-node",
            "192.168.1.10-192.168.1.13",
            &["contains 192.168.1.11, which is an address of node node-1"],
        ),
        (
            "of-pods",
            "10.244.1.128/25",
            &["overlaps 10.244.1.0/24, from which node node-1 gives addresses to Pods"],
        ),
        (
            "of-services",
            "10.96.200.0/24",
            &["overlaps 10.96.0.0/16, from which ClusterIPs come"],
        ),
    ] {
        words.pool(
            name,
            &format!("{{addresses: [{addresses}], autoAssign: false}}"),
        )?;
        words.pool_says(name, "Conflicting", "True", parts)?;
    }
    words.pool_says_nothing_of("first", "Conflicting")?;
    words.service("web", "", "")?;
    words.has("web", &["192.168.1.130"])?;
    // What does not overlap can be given.
    words.service("guest", "annotations: {foghorn.dev/address-pool: later, foghorn.dev/loadBalancerIPs: 192.168.1.141}", "")?;
    words.has("guest", &["192.168.1.141"])?;
    words.service(
        "node",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.11}",
        "",
    )?;
    words.is_refused("node", &["192.168.1.11 is the address of node node-1"])?;
    Ok(())
}
