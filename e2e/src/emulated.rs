//! A lab whose nodes are in an emulated machine, with a kernel that this one is not; the control plane stays here.
//!
//! Emulation is slow, so only what is about the kernel is emulated: the LAN, the nodes and what runs on them. Both machines
//! are connected by one wire. Addresses of nodes, Pods and VIPs lead into the emulated one.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries::Binaries;
use crate::control_plane::{ControlPlane, OUTSIDE, PROXY_PORT};
use crate::folder::RunFolder;
use crate::kubectl::Kubectl;
use crate::namespace::{Namespace, ip};
use crate::options::Options;
use crate::program::{Program, Recipe};
use crate::topology::{LAN_IPV4, LAN_IPV6, POD_NETWORK_IPV4, POD_NETWORK_IPV6};
use crate::wait;

/// A control plane here, and nodes there. Dropping it ends both.
#[derive(Debug)]
pub struct Emulated {
    machine: Program,
    _proxy: Program,
    /// etcd, the API server and what stands beside it.
    pub control_plane: ControlPlane,
    /// The API for people.
    pub kubectl: Kubectl,
    /// Where the programs are.
    pub binaries: Binaries,
    /// The run's folder.
    pub folder: RunFolder,
}

impl Emulated {
    /// Starts the control plane, and a machine with one of Debian's kernels where this program, told `arguments`, starts the
    /// nodes; waits until they are ready.
    pub fn start(options: &Options, kernel: &str, arguments: &[String]) -> Result<Self> {
        let binaries = Binaries::find()?;
        let folder = RunFolder::create(&binaries.runs, &options.name)?;
        Self::start_in(options, kernel, arguments, binaries, &folder)
            .inspect_err(|_| folder.print_tails())
    }

    fn start_in(
        options: &Options,
        kernel: &str,
        arguments: &[String],
        binaries: Binaries,
        folder: &RunFolder,
    ) -> Result<Self> {
        lay_wire()?;
        let kubernetes = binaries.kubernetes()?;
        let control_plane = ControlPlane::start_for_emulated(&kubernetes, folder, options)?;
        let kubeconfig = control_plane.kubeconfig();
        folder.write_scripts(&binaries, &kubeconfig)?;
        // `kubectl proxy` listens on loopback, which the wire does not reach.
        let proxy = Recipe::new("kubectl-proxy-relay", "socat", &Namespace::outer())
            .arg(format!(
                "TCP4-LISTEN:{PROXY_PORT},bind=10.0.2.2,fork,reuseaddr"
            ))
            .arg(format!("TCP4:127.0.0.1:{PROXY_PORT}"));
        let proxy = Program::start(proxy, &folder.logs())?;
        let machine = Program::start(machine(kernel, arguments, folder)?, &folder.logs())?;
        let mut emulated = Self {
            machine,
            _proxy: proxy,
            kubectl: Kubectl::new(&kubernetes, &kubeconfig),
            control_plane,
            binaries,
            folder: folder.clone(),
        };
        let api = emulated.control_plane.api();
        wait::until("ready nodes in the emulated machine", PATIENCE, || {
            emulated.expect_running()?;
            Ok((api.ready_nodes()? == usize::from(options.nodes)).then_some(()))
        })?;
        if options.controller || options.speakers {
            // The machine has the manifests applied, and that may take longer there than nodes do.
            emulated.kubectl.wait_for_custom_resources()?;
        }
        Ok(emulated)
    }

    /// Fails if the emulated machine, or something in it that nobody ended, has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.machine.expect_running()
    }
}

/// Runs `test` in an emulated lab of its own; if it fails, shows the end of every log.
pub fn with_emulated(
    options: &Options,
    kernel: &str,
    arguments: &[String],
    test: impl FnOnce(&mut Emulated) -> Result<()>,
) -> Result<()> {
    let mut emulated = Emulated::start(options, kernel, arguments)?;
    let folder = emulated.folder.clone();
    test(&mut emulated).inspect_err(|_| folder.print_tails())?;
    drop(emulated);
    fs::remove_dir_all(folder.path())?;
    Ok(())
}

fn machine(kernel: &str, arguments: &[String], folder: &RunFolder) -> Result<Recipe> {
    let in_kernel = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/in-kernel"));
    let this = env::current_exe().context("where am I?")?;
    Ok(Recipe::new("machine", in_kernel, &Namespace::outer())
        .arg(kernel)
        .arg(this)
        .args(arguments)
        .env(OUTSIDE, folder.pki())
        .env("IN_KERNEL_UPLINK", WIRE)
        .env("IN_KERNEL_MEMORY", "8G"))
}

/// This end has the addresses that qemu's own network would give it.
fn lay_wire() -> Result<()> {
    ip(&["tuntap", "add", "dev", WIRE, "mode", "tap"])?;
    let routes: String = [LAN_IPV4, POD_NETWORK_IPV4]
        .map(|network| format!("route add {network} via 10.0.2.15\n"))
        .into_iter()
        .chain(
            [LAN_IPV6, POD_NETWORK_IPV6]
                .map(|network| format!("route add {network} via fec0::15\n")),
        )
        .collect();
    Namespace::outer().configure(&format!(
        "link set {WIRE} up
         addr add 10.0.2.2/24 dev {WIRE}
         addr add fec0::2/64 dev {WIRE} nodad
         {routes}"
    ))
}

const WIRE: &str = "wire";
const PATIENCE: Duration = Duration::from_secs(300);
