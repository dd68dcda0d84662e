//! The tables, and the file with every value.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use e2e::document::{Marks, write_between};
use e2e::mode::Mode;

use crate::chart;
use crate::contender::Contender;
use crate::record::{Figures, Measure, Records};
use crate::surroundings::Surroundings;

/// What a run has shown.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) surroundings: Surroundings,
    pub(crate) records: Records,
}

impl Report {
    /// What [`Self::save`] has written.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let (surroundings, records) = serde_json::from_slice(&text)?;
        Ok(Self {
            surroundings,
            records,
        })
    }

    /// Writes every value into a file.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let all = (&self.surroundings, &self.records);
        fs::write(file, serde_json::to_vec(&all)?)
            .with_context(|| format!("failed to write {}", file.display()))
    }

    /// Puts the tables between the marks of a document.
    pub(crate) fn write_into(&self, document: &Path, mode: Mode) -> Result<()> {
        write_between(document, marks(mode), &self.tables())?;
        if mode != Mode::Nftables {
            return Ok(());
        }
        for (measure, name, title) in CHARTS {
            let file = document.with_file_name(format!("performance-{name}.svg"));
            chart::draw(&self.records, measure, title, &file)?;
        }
        Ok(())
    }

    /// All tables, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let mut text = self.surroundings.list();
        for (title, unit, measures) in [
            (
                "A. From a write to the first connect",
                "ms",
                &[
                    (Measure::ServiceIdle, "new Service, idle"),
                    (Measure::ApiService, "the API server's two answers"),
                    (Measure::AfterService, "from the answers to the connect"),
                    (Measure::EndpointsIdle, "first endpoints, idle"),
                    (Measure::ApiEndpoints, "the API server's answer"),
                    (Measure::AfterEndpoints, "from the answer to the connect"),
                    (Measure::ServiceBusy, "new Service, 20 other changes/s"),
                    (Measure::ServiceVeryBusy, "new Service, 200 other changes/s"),
                ][..],
            ),
            (
                "B. Start until 100 frontends are right",
                "s",
                &[
                    (Measure::ColdStart, "no rules"),
                    (Measure::Restart, "rules there, 100 new Services"),
                    (Measure::RestartLost, "connects lost meanwhile (count)"),
                ],
            ),
            (
                "B. The lock of nf_tables",
                "ms",
                &[(Measure::ColdStartLock, "longest wait of others, cold start")],
            ),
            (
                "D. TCP connect",
                "µs",
                &[
                    (Measure::ConnectDirect, "straight to an endpoint"),
                    (Measure::ConnectFirst, "first Service"),
                    (Measure::ConnectMiddle, "middle Service"),
                    (Measure::ConnectLast, "last Service"),
                ],
            ),
            (
                "E. Connections that are established: one octet there and back",
                "µs",
                &[
                    (Measure::AnswerThrough, "through a Service"),
                    (Measure::AnswerDirect, "straight to its endpoint"),
                ],
            ),
            (
                "E. Connections that are established: a stream",
                "Gbit/s",
                &[
                    (Measure::RateThrough, "through a Service"),
                    (Measure::RateDirect, "straight to its endpoint"),
                ],
            ),
            (
                "F. Connects lost while the endpoints change",
                "per 100 000",
                &[
                    (Measure::ChurnLost, "lost"),
                    (Measure::ChurnConnects, "connects made (count)"),
                ],
            ),
            (
                "G. Entries of the connection tracking after their endpoint is gone",
                "see row",
                &[
                    (Measure::StaleEntries, "entries (count)"),
                    (Measure::StaleSeconds, "until they are gone, s"),
                    (Measure::StaleCpu, "processor time, s"),
                ],
            ),
        ] {
            self.table(&mut text, title, unit, measures);
        }
        let script = [
            (Measure::ScriptCpu, "processor time, s"),
            (Measure::ScriptPeak, "most resident memory, MiB"),
            (Measure::ScriptWrites, "time to write it, s"),
        ];
        let title = "C. The script: N Services made, N/10 changed, N/10 deleted";
        self.table(&mut text, title, "see row", &script);
        let load = [
            (Measure::LoadCpu, "processor time, s"),
            (Measure::LoadPeak, "most resident memory, MiB"),
        ];
        let title = "C. All Services at once, while it runs";
        self.table(&mut text, title, "see row", &load);
        self.slopes(&mut text);
        text
    }

    fn table(&self, text: &mut String, title: &str, unit: &str, measures: &[(Measure, &str)]) {
        let (contenders, sizes) = self.records.extent();
        let mut rows = String::new();
        for (measure, name) in measures {
            for services in &sizes {
                let at_size = |contender| self.records.figures(*measure, *services, contender);
                for contender in &contenders {
                    if let Some(figures) = at_size(*contender) {
                        let ours = at_size(Contender::ours(contender.mode()))
                            .or_else(|| at_size(Contender::Foghorn));
                        let ratio = ratio(&figures, ours.as_ref());
                        rows.push_str(&row(name, *services, *contender, &figures, &ratio));
                    }
                }
            }
        }
        if !rows.is_empty() {
            // Writing into a text cannot fail.
            let _ = write!(
                text,
                "\n### {title} ({unit})\n\n| | Services | | n | p01 | p50 | p99 | max | p50 / ours |\n|---|--:|---|--:|--:|--:|--:|--:|--:|\n{rows}"
            );
        }
    }

    /// What ten times the Services cost.
    fn slopes(&self, text: &mut String) {
        let (contenders, sizes) = self.records.extent();
        let mut rows = String::new();
        for (measure, name) in [
            (Measure::ServiceIdle, "new Service, idle"),
            (
                Measure::AfterService,
                "new Service, idle, after the answers",
            ),
            (Measure::EndpointsIdle, "first endpoints, idle"),
            (Measure::ServiceBusy, "new Service, busy"),
            (Measure::ColdStart, "cold start"),
            (Measure::Restart, "restart"),
            (Measure::ConnectLast, "connect, last Service"),
            (Measure::ScriptCpu, "script, processor time"),
            (Measure::ScriptPeak, "script, memory"),
        ] {
            for contender in &contenders {
                let slopes: Vec<String> = sizes
                    .iter()
                    .filter_map(|small| {
                        let at = |services| self.records.figures(measure, services, *contender);
                        let (small, large) = (at(*small)?, at(small * 10)?);
                        Some(format!(
                            "{:.2}",
                            large.percentile(50) / small.percentile(50)
                        ))
                    })
                    .collect();
                if !slopes.is_empty() {
                    let _ = writeln!(
                        rows,
                        "| {name} | {} | {} |",
                        contender.name(),
                        slopes.join(", ")
                    );
                }
            }
        }
        if !rows.is_empty() {
            let _ = write!(
                text,
                "\n### The slope: ten times the Services, times as much (p50; from each size to the next)\n\n| | | times |\n|---|---|--:|\n{rows}"
            );
        }
    }
}

