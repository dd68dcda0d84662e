//! The only IO: what the kernel holds of ours, read and changed over netlink.

mod early;
mod grace;
mod listener;
mod read;
mod rehearse;
pub(crate) mod socket;
pub(crate) mod steps;

use std::collections::BTreeMap;

use config::address::IpFamily;
use nix::sys::socket::{getsockopt, sockopt};

use crate::netlink::attribute::{Writer, find, find_number};
use crate::netlink::message::{Batch, GET_CHAIN, GET_RULE, GET_SET, GET_SET_ELEMENT, GET_TABLE};

use crate::program::schema::{self, SETS, TABLE, family_number};
use crate::program::{Change, FAMILIES, Program};
pub(crate) use early::Early;
pub use grace::wait_for_packets_on_their_way;
pub(crate) use listener::{Heard, Listener};
use read::Reading;
use socket::Socket;
pub use socket::SocketError;
use steps::{Step, steps};

/// The nf_tables of this network namespace.
///
/// All calls block, for as long as the kernel works on them.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    /// How many octets a batch may have.
    longest_batch: usize,
    /// The state of nf_tables that we know, if we read it and nothing went wrong since.
    known: Option<Known>,
}

/// By what a change of somebody else is noticed.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Known {
    generation: u32,
    tables: BTreeMap<IpFamily, Identity>,
}

/// What distinguishes a table from one made anew, and from one that got or lost chains or sets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    handle: u64,
    used: u32,
}

/// How far what was read can be trusted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Trust {
    /// Somebody changed it meanwhile.
    None,
    /// Some elements are missing: their set was growing.
    Partly,
    Full,
}

/// Why the kernel does not hold what it should. After any of these it has to be read again.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("somebody else changed table {TABLE} in nf_tables")]
    Foreign,
    #[error("nf_tables changed {READ_TRIALS} times while it was read")]
    Unsteady,
}

