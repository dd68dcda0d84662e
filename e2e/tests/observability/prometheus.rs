//! A real Prometheus in the lab.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::http::{self, Request};
use e2e::installation::NAMESPACE;
use e2e::lab::Lab;
use e2e::program::{Program, Recipe};
use e2e::questions::items;
use e2e::wait;
use serde_json::{Value, json};

/// Prometheus, as a program of the lab; ends when dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    _program: Program,
}

impl Prometheus {
    /// Starts one with the alerts of the chart and what the handbook says to scrape, each second.
    pub(crate) fn start(lab: &Lab, scrape_config: &str) -> Result<Self> {
        let targets = lab.folder.path().join("targets.json");
        fs::write(&targets, targets_of(lab)?.to_string())?;
        let (before, after) = scrape_config
            .split_once(DISCOVERY)
            .context("the handbook's scrape_configs discover Pods in another way")?;
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}/../charts/foghorn/files/alerts.yaml]\n\
             {before}    file_sd_configs: [{{files: [{}]}}]\n{after}",
            env!("CARGO_MANIFEST_DIR"),
            targets.display()
        );
        let file = lab.folder.path().join("prometheus.yml");
        fs::write(&file, configuration)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let recipe = Recipe::new("prometheus", "prometheus", &lab.outer)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lab.folder.path().join("prometheus").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let program = Program::start(recipe, &lab.folder.logs())
            .context("the Debian package prometheus is needed")?;
        let prometheus = Self {
            address,
            _program: program,
        };
        wait::until_ok("Prometheus", PATIENCE, || {
            let ready = http::ask(address, &Request::get("/-/ready"), PATIENCE)?;
            ensure!(ready.status == 200, "it says {}", ready.status);
            Ok(())
        })?;
        Ok(prometheus)
    }

    /// The values of the series that answer a query, in the order of its labels.
    pub(crate) fn values(&self, query: &str) -> Result<Vec<f64>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query)))?;
        // A scalar comes alone.
        if let Some(value) = answer.pointer("/result/1").and_then(Value::as_str) {
            return Ok(vec![value.parse()?]);
        }
        let series = answer.pointer("/result").and_then(Value::as_array);
        let values = series.context("a result")?.iter().map(|series| {
            let value = series.pointer("/value/1").and_then(Value::as_str);
            Ok(value.context("a value")?.parse()?)
        });
        values.collect()
    }

    /// What a query answered each second of the last `seconds`.
    pub(crate) fn history(&self, query: &str, seconds: u32) -> Result<Vec<Series>> {
        let now = self.values("time()")?;
        let now = now.first().context("the time")?;
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={now}&step=1",
            encoded(query),
            now - f64::from(seconds)
        );
        let answer = self.ask(&path)?;
        let series = answer.pointer("/result").and_then(Value::as_array);
        let series = series.context("a result")?.iter();
        series.map(Series::of).collect()
    }

    /// Every rule, with its state.
    pub(crate) fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.ask("/api/v1/rules")?;
        let groups = answer.pointer("/groups").and_then(Value::as_array);
        let rules = groups.context("groups")?.iter();
        let rules = rules.filter_map(|group| group.pointer("/rules")?.as_array());
        Ok(rules.flatten().cloned().collect())
    }

    /// The names of all metrics that Foghorn's programs export; of a histogram the name without what Prometheus appends.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>> {
        let series = encoded("{job=~\"foghorn-.+\"}");
        let answer = self.ask(&format!("/api/v1/label/__name__/values?match[]={series}"))?;
        let names = answer.as_array().context("names")?.iter();
        let names: BTreeSet<String> = names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let own = names.iter().filter(|name| {
            *name != "up" && !name.starts_with("scrape_") && !name.starts_with("ALERTS")
        });
        Ok(own
            .map(|name| {
                let histogram = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end));
                let histogram =
                    histogram.filter(|histogram| names.contains(&format!("{histogram}_bucket")));
                histogram.unwrap_or(name).to_owned()
            })
            .collect())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::ask(self.address, &Request::get(path), PATIENCE)?;
        let body: Value = serde_json::from_slice(&answer.body)
            .with_context(|| String::from_utf8_lossy(&answer.body).into_owned())?;
        ensure!(answer.status == 200, "{path}: {body}");
        Ok(body.pointer("/data").cloned().unwrap_or_default())
    }
}

/// What a query answered over a while.
pub(crate) struct Series {
    /// What tells it from the others.
    pub(crate) labels: serde_json::Map<String, Value>,
    /// Seconds and values, without those that are no numbers.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    fn of(answer: &Value) -> Result<Self> {
        let labels = answer.pointer("/metric").and_then(Value::as_object);
        let points = answer.pointer("/values").and_then(Value::as_array);
        let points = points.context("values")?.iter().map(|point| {
            let time = point.pointer("/0").and_then(Value::as_f64);
            let value = point.pointer("/1").and_then(Value::as_str);
            Ok((time.context("a time")?, value.context("a value")?.parse()?))
        });
        let points: Vec<(f64, f64)> = points.collect::<Result<_>>()?;
        Ok(Self {
            labels: labels.context("labels")?.clone(),
            points: points
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .collect(),
        })
    }
}

/// What the discovery of Pods finds: Debian's Prometheus is built without it.
fn targets_of(lab: &Lab) -> Result<Value> {
    let pods = lab
        .api
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
    let mut targets = Vec::new();
    for pod in items(&pods) {
        let text = |pointer| pod.pointer(pointer).and_then(Value::as_str);
        let address = text("/status/podIP").context("an address of a Pod")?;
        let ports = pod.pointer("/spec/containers/0/ports");
        for port in ports.and_then(Value::as_array).into_iter().flatten() {
            targets.push(json!({
                "targets": [format!("{address}:{}", port["containerPort"])],
                "labels": {
                    "__meta_kubernetes_pod_name": text("/metadata/name"),
                    "__meta_kubernetes_pod_node_name": text("/spec/nodeName"),
                    "__meta_kubernetes_pod_container_port_name": port["name"],
                    "__meta_kubernetes_pod_label_app_kubernetes_io_component":
                        text("/metadata/labels/app.kubernetes.io~1component"),
                },
            }));
        }
    }
    Ok(targets.into())
}

/// A text as part of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(octet).to_string()
            }
            octet => format!("%{octet:02X}"),
        })
        .collect()
}

/// How the handbook says to find the Pods.
const DISCOVERY: &str = "    kubernetes_sd_configs:
      - role: pod
        namespaces: {names: [foghorn-system]}
";
const PORT: u16 = 9090;
const PATIENCE: Duration = Duration::from_secs(20);