fn row(name: &str, services: u32, contender: Contender, figures: &Figures, ratio: &str) -> String {
    let [low, median, high] = [1, 50, 99].map(|percent| short(figures.percentile(percent)));
    format!(
        "| {name} | {services} | {} | {} | {low} | {median} | {high} | {} | {ratio} |\n",
        contender.name(),
        figures.count(),
        short(figures.max()),
    )
}

fn ratio(figures: &Figures, ours: Option<&Figures>) -> String {
    match ours {
        Some(ours) if ours.percentile(50) > 0.0 => {
            short(figures.percentile(50) / ours.percentile(50))
        }
        _ => String::new(),
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value {
        value if value == 0.0 || value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

const CHARTS: [(Measure, &str, &str); 2] = [
    (
        Measure::EndpointsIdle,
        "endpoints",
        "From the write of a Service's first endpoints to the first connect: p50, and p99 as circles",
    ),
    (
        Measure::AfterService,
        "service",
        "New Service: from the API server's answers to the first connect: p50, and p99 as circles",
    ),
];
/// What `make bench` writes of a mode.
const fn marks(mode: Mode) -> Marks {
    match mode {
        Mode::Nftables => ("<!-- make bench: begin -->", "<!-- make bench: end -->"),
        Mode::Iptables => (
            "<!-- make bench MODE=iptables: begin -->",
            "<!-- make bench MODE=iptables: end -->",
        ),
        Mode::Ipvs => (
            "<!-- make bench MODE=ipvs: begin -->",
            "<!-- make bench MODE=ipvs: end -->",
        ),
    }
}
/// What `make bench-controller` writes.
pub(crate) const CONTROLLER: Marks = (
    "<!-- make bench-controller: begin -->",
    "<!-- make bench-controller: end -->",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Place;

    #[test]
    fn a_table_has_ratios_to_ours_and_slopes() {
        let mut records = Records::default();
        for (contender, services, value) in [
            (Contender::Foghorn, 100, 2.0),
            (Contender::Foghorn, 1000, 3.0),
            (Contender::Nftables, 100, 500.0),
        ] {
            let place = Place {
                contender,
                services,
                round: 1,
            };
            records.add(place, Measure::ServiceIdle, [value]);
        }
        let place = Place {
            contender: Contender::Foghorn,
            services: 100,
            round: 1,
        };
        records.add(place, Measure::ApiService, [1.5]);
        let report = Report {
            surroundings: Surroundings::default(),
            records,
        };
        let tables = report.tables();
        assert!(tables.contains("| 100 | kube-proxy nftables | 1 | 500 | 500 | 500 | 500 | 250 |"));
        assert!(tables.contains("| new Service, idle | foghorn-proxy | 1.50 |"));
        assert!(
            tables.contains("| from the answers to the connect | 100 | foghorn-proxy | 1 | 0.50 |")
        );
        assert!(!tables.contains("### B."));
    }
}
