//! Claims: what a Service may ask for, and what it gets.

use anyhow::{Result, ensure};

use crate::words::{Chapter, Words, only};

pub(crate) const CHAPTERS: &[Chapter] = &[
    ("addresses that a Service asks for", requested),
    ("the annotations of MetalLB", metallb_annotations),
    ("load balancer classes", classes),
    (
        "other classes by flag, with and without class-less Services",
        classes_by_flag,
    ),
    ("one family, two families, and back", families),
    ("sharing", sharing),
    ("equal input gives equal output", deterministic),
    ("Events say what is new, once", events),
];

const LAN: &str = "{addresses: [192.168.1.130-192.168.1.139, 'fd12:3456:789a:1::f:0/124']}";

fn requested(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", LAN)?;
    words.service(
        "one",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.137}",
        "",
    )?;
    words.has("one", &["192.168.1.137"])?;
    words.service("field", "", "loadBalancerIP: 192.168.1.136")?;
    words.has("field", &["192.168.1.136"])?;
    words.service(
        "both",
        "annotations: {foghorn.dev/loadBalancerIPs: '192.168.1.135,fd12:3456:789a:1::f:5'}",
        "ipFamilyPolicy: PreferDualStack",
    )?;
    words.has("both", &["192.168.1.135", "fd12:3456:789a:1::f:5"])?;
    words.service(
        "three",
        "annotations: {foghorn.dev/loadBalancerIPs: '192.168.1.132,192.168.1.133,192.168.1.134'}",
        "",
    )?;
    words.has(
        "three",
        &["192.168.1.132", "192.168.1.133", "192.168.1.134"],
    )?;
    words.service(
        "taken",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.137}",
        "",
    )?;
    words.is_refused("taken", &["192.168.1.137 is in use by default/one"])?;
    words.service(
        "outside",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.99}",
        "",
    )?;
    words.is_refused("outside", &["192.168.1.99 is in no pool"])?;
    words.service(
        "typo",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.1337}",
        "",
    )?;
    words.is_refused("typo", &["192.168.1.1337"])?;
    words.service(
        "nowhere",
        "annotations: {foghorn.dev/address-pool: wan}",
        "",
    )?;
    words.is_refused("nowhere", &["there is no pool wan"])?;
    // A wish that cannot be fulfilled costs nothing, and one that can is fulfilled in one step.
    words.kubectl("annotate service one --overwrite foghorn.dev/loadBalancerIPs=192.168.1.99")?;
    words.says(
        "one",
        "True",
        &["192.168.1.137 from pool lan", "192.168.1.99 is in no pool"],
    )?;
    words.has("one", &["192.168.1.137"])?;
    words.kubectl("annotate service one --overwrite foghorn.dev/loadBalancerIPs=192.168.1.138")?;
    words.has("one", &["192.168.1.138"])?;
    words.has("taken", &["192.168.1.137"])?;
    // Two that ask for each other's address keep what they have, and each is told who stands in the way.
    words.kubectl("annotate service one --overwrite foghorn.dev/loadBalancerIPs=192.168.1.137")?;
    words
        .kubectl("annotate service taken --overwrite foghorn.dev/loadBalancerIPs=192.168.1.138")?;
    words.says("one", "True", &["192.168.1.137 is in use by default/taken"])?;
    words.says("taken", "True", &["192.168.1.138 is in use by default/one"])?;
    words.has("one", &["192.168.1.138"])?;
    words.has("taken", &["192.168.1.137"])
}

fn metallb_annotations(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.139]}")?;
    words.pool(
        "dmz",
        "{addresses: [192.168.1.150-192.168.1.151], autoAssign: false}",
    )?;
    for (name, annotation, address) in [
        (
            "a",
            "metallb.io/loadBalancerIPs: 192.168.1.133",
            "192.168.1.133",
        ),
        (
            "b",
            "metallb.universe.tf/loadBalancerIPs: 192.168.1.134",
            "192.168.1.134",
        ),
        ("c", "metallb.io/address-pool: dmz", "192.168.1.150"),
        (
            "d",
            "metallb.universe.tf/address-pool: dmz",
            "192.168.1.151",
        ),
    ] {
        words.service(name, &format!("annotations: {{{annotation}}}"), "")?;
        words.has(name, &[address])?;
    }
    Ok(())
}

