//! What our programs count, as their `/metrics` say it on a node's loopback.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http::{Request, ask};
use crate::namespace::Namespace;
use crate::wait;

/// Where speakers serve their metrics.
pub const SPEAKER: u16 = 7474;

/// What a program said of itself at one moment.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Asks the program with this port in `namespace`.
    pub fn read(namespace: &Namespace, port: u16) -> Result<Self> {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let patience = wait::patience(PATIENCE);
        let response = namespace.run(|| ask(server, &Request::get("/metrics"), patience))??;
        ensure!(response.status == 200, "metrics at {port}: {response:?}");
        Ok(Self(String::from_utf8(response.body)?))
    }

    /// The sum over everything that a metric counts with these labels; 0 if there is nothing yet.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let mut sum = 0.0;
        for line in self.0.lines() {
            let Some((labelled, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (found, found_labels) = labelled.split_once('{').unwrap_or((labelled, ""));
            let has = |&(label, value): &(&str, &str)| {
                found_labels.contains(&format!("{label}=\"{value}\""))
            };
            if found == name && labels.iter().all(has) {
                sum += value.parse::<f64>().with_context(|| line.to_owned())?;
            }
        }
        Ok(format!("{sum:.0}").parse()?)
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_has_the_labels() {
        let metrics = Metrics(
            "# TYPE refused counter\nrefused{kind=\"frame\",reason=\"a\"} 2\n\
             refused{kind=\"heartbeat\",reason=\"a\"} 3\nrefused{kind=\"heartbeat\",reason=\"b\"} 4\n\
             refused_more 50\nplain 6\n"
                .to_owned(),
        );
        for (name, labels, expected) in [
            ("refused", &[][..], 9),
            ("refused", &[("kind", "heartbeat")], 7),
            ("refused", &[("kind", "heartbeat"), ("reason", "a")], 3),
            ("refused", &[("reason", "c")], 0),
            ("plain", &[], 6),
        ] {
            assert_eq!(metrics.sum(name, labels).unwrap(), expected, "{labels:?}");
        }
    }
}
