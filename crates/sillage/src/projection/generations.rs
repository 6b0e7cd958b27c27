//! The generations of a projection: which one is read, which one is being rebuilt, which one can
//! be gone back to. One document a projection says so; all processes and operators obey it.
//!
//! *Guarantees.* Whatever a generation commits is conditional on this document's version: one that
//! was switched away from or discarded writes nothing that was not decided knowing that.

use super::{AnyProjection, Digest};
use crate::names;
use serde::{Deserialize, Serialize};
use sillage_core::{Condition, Database, Error, Position, Result, Text, Timestamp, Version, Write};
use std::iter;

/// One fold of the log from its beginning, with documents and a checkpoint of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// What it is called: the version, and from the second of a version on its number.
    pub(crate) tag: Text,
    /// Of the projection whose code folds it.
    pub(crate) version: u32,
    /// When it was begun.
    pub(crate) since: Timestamp,
    /// It is switched to by itself once it has caught up.
    #[serde(default)]
    pub(crate) switches: bool,
}

/// All generations of a projection, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generations {
    /// The collection that its documents have within the service.
    pub(crate) collection: Text,
    /// It is folded into tables of the user's own.
    #[serde(default)]
    pub(crate) tables: bool,
    /// The one that is read.
    pub(crate) live: Generation,
    /// The one that is being rebuilt beside it.
    #[serde(default)]
    pub(crate) shadow: Option<Generation>,
    /// The one that was read before, and can be gone back to.
    #[serde(default)]
    pub(crate) former: Option<Generation>,
    /// Those whose documents are being removed.
    #[serde(default)]
    pub(crate) dropped: Vec<Generation>,
    /// How many were begun.
    pub(crate) begun: u32,
    /// The highest version of them.
    pub(crate) newest: u32,
    /// Why an operator paused the projection.
    #[serde(default)]
    pub(crate) paused: Option<String>,
    /// Why the shadow was not switched to by itself.
    #[serde(default)]
    pub(crate) held: Option<String>,
}

impl Generations {
    /// Of a projection that has never run.
    pub(crate) fn first(collection: &str, version: u32, now: Timestamp) -> Self {
        let tag = version.to_string().into();
        Generations {
            collection: collection.into(),
            tables: false,
            live: Generation { tag, version, since: now, switches: false },
            shadow: None,
            former: None,
            dropped: vec![],
            begun: 1,
            newest: version,
            paused: None,
            held: None,
        }
    }

    /// Those that run: the live one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Generation> {
        iter::once(&self.live).chain(&self.shadow).chain(&self.former)
    }

    pub(crate) fn has(&self, tag: &str) -> bool {
        self.all().any(|generation| &*generation.tag == tag)
    }

    /// The one that a process reads whose code is of this version: the live one, unless that is of
    /// a newer version and there is one of its own.
    pub(crate) fn read_by(&self, version: u32) -> &Generation {
        if self.live.version <= version {
            return &self.live;
        }
        self.all().find(|generation| generation.version == version).unwrap_or(&self.live)
    }

    /// Begins one more, from zero, beside the live one.
    pub(crate) fn begin(&mut self, version: u32, switches: bool, now: Timestamp) {
        self.begun += 1;
        let is_first = version > self.newest;
        let tag = if is_first { version.to_string() } else { format!("{version}.{}", self.begun) };
        self.newest = self.newest.max(version);
        self.held = None;
        self.shadow = Some(Generation { tag: tag.into(), version, since: now, switches });
    }

    /// A newer version was deployed: it is begun, in place of whatever else was.
    pub(crate) fn is_outdated_by(&self, version: u32) -> bool {
        version > self.live.version && self.all().all(|of| of.version != version)
    }

    /// Removes the shadow and the former one; says whether there was any.
    pub(crate) fn discard(&mut self) -> bool {
        let gone: Vec<_> = self.shadow.take().into_iter().chain(self.former.take()).collect();
        let any = !gone.is_empty();
        self.dropped.extend(gone);
        self.held = None;
        any
    }

    /// The shadow is read from now on, and what was read before stays.
    pub(crate) fn switch(&mut self) {
        if let Some(shadow) = self.shadow.take() {
            self.dropped.extend(self.former.take());
            self.former = Some(std::mem::replace(&mut self.live, shadow));
            self.held = None;
        }
    }

    /// The former one is read again, and what was read stays beside it.
    pub(crate) fn roll_back(&mut self) {
        if let Some(former) = self.former.take() {
            self.dropped.extend(self.shadow.take());
            let newer = std::mem::replace(&mut self.live, former);
            self.shadow = Some(Generation { switches: false, ..newer });
            self.held = None;
        }
    }

    /// As a write, with the condition that nobody changed it since.
    pub(crate) fn replace(&self, id: &Text, since: Option<Version>) -> Result<(Condition, Write)> {
        let (collection, id) = (Text::from(names::PROJECTIONS), id.clone());
        let body = serde_json::to_vec(self)?.into();
        let condition =
            Condition::Document { collection: collection.clone(), id: id.clone(), expected: since };
        Ok((condition, Write::Put { collection, id, sort: None, body }))
    }
}

/// The generations of a projection, with the version of the document that says so.
pub(crate) async fn stored(
    database: &dyn Database,
    id: &str,
) -> Result<Option<(Generations, Version)>> {
    let stored = database.get(names::PROJECTIONS, &[id]).await?.pop().flatten();
    let read = |stored: sillage_core::Stored| {
        let generations = serde_json::from_slice(&stored.body).map_err(|error| {
            Error::corrupt(format!("projection `{id}`: its generations cannot be read"))
                .because(error)
        })?;
        Ok((generations, stored.version))
    };
    stored.map(read).transpose()
}

