//! The common shape of a batch, in one round trip: leases, expected versions of streams and documents,
//! and first deliveries as conditions; entries, documents, decisions and forgetting as writes.
//!
//! What the commits expect of each other is checked here, what they expect of the database by the
//! statement itself, which leaves nothing where anything is otherwise.

use crate::{
    log::Log,
    rows::{Bound, Entries, positions, signed, unsigned},
    state::{Key, keys},
};
use sillage_core::{
    Commit, Committed, Condition, Decision, Delivered, Expected, Position, Recorded, Sort, Text,
    Write,
};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet, btree_map::Entry};

/// A batch of the common shape.
#[derive(Default)]
pub(crate) struct Common<'c> {
    leases: BTreeMap<&'c str, u64>,
    /// The version each has, and the one it gets.
    streams: BTreeMap<&'c str, (u64, u64)>,
    documents: BTreeMap<(&'c str, &'c str), Document<'c>>,
    decided: BTreeMap<Names<'c>, Decided<'c>>,
    /// Consumer, partition and offset.
    forgotten: Vec<(&'c str, &'c str, u64)>,
    identities: HashSet<(&'c str, &'c str)>,
    entries: Entries<'c>,
    /// How many entries there are up to the end of each commit.
    ends: Vec<usize>,
}

/// A document, which is put, goes or has to stay as it is.
#[derive(Default)]
struct Document<'c> {
    /// The version it has; `None`: any.
    version: Option<u64>,
    puts: u64,
    goes: bool,
    sort: Option<&'c Sort>,
    body: &'c [u8],
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
        // A stream that is only asked about has no version to write.
        let grow = batch.streams.values().all(|(version, next)| next > version);
        (grow && !batch.forgets_what_it_decides()).then_some(batch)
    }

    fn forgets_what_it_decides(&self) -> bool {
        self.decided.iter().any(|((of, ..), (_, until))| {
            until.is_some_and(|(p, offset)| {
                let covers = |(consumer, partition, through): &(&str, &str, u64)| {
                    consumer == of && **partition == **p && offset <= through
                };
                self.forgotten.iter().any(covers)
            })
        })
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
                Condition::Document { collection, id, expected } => {
                    let expected = expected.unwrap_or_default().0;
                    let new = Document { version: Some(expected), ..Document::default() };
                    let document = self.documents.entry((collection, id)).or_insert(new);
                    let now = document.version? + document.puts;
                    (now == expected && !document.goes).then_some(())?;
                }
                Condition::Decided(..) | Condition::Below { .. } => return None,
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
            Write::Put { collection, id, sort, body } => {
                let document = self.documents.entry((collection, id)).or_default();
                (!document.goes).then_some(())?;
                document.puts += 1;
                (document.sort, document.body) = (sort.as_ref(), body);
            }
            Write::Delete { collection, id } => {
                let document = self.documents.entry((collection, id)).or_default();
                let is_as_it_was = document.puts == 0 && !document.goes;
                (is_as_it_was && document.version != Some(0)).then_some(())?;
                document.goes = true;
            }
            Write::Forget { consumer, partition, through } => {
                self.forgotten.push((consumer, partition, *through));
            }
            Write::Trim { .. } | Write::Restore(_) | Write::Run(_) => return None,
        }
        Some(())
    }

    /// Commits the batch, if the database is as it expects, and answers what it has appended as well. Any error leaves nothing of it, but for
    /// one of the server, after which nobody knows.
    pub(crate) async fn commit(
        self,
        log: &Log,
        connection: &mut PgConnection,
    ) -> sqlx::Result<(Vec<Committed>, Vec<Recorded>)> {
        let query = self.bind_one(log).unwrap_or_else(|| self.bind(log));
        let rows = query.fetch_all(connection).await?;
        let positions =
            if self.entries.len() > 0 { positions(&rows, self.entries.len())? } else { vec![] };
        // One without entries comes after the entry before it.
        let head = match positions.first() {
            Some(first) => first.saturating_sub(1),
            None => rows.first().map_or(Ok(0), |row| unsigned(row, 1))?,
        };
        let before = |end: usize| end.checked_sub(1).map_or(head, |last| positions[last]);
        let committed = |end: &usize| Committed { position: Position(before(*end)) };
        let committed = self.ends.iter().map(committed).collect();
        Ok((committed, self.entries.recorded(&positions)))
    }

    /// The statement for one entry to one stream, if that is all.
    fn bind_one(&self, log: &Log) -> Option<Bound> {
        let is_all = self.only_appends() && self.leases.is_empty() && self.decided.is_empty();
        if !is_all || self.streams.len() != 1 || self.entries.len() != 1 {
            return None;
        }
        let (stream, (version, _)) = self.streams.first_key_value()?;
        let query = log.query(&log.sql.append_one).bind(*stream).bind(signed(*version));
        Some(self.entries.bind_first(query).bind(log.oid).bind(log.sequence))
    }

    fn only_appends(&self) -> bool {
        self.documents.is_empty() && self.forgotten.is_empty() && self.entries.len() > 0
    }

    /// The statement with all its arguments.
    fn bind(&self, log: &Log) -> Bound {
        let (leases, epochs): (Vec<_>, Vec<_>) =
            self.leases.iter().map(|(name, epoch)| (*name, signed(*epoch))).unzip();
        let streams: Vec<_> = self.streams.keys().copied().collect();
        let (versions, next): (Vec<_>, Vec<_>) =
            self.streams.values().map(|(version, next)| (signed(*version), signed(*next))).unzip();
        // Each part of a statement costs the server time, also where it has nothing to do.
        let only_appends = self.only_appends();
        let sql = if only_appends { &log.sql.append } else { &log.sql.common };
        let query =
            log.query(sql).bind(leases).bind(epochs).bind(streams).bind(versions).bind(next);
        let query = self.bind_decided(query);
        let query = if only_appends { query } else { self.bind_documents(query) };
        self.entries.bind(query).bind(log.oid).bind(log.sequence)
    }

    /// As ten arguments, with up to where inbox rows are forgotten.
    fn bind_documents(&self, query: Bound) -> Bound {
        let names = || self.documents.keys();
        let all = || self.documents.values();
        let forgotten = || self.forgotten.iter();
        let text = |sort: Option<&'c Sort>| match sort {
            Some(Sort::Text(text)) => Some(&**text),
            _ => None,
        };
        let delay = |sort: Option<&Sort>| match sort {
            Some(Sort::After(delay)) => Some(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)),
            _ => None,
        };
        query
            .bind(names().map(|names| names.0).collect::<Vec<_>>())
            .bind(names().map(|names| names.1).collect::<Vec<_>>())
            .bind(all().map(|document| document.version.map(signed)).collect::<Vec<_>>())
            .bind(all().map(|d| if d.goes { -1 } else { signed(d.puts) }).collect::<Vec<_>>())
            .bind(all().map(|document| text(document.sort)).collect::<Vec<_>>())
            .bind(all().map(|document| delay(document.sort)).collect::<Vec<_>>())
            .bind(all().map(|document| document.body).collect::<Vec<_>>())
            .bind(forgotten().map(|of| of.0).collect::<Vec<_>>())
            .bind(forgotten().map(|of| of.1).collect::<Vec<_>>())
            .bind(forgotten().map(|of| signed(of.2)).collect::<Vec<_>>())
    }

    /// As six arguments.
    fn bind_decided(&self, query: Bound) -> Bound {
        let names = || self.decided.keys();
        let all = || self.decided.values();
        query
            .bind(names().map(|names| names.0).collect::<Vec<_>>())
            .bind(names().map(|names| names.1).collect::<Vec<_>>())
            .bind(names().map(|names| names.2).collect::<Vec<_>>())
            .bind(all().map(|(decision, _)| decision.as_str()).collect::<Vec<_>>())
            .bind(all().map(|(_, until)| until.map(|(p, _)| &**p)).collect::<Vec<_>>())
            .bind(all().map(|(_, until)| until.map(|(_, o)| signed(*o))).collect::<Vec<_>>())
    }
}
