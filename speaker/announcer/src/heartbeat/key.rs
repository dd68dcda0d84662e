//! The keys that authenticate heartbeats, and the envelope that they seal.
//!
//! ```text
//! "FOGH" | version 1 | key id, 4 octets | body | HMAC-SHA-256 of all before it, 32 octets
//! ```

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::LONGEST;
use super::rejection::Rejection;

/// A secret that all speakers of a cluster share.
#[derive(Clone)]
pub struct Key {
    id: [u8; 4],
    mac: Hmac<Sha256>,
}

/// Why octets are not a key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key has {found} octets: give at least {SHORTEST_KEY}, from a random source")]
pub struct KeyError {
    found: usize,
}

impl Key {
    /// The key with these octets.
    ///
    /// # Errors
    /// If there are fewer than 16.
    pub fn new(octets: &[u8]) -> Result<Self, KeyError> {
        let found = octets.len();
        if found < SHORTEST_KEY {
            return Err(KeyError { found });
        }
        let mac = Hmac::new_from_slice(octets).map_err(|_| KeyError { found })?;
        let digest = Sha256::new()
            .chain_update(b"foghorn key id\0")
            .chain_update(octets)
            .finalize();
        let mut id = [0; 4];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Self { id, mac })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({:02x?}, ..)", self.id)
    }
}

/// The key to sign with, and the one that is accepted beside it while keys are rotated.
///
/// To rotate without silence: give every speaker the new key as `also`, then sign with it, then drop the old one.
#[derive(Clone, Debug)]
pub struct Keyring {
    signing: Key,
    also: Option<Key>,
}

impl Keyring {
    /// Signs with `signing`; accepts that and `also`.
    pub fn new(signing: Key, also: Option<Key>) -> Self {
        Self { signing, also }
    }

    /// The datagram that carries `body`.
    pub fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut octets = Vec::with_capacity(OVERHEAD + body.len());
        octets.extend(MAGIC);
        octets.push(VERSION);
        octets.extend(self.signing.id);
        octets.extend(body);
        let tag = self.signing.mac.clone().chain_update(&octets).finalize();
        octets.extend(tag.into_bytes());
        octets
    }

    /// The body that an authentic datagram carries.
    ///
    /// # Errors
    /// The reason why the datagram is not heeded.
    pub fn open<'octets>(&self, octets: &'octets [u8]) -> Result<&'octets [u8], Rejection> {
        if octets.len() > LONGEST {
            return Err(Rejection::Length);
        }
        let (sealed, tag) = octets.split_last_chunk::<TAG>().ok_or(Rejection::Length)?;
        let (magic, rest) = sealed.split_first_chunk::<4>().ok_or(Rejection::Length)?;
        let (version, rest) = rest.split_first().ok_or(Rejection::Length)?;
        let (id, body) = rest.split_first_chunk::<4>().ok_or(Rejection::Length)?;
        if *magic != MAGIC {
            return Err(Rejection::NotAHeartbeat);
        }
        if *version != VERSION {
            return Err(Rejection::Version);
        }
        let key = [Some(&self.signing), self.also.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == *id)
            .ok_or(Rejection::UnknownKey)?;
        key.mac
            .clone()
            .chain_update(sealed)
            .verify_slice(tag)
            .map_err(|_| Rejection::Forged)?;
        Ok(body)
    }
}

const MAGIC: [u8; 4] = *b"FOGH";
const VERSION: u8 = 1;
const TAG: usize = 32;
const SHORTEST_KEY: usize = 16;
/// Octets of an envelope without its body.
pub(super) const OVERHEAD: usize = 4 + 1 + 4 + TAG;

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(signing: u8, also: Option<u8>) -> Keyring {
        let key = |octet| Key::new(&[octet; 32]).unwrap();
        Keyring::new(key(signing), also.map(key))
    }

    #[test]
    fn keys_rotate_without_silence() {
        for (sender, receiver, expected) in [
            (ring(1, None), ring(1, None), Ok(&b"body"[..])),
            (ring(1, None), ring(1, Some(2)), Ok(b"body")),
            (ring(1, Some(2)), ring(2, Some(1)), Ok(b"body")),
            (ring(2, None), ring(2, Some(1)), Ok(b"body")),
            (ring(1, None), ring(2, None), Err(Rejection::UnknownKey)),
        ] {
            assert_eq!(receiver.open(&sender.seal(b"body")), expected);
        }
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let keys = ring(1, None);
        let good = keys.seal(b"body");
        for at in 0..good.len() {
            let mut octets = good.clone();
            octets[at] ^= 1;
            let expected = match at {
                0..4 => Rejection::NotAHeartbeat,
                4 => Rejection::Version,
                5..9 => Rejection::UnknownKey,
                _ => Rejection::Forged,
            };
            assert_eq!(keys.open(&octets), Err(expected), "octet {at}");
        }
        for length in 0..good.len() {
            assert!(keys.open(&good[..length]).is_err(), "{length} octets");
        }
        assert_eq!(keys.open(&vec![0; LONGEST + 1]), Err(Rejection::Length));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert_eq!(
            Key::new(b"secret").unwrap_err().to_string(),
            "the key has 6 octets: give at least 16, from a random source"
        );
    }

    /// RFC 4231 §4.2, test case 1.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let mac = Hmac::<Sha256>::new_from_slice(&[0x0b; 20])
            .unwrap()
            .chain_update(b"Hi There");
        let expected = b"\xb0\x34\x4c\x61\xd8\xdb\x38\x53\x5c\xa8\xaf\xce\xaf\x0b\xf1\x2b\
            \x88\x1d\xc2\x00\xc9\x83\x3d\xa7\x26\xe9\x37\x6c\x2e\x32\xcf\xf7";
        assert_eq!(mac.finalize().into_bytes()[..], expected[..]);
        let key = Key::new(&[0x0b; 20]).unwrap();
        assert_eq!(
            key.mac.chain_update(b"Hi There").finalize().into_bytes()[..],
            expected[..]
        );
    }
}
