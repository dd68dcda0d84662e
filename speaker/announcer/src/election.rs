//! Who should own a VIP, as a function of what is heard.

use std::cmp::Ordering;
use std::net::IpAddr;

use config::name::NodeName;
use sha2::{Digest, Sha256};

use crate::candidates::first_octets;
use crate::heartbeat::Claim;

/// The order of the claims of owners of one VIP: the higher one stands, the other is withdrawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Precedence<'a> {
    epoch: u32,
    vip: IpAddr,
    node: &'a NodeName,
}

/// The place of a claim: the higher epoch, then a hash of address and node, so that no node wins every tie.
pub fn precedence(vip: IpAddr, epoch: u32, node: &NodeName) -> Precedence<'_> {
    Precedence { epoch, vip, node }
}

impl Precedence<'_> {
    fn hash(&self) -> u64 {
        first_octets(&Sha256::digest(format!("{}\0{}", self.vip, self.node)))
    }
}

impl Ord for Precedence<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Ties are rare, and a hash each time would be most of the work of a frame.
        let tie = || (self.hash(), self.node).cmp(&(other.hash(), other.node));
        self.epoch.cmp(&other.epoch).then_with(tie)
    }
}

impl PartialOrd for Precedence<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a heard peer does about a VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Voice {
    /// The peer.
    pub node: NodeName,
    /// Its place among the candidates, as this node's configuration has it.
    pub position: usize,
    /// What it does.
    pub claim: Claim,
}

/// Everything heard about one VIP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Voices(pub Vec<Voice>);

impl Voices {
    /// The owner: the highest of the claims.
    pub fn owner(&self, vip: IpAddr) -> Option<(&Voice, u32)> {
        self.0
            .iter()
            .filter_map(|voice| voice.claim.epoch().map(|epoch| (voice, epoch)))
            .max_by_key(|&(voice, epoch)| precedence(vip, epoch, &voice.node))
    }

    /// How many peers are asked before the node at this position.
    pub fn place(&self, position: usize, own: &NodeName) -> u32 {
        let better = self
            .0
            .iter()
            .filter(|voice| voice.claim.stands() && voice.is_before(position, own));
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    /// The first of the peers that could own the VIP and come before this position.
    pub fn best_before(&self, position: usize, own: &NodeName) -> Option<&Voice> {
        self.0
            .iter()
            .filter(|voice| voice.claim.stands() && voice.is_before(position, own))
            .min_by_key(|voice| (voice.position, &voice.node))
    }

    /// Whether a peer that comes before this position is about to own the VIP.
    pub fn better_claims(&self, position: usize, own: &NodeName) -> bool {
        self.0
            .iter()
            .any(|voice| voice.claim == Claim::Claiming && voice.is_before(position, own))
    }

    /// Whether a peer heard another machine answer for the VIP.
    pub fn quarantined(&self) -> bool {
        self.0.iter().any(|voice| voice.claim == Claim::Quarantined)
    }
}

impl Voice {
    fn is_before(&self, position: usize, own: &NodeName) -> bool {
        (self.position, &self.node) < (position, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(node: &str, position: usize, claim: Claim) -> Voice {
        Voice {
            node: node.into(),
            position,
            claim,
        }
    }

    #[test]
    fn the_later_claim_stands() {
        let vip: IpAddr = "192.0.2.1".parse().unwrap();
        let voices = Voices(vec![
            voice("a", 0, Claim::Owned { epoch: 5 }),
            voice("b", 1, Claim::Leaving { epoch: 6 }),
            voice("c", 2, Claim::Offered),
        ]);
        assert_eq!(
            voices
                .owner(vip)
                .map(|(voice, epoch)| (voice.node.as_str(), epoch)),
            Some(("b", 6))
        );
        assert_eq!(Voices::default().owner(vip), None);
    }

    #[test]
    fn equal_claims_have_an_order_and_no_node_wins_them_all() {
        let winner = |last: u8| {
            let vip = IpAddr::from([192, 0, 2, last]);
            let (a, b) = ("a".into(), "b".into());
            let (a, b) = (precedence(vip, 1, &a), precedence(vip, 1, &b));
            assert_ne!(a, b);
            a > b
        };
        let wins = (0..100).filter(|&last| winner(last)).count();
        assert!((30..=70).contains(&wins), "{wins}");
    }

    #[test]
    fn those_that_stand_and_come_first_are_asked_first() {
        let voices = Voices(vec![
            voice("a", 0, Claim::Quarantined),
            voice("b", 1, Claim::Offered),
            voice("c", 2, Claim::Leaving { epoch: 1 }),
            voice("d", 3, Claim::Claiming),
            voice("x", 9, Claim::Offered),
        ]);
        for (position, place, claims) in [(0, 0, false), (2, 1, false), (4, 2, true), (9, 2, true)]
        {
            assert_eq!(voices.place(position, &"m".into()), place, "{position}");
            assert_eq!(
                voices.better_claims(position, &"m".into()),
                claims,
                "{position}"
            );
        }
        assert_eq!(
            voices
                .best_before(4, &"m".into())
                .map(|voice| voice.node.as_str()),
            Some("b")
        );
    }
}