/// A projection's stored identity: that of its generations.
pub(crate) fn identity(service: &str, projection: &dyn AnyProjection) -> Text {
    names::part(service, projection.name())
}

/// A generation's checkpoint, and the name people see.
pub(crate) fn checkpoint(projection: &str, tag: &str) -> Text {
    format!("{projection}@{tag}").into()
}

/// The collection of a generation's documents.
pub(crate) fn collection(projection: &str, collection: &str, tag: &str) -> Text {
    let service = projection.split_once('/').map_or(projection, |(service, _)| service);
    match tag {
        "1" => names::collection(service, collection),
        tag => format!("{service}/{collection}@{tag}").into(),
    }
}

/// A generation's checkpoint, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<String>,
    /// The entry that it cannot read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<Position>,
    /// It paused because entries up to there are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone: Option<Position>,
    /// Entries up to there may be missing: an operator said that this is well.
    #[serde(default)]
    pub(crate) lost: Position,
    /// How often an operator let it go on.
    #[serde(default)]
    pub(crate) resumed: u64,
    /// Entries that an operator passed over.
    #[serde(default)]
    pub(crate) skipped: u64,
    /// Of all its documents.
    #[serde(default)]
    pub(crate) digest: Digest,
    /// Digests at the last round positions, the last one last: two readers that are never at the
    /// same position at the same time both have been at one of these.
    #[serde(default)]
    pub(crate) marks: Vec<Mark>,
    /// When it was stored.
    #[serde(default)]
    pub(crate) time: Option<Timestamp>,
}

/// The digest of a view when it had seen the log up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) digest: Digest,
}

/// So many marks are kept.
const MARKS: usize = 8;

impl Checkpoint {
    /// Keeps the digest as that of a round position.
    pub(crate) fn mark(&mut self, position: Position) {
        if self.marks.len() >= MARKS {
            self.marks.remove(0);
        }
        self.marks.push(Mark { position, digest: self.digest });
    }

    /// The last position at which both digests are known, and those.
    pub(crate) fn common(&self, other: &Checkpoint) -> Option<(Position, Digest, Digest)> {
        let here = self.known().filter_map(|mark| {
            let there = other.known().find(|there| there.position == mark.position)?;
            Some((mark.position, mark.digest, there.digest))
        });
        here.max_by_key(|(position, ..)| *position)
    }

    fn known(&self) -> impl Iterator<Item = Mark> + '_ {
        let now = Mark { position: self.position, digest: self.digest };
        iter::once(now).chain(self.marks.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(of: &Generations) -> Vec<String> {
        let tag = |of: Option<&Generation>| of.map_or("-".to_owned(), |of| of.tag.to_string());
        let mut tags = vec![tag(Some(&of.live)), tag(of.shadow.as_ref()), tag(of.former.as_ref())];
        tags.extend(of.dropped.iter().map(|of| of.tag.to_string()));
        tags
    }

    #[test]
    fn a_rebuild_is_switched_to_gone_back_from_and_discarded() {
        let now = Timestamp::from_micros(0);
        let mut of = Generations::first("orders", 1, now);
        of.begin(1, false, now);
        assert_eq!(tags(&of), ["1", "1.2", "-"]);
        of.switch();
        assert_eq!(tags(&of), ["1.2", "-", "1"]);
        of.roll_back();
        assert_eq!(tags(&of), ["1", "1.2", "-"]);
        of.switch();
        assert!(of.discard() && !of.discard());
        assert_eq!(tags(&of), ["1.2", "-", "-", "1"]);
        of.begin(1, false, now);
        assert_eq!(tags(&of), ["1.2", "1.3", "-", "1"], "no tag is used again");
    }

    #[test]
    fn a_process_reads_what_its_code_is_for() {
        let now = Timestamp::from_micros(0);
        let mut of = Generations::first("orders", 1, now);
        assert!(of.is_outdated_by(2) && !of.is_outdated_by(1));
        of.begin(2, true, now);
        assert!(!of.is_outdated_by(2), "it is begun once");
        assert_eq!((&*of.read_by(1).tag, &*of.read_by(2).tag), ("1", "1"));
        of.switch();
        assert_eq!((&*of.read_by(1).tag, &*of.read_by(2).tag), ("1", "2"));
        of.roll_back();
        assert!(!of.is_outdated_by(2), "what was gone back from is not begun again");
        assert_eq!((&*of.read_by(1).tag, &*of.read_by(2).tag), ("1", "1"));
        of.switch();
        of.discard();
        assert_eq!((&*of.read_by(1).tag, &*of.read_by(2).tag), ("2", "2"));
    }

    #[test]
    fn digests_are_compared_where_both_are_known() {
        let at = |position: u64, documents: u64| Checkpoint {
            position: Position(position),
            digest: Digest { documents, ..Digest::default() },
            ..Checkpoint::default()
        };
        let (mut live, mut shadow) = (at(256, 3), at(256, 3));
        live.mark(Position(256));
        shadow.mark(Position(256));
        (live.position, shadow.position) = (Position(300), Position(280));
        assert_eq!(live.common(&shadow).unwrap().0, Position(256));
        shadow.position = Position(300);
        assert_eq!(live.common(&shadow).unwrap().0, Position(300));
        assert_eq!(at(1, 1).common(&at(2, 1)), None);
    }
}
