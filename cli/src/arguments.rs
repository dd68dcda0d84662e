//! Command-line arguments of `kubectl-foghorn`.

use std::path::PathBuf;

use controller_allocator::Classes;

use crate::output::Format;

/// Asks Foghorn what it does and why.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kubectl-foghorn", bin_name = "kubectl foghorn", version)]
pub struct Arguments {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "documented there")]
    pub command: Command,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub common: Common,
}

/// Arguments of every command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Common {
    /// The kubeconfig file [default: `$KUBECONFIG`, then `~/.kube/config`]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig file
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Only Services of this namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// How to print the answer
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// What to ask.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Checks files of pools and advertisements without a cluster; ends with 1 if something in them is refused
    Check(Check),
    /// Says which Services would get, keep, lose or change addresses if files were applied; ends with 2 if one would
    /// lose any
    Plan(Plan),
    /// Explains one Service: what it asks for, what each pool says, what it has, who announces it
    Why(Why),
    /// Shows how full the pools are and who has which address
    Pools(Cluster),
    /// Shows everything on one screen: what is wrong and what to do, then controller, pools and Services
    Status(Status),
    /// Writes one file for whoever helps: objects, logs, metrics and what speakers say, without secrets
    Support(Support),
    /// Asks every speaker what stops layer 2 on its node, and the wire who answers for each address, as seen from each node;
    /// ends with 1 if something must be mended
    Doctor(Doctor),
    /// Moves the addresses of a Service to a node, without a gap; says when they are there
    Move(Move),
    /// Makes a node hand over all addresses that it announces, without a gap; it gets none until `undrain`
    Drain(Drain),
    /// Lets a node announce addresses again; nothing moves back by itself
    Undrain {
        /// The node
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Translates pools of MetalLB, kube-vip, Cilium and OpenELB to Foghorn's, from files or from the cluster
    Import(Import),
    /// Prints the completion for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages, kubectl-foghorn.1 and one for each command
    Man {
        /// The directory to write them into
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
}

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// Files, directories of `*.yaml`, `*.yml` and `*.json`, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Whether warnings count as refusals
    #[arg(long)]
    pub deny_warnings: bool,
}

/// Arguments of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Files and directories to apply, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Whether the pools that the files do not have are deleted
    #[arg(long)]
    pub prune: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub cluster: Cluster,
}

/// Arguments of `why`.
#[derive(Clone, Debug, clap::Args)]
pub struct Why {
    /// The Service: `NAMESPACE/NAME`, or `NAME` in the current namespace
    #[arg(value_name = "SERVICE")]
    pub service: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub cluster: Cluster,
}

/// Arguments of `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Only these addresses [default: all that speakers announce]
    #[arg(value_name = "ADDRESS")]
    pub addresses: Vec<std::net::IpAddr>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub cluster: Cluster,
}

/// Arguments of `move`.
#[derive(Clone, Debug, clap::Args)]
pub struct Move {
    /// The Service: `NAMESPACE/NAME`, or `NAME` in the current namespace
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// The node that is to announce its addresses
    #[arg(value_name = "NODE")]
    pub node: String,

    /// Leaves the wish in force (annotation `foghorn.dev/preferred-node`): after an outage the addresses go back to the node
    #[arg(long)]
    pub keep: bool,

    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout_seconds: u16,
}

/// Arguments of `drain`.
#[derive(Clone, Debug, clap::Args)]
pub struct Drain {
    /// The node
    #[arg(value_name = "NODE")]
    pub node: String,

    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout_seconds: u16,
}

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Status {
    /// Shows it again and again
    #[arg(short, long)]
    pub watch: bool,

    /// How long to wait before it is shown again
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub interval_seconds: u16,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub cluster: Cluster,
}

/// Arguments of `support`.
#[derive(Clone, Debug, clap::Args)]
pub struct Support {
    /// The file to write, or `-` for standard output [default: `foghorn-support-TIME.json`]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented there")]
    pub cluster: Cluster,
}

/// Arguments of `import`.
#[derive(Clone, Debug, clap::Args)]
pub struct Import {
    /// Files and directories, or `-` for standard input [default: what is in the cluster]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Where to learn what the cluster says, and what the controller was started with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Cluster {
    /// Reads what `kubectl get services,nodes,namespaces,.. -A -o json` printed instead of asking the cluster
    #[arg(long, value_name = "FILE")]
    pub dump: Vec<PathBuf>,

    /// The controller's `--load-balancer-class`, if it has any; may be given several times
    #[arg(
        long = "load-balancer-class",
        visible_alias = "lb-class",
        value_name = "CLASS"
    )]
    pub load_balancer_class: Vec<String>,

    /// The controller's `--serve-classless`, if it has it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub serve_classless: Option<bool>,

    /// Name of the controller's Lease
    #[arg(long, value_name = "NAME", default_value = "foghorn-controller")]
    pub lease_name: String,

    /// Labels of the speakers' Pods
    #[arg(
        long,
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=foghorn,app.kubernetes.io/component=speaker"
    )]
    pub speaker_selector: String,

    /// Labels of the Pods of all programs
    #[arg(
        long,
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/part-of=foghorn"
    )]
    pub program_selector: String,

    /// Port on which speakers serve their status
    #[arg(long, value_name = "PORT", default_value_t = 7474)]
    pub speaker_port: u16,
}

impl Cluster {
    /// The classes that the controller serves.
    pub fn classes(&self) -> Classes {
        let default = Classes::default();
        let is_default = self.load_balancer_class.is_empty();
        Classes {
            names: if is_default {
                default.names
            } else {
                self.load_balancer_class.iter().cloned().collect()
            },
            unnamed: self.serve_classless.unwrap_or(is_default),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
