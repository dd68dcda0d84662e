//! A run: scene after scene, round after round, and what came of it.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use config::name::ServiceKey;
use e2e::environment;
use e2e::lab::Lab;
use e2e::mode::Mode;
use e2e::random::Random;
use proxy_table::{ForwardingTable, Verdict};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::differences::{Case, Difference};
use crate::flows::Question;
use crate::judge::{Culprit, Seen, judge};
use crate::objects::{MOST_SLOTS, random_of};
use crate::round::Round;
use crate::scene::Scene;
use crate::twin::{Proxy, Twin};

/// How much to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    mode: Mode,
    /// The numbers of the tables.
    tables: Vec<u32>,
    flows: u32,
    scenes: usize,
}

/// What has been done so far.
#[derive(Debug)]
pub(crate) struct Run {
    plan: Plan,
    cluster: Cluster,
    twins: [Twin; 2],
    flows: u32,
    packets: usize,
    second_looks: u32,
    verdicts: BTreeMap<String, u32>,
    seen: BTreeMap<Difference, u32>,
    unexplained: BTreeMap<Culprit, u32>,
    shown: HashSet<(u32, Option<ServiceKey>)>,
    spent: BTreeMap<&'static str, Duration>,
}

impl Plan {
    pub(crate) fn from_environment() -> Result<Self> {
        let only = env::var("FOGHORN_TABLE")
            .ok()
            .and_then(|text| text.parse().ok());
        let count = environment::number("FOGHORN_TABLES", 120);
        let tables = only.map_or_else(|| (0..count).collect(), |only| vec![only]);
        Ok(Self {
            seed: Random::from_environment().seed,
            mode: Mode::from_environment()?,
            tables,
            flows: environment::number("FOGHORN_FLOWS", 100),
            scenes: environment::number("FOGHORN_SCENES", 4) as usize,
        })
    }

    /// The tables of each scene; a table is in the same scene whenever it is made.
    fn scene_of(&self, table: u32) -> usize {
        table as usize % self.scenes
    }
}

impl Run {
    pub(crate) fn new(plan: Plan, api: SocketAddr) -> Result<Self> {
        let [foghorn, kube_proxy] = Proxy::BOTH.map(Twin::build);
        Ok(Self {
            plan,
            cluster: Cluster::new(api),
            twins: [foghorn?, kube_proxy?],
            flows: 0,
            packets: 0,
            second_looks: 0,
            verdicts: BTreeMap::new(),
            seen: BTreeMap::new(),
            unexplained: BTreeMap::new(),
            shown: HashSet::new(),
            spent: BTreeMap::new(),
        })
    }

    pub(crate) fn play(mut self, lab: &Lab) -> Result<()> {
        let begin = Instant::now();
        let mut random = Random::seeded(self.plan.seed);
        for number in 0..self.plan.scenes {
            let scene = Scene::nth(number, self.plan.mode, &mut random);
            let tables = self.plan.tables.iter().copied();
            let tables: Vec<u32> = tables
                .filter(|table| self.plan.scene_of(*table) == number)
                .collect();
            if tables.is_empty() {
                continue;
            }
            println!("{scene}: {} tables", tables.len());
            self.prepare(lab, &scene)?;
            for few in tables.chunks(usize::from(MOST_SLOTS)) {
                self.round(&scene, few)?;
            }
        }
        self.report(begin.elapsed())
    }

    fn prepare(&mut self, lab: &Lab, scene: &Scene) -> Result<()> {
        let begin = Instant::now();
        let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": scene.zone}}});
        lab.api.patch("/api/v1/nodes/node-1", &labels)?;
        for twin in &mut self.twins {
            twin.start(lab, scene)?;
        }
        self.cluster.wait_for(&mut self.twins)?;
        self.spend("starts", begin);
        Ok(())
    }

