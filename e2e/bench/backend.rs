//! The endpoints: one network namespace that has every address and listens on one port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Result;
use e2e::namespace::{Namespace, feed};
use e2e::node::Node;
use nix::sys::socket::Backlog;

use crate::objects::{
    ECHO_PORT, ENDPOINT_NETWORK, ENDPOINT_PORT, FRONTENDS, SINK_PORT, UNREAD_PORT,
};

/// What stands behind all Services, connected to a node as a Pod is.
#[derive(Debug)]
pub(crate) struct Backend {
    _namespace: Namespace,
    /// Takes datagrams, so that nobody answers that the port is closed, and drops what does not fit.
    _unread: UdpSocket,
}

impl Backend {
    /// Connects it to the node and lets it answer.
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let namespace = Namespace::create("backend")?;
        node.namespace.configure(&format!(
            "link add pod type veth peer name eth0 netns backend
             addr add 169.254.1.1/30 dev pod
             link set pod up
             route add {ENDPOINT_NETWORK} via 169.254.1.2"
        ))?;
        namespace.configure(&format!(
            "link set lo up
             addr add 169.254.1.2/30 dev eth0
             link set eth0 up
             route add default via 169.254.1.1
             route add local {ENDPOINT_NETWORK} dev lo"
        ))?;
        namespace.set_parameters("net.core.somaxconn=65535")?;
        node.namespace.set_parameters(SHORT_MEMORY)?;
        feed(
            node.namespace.command("nft").args(["-f", "-"]),
            &drop_what_nobody_translated(),
        )?;
        let (connects, echo, sink, unread) = namespace.run(|| -> Result<_> {
            let unread = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UNREAD_PORT))?;
            Ok((
                listen(ENDPOINT_PORT)?,
                listen(ECHO_PORT)?,
                listen(SINK_PORT)?,
                unread,
            ))
        })??;
        thread::spawn(move || {
            // The client closes with a reset: there is nothing else to do.
            while connects.accept().is_ok() {}
        });
        serve(echo, |mut stream| {
            let mut octets = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut octets) {
                if stream
                    .write_all(octets.get(..count).unwrap_or_default())
                    .is_err()
                {
                    return;
                }
            }
        });
        serve(sink, |mut stream| {
            let mut octets = vec![0; 1 << 17];
            while let Ok(1..) = stream.read(&mut octets) {}
        });
        Ok(Self {
            _namespace: namespace,
            _unread: unread,
        })
    }
}

/// Answers each connection on a thread of its own.
fn serve(listener: TcpListener, answer: fn(TcpStream)) {
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || {
                // Without it an answer waits for the acknowledgement of the one before.
                if stream.set_nodelay(true).is_ok() {
                    answer(stream);
                }
            });
        }
    });
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    // Also when the thread below has no processor for a while, no connect may be lost here.
    nix::sys::socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// A connect to a frontend without rules ends here and leaves no trace in the connection tracking.
fn drop_what_nobody_translated() -> String {
    format!(
        "table ip bench {{
             chain last {{
                 type filter hook postrouting priority 1000; policy accept;
                 ip daddr {FRONTENDS} drop
             }}
         }}\n"
    )
}

/// A connection that was reset is forgotten after a second.
const SHORT_MEMORY: &str = "
net.netfilter.nf_conntrack_tcp_timeout_close=1
net.netfilter.nf_conntrack_tcp_timeout_syn_sent=1
";
