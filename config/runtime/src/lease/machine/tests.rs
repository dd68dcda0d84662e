use super::*;

/// The API server's side: one lease, optimistic locking, virtual time.
#[derive(Default)]
struct Api {
    lease: Option<Record>,
    version: u64,
    away: bool,
}

impl Api {
    fn answer(&mut self, request: &Request) -> Answer {
        if self.away {
            return Answer::Failed;
        }
        let claim = match (request, &self.lease) {
            (Request::Read, None) => return Answer::Absent,
            (Request::Read, Some(record)) => return Answer::Lease(record.clone()),
            (Request::Create(claim), None) => claim,
            (Request::Replace(claim, version), Some(record)) if *version == record.version => claim,
            _ => return Answer::Failed,
        };
        self.version += 1;
        let record = Record {
            holder: claim.holder.clone(),
            duration: claim.duration,
            transitions: claim.transitions,
            version: self.version.to_string(),
            renewed: self.version.to_string(),
        };
        self.lease = Some(record.clone());
        Answer::Lease(record)
    }
}

struct Candidate {
    elector: Elector,
    reachable: bool,
    alive: bool,
}

struct World {
    api: Api,
    now: Instant,
    start: Instant,
    candidates: Vec<Candidate>,
    story: Vec<String>,
}

impl World {
    fn new(count: usize) -> Self {
        let start = Instant::now();
        let candidates = (0..count)
            .map(|index| Candidate {
                elector: Elector::new(format!("c{index}"), Timing::default()),
                reachable: true,
                alive: true,
            })
            .collect();
        Self {
            api: Api::default(),
            now: start,
            start,
            candidates,
            story: Vec::new(),
        }
    }

    /// Runs in steps of 100 ms; after each, at most one candidate leads.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            for candidate in &mut self.candidates {
                if !candidate.alive {
                    continue;
                }
                candidate.elector.handle_timeout(self.now);
                while let Some(request) = candidate.elector.poll_request(self.now) {
                    let answer = if candidate.reachable {
                        self.api.answer(&request)
                    } else {
                        Answer::Failed
                    };
                    candidate.elector.handle_answer(answer, self.now, 0.5);
                }
                while let Some(change) = candidate.elector.poll_change() {
                    let second = (self.now - self.start).as_secs();
                    self.story.push(format!(
                        "{second} {} {change:?}",
                        candidate.elector.identity
                    ));
                }
            }
            assert!(self.leaders() <= 1, "two lead: {:?}", self.story);
        }
    }

    /// A dead candidate leads until its time is over, as far as anybody can know.
    fn leaders(&self) -> usize {
        let until = |candidate: &Candidate| candidate.elector.leads_until();
        self.candidates
            .iter()
            .filter(|candidate| until(candidate).is_some_and(|until| until > self.now))
            .count()
    }

    #[track_caller]
    fn tells(&mut self, expected: &[&str]) {
        let story = std::mem::take(&mut self.story);
        assert_eq!(story, expected);
    }
}

#[test]
fn one_of_several_leads_and_goes_on_leading() {
    let mut world = World::new(3);
    world.run(60);
    world.tells(&[
        "0 c0 Elected",
        "0 c1 Follows(\"c0\")",
        "0 c2 Follows(\"c0\")",
    ]);
    assert_eq!(world.api.lease.unwrap().transitions, 0);
}

#[test]
fn a_dead_leader_is_followed_after_the_lease() {
    let mut world = World::new(2);
    world.run(5);
    world.candidates[0].alive = false;
    world.story.clear();
    world.run(30);
    let elected = world.story.first().unwrap();
    assert!(elected.ends_with("c1 Elected"), "{elected}");
    let second: u64 = elected.split(' ').next().unwrap().parse().unwrap();
    assert!((17..=23).contains(&second), "{second}");
    assert_eq!(world.api.lease.unwrap().transitions, 1);
}

#[test]
fn a_leader_without_the_api_steps_down_before_another_can_lead() {
    let mut world = World::new(2);
    world.run(5);
    world.candidates[0].reachable = false;
    world.story.clear();
    world.run(30);
    assert!(world.story[0].ends_with("c0 Deposed"), "{:?}", world.story);
    assert!(world.story[1].ends_with("c1 Elected"), "{:?}", world.story);
    world.candidates[0].reachable = true;
    world.story.clear();
    world.run(30);
    assert!(
        world.story[0].ends_with("c0 Follows(\"c1\")"),
        "{:?}",
        world.story
    );
    assert_eq!(world.story.len(), 1);
}

#[test]
fn a_released_lease_is_taken_at_the_next_attempt() {
    let mut world = World::new(2);
    world.run(5);
    let release = world.candidates[0].elector.handle_retirement().unwrap();
    assert!(matches!(world.api.answer(&release), Answer::Lease(_)));
    world.candidates[0].alive = false;
    world.story.clear();
    world.run(6);
    assert!(world.story[0].ends_with("c1 Elected"), "{:?}", world.story);
}

#[test]
fn an_outage_of_the_api_moves_nothing_if_it_is_short() {
    let mut world = World::new(3);
    world.run(5);
    world.story.clear();
    world.api.away = true;
    world.run(7);
    world.api.away = false;
    world.run(30);
    world.tells(&[]);
}

#[test]
fn who_lost_the_lease_to_a_newer_version_steps_down() {
    let mut world = World::new(1);
    world.run(3);
    let lease = world.api.lease.as_mut().unwrap();
    lease.holder = "thief".to_owned();
    lease.version = "other".to_owned();
    world.story.clear();
    world.run(5);
    assert!(
        world.story.iter().any(|line| line.ends_with("c0 Deposed")),
        "{:?}",
        world.story
    );
}

#[test]
fn who_does_not_lead_releases_nothing() {
    let mut world = World::new(2);
    world.run(3);
    assert_eq!(world.candidates[1].elector.handle_retirement(), None);
    // One who does not know the version of what it leads by could only write what is refused.
    world.api.away = true;
    world.run(3);
    let leader = &mut world.candidates[0].elector;
    assert!(leader.leads_until().is_some());
    assert_eq!(leader.handle_retirement(), None);
}