    fn round(&mut self, scene: &Scene, numbers: &[u32]) -> Result<()> {
        let round = Round::new(self.plan.seed, scene, numbers, self.cluster.rounds())?;
        let begin = Instant::now();
        self.cluster.write(&round.tables)?;
        self.spend("objects", begin);
        let begin = Instant::now();
        self.cluster.wait_for(&mut self.twins)?;
        self.spend("syncs", begin);
        let questions = self.questions(&round);
        let begin = Instant::now();
        let asked: Vec<&Question> = questions.iter().map(|(_, question)| question).collect();
        let mut seen = self.ask(&asked, |question| draws(question, &round.spec))?;
        // Whoever looks a few times misses an endpoint now and then: look again before anybody is blamed.
        let doubtful: Vec<usize> = (0..asked.len())
            .filter(|&index| {
                judge(asked[index], &round.spec, &seen[0][index], &seen[1][index])
                    != Culprit::Nobody
            })
            .collect();
        let again: Vec<&Question> = doubtful.iter().map(|&index| asked[index]).collect();
        let more = self.ask(&again, |question| {
            MANY_DRAWS.max(2 * u16::from(question.crowd))
        })?;
        for (proxy, more) in more.into_iter().enumerate() {
            for (&index, more) in doubtful.iter().zip(more) {
                if is_sticky(&round.spec.verdict(&asked[index].flow)) {
                    // Clients may have forgotten their endpoints since the first look.
                    seen[proxy][index] = more;
                } else {
                    seen[proxy][index].merge(more);
                }
            }
        }
        self.second_looks += doubtful.len() as u32;
        self.spend("flows", begin);
        for (index, (position, question)) in questions.iter().enumerate() {
            self.settle(
                scene,
                &round,
                *position,
                question,
                [&seen[0][index], &seen[1][index]],
            );
        }
        Ok(())
    }

    /// Random questions about each table, by its position.
    fn questions(&self, round: &Round) -> Vec<(usize, Question)> {
        let mut questions = Vec::new();
        let mut clients = HashSet::new();
        for (position, table) in round.tables.iter().enumerate() {
            let mut random = random_of(self.plan.seed ^ FLOWS, table.number);
            for _ in 0..self.plan.flows {
                let targets = &round.targets[position];
                let mut question = Question::random(&mut random, targets, &round.spec);
                question.leave_out_known(&mut clients);
                questions.push((position, question));
            }
        }
        questions
    }

    /// Asks at both twins at the same time.
    fn ask(
        &mut self,
        questions: &[&Question],
        draws: impl Fn(&Question) -> u16,
    ) -> Result<[Vec<Seen>; 2]> {
        let mut probes = Vec::new();
        let mut counts = Vec::new();
        for question in questions {
            let count = draws(question);
            let first_port = 1024 + (probes.len() % 60_000) as u16;
            probes.extend(question.probes(count, first_port));
            counts.push(usize::from(count));
        }
        self.packets += 2 * probes.len();
        let [one, two] = &mut self.twins;
        let probes = &probes;
        let outcomes = thread::scope(|scope| {
            let [one, two] = [one, two].map(|twin| scope.spawn(|| twin.wire.send(probes)));
            [one, two].map(|thread| thread.join().ok().context("a sender panicked")?)
        });
        let [one, two] = outcomes;
        Ok([one?, two?].map(|outcomes| {
            let mut rest = &outcomes[..];
            let mut all = Vec::new();
            for (question, count) in questions.iter().zip(&counts) {
                let (own, after) = rest.split_at(*count);
                let mut seen = Seen::default();
                seen.add(question, own);
                all.push(seen);
                rest = after;
            }
            all
        }))
    }

