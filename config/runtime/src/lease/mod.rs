//! One leader among the replicas of a program, by a Lease (`coordination.k8s.io/v1`).
//!
//! [`machine`] decides; this module reads and writes the object and keeps the time.

pub mod machine;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::connection::status_code;
use machine::{Answer, Change, Claim, Elector, Record, Request, Timing};

/// Which lease, and who asks for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidacy {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this candidate, unique among them: the Pod's name, or the host's with something random.
    pub identity: String,
    /// The times of the election.
    pub timing: Timing,
}

/// Whether this program leads, as anybody in it may ask.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// Leads for ever, for a program that needs no election.
    pub fn always() -> Self {
        let far = Duration::from_secs(60 * 60 * 24 * 365 * 30);
        let (_, until) = watch::channel(Instant::now().checked_add(far));
        Self { until }
    }

    /// Whether this program leads now, also if it was stopped for a while and nothing has been noticed yet.
    pub fn holds(&self) -> bool {
        self.until
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this program leads; for ever if it takes no more part in the election.
    pub async fn elected(&self) {
        let mut until = self.until.clone();
        while !self.holds() {
            if until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this program does not lead, or takes no more part in the election.
    pub async fn deposed(&self) {
        let mut until = self.until.clone();
        while self.holds() {
            let deadline = *until.borrow_and_update();
            tokio::select! {
                () = sleep_until(deadline) => {}
                changed = until.changed() => if changed.is_err() {
                    // The election has ended: what is held runs out.
                    sleep_until(deadline).await;
                }
            }
        }
    }
}

/// How long one request may take; shorter than a renewal may, so that there is a second attempt.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Takes part in the election until `closing`, then frees the lease if it is held: run it as a server, so that it
/// ends after the tasks that act as leader.
pub fn run(
    client: Client,
    candidacy: Candidacy,
    closing: CancellationToken,
) -> (Leadership, impl Future<Output = anyhow::Result<()>>) {
    let (sender, until) = watch::channel(None);
    let leases = Leases {
        api: Api::namespaced(client, &candidacy.namespace),
        name: candidacy.name,
        acquired: Timestamp::now(),
        failing: false,
    };
    let elector = Elector::new(candidacy.identity, candidacy.timing);
    let election = elect(leases, elector, sender, closing);
    (Leadership { until }, election)
}

async fn elect(
    mut leases: Leases,
    mut elector: Elector,
    until: watch::Sender<Option<Instant>>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    while !closing.is_cancelled() {
        elector.handle_timeout(Instant::now());
        report(&mut elector, &until);
        if let Some(request) = elector.poll_request(Instant::now()) {
            // Not cut short when closing: the release needs the version that this leaves. Leadership ends in time
            // also meanwhile, because whoever asks compares `until` with the clock.
            let answer = leases.ask(&request).await;
            elector.handle_answer(answer, Instant::now(), fastrand::f64());
            continue;
        }
        tokio::select! {
            () = sleep_until(elector.poll_timeout()) => {}
            () = closing.cancelled() => {}
        }
    }
    let release = elector.handle_retirement();
    until.send_replace(None);
    if let Some(request) = release
        && let Answer::Lease(_) = leases.ask(&request).await
    {
        tracing::info!("Released the lease");
    }
    Ok(())
}

fn report(elector: &mut Elector, until: &watch::Sender<Option<Instant>>) {
    until.send_replace(elector.leads_until());
    while let Some(change) = elector.poll_change() {
        match change {
            Change::Elected => tracing::info!("Leading"),
            Change::Deposed => tracing::warn!("No longer leading"),
            Change::Follows(leader) => tracing::info!(leader, "Following"),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Leases {
    api: Api<api::Lease>,
    name: String,
    /// Since when the holder leads, for people.
    acquired: Timestamp,
    failing: bool,
}

impl Leases {
    async fn ask(&mut self, request: &Request) -> Answer {
        let asked = async {
            match request {
                Request::Read => self.api.get_opt(&self.name).await,
                Request::Create(claim) => {
                    let lease = lease(&self.name, claim, None, self.acquired);
                    let created = self.api.create(&PostParams::default(), &lease).await;
                    created.map(Some)
                }
                Request::Replace(claim, version) => {
                    let lease = lease(&self.name, claim, Some(version), self.acquired);
                    let parameters = PostParams::default();
                    let replaced = self.api.replace(&self.name, &parameters, &lease).await;
                    replaced.map(Some)
                }
            }
        };
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
            Ok(Ok(Some(lease))) => Answer::Lease(record(&lease)),
            Ok(Ok(None)) => Answer::Absent,
            // Somebody else was quicker: nothing is wrong.
            Ok(Err(error)) if status_code(&error) == Some(409) => return Answer::Failed,
            Ok(Err(error)) => return self.failed(&Chain(&error)),
            Err(_) => return self.failed(&"no answer in time"),
        };
        if let (Request::Create(Claim { acquired: true, .. }), Answer::Lease(_))
        | (Request::Replace(Claim { acquired: true, .. }, _), Answer::Lease(_)) =
            (request, &answer)
        {
            self.acquired = Timestamp::now();
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("Lease can be read and written again");
        }
        answer
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) -> Answer {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "Lease cannot be read or written");
        }
        Answer::Failed
    }
}

fn lease(name: &str, claim: &Claim, version: Option<&String>, acquired: Timestamp) -> api::Lease {
    let now = Timestamp::now();
    let acquired = if claim.acquired { now } else { acquired };
    let seconds = i32::try_from(claim.duration.as_secs()).unwrap_or(i32::MAX);
    api::Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version.cloned(),
            ..ObjectMeta::default()
        },
        spec: Some(api::LeaseSpec {
            holder_identity: Some(claim.holder.clone()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(claim.transitions),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(now)),
            ..api::LeaseSpec::default()
        }),
    }
}

fn record(lease: &api::Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        renewed: spec
            .renew_time
            .map(|MicroTime(time)| time.to_string())
            .unwrap_or_default(),
    }
}
