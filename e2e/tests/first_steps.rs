//! From MetalLB's documented example to an address that answers: one command with Helm, beside the real kube-proxy.
//!
//! Run by `make test-chart`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::document::{self, Marks};
use e2e::installation::NAMESPACE;
use e2e::lab::{Options, ServiceProxy, with_lab};
use e2e::mode::Mode;
use e2e::topology::{POOL_IPV4, POOL_IPV6};
use handbook::Page;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
#[ignore = "needs the lab: make test-chart"]
fn one_command_leads_from_the_example_of_metallb_to_an_address_that_answers() -> Result<()> {
    let options = Options {
        proxy: ServiceProxy::KubeProxy(Mode::Nftables),
        ..Options::as_pods("first-steps")
    };
    with_lab(&options, |lab| {
        let file = lab.folder.path().join("metallb.yaml");
        fs::write(&file, example()?)?;
        let file = format!("config={}", file.display());
        let begin = Instant::now();
        let install = ["install", "foghorn", "CHART", "--create-namespace"];
        let what = ["--namespace", NAMESPACE, "--set-file", &file];
        lab.helm(&[&install[..], &what].concat())?;
        lab.create_web("web")?;
        let vips = lab.wait_until_web_answers(PATIENCE)?;
        let measured = format!(
            "From MetalLB's example: one command, {:.1} s from its beginning to the first answer from outside, over IPv4 and IPv6.",
            begin.elapsed().as_secs_f64()
        );
        println!("{vips:?} answer. {measured}");
        document::write_if_asked(MARKS, &measured)?;
        lab.wait_for_components(&[("controller", 2), ("speaker", 3)], PATIENCE)?;
        lab.expect_no_restarts()
    })
}

const MARKS: Marks = (
    "<!-- make first-steps, metallb: begin -->",
    "<!-- make first-steps, metallb: end -->",
);

/// MetalLB's example, as the handbook quotes it, with addresses of this LAN.
fn example() -> Result<String> {
    let blocks = handbook::pages()?;
    let blocks = blocks.iter().flat_map(Page::blocks);
    let mut blocks = blocks.filter(|block| block.place.starts_with("docs/migrate-from-metallb.md"));
    let block = blocks.find(|block| block.text.contains("kind: L2Advertisement"));
    let text = block
        .context("docs/migrate-from-metallb.md has no example")?
        .text;
    let ours = format!("  addresses:\n    - {POOL_IPV4}\n    - {POOL_IPV6}\n");
    let (before, rest) = text.split_once("  addresses:\n").context("no addresses")?;
    let after: String = rest
        .lines()
        .skip_while(|line| line.starts_with("    - "))
        .map(|line| format!("{line}\n"))
        .collect();
    Ok(format!("{before}{ours}{after}"))
}
