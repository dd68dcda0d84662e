//! Everything between a pool and an EXTERNAL-IP, through the real API server with `kubectl`.
//!
//! Run by `make test-addresses`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod claims;
mod command_line;
mod pools;
mod stability;
mod words;

use anyhow::{Context, Result};
use e2e::lab::{Options, ServiceProxy, with_lab};

use words::Words;

#[test]
#[ignore = "needs the lab: make test-addresses"]
fn addresses_are_what_the_handbook_says() -> Result<()> {
    let options = Options {
        agents: false,
        speakers: false,
        proxy: ServiceProxy::None,
        ..Options::foghorn("addresses")
    };
    with_lab(&options, |lab| {
        for (name, chapter) in pools::CHAPTERS
            .iter()
            .chain(claims::CHAPTERS)
            .chain(command_line::CHAPTERS)
            .chain(stability::CHAPTERS)
        {
            println!("-- {name}");
            let mut words = Words::new(lab);
            chapter(&mut words).with_context(|| format!("chapter: {name}"))?;
            words.forget_everything()?;
        }
        Ok(())
    })
}
