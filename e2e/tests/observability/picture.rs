//! What the panels of the dashboard show, for a picture of it: `make dashboard-picture`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::wait;
use serde_json::{Value, json};

use crate::prometheus::{Prometheus, Series};

/// Writes all panels with their data to the file that `FOGHORN_DASHBOARD_DATA` names, if it names one.
pub(crate) fn write(prometheus: &Prometheus, dashboard: &Value) -> Result<()> {
    let Some(file) = env::var_os("FOGHORN_DASHBOARD_DATA").map(PathBuf::from) else {
        return Ok(());
    };
    let enough = format!("min(count_over_time(up[5m])) >= {SECONDS}");
    wait::until("enough to draw", PATIENCE, || {
        Ok((!prometheus.values(&enough)?.is_empty()).then_some(()))
    })?;
    let panels = dashboard.pointer("/panels").and_then(Value::as_array);
    let panels = panels.context("panels")?.iter();
    let panels: Vec<Value> = panels
        .map(|panel| drawn(prometheus, panel))
        .collect::<Result<_>>()?;
    fs::write(&file, Value::from(panels).to_string()).with_context(|| file.display().to_string())
}

fn drawn(prometheus: &Prometheus, panel: &Value) -> Result<Value> {
    let mut series = Vec::new();
    let targets = panel.pointer("/targets").and_then(Value::as_array);
    for target in targets.into_iter().flatten() {
        let query = target.pointer("/expr").and_then(Value::as_str);
        let query = query.context("an expression")?;
        let query = query.replace("$__rate_interval", "15s");
        let legend = target.pointer("/legendFormat").and_then(Value::as_str);
        // Of what is asked about this moment, only what is so now.
        let is_instant = target.pointer("/instant").and_then(Value::as_bool) == Some(true);
        let seconds = if is_instant { 0 } else { SHOWN };
        for one in prometheus.history(&query, seconds)? {
            series.push(json!({
                "name": name(legend.unwrap_or_default(), &one),
                "points": one.points,
                "labels": one.labels,
            }));
        }
    }
    let of_panel = |pointer: &str| panel.pointer(pointer).cloned().unwrap_or_default();
    Ok(json!({
        "title": of_panel("/title"),
        "type": of_panel("/type"),
        "gridPos": of_panel("/gridPos"),
        "unit": of_panel("/fieldConfig/defaults/unit"),
        "thresholds": of_panel("/fieldConfig/defaults/thresholds/steps"),
        "series": series,
    }))
}

/// The legend with the labels of a series in the place of their names.
fn name(legend: &str, series: &Series) -> String {
    let mut name = legend.to_owned();
    for (label, value) in &series.labels {
        let value = value.as_str().unwrap_or_default();
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

/// How long to scrape before there is enough to draw.
const SECONDS: u32 = 90;
/// How much is drawn: all that was scraped.
const SHOWN: u32 = 120;
const PATIENCE: Duration = Duration::from_secs(180);