fn classes(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", LAN)?;
    words.service("ours", "", "loadBalancerClass: foghorn.dev/foghorn")?;
    words.has("ours", &["192.168.1.130"])?;
    words.service("theirs", "", "loadBalancerClass: example.com/other")?;
    words.controller_has_seen_everything()?;
    let theirs = words.object("theirs")?;
    ensure!(
        theirs["status"]["loadBalancer"].get("ingress").is_none(),
        "another class was served: {}",
        theirs["status"]
    );
    ensure!(
        words.events("theirs")?.is_empty(),
        "another class is talked about"
    );
    Ok(())
}

fn classes_by_flag(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", LAN)?;
    let (named, classless) = (
        ["--lb-class=example.com/a", "--lb-class=example.com/b"],
        "--serve-classless",
    );
    let before = words.lab.controller_mut()?.recipe().arguments.clone();
    words.restart_controller_with(&before, &named)?;
    words.service("a", "", "loadBalancerClass: example.com/a")?;
    words.has("a", &["192.168.1.130"])?;
    words.service("b", "", "loadBalancerClass: example.com/b")?;
    words.has("b", &["192.168.1.131"])?;
    words.service("ours", "", "loadBalancerClass: foghorn.dev/foghorn")?;
    words.service("none", "", "")?;
    // A Service of a class that is served shows that the two before it were looked at.
    words.service("c", "", "loadBalancerClass: example.com/a")?;
    words.has("c", &["192.168.1.132"])?;
    words.has("ours", &[])?;
    words.has("none", &[])?;
    words.restart_controller_with(&before, &[named[0], named[1], classless])?;
    words.has("none", &["192.168.1.133"])?;
    words.has("ours", &[])?;
    // Whoever has an address keeps it when its class is not served any more, and nobody else gets it.
    words.restart_controller_with(&before, &[])?;
    words.has("ours", &["192.168.1.134"])?;
    words.has("a", &["192.168.1.130"])?;
    words.kubectl("annotate service ours --overwrite foghorn.dev/loadBalancerIPs=192.168.1.130")?;
    words.says(
        "ours",
        "True",
        &["192.168.1.130 is in use by default/a, whose spec.loadBalancerClass is another"],
    )?;
    words.kubectl("delete service a")?;
    words.has("ours", &["192.168.1.130"])
}

