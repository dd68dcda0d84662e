//! What was measured, as it goes into the file and into the tables.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// A quantity that the bench measures.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// Milliseconds from the first of the two writes of a new Service to its first connect; nothing else changes.
    ServiceIdle,
    /// The same while 20 other Services change each second.
    ServiceBusy,
    /// The same while 200 change.
    ServiceVeryBusy,
    /// Milliseconds from the write of a slice to the first connect, of a Service that had no endpoints.
    EndpointsIdle,
    /// Milliseconds that the API server takes to answer the two writes of `ServiceIdle`: its part.
    ApiService,
    /// Milliseconds that it takes to answer the one of `EndpointsIdle`.
    ApiEndpoints,
    /// `ServiceIdle` without `ApiService`, pair by pair: what the proxy adds. Not recorded; zero if the connect came first.
    AfterService,
    /// `EndpointsIdle` without `ApiEndpoints`, likewise.
    AfterEndpoints,
    /// Seconds from the start of the process, with no rules, until 100 random frontends are right.
    ColdStart,
    /// Milliseconds that others waited for the lock of nf_tables meanwhile, at most.
    ColdStartLock,
    /// Seconds from the start of the process, with its rules there, until the 100 Services that came meanwhile are right.
    Restart,
    /// Connects through an old frontend that failed during the restart.
    RestartLost,
    /// Seconds of processor time for the script.
    ScriptCpu,
    /// The most resident memory until its end, in MiB.
    ScriptPeak,
    /// Seconds that the script took to write.
    ScriptWrites,
    /// Seconds of processor time until all Services that were loaded at once are right.
    LoadCpu,
    /// The most resident memory until then, in MiB.
    LoadPeak,
    /// Microseconds of a connect straight to an endpoint.
    ConnectDirect,
    /// Microseconds of a connect through the Service that was made first.
    ConnectFirst,
    /// .. through one in the middle.
    ConnectMiddle,
    /// .. through the last.
    ConnectLast,
    /// Microseconds from a question to its answer on a connection through a Service.
    AnswerThrough,
    /// .. on a connection straight to the endpoint.
    AnswerDirect,
    /// Gigabits per second on a connection through a Service.
    RateThrough,
    /// .. on a connection straight to the endpoint.
    RateDirect,
    /// Entries of the connection tracking whose endpoint goes.
    StaleEntries,
    /// Seconds from the write that takes the endpoint away until they are gone.
    StaleSeconds,
    /// Seconds of processor time for that.
    StaleCpu,
    /// Connects lost of those during the churn, per 100 000.
    ChurnLost,
    /// Connects made during the churn.
    ChurnConnects,
}

/// Values of one measure, from one contender in one round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) measure: Measure,
    pub(crate) services: u32,
    pub(crate) contender: Contender,
    pub(crate) round: u32,
    pub(crate) values: Vec<f64>,
}

/// Everything that was measured so far.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Records(Vec<Record>);

impl Records {
    /// Adds values.
    pub(crate) fn add(
        &mut self,
        place: Place,
        measure: Measure,
        values: impl IntoIterator<Item = f64>,
    ) {
        let round_off = |value: f64| (value * 1000.0).round() / 1000.0;
        self.0.push(Record {
            measure,
            services: place.services,
            contender: place.contender,
            round: place.round,
            values: values.into_iter().map(round_off).collect(),
        });
    }

    /// Adds what another part of the bench has measured.
    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// All values of one measure, of all rounds.
    pub(crate) fn figures(
        &self,
        measure: Measure,
        services: u32,
        contender: Contender,
    ) -> Option<Figures> {
        let values = |measure| self.values(measure, services, contender);
        let without = |whole, part| -> Vec<f64> {
            let pairs = values(whole).zip(values(part));
            pairs.map(|(whole, part)| (whole - part).max(0.0)).collect()
        };
        Figures::of(match measure {
            Measure::AfterService => without(Measure::ServiceIdle, Measure::ApiService),
            Measure::AfterEndpoints => without(Measure::EndpointsIdle, Measure::ApiEndpoints),
            _ => values(measure).collect(),
        })
    }

    /// The contenders and the sizes that there are values of.
    pub(crate) fn extent(&self) -> (BTreeSet<Contender>, BTreeSet<u32>) {
        let contenders = self.0.iter().map(|record| record.contender);
        let sizes = self.0.iter().map(|record| record.services);
        (contenders.collect(), sizes.collect())
    }

    fn values(
        &self,
        measure: Measure,
        services: u32,
        contender: Contender,
    ) -> impl Iterator<Item = f64> {
        self.0
            .iter()
            .filter(move |record| {
                (record.measure, record.services, record.contender)
                    == (measure, services, contender)
            })
            .flat_map(|record| record.values.iter().copied())
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) contender: Contender,
    pub(crate) services: u32,
    pub(crate) round: u32,
}

/// Values in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    sorted: Vec<f64>,
}

impl Figures {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self { sorted: values })
    }

    /// How many values.
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The smallest value that at least `percent` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    pub(crate) fn max(&self) -> f64 {
        self.percentile(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let figures = Figures::of((1..=200).rev().map(f64::from).collect()).unwrap();
        let read = [1, 50, 99, 100].map(|percent| figures.percentile(percent));
        assert_eq!(read, [2.0, 100.0, 198.0, 200.0]);
        let one = Figures::of(vec![7.0]).unwrap();
        assert_eq!((one.percentile(1), one.max(), one.count()), (7.0, 7.0, 1));
        assert_eq!(Figures::of(Vec::new()), None);
    }
}
