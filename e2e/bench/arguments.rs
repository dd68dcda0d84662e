//! What the bench is told.

use std::path::PathBuf;

use clap::{Parser, ValueEnum as _};

use e2e::mode::Mode;

use crate::contender::Contender;
use crate::giver::Giver;

/// Measures service proxies beside each other, and writes the tables.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Arguments {
    /// How many Services, with three endpoints each: in rising order.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100,1000,10000,30000,100000"
    )]
    pub(crate) sizes: Vec<u32>,
    /// How often each has its turn.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: u32,
    /// Whose part of the document the tables are.
    #[arg(long, value_enum, default_value = "nftables")]
    pub(crate) mode: Mode,
    /// Who takes part; without it, all of the mode.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) contenders: Vec<Contender>,
    /// Above this many Services only ours takes part: kube-proxy needs minutes for what takes ours seconds.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) others_up_to: u32,
    /// Measures controllers instead: those that give addresses.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) givers: Vec<Giver>,
    /// How many Services of type LoadBalancer.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) services: u32,
    /// The folder for what was measured.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    pub(crate) results: PathBuf,
    /// A document that has the marks between which the tables go.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// Measures nothing: shows the tables of an earlier run, from its file of values.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// The command that the document names.
    #[arg(long, default_value = "bench")]
    pub(crate) command: String,
    /// Plays the sitting of the one contender at the one size, in the namespaces where this runs, and writes the outcome into this file.
    #[arg(long, hide = true)]
    pub(crate) part_file: Option<PathBuf>,
}

impl Arguments {
    /// Who takes part.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        if !self.contenders.is_empty() {
            return self.contenders.clone();
        }
        let all = Contender::value_variants().iter().copied();
        all.filter(|contender| contender.mode() == self.mode)
            .collect()
    }
}
