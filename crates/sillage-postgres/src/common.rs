//! The common shape of a batch, in one round trip: leases, expected versions of streams and first
//! deliveries as conditions; entries and decisions as writes.
//!
//! What the commits expect of each other is checked here, what they expect of the database by the
//! statement itself, which leaves nothing where anything is otherwise.

use crate::{
    log::Log,
    rows::{Entries, positions, signed},
    state::{Key, keys},
};
use sillage_core::{
    Commit, Committed, Condition, Decision, Delivered, Expected, Position, Text, Write,
};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet, btree_map::Entry};

/// A batch of the common shape.
#[derive(Default)]
pub(crate) struct Common<'c> {
    leases: BTreeMap<&'c str, u64>,
    /// The version each has, and the one it gets.
    streams: BTreeMap<&'c str, (u64, u64)>,
    decided: BTreeMap<Names<'c>, Decided<'c>>,
    identities: HashSet<(&'c str, &'c str)>,
    entries: Entries<'c>,
    /// How many entries there are up to the end of each commit.
    ends: Vec<usize>,
}

/// Consumer, source and id.
type Names<'c> = (&'c str, &'c str, &'c str);

/// With where it may be forgotten.
type Decided<'c> = (Decision, Option<&'c (Text, u64)>);

fn names(delivery: &Delivered) -> Names<'_> {
    (&delivery.consumer, &delivery.source, &delivery.id)
}

impl<'c> Common<'c> {
    /// The batch, if it has that shape and its commits agree with each other.
    pub(crate) fn of(commits: &[&'c Commit]) -> Option<Self> {
        let mut batch = Common::default();
        for commit in commits {
            batch.conditions(commit)?;
            for write in &commit.writes {
                batch.write(write)?;
            }
            // A delivery that is only asked about is nothing to insert.
            let decides = |key| match &key {
                Key::Delivery(consumer, source, id) => {
                    batch.decided.contains_key(&(&**consumer, &**source, &**id))
                }
                _ => true,
            };
            keys(commit).all(decides).then_some(())?;
            batch.ends.push(batch.entries.len());
        }
        let grow = batch.streams.values().all(|(version, next)| next > version);
        (grow && batch.entries.len() > 0).then_some(batch)
    }

    fn conditions(&mut self, commit: &'c Commit) -> Option<()> {
        for condition in &commit.conditions {
            match condition {
                Condition::Lease { name, epoch } => {
                    let known = *self.leases.entry(name).or_insert(epoch.0);
                    (known == epoch.0).then_some(())?;
                }
                Condition::Stream { stream, expected } => {
                    let expected = match expected {
                        Expected::Any => continue,
                        Expected::NoStream => 0,
                        Expected::Exact(version) => version.0,
                    };
                    let (_, next) = self.streams.entry(stream).or_insert((expected, expected));
                    (*next == expected).then_some(())?;
                }
                Condition::FirstTime(delivery) => {
                    (!self.decided.contains_key(&names(delivery))).then_some(())?;
                    let decides = |write: &Write| matches!(write, Write::Decide { delivery: d, .. } if d == delivery);
                    commit.writes.iter().any(decides).then_some(())?;
                }
                Condition::Decided(..) | Condition::Document { .. } | Condition::Below { .. } => {
                    return None;
                }
            }
        }
        // Only what must be new is inserted.
        let is_first = |write: &Write| match write {
            Write::Decide { delivery, .. } => commit
                .conditions
                .iter()
                .any(|c| matches!(c, Condition::FirstTime(d) if d == delivery)),
            _ => true,
        };
        commit.writes.iter().all(is_first).then_some(())
    }

    fn write(&mut self, write: &'c Write) -> Option<()> {
        match write {
            Write::Append { stream, message } => {
                let place = match stream {
                    Some(stream) => {
                        // Its version must be known: somebody expected it.
                        let (_, next) = self.streams.get_mut(&**stream)?;
                        *next += 1;
                        Some((&**stream, *next))
                    }
                    None => None,
                };
                let identity = (&*message.source, message.id.as_str());
                self.identities.insert(identity).then_some(())?;
                self.entries.push(place, message);
            }
            Write::Decide { delivery, decision, until } => {
                match self.decided.entry(names(delivery)) {
                    Entry::Vacant(new) => drop(new.insert((*decision, until.as_ref()))),
                    Entry::Occupied(_) => return None,
                }
            }
            Write::Put { .. }
            | Write::Delete { .. }
            | Write::Forget { .. }
            | Write::Trim { .. }
            | Write::Restore(_)
            | Write::Run(_) => return None,
        }
        Some(())
    }

    /// Commits the batch, if the database is as it expects. Any error leaves nothing of it, but for
    /// one of the server, after which nobody knows.
    pub(crate) async fn append(
        self,
        log: &Log,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Committed>> {
        let (leases, epochs): (Vec<_>, Vec<_>) =
            self.leases.iter().map(|(name, epoch)| (*name, signed(*epoch))).unzip();
        let streams: Vec<_> = self.streams.keys().copied().collect();
        let (versions, next): (Vec<_>, Vec<_>) =
            self.streams.values().map(|(version, next)| (signed(*version), signed(*next))).unzip();
        let deliveries = || self.decided.keys();
        let decisions = || self.decided.values();
        let query = log
            .query(&log.sql.append)
            .bind(leases)
            .bind(epochs)
            .bind(streams)
            .bind(versions)
            .bind(next)
            .bind(deliveries().map(|names| names.0).collect::<Vec<_>>())
            .bind(deliveries().map(|names| names.1).collect::<Vec<_>>())
            .bind(deliveries().map(|names| names.2).collect::<Vec<_>>())
            .bind(decisions().map(|(decision, _)| decision.as_str()).collect::<Vec<_>>())
            .bind(decisions().map(|(_, until)| until.map(|(p, _)| &**p)).collect::<Vec<_>>())
            .bind(decisions().map(|(_, until)| until.map(|(_, o)| signed(*o))).collect::<Vec<_>>());
        let query = self.entries.bind(query).bind(log.oid).bind(log.sequence);
        let rows = query.fetch_all(connection).await?;
        let positions = positions(&rows, self.entries.len())?;
        // One without entries comes after the entry before it.
        let first = positions.first().map_or(0, |first| first.saturating_sub(1));
        let before = |end: usize| end.checked_sub(1).map_or(first, |last| positions[last]);
        Ok(self.ends.iter().map(|end| Committed { position: Position(before(*end)) }).collect())
    }
}
