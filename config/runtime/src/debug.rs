//! `/debug`: what a running program holds, as JSON, and how much it logs. Off unless it is asked for.
//!
//! Questions are put to the loop that holds the answers, which answers between two of its steps: what is told was true at
//! one moment, and nothing is locked or copied while nobody asks.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::arguments::CommonArguments;
use crate::telemetry::LogLevel;

/// What somebody wants to see.
#[derive(Debug)]
pub struct Question {
    subject: String,
    answer: oneshot::Sender<Result<Value, serde_json::Error>>,
}

impl Question {
    /// The last part of the path: `table` of `/debug/table`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Answers.
    pub fn answer(self, value: impl Serialize) {
        // Whoever does not wait any more needs no answer.
        let _ = self.answer.send(serde_json::to_value(value));
    }
}

/// The questions, for the loop that answers them.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

impl Questions {
    /// Waits for one; for ever where nobody can ask. Cancel-safe.
    pub async fn next(&mut self) -> Question {
        match self.0.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }

    /// No questions ever.
    fn none() -> Self {
        Self(mpsc::channel(1).1)
    }
}

/// [`open`], if the arguments ask for it; otherwise no routes, and no questions ever.
pub fn offer(
    arguments: &CommonArguments,
    subjects: &'static [&'static str],
    level: LogLevel,
) -> (Router, Questions) {
    if arguments.debug_endpoints {
        open(subjects, level)
    } else {
        (Router::new(), Questions::none())
    }
}

/// The routes `/debug` (what there is), `/debug/log-level` (GET, and PUT with a level or directives as the body), and one for
/// each of `subjects`; and the questions that come in by them.
fn open(subjects: &'static [&'static str], level: LogLevel) -> (Router, Questions) {
    let (ask, asked) = mpsc::channel(1);
    let list = move || async move {
        let of_subjects = subjects.iter().copied();
        let all = of_subjects.chain(["log-level"]);
        Json(all.map(|last| format!("/debug/{last}")).collect::<Vec<_>>())
    };
    let tell = move |State((ask, _)): State<(mpsc::Sender<Question>, LogLevel)>,
                     Path(subject): Path<String>| async move {
        if subjects.contains(&subject.as_str()) {
            put(&ask, subject).await
        } else {
            let known = subjects.join(", ");
            let said = format!("nothing is told of \"{subject}\": ask for one of {known}\n");
            (StatusCode::NOT_FOUND, said).into_response()
        }
    };
    let router = Router::new()
        .route("/debug", get(list))
        .route("/debug/log-level", get(read_level).put(write_level))
        .route("/debug/{subject}", get(tell))
        .with_state((ask, level));
    (router, Questions(asked))
}

async fn put(ask: &mpsc::Sender<Question>, subject: String) -> Response {
    let (answer, answered) = oneshot::channel();
    let asking = async {
        ask.send(Question { subject, answer }).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Some(Ok(value))) => Json(value).into_response(),
        Ok(Some(Err(error))) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the program ends\n").into_response(),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no answer in time: the program is busy, or has not begun its work\n",
        )
            .into_response(),
    }
}

async fn read_level(State((_, level)): State<(mpsc::Sender<Question>, LogLevel)>) -> String {
    format!("{}\n", level.current())
}

async fn write_level(
    State((_, level)): State<(mpsc::Sender<Question>, LogLevel)>,
    body: String,
) -> Response {
    match level.set(body.trim()) {
        Ok(()) => format!("{}\n", level.current()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// How long a loop may take until it answers: some seconds with 100 000 Services.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{ask, send};

    #[tokio::test]
    async fn the_loop_that_holds_it_answers() {
        let (router, mut questions) = open(&["table"], LogLevel::for_tests());
        let answering = tokio::spawn(async move {
            let question = questions.next().await;
            assert_eq!(question.subject(), "table");
            question.answer(["a", "b"]);
            questions
        });
        for (path, expected) in [
            ("/debug/table", (200, r#"["a","b"]"#.to_owned())),
            (
                "/debug/tabel",
                (
                    404,
                    "nothing is told of \"tabel\": ask for one of table\n".to_owned(),
                ),
            ),
            (
                "/debug",
                (200, r#"["/debug/table","/debug/log-level"]"#.to_owned()),
            ),
        ] {
            assert_eq!(ask(&router, path).await, expected, "{path}");
        }
        drop(answering.await.unwrap());
        let ended = (503, "the program ends\n".to_owned());
        assert_eq!(ask(&router, "/debug/table").await, ended);
    }

    #[tokio::test]
    async fn the_level_of_the_log_is_read_and_written() {
        let (router, _questions) = open(&[], LogLevel::for_tests());
        let level = |text: &str| (200, format!("{text}\n"));
        assert_eq!(ask(&router, "/debug/log-level").await, level("info"));
        let put = |body| send(&router, "PUT", "/debug/log-level", body);
        assert_eq!(put("debug,kube=trace").await, level("debug,kube=trace"));
        let (status, said) = put("loud").await;
        assert_eq!(status, 400);
        assert!(said.contains("\"loud\" is none"), "{said}");
        assert_eq!(
            ask(&router, "/debug/log-level").await,
            level("debug,kube=trace")
        );
    }
}