impl Kernel {
    /// Opens a socket to the nf_tables of this network namespace.
    ///
    /// # Errors
    /// If the kernel has none or the process may not change it.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::open()?;
        let buffer = getsockopt(socket.inner(), sockopt::SndBuf).unwrap_or(SMALLEST_BUFFER);
        let longest_batch = buffer.saturating_sub(SPARE).min(LONGEST_BATCH);
        Ok(Self {
            socket,
            longest_batch,
            known: None,
        })
    }

    /// Reads back what the kernel holds of ours. Clients in the affinity map are not part of it.
    ///
    /// # Errors
    /// If the kernel cannot be read, or others change it all the time.
    pub fn read(&mut self) -> Result<Program, KernelError> {
        for trial in 1..=READ_TRIALS {
            let generation = self.socket.generation()?;
            let mut program = Program::default();
            let mut trust = Trust::Full;
            for family in FAMILIES {
                trust = trust.min(self.read_family(family, &mut program)?);
            }
            let tables = self.identities()?;
            let steady = trust > Trust::None && self.socket.generation()? == generation;
            // What is missing then is sent again, which does no harm.
            if steady && (trust == Trust::Full || trial >= GROWING_TRIALS) {
                self.known = Some(Known { generation, tables });
                return Ok(program);
            }
        }
        Err(KernelError::Unsteady)
    }

    /// Applies a change: all or none, and in no packet's eyes partly.
    ///
    /// Tables that are made anew with more than one batch holds stay dormant until they are complete; a change of
    /// existing tables that is longer than that goes frontend by frontend.
    ///
    /// # Errors
    /// If the kernel refuses it, or somebody else changed our tables. A change longer than a batch may be partly done then.
    pub fn apply(&mut self, change: &Change) -> Result<(), KernelError> {
        let known = self.known.take();
        let mut generation = known.as_ref().map(|known| known.generation);
        let mut expected = known.map(|known| known.tables);
        let steps = steps(change, self.longest_batch);
        for step in &steps {
            if let Some(tables) = &expected
                && let Err(error) = self.commit(step, generation)
            {
                if !matches!(error, SocketError::Generation) {
                    return Err(error.into());
                }
                generation = Some(self.socket.generation()?);
                if self.identities()? != *tables {
                    return Err(KernelError::Foreign);
                }
                self.commit(step, generation)?;
            } else if expected.is_none() {
                self.commit(step, None)?;
            }
            generation = match generation {
                // The kernel leaves 0 out.
                Some(generation) => Some(generation.wrapping_add(1).max(1)),
                None => Some(self.socket.generation()?),
            };
            if step.changes_shape() || expected.is_none() {
                expected = Some(self.identities()?);
            }
        }
        if let (Some(generation), Some(tables)) = (generation, expected) {
            self.known = Some(Known { generation, tables });
        }
        Ok(())
    }

    /// By what our changes are known to whoever listens.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Whether nf_tables is in the state that the last call left.
    pub(crate) fn is_as_known(&mut self) -> Result<bool, KernelError> {
        let generation = self.socket.generation()?;
        Ok(self
            .known
            .as_ref()
            .is_some_and(|known| known.generation == generation))
    }

    /// Whether our tables are those that the last call left, as far as their identity tells: a table made anew, or one with
    /// other chains or sets, is noticed, and other elements are not. Unknown counts as yes.
    pub(crate) fn has_known_tables(&mut self) -> bool {
        let found = self.identities().ok();
        let known = self.known.as_ref().map(|known| &known.tables);
        found.is_none() || known.is_none() || found.as_ref() == known
    }

    /// Removes everything of ours; whether there was anything.
    ///
    /// No packet sees a part of it: the tables fall asleep first, and go when the packets that were in them have left. A packet in
    /// a table that goes at once may miss the frontends and still meet the addresses whose other ports are refused: elements
    /// of maps cease to be seen by the packets that the rules are still there for, those of sets do not.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove(&mut self) -> Result<bool, KernelError> {
        self.known = None;
        let tables = self.identities()?;
        if tables.is_empty() {
            return Ok(false);
        }
        let mut sleep = Batch::new(None);
        let mut gone = Batch::new(None);
        for family in tables.keys().map(|family| family_number(*family)) {
            sleep.new_table(family, TABLE, true);
            gone.delete_table(family, TABLE);
        }
        self.socket.commit(sleep)?;
        wait_for_packets_on_their_way();
        self.socket.commit(gone)?;
        Ok(true)
    }

    fn commit(&mut self, step: &Step<'_>, generation: Option<u32>) -> Result<(), SocketError> {
        self.socket.commit(step.encode(generation))
    }

    fn identities(&mut self) -> Result<BTreeMap<IpFamily, Identity>, SocketError> {
        let mut identities = BTreeMap::new();
        for family in FAMILIES {
            let answer = self
                .socket
                .get(GET_TABLE, family_number(family), |writer| {
                    writer.text(1, TABLE);
                })?;
            if let Some(answer) = answer {
                let handle = find(&answer, 4).and_then(|value| value.first_chunk());
                let identity = Identity {
                    handle: u64::from_be_bytes(handle.copied().unwrap_or_default()),
                    used: find_number(&answer, 3).unwrap_or(0),
                };
                identities.insert(family, identity);
            }
        }
        Ok(identities)
    }

    /// Reads one table.
    fn read_family(
        &mut self,
        family: IpFamily,
        program: &mut Program,
    ) -> Result<Trust, SocketError> {
        let number = family_number(family);
        let table = self
            .socket
            .get(GET_TABLE, number, |writer| writer.text(1, TABLE))?;
        let Some(table) = table else {
            return Ok(Trust::Full);
        };
        let mut reading = Reading {
            family,
            // A table that never became active is not complete.
            whole: find_number(&table, 2).unwrap_or(0) == 0,
            program: Program::default(),
            complete: true,
        };
        let mut consistent = true;
        consistent &= self.socket.dump(
            GET_CHAIN,
            number,
            |writer| writer.text(1, TABLE),
            |chain| {
                reading.chain(chain);
            },
        )?;
        consistent &= self.socket.dump(
            GET_RULE,
            number,
            |writer| writer.text(1, TABLE),
            |rule| {
                reading.rule(rule);
            },
        )?;
        let mut sets = Vec::new();
        consistent &= self.socket.dump(
            GET_SET,
            number,
            |writer| writer.text(1, TABLE),
            |set| {
                reading.set(set, &mut sets);
            },
        )?;
        reading.whole &= sets.len() == SETS.len();
        for (set, count) in sets {
            if set == schema::AFFINITY || !reading.whole {
                continue;
            }
            let before = reading.program.elements.len();
            let mut ranges = Vec::new();
            let content = |writer: &mut Writer| {
                writer.text(1, TABLE);
                writer.text(2, set);
            };
            consistent &= self
                .socket
                .dump(GET_SET_ELEMENT, number, content, |elements| {
                    reading.elements(set, elements, &mut ranges);
                })?;
            let seen = reading.program.elements.len() - before;
            let seen_all = count.is_none_or(|count| usize::try_from(count) == Ok(seen));
            reading.complete &= seen_all || !ranges.is_empty();
            reading.ranges(set, &ranges);
        }
        if reading.whole {
            program.tables.insert(family);
            program.chains.append(&mut reading.program.chains);
            program.elements.append(&mut reading.program.elements);
        } else {
            program.broken.insert(family);
        }
        Ok(match (consistent, reading.complete) {
            (false, _) => Trust::None,
            (true, false) => Trust::Partly,
            (true, true) => Trust::Full,
        })
    }
}

/// How often to read when others change nf_tables meanwhile.
const READ_TRIALS: u32 = 20;
/// How often to read while a set grows: the kernel may be busy with that for a long time.
const GROWING_TRIALS: u32 = 3;
/// What `net.core.wmem_default` is at least.
const SMALLEST_BUFFER: usize = 128 << 10;
/// What the kernel keeps of the buffer for itself.
const SPARE: usize = 4 << 10;
/// Octets of a batch; longer ones hold the kernel's lock for long.
const LONGEST_BATCH: usize = 2 << 20;