fn families(words: &mut Words<'_>) -> Result<()> {
    words.pool("four", "{addresses: [192.168.1.130-192.168.1.139]}")?;
    words.service("six", "", "ipFamilies: [IPv6]")?;
    words.is_refused("six", &["pool four has no IPv6 addresses"])?;
    words.service(
        "prefer",
        "",
        "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv4, IPv6]",
    )?;
    words.has("prefer", &["192.168.1.130"])?;
    words.service(
        "require",
        "",
        "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]",
    )?;
    words.is_refused("require", &["pool four has no IPv6 addresses"])?;
    // The second family becomes possible: the first stays.
    words.pool("six", "{addresses: ['fd12:3456:789a:1::f:0/124']}")?;
    words.says("prefer", "True", &["192.168.1.130"])?;
    for name in ["prefer", "require", "six"] {
        let count = if name == "six" { 1 } else { 2 };
        words
            .lab
            .wait_for_external_addresses("default", name, count, crate::words::PATIENCE)?;
    }
    let prefer = e2e::questions::external_addresses(&words.object("prefer")?);
    ensure!(
        prefer
            .first()
            .is_some_and(|first| first.to_string() == "192.168.1.130"),
        "the first family moved: {prefer:?}"
    );
    // One family only: the other goes, this one stays.
    words.kubectl(r#"patch service prefer --type=merge -p {"spec":{"ipFamilyPolicy":"SingleStack","ipFamilies":["IPv4"]}}"#)?;
    words.has("prefer", &["192.168.1.130"])?;
    // And back.
    words.kubectl(r#"patch service prefer --type=merge -p {"spec":{"ipFamilyPolicy":"PreferDualStack","ipFamilies":["IPv4","IPv6"]}}"#)?;
    let both =
        words
            .lab
            .wait_for_external_addresses("default", "prefer", 2, crate::words::PATIENCE)?;
    ensure!(
        both.first()
            .is_some_and(|first| first.to_string() == "192.168.1.130"),
        "{both:?}"
    );
    Ok(())
}

fn sharing(words: &mut Words<'_>) -> Result<()> {
    words.kubectl("create namespace shop-2")?;
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.131]}")?;
    let key = |key: &str| {
        format!(
            "annotations: {{metallb.io/allow-shared-ip: {key}, metallb.io/loadBalancerIPs: 192.168.1.130}}"
        )
    };
    for (name, metadata, spec) in [
        ("tcp", key("dns"), "ports: [{port: 53, protocol: TCP}]"),
        ("udp", key("dns"), "ports: [{port: 53, protocol: UDP}]"),
        ("shop-2/web", key("dns"), "ports: [{port: 80}]"),
    ] {
        words.service(name, &metadata, spec)?;
        words.has(name, &["192.168.1.130"])?;
    }
    for (name, metadata, spec, parts) in [
        (
            "port",
            key("dns"),
            "ports: [{port: 80}]",
            &["192.168.1.130 is in use by", "both listen on TCP port 80"][..],
        ),
        (
            "other",
            key("web"),
            "ports: [{port: 81}]",
            &["their annotations allow-shared-ip differ"],
        ),
        (
            "none",
            "annotations: {metallb.io/loadBalancerIPs: 192.168.1.130}".to_owned(),
            "ports: [{port: 82}]",
            &["only one of the two has the annotation allow-shared-ip"],
        ),
        (
            "local",
            key("dns"),
            "externalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 83}]",
            &["their externalTrafficPolicy differs"],
        ),
    ] {
        words.service(name, &metadata, spec)?;
        words.is_refused(name, parts)?;
    }
    words.kubectl("delete service web -n shop-2")?;
    words.has("port", &["192.168.1.130"])
}

fn deterministic(words: &mut Words<'_>) -> Result<()> {
    words.pool("b", "{addresses: [192.168.1.140-192.168.1.149]}")?;
    words.pool("a", "{addresses: [192.168.1.130-192.168.1.132]}")?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        for number in 0..5 {
            words.service(&format!("s-{number}"), "", "")?;
            words.lab.wait_for_external_addresses(
                "default",
                &format!("s-{number}"),
                1,
                crate::words::PATIENCE,
            )?;
        }
        seen.push(words.everybody()?);
        words.kubectl("delete services s-0 s-1 s-2 s-3 s-4")?;
        words.controller_has_seen_everything()?;
    }
    ensure!(seen[0] == seen[1], "{:?} and then {:?}", seen[0], seen[1]);
    println!("   {:?}", seen[0]);
    Ok(())
}

fn events(words: &mut Words<'_>) -> Result<()> {
    words.service("herald", "", "")?;
    words.is_refused("herald", &["there is no pool"])?;
    // The same again is no news.
    for turn in 0..5 {
        words.kubectl(&format!("label service herald --overwrite turn={turn}"))?;
    }
    words.controller_has_seen_everything()?;
    let (_, refusal) = only(words.events("herald")?)?;
    words.pool("lan", "{addresses: [192.168.1.130]}")?;
    words.has("herald", &["192.168.1.130"])?;
    let events = e2e::wait::until(
        "the Event of the assignment",
        crate::words::PATIENCE,
        || {
            let events = words.events("herald")?;
            Ok((events.len() > 1).then_some(events))
        },
    )?;
    println!("   {refusal}; {events:?}");
    ensure!(
        events.len() == 2
            && events
                .iter()
                .any(|(kind, note)| kind == "Normal" && note.contains("192.168.1.130")),
        "{events:?}"
    );
    Ok(())
}
