//! `/healthz`, `/livez` and `/proxyMode`, as kube-proxy answers them.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::metrics::{Code, Metrics};
use crate::status::Status;

/// The routes of health: `/healthz` (and `/readyz`) fails also while the node is about to be deleted, `/livez` does not.
pub fn health_router(status: Arc<Status>, metrics: Metrics) -> Router {
    let healthz = |State((status, metrics)): State<(Arc<Status>, Metrics)>| async move {
        let leaving = status.node_is_leaving();
        let healthy = status.is_live(Instant::now()) && !leaving;
        answer(&status, healthy, Some(!leaving), &metrics.healthz)
    };
    let livez = |State((status, metrics)): State<(Arc<Status>, Metrics)>| async move {
        let live = status.is_live(Instant::now());
        answer(&status, live, None, &metrics.livez)
    };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .route("/livez", get(livez))
        .with_state((status, metrics))
}

/// The route `/proxyMode`, which is served beside the metrics.
pub fn mode_router(mode: &'static str) -> Router {
    Router::new().route("/proxyMode", get(move || async move { mode }))
}

fn answer(
    status: &Status,
    well: bool,
    node_is_eligible: Option<bool>,
    count: &Family<Code, Counter>,
) -> Response {
    let code = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let code_label = Code {
        code: code.as_u16(),
    };
    count.get_or_create(&code_label).inc();
    let now = Timestamp::now();
    let synced = status.last_synced().map(|then| now - then.elapsed());
    let mut body = serde_json::json!({
        "lastUpdated": synced.map(|time| time.to_string()),
        "currentTime": now.to_string(),
    });
    if let (Some(eligible), Some(body)) = (node_is_eligible, body.as_object_mut()) {
        body.insert("nodeEligible".to_owned(), eligible.into());
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, body.to_string()).into_response()
}
