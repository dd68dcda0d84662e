//! The section "Install" of the README, typed as it stands, to an address that answers, beside the real kube-proxy.
//!
//! Run by `make test-chart`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::binaries::Binaries;
use e2e::document::{self, Marks};
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::mode::Mode;
use e2e::wait;
use handbook::{Command, Page, Snippet};

const PATIENCE: Duration = Duration::from_secs(90);
const MARKS: Marks = (
    "<!-- make first-steps, readme: begin -->",
    "<!-- make first-steps, readme: end -->",
);

#[test]
#[ignore = "needs the lab: make test-chart"]
fn the_commands_of_the_readme_lead_to_an_address_that_answers() -> Result<()> {
    let commands = Command::of_block(&install()?).map_err(anyhow::Error::msg)?;
    let agnhost = Binaries::find()?.agnhost()?;
    let options = Options {
        proxy: ServiceProxy::KubeProxy(Mode::Nftables),
        // The README's image is a web server on port 80.
        images: vec![format!(
            "{WEB_SERVER}={} netexec --http-port=80",
            agnhost.display()
        )],
        ..Options::as_pods("readme")
    };
    with_lab(&options, |lab| {
        let begin = Instant::now();
        let last = commands.last().context("the block has no commands")?;
        ensure!(last.words.first().is_some_and(|program| program == "curl"));
        for command in &commands {
            let said = type_in(lab, command)?;
            println!("$ {}\n{said}", command.words.join(" "));
        }
        let measured = format!(
            "These {} commands take {:.1} s in the lab, to the first answer from outside, with the image on the nodes already.",
            in_words(commands.len()),
            begin.elapsed().as_secs_f64()
        );
        println!("{measured}");
        document::write_if_asked(MARKS, &measured)?;
        lab.wait_for_components(&[("controller", 2), ("speaker", 3)], PATIENCE)?;
        lab.expect_no_restarts()
    })
}

/// The block of the README that installs what is in a registry already.
fn install() -> Result<Snippet> {
    let pages = handbook::pages()?;
    let blocks = pages
        .iter()
        .filter(|page| page.path == "README.md")
        .flat_map(Page::blocks);
    let mut blocks = blocks.filter(|block| block.text.contains("helm install"));
    match (blocks.next(), blocks.next()) {
        (Some(block), None) => Ok(block),
        (None, _) => bail!("README.md has no block with `helm install`"),
        (Some(_), Some(other)) => bail!("{} installs a second time", other.place),
    }
}

/// Runs a command where its reader would; what it says.
fn type_in(lab: &Lab, command: &Command) -> Result<String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["helm", rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|word| filled_in(word)).collect();
            lab.helm(&rest.iter().map(String::as_str).collect::<Vec<_>>())
        }
        ["kubectl", rest @ ..] => lab.kubectl.run(rest),
        // Whoever types it looks whether it answers, and types it again.
        ["curl", url] => {
            let arguments = ["--silent", "--fail", "--max-time", "1", url];
            wait::until_ok(&format!("an answer from {url}"), PATIENCE, || {
                lab.client.output("curl", &arguments)
            })
        }
        _ => bail!(
            "{}: this test cannot type {}: tell it who that is",
            command.place,
            words.join(" ")
        ),
    }
}

/// What the reader has to fill in, and where the chart is.
fn filled_in(word: &str) -> String {
    match word {
        "charts/foghorn" => "CHART".to_owned(),
        _ => word.replace("IMAGE", IMAGE_OF_FOGHORN),
    }
}

fn in_words(number: usize) -> String {
    let words = ["no", "one", "two", "three", "four", "five", "six", "seven"];
    words
        .get(number)
        .map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

/// The image that the README's Deployment has.
const WEB_SERVER: &str = "nginx";
/// The name of the image that the lab's nodes know.
const IMAGE_OF_FOGHORN: &str = "foghorn";
