//! The journal: all topics in one log, searched, exported, and checked for what is missing.
//!
//! A message from a log of ours carries its position there (`ce_sequence`), the log's incarnation, and
//! in `ce_previous` the position of the message that was published before it in the same slot. That
//! one is either here, or missing. Positions between the two had nothing to publish.

use super::Admin;
use serde::Serialize;
use sillage_core::{Filter, Key, Message, Position, Recorded, Result, Text, Timestamp};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// Entries read at once.
pub(super) const PAGE: usize = 1_000;

/// Which entries of a log are wanted.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Only what follows from this first message.
    pub correlation_id: Option<Text>,
    /// Only these names.
    pub names: Vec<Text>,
    /// Only these topics.
    pub topics: Vec<Text>,
    /// Only of these sources.
    pub sources: Vec<Text>,
    /// Only of this key.
    pub key: Option<Key>,
    /// Only what was produced then or later.
    pub since: Option<Timestamp>,
    /// Only what was produced before.
    pub until: Option<Timestamp>,
    /// Only after this position.
    pub after: Position,
    /// Only up to this one.
    pub through: Option<Position>,
}

impl Search {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            topics: self.topics.clone(),
            names: self.names.clone(),
            correlation_id: self.correlation_id.clone(),
            stream: None,
        }
    }

    pub(super) fn takes(&self, entry: &Recorded) -> bool {
        (self.sources.is_empty() || self.sources.contains(&entry.source))
            && (self.key.is_none() || self.key == entry.key)
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
            && self.through.is_none_or(|through| entry.position <= through)
    }
}

/// A message that was published and is not in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The log it was published from: its incarnation.
    pub log: Text,
    /// The source of the message that tells of it; another service on that log may have published it.
    pub source: Text,
    /// Where it is in that log.
    pub missing: u64,
    /// Where the message is that tells of it, which was published after it in the same slot.
    pub told_by: u64,
    /// When that one was produced.
    pub time: Timestamp,
}

/// What a check for gaps has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Messages that say what was published before them, by their source.
    pub checked: BTreeMap<Text, u64>,
    /// Messages of a log of ours that do not know what was before, by their source.
    pub unknown: BTreeMap<Text, u64>,
    /// Messages of others, of which nobody can tell, by their source.
    pub foreign: BTreeMap<Text, u64>,
    /// Messages that are too young to be missed.
    pub young: u64,
    /// What is missing, in the order of the journal.
    pub gaps: Vec<Gap>,
}

/// What a message says of its place in the log it is from.
struct Place {
    log: Text,
    sequence: u64,
    previous: Option<u64>,
}

impl Place {
    fn of(message: &Message) -> Option<Place> {
        let text = |name| std::str::from_utf8(message.header(name)?).ok();
        let number = |name| text(name)?.parse().ok();
        let log = text("ce_incarnation")?.into();
        Some(Place { log, sequence: number("ce_sequence")?, previous: number("ce_previous") })
    }
}

impl Admin {
    /// Shows entries of the log that match, in order, up to its end as it is now, until `go_on` says no.
    pub async fn search(
        &self,
        search: &Search,
        mut go_on: impl FnMut(&Recorded) -> bool + Send,
    ) -> Result<()> {
        let end = self.database.head().await?.stable;
        let (filter, mut at) = (search.filter(), search.after);
        while at < end.min(search.through.unwrap_or(end)) {
            let page = self.database.log(at, &filter, PAGE).await?;
            for entry in page.entries.iter().filter(|entry| search.takes(entry)) {
                if !go_on(entry) {
                    return Ok(());
                }
            }
            at = page.through.max(Position(at.0 + 1));
        }
        Ok(())
    }

    /// Looks for messages that were published and are not in this journal.
    ///
    /// What was produced within `settle` may still be on its way, or one before it may: it tells of no
    /// gap. All places are in memory while it looks, 8 bytes a message.
    pub async fn gaps(&self, settle: Duration) -> Result<Checked> {
        let young = self.clock.now() - settle;
        let mut found = Checked::default();
        let mut here: BTreeMap<Text, HashSet<u64>> = BTreeMap::new();
        let mut told = vec![];
        let of_source = |counts: &mut BTreeMap<Text, u64>, source: &Text| {
            *counts.entry(source.clone()).or_default() += 1;
        };
        self.search(&Search::default(), |entry| {
            if !entry.is_copy() {
                return true;
            }
            let Some(place) = Place::of(&entry.body) else {
                of_source(&mut found.foreign, &entry.source);
                return true;
            };
            here.entry(place.log.clone()).or_default().insert(place.sequence);
            match place.previous {
                _ if entry.time > young => found.young += 1,
                None => of_source(&mut found.unknown, &entry.source),
                Some(previous) => {
                    of_source(&mut found.checked, &entry.source);
                    if previous > 0 {
                        told.push((place, previous, entry.source.clone(), entry.time));
                    }
                }
            }
            true
        })
        .await?;
        for (Place { log, sequence, .. }, missing, source, time) in told {
            if !here.get(&log).is_some_and(|here| here.contains(&missing)) {
                found.gaps.push(Gap { log, source, missing, told_by: sequence, time });
            }
        }
        Ok(found)
    }
}