    fn settle(
        &mut self,
        scene: &Scene,
        round: &Round,
        position: usize,
        question: &Question,
        [foghorn, kube_proxy]: [&Seen; 2],
    ) {
        self.flows += 1;
        let (verdict, reason) = round.spec.explain(&question.flow);
        *self
            .verdicts
            .entry(name_of(&verdict).to_owned())
            .or_default() += 1;
        let culprit = judge(question, &round.spec, foghorn, kube_proxy);
        if culprit == Culprit::Nobody {
            return;
        }
        let owner = round.owner(position, question);
        let case = Case {
            scene,
            flow: &question.flow,
            culprit,
            verdict: &verdict,
            reason: &reason,
            service: owner.map(|key| {
                let (service, slices) = &round.services[key];
                (service, &slices[..])
            }),
            foghorn: &foghorn.fates(),
            kube_proxy: &kube_proxy.fates(),
            at_a_service: round.has_a_service_at(question.flow.destination),
            steady: foghorn.is_steady() && kube_proxy.is_steady(),
        };
        if let Some(difference) = Difference::that_explains(&case) {
            *self.seen.entry(difference).or_default() += 1;
            return;
        }
        let table = &round.tables[position];
        *self.unexplained.entry(culprit).or_default() += 1;
        // One of each Service: the others are most often the same once more.
        let new = self.shown.insert((table.number, owner.cloned()));
        if !new || self.shown.len() > SHOWN {
            return;
        }
        let flow = &question.flow;
        println!(
            "──── {culprit:?} differs in table {} ({scene})\n{} {} -> {} {} {:?} (clients: {})\n\
             foghorn-proxy: {foghorn}\nkube-proxy:    {kube_proxy}\nspecification: {verdict:?}, for {reason}",
            table.number,
            flow.protocol,
            flow.source,
            flow.destination,
            flow.port,
            flow.arrival,
            question.crowd,
        );
        if let Some(workload) = owner.and_then(|service| round.workload(service)) {
            println!(
                "{} {}",
                workload.service["metadata"]["labels"], workload.service["spec"]
            );
            println!(
                "status {}",
                workload.status.as_ref().unwrap_or(&Value::Null)
            );
            for slice in &workload.slices {
                println!("slice {} {}", slice["ports"], slice["endpoints"]);
            }
        }
    }

    fn report(self, elapsed: Duration) -> Result<()> {
        println!(
            "{} flows over {} tables in {:.0} s, by {} packets; {} were looked at twice",
            self.flows,
            self.plan.tables.len(),
            elapsed.as_secs_f64(),
            self.packets,
            self.second_looks
        );
        println!("verdicts: {:?}", self.verdicts);
        println!("time: {:.1?}", self.spent);
        for (difference, count) in &self.seen {
            println!("{count} flows: {difference}");
        }
        ensure!(
            self.unexplained.is_empty(),
            "flows whose verdicts differ without an explanation: {:?}; FOGHORN_SEED={} repeats them, with FOGHORN_TABLE=.. one table alone",
            self.unexplained,
            self.plan.seed
        );
        for difference in Difference::ALL {
            if self.flows >= difference.flows_that_show_it(self.plan.mode) {
                ensure!(
                    self.seen.contains_key(&difference),
                    "no flow showed the difference \"{difference}\": if it is gone, take it out of docs/differences.md and of the test"
                );
            }
        }
        Ok(())
    }

    fn spend(&mut self, what: &'static str, begin: Instant) {
        *self.spent.entry(what).or_default() += begin.elapsed();
    }
}

/// How often to ask, so that whoever chooses among all of them is hardly ever taken for one who does not.
fn draws(question: &Question, spec: &ForwardingTable) -> u16 {
    if question.crowd > 1 {
        return 2 * u16::from(question.crowd);
    }
    match spec.verdict(&question.flow) {
        Verdict::Forward { destinations, .. } if destinations.len() > 1 => 32,
        Verdict::Forward { .. } => 8,
        _ => 3,
    }
}

fn is_sticky(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Forward {
            affinity_seconds: Some(_),
            ..
        }
    )
}

fn name_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Forward {
            affinity_seconds: Some(_),
            ..
        } => "forwarded with affinity",
        Verdict::Forward { .. } => "forwarded",
        Verdict::Reject => "rejected",
        Verdict::Drop => "dropped",
        Verdict::NotOurs => "untouched",
    }
}

const MANY_DRAWS: u16 = 256;
/// Services of which a difference is printed.
const SHOWN: usize = 20;
/// Flows have other chances than their tables.
const FLOWS: u64 = 0x666c_6f77;
