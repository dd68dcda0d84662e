//! What the machine is told of this node's service proxy: what that says itself, or else what it answers when asked.

use std::collections::BTreeSet;

use speaker_announcer::Programmed;

use crate::engine::Command;
use crate::proxy_health::fitness;
use crate::proxy_socket::Said;

/// Judges the proxy by everything that is heard of it.
#[derive(Clone, Debug)]
pub struct Judge {
    heeds_proxy: bool,
    answers: bool,
    said: Option<bool>,
    told: Option<bool>,
}

impl Judge {
    /// Nothing is heard yet. If the proxy is not to be heeded, it counts as healthy and as forwarding everything.
    pub fn new(heeds_proxy: bool) -> Self {
        Self {
            heeds_proxy,
            answers: false,
            said: None,
            told: None,
        }
    }

    /// Whether the node can serve, as far as its proxy goes.
    pub fn is_healthy(&self) -> bool {
        !self.heeds_proxy || self.said.unwrap_or(self.answers)
    }

    /// It answers that it is healthy when asked, or not; what the machine has to hear.
    pub fn handle_answers(&mut self, healthy: bool) -> Vec<Command> {
        self.answers = healthy;
        self.fitness().into_iter().collect()
    }

    /// It said something, or (`None`) does not listen any more; what the machine has to hear.
    ///
    /// Which VIPs it forwards is told before that it is healthy: no node should take one that is about to be refused.
    pub fn handle_said(&mut self, said: Option<Said>) -> Vec<Command> {
        self.said = said.as_ref().map(|said| said.healthy);
        let (programmed, idle) = match said {
            Some(said) => (said.programmed, said.idle),
            None => (Some(Programmed::Unknown), BTreeSet::new()),
        };
        let programmed = programmed.filter(|_| self.heeds_proxy);
        let programmed = programmed.map(Command::Programmed);
        let idle = Some(Command::Idle(idle));
        [programmed, self.fitness(), idle]
            .into_iter()
            .flatten()
            .collect()
    }

    fn fitness(&mut self) -> Option<Command> {
        let healthy = self.is_healthy();
        (self.told.replace(healthy) != Some(healthy)).then(|| Command::Fitness(fitness(healthy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(healthy: bool, programmed: Option<Programmed>) -> Option<Said> {
        Some(Said {
            healthy,
            programmed,
            idle: BTreeSet::new(),
        })
    }

    fn words(commands: Vec<Command>) -> Vec<String> {
        let words = commands.into_iter().map(|command| match command {
            Command::Fitness(fitness) => if fitness.unfit.is_some() {
                "unfit"
            } else {
                "fit"
            }
            .to_owned(),
            Command::Programmed(Programmed::Unknown) => "programmed unknown".to_owned(),
            Command::Programmed(Programmed::Only(vips)) => format!("programmed {vips:?}"),
            Command::Idle(vips) => format!("idle {vips:?}"),
            other => format!("{other:?}"),
        });
        words.collect()
    }

    #[test]
    fn a_proxy_that_speaks_is_believed_before_its_answers() {
        let mut judge = Judge::new(true);
        let none = Programmed::Only(BTreeSet::new());
        assert_eq!(words(judge.handle_answers(false)), ["unfit"]);
        assert_eq!(words(judge.handle_answers(true)), ["fit"]);
        assert_eq!(
            words(judge.handle_said(said(false, Some(none.clone())))),
            ["programmed {}", "unfit", "idle {}"]
        );
        assert_eq!(
            words(judge.handle_said(said(true, None))),
            ["fit", "idle {}"]
        );
        assert_eq!(words(judge.handle_answers(false)), [""; 0]);
        // It is restarted: as long as it may come back, its answers are good.
        assert_eq!(words(judge.handle_answers(true)), [""; 0]);
        assert_eq!(
            words(judge.handle_said(None)),
            ["programmed unknown", "idle {}"]
        );
    }

    #[test]
    fn a_proxy_that_is_not_heeded_only_says_what_is_idle() {
        let mut judge = Judge::new(false);
        let none = Programmed::Only(BTreeSet::new());
        assert_eq!(words(judge.handle_answers(false)), ["fit"]);
        assert_eq!(
            words(judge.handle_said(said(false, Some(none)))),
            ["idle {}"]
        );
    }
}
