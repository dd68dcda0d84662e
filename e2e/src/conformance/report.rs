//! What Ginkgo reports of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

/// What came of the specs of one run that were selected.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// By name.
    pub specs: BTreeMap<String, Outcome>,
}

/// What came of one spec.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    pub state: State,
    /// Why it failed, or did not want to run: the first line.
    pub message: String,
    pub time: Duration,
}

/// How a spec ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Passed,
    Failed,
    /// It found that the cluster is not one that it is for.
    Skipped,
}

impl Report {
    /// Reads the JSON that Ginkgo wrote.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let suites: Vec<Suite> = serde_json::from_reader(BufReader::new(File::open(file)?))?;
            Ok(Self::of(suites))
        };
        read().with_context(|| format!("failed to read the report {}", file.display()))
    }

    fn of(suites: Vec<Suite>) -> Self {
        let specs = suites
            .into_iter()
            .flat_map(|suite| suite.spec_reports)
            .filter_map(Spec::outcome)
            .collect();
        Self { specs }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    run_time: u64,
    failure: Option<Failure>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Spec {
    /// The name and the outcome; of what was not selected there is none.
    fn outcome(self) -> Option<(String, Outcome)> {
        if self.leaf_node_type != "It" {
            return None;
        }
        let message = self.failure.unwrap_or_default().message;
        let first_line = message.lines().find(|line| !line.trim().is_empty());
        let state = match self.state.as_str() {
            "passed" => State::Passed,
            "pending" => return None,
            // A spec that was not selected says nothing.
            "skipped" if message.is_empty() => return None,
            "skipped" => State::Skipped,
            _ => State::Failed,
        };
        let mut name = self.container_hierarchy_texts.unwrap_or_default();
        name.push(self.leaf_node_text);
        let outcome = Outcome {
            state,
            message: first_line.unwrap_or_default().trim().to_owned(),
            time: Duration::from_nanos(self.run_time),
        };
        Some((name.join(" "), outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_what_was_selected() {
        let text = r#"[{"SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-network] Services", "with a port"], "LeafNodeType": "It",
             "LeafNodeText": "answer", "State": "passed", "RunTime": 1500000000},
            {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It",
             "LeafNodeText": "fail", "State": "failed", "Failure": {"Message": "\nno answer\nat all"}},
            {"ContainerHierarchyTexts": [], "LeafNodeType": "It",
             "LeafNodeText": "time out", "State": "timedout"},
            {"ContainerHierarchyTexts": ["a"], "LeafNodeType": "It",
             "LeafNodeText": "need zones", "State": "skipped", "Failure": {"Message": "needs 3 zones"}},
            {"ContainerHierarchyTexts": ["a"], "LeafNodeType": "It",
             "LeafNodeText": "was not selected", "State": "skipped", "Failure": {"Message": ""}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite",
             "LeafNodeText": "", "State": "passed"}
        ]}]"#;
        let report = Report::of(serde_json::from_str(text).unwrap());
        let found: Vec<_> = report
            .specs
            .iter()
            .map(|(name, outcome)| (name.as_str(), outcome.state, outcome.message.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("[sig-network] Services fail", State::Failed, "no answer"),
                (
                    "[sig-network] Services with a port answer",
                    State::Passed,
                    ""
                ),
                ("a need zones", State::Skipped, "needs 3 zones"),
                ("time out", State::Failed, ""),
            ]
        );
    }
}
