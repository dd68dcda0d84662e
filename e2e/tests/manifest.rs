//! Foghorn installed by its manifest, as the page "Install" of the handbook says, beside the real kube-proxy.
//!
//! Run by `make test-chart`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::document::{self, Marks};
use e2e::installation::NAMESPACE;
use e2e::lab::{Options, ServiceProxy, with_lab};
use e2e::manifest;
use e2e::mode::Mode;
use e2e::topology::{POOL_IPV4, POOL_IPV6};

const MARKS: Marks = (
    "<!-- make first-steps, manifest: begin -->",
    "<!-- make first-steps, manifest: end -->",
);
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
#[ignore = "needs the lab: make test-chart"]
fn three_commands_lead_to_an_address_that_answers() -> Result<()> {
    let options = Options {
        proxy: ServiceProxy::KubeProxy(Mode::Nftables),
        ..Options::as_pods("manifest")
    };
    with_lab(&options, |lab| {
        let begin = Instant::now();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/foghorn.yaml");
        lab.kubectl.run(&["apply", "-f", file])?;
        let secret = ["create", "secret", "generic", "foghorn-heartbeat", "-n"];
        let key = "--from-literal=key=0123456789abcdef0123456789abcdef";
        lab.kubectl
            .run(&[&secret[..], &[NAMESPACE, key]].concat())?;
        lab.kubectl
            .apply(&manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
        lab.create_web("web")?;
        let vips = lab.wait_until_web_answers(PATIENCE)?;
        let measured = format!(
            "With one manifest: three commands, {:.1} s from the beginning of the first to the first answer from outside, over IPv4 and IPv6.",
            begin.elapsed().as_secs_f64()
        );
        println!("{vips:?} answer. {measured}");
        document::write_if_asked(MARKS, &measured)?;
        lab.wait_for_components(&[("controller", 2), ("speaker", 3)], PATIENCE)?;
        lab.expect_no_restarts()?;
        lab.expect_no_drift(&fs::read_to_string(file)?)
    })
}
