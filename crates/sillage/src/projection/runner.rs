//! Runs one generation of a projection: read a page, fold it, commit documents and checkpoint
//! together.
//!
//! A reader that is at the end of the log commits what each page changed. One that is far behind
//! goes on folding in memory and commits now and then, so a document that many entries change is
//! written once.

use super::{
    Checkpoint, Generations, checkpoint, collection,
    fold::{Folded, Folder, Poison},
    keeper::Means,
    stored,
    view::{Seen, saw},
};
use crate::{archive::archived_through, names};
use sillage_core::{
    Class, Commit, CommitError, Condition, Epoch, Error, Failure, Filter, Page, Position, Recorded,
    Result, Sort, Text, Version, Write,
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a generation stays with a process that died.
const LEASE: Duration = Duration::from_secs(15);
/// How often the lease is renewed, and the checkpoint stored where nothing matched.
const RENEW: Duration = Duration::from_secs(3);
/// What a reader that is behind holds unwritten at most: bytes of payloads, time.
const UNWRITTEN: (usize, Duration) = (8 << 20, Duration::from_secs(1));
/// Positions between marks, near the end of the log and far from it.
const STRIDE: (u64, u64) = (256, 16_384);

pub(crate) struct Runner {
    pub(crate) means: Arc<Means>,
    /// The projection, as `service/name`.
    pub(crate) id: Text,
    pub(crate) tag: Text,
    pub(crate) seen: Seen,
}

/// What a reader knows while it owns the generation.
struct Reader {
    folder: Box<dyn Folder>,
    checkpoint: Checkpoint,
    /// Of the stored checkpoint, and of the projection's generations.
    version: Option<Version>,
    generations: (Generations, Version),
    /// Folded or passed over, in memory.
    at: Position,
    /// Entries of streams may be in archives up to here. What is archived later this has read.
    archived: Position,
    /// Bytes of payloads folded and not written.
    bytes: usize,
    stored_at: Duration,
    renewed_at: Duration,
    epoch: Epoch,
    /// Up to here entries are written one by one, as the SQL of one of them failed.
    careful_until: Position,
}

impl Reader {
    /// Until that is written of which one failed.
    fn is_careful(&self) -> bool {
        self.checkpoint.position < self.careful_until
    }
}

/// What a process remembers of runs that ended.
#[derive(Default)]
struct Tried {
    /// What could not be folded, and after how many times of being resumed.
    paused: Option<(Position, u64)>,
    careful_until: Position,
}

/// Why a reader does not go on: an entry that it cannot read, or entries that are gone.
struct Paused {
    at: Position,
    gone: bool,
    why: String,
}

impl Paused {
    fn at(poison: &Poison) -> Self {
        let why = format!("position {}: {}", poison.position, poison.why);
        Paused { at: poison.position, gone: false, why }
    }
}

/// How one run of a reader ended.
#[derive(PartialEq)]
enum End {
    /// Somebody else changed something: look again at once.
    Changed,
    /// There is nothing to do here now.
    Idle,
    /// The generation is gone.
    Gone,
}

impl Runner {
    pub(crate) async fn run(self) {
        let owner = Uuid::from_bytes(rand::random());
        let lease = format!("projection/{}", self.name());
        let mut tried = Tried::default();
        while !self.means.stop.is_cancelled() {
            let pause = match self.once(&lease, owner, &mut tried).await {
                Ok(End::Gone) => break,
                Ok(End::Changed) => Duration::ZERO,
                Ok(End::Idle) => Duration::from_secs(1),
                Err(error) => {
                    self.means.vital.problem("projection", Some(error.to_string()));
                    tracing::warn!(projection = %self.name(), %error, "stopped; starting again");
                    Duration::from_secs(1)
                }
            };
            if pause > Duration::ZERO {
                let _ = self.means.database().lease(&lease, owner, Duration::ZERO).await;
                tokio::select! {
                    biased;
                    () = self.means.stop.cancelled() => {}
                    () = self.means.clock().sleep(pause) => {}
                }
            }
        }
        let _ = self.means.database().lease(&lease, owner, Duration::ZERO).await;
    }

    /// The generation's stored identity.
    fn name(&self) -> Text {
        checkpoint(&self.id, &self.tag)
    }

    /// Runs as long as this process owns the generation.
    async fn once(&self, lease: &str, owner: Uuid, tried: &mut Tried) -> Result<End> {
        let database = self.means.database();
        let Some(generations) = stored(database, &self.id).await? else { return Ok(End::Idle) };
        if !generations.0.has(&self.tag) {
            return Ok(End::Gone);
        }
        let (checkpoint, version) = self.stored().await?;
        saw(&self.seen, checkpoint.position);
        if let Some(why) = &generations.0.paused {
            return Ok(self.waits(&generations.0, format!("paused: {why}")));
        }
        if let Some(why) = &checkpoint.paused
            && tried.paused == Some((checkpoint.position, checkpoint.resumed))
        {
            return Ok(self.waits(&generations.0, format!("paused at {why}")));
        }
        let Some(epoch) = database.lease(lease, owner, LEASE).await? else {
            return Ok(End::Idle);
        };
        let now = self.means.clock().elapsed();
        let mut reader = Reader {
            folder: self.means.projection.folder(),
            at: checkpoint.position,
            checkpoint,
            version,
            generations,
            archived: archived_through(database).await?,
            bytes: 0,
            stored_at: now,
            renewed_at: now,
            epoch,
            careful_until: tried.careful_until,
        };
        let end = self.read(&mut reader, lease, owner).await;
        tried.careful_until = reader.careful_until;
        if reader.checkpoint.paused.is_some() {
            tried.paused = Some((reader.at, reader.checkpoint.resumed));
        }
        end
    }

    async fn read(&self, reader: &mut Reader, lease: &str, owner: Uuid) -> Result<End> {
        while !self.means.stop.is_cancelled() {
            let now = self.means.clock().elapsed();
            if now >= reader.renewed_at + RENEW {
                let renewed = self.means.database().lease(lease, owner, LEASE).await?;
                if renewed != Some(reader.epoch) {
                    return Ok(End::Idle);
                }
                reader.renewed_at = now;
            }
            if let Some(end) = self.step(reader, lease).await? {
                return Ok(end);
            }
        }
        if reader.at > reader.checkpoint.position {
            self.store(reader, lease, false, None).await?;
        }
        Ok(End::Idle)
    }

    /// Says what keeps the live generation from going on.
    fn waits(&self, generations: &Generations, why: String) -> End {
        if generations.live.tag == self.tag {
            self.means.vital.problem("projection", Some(why));
        }
        End::Idle
    }

    async fn stored(&self) -> Result<(Checkpoint, Option<Version>)> {
        let stored = self.means.database().get(names::CHECKPOINTS, &[&self.name()]).await?;
        let Some(stored) = stored.into_iter().flatten().next() else {
            return Ok((Checkpoint::default(), None));
        };
        Ok((serde_json::from_slice(&stored.body)?, Some(stored.version)))
    }

    /// Folds one page; says where the run ends.
    async fn step(&self, reader: &mut Reader, lease: &str) -> Result<Option<End>> {
        let filter = Filter { names: self.means.projection.events(), ..Filter::default() };
        let most = if reader.is_careful() { 1 } else { reader.folder.page() };
        let page = self.means.database().log(reader.at, &filter, most).await?;
        let full = page.entries.len() == most;
        let gone = page.trimmed_before.max(reader.archived);
        if gone > reader.at.max(reader.checkpoint.lost) {
            return self.trimmed(reader, lease, gone).await.map(Some);
        }
        if page.through > reader.at {
            let visible = self.visible(page);
            if let Some(end) = self.fold(reader, lease, &visible, full).await? {
                return Ok(Some(end));
            }
        }
        let now = self.means.clock().elapsed();
        let unwritten = reader.folder.changed() > 0;
        let due = now >= reader.stored_at + RENEW && reader.at > reader.checkpoint.position;
        let enough = reader.folder.is_full()
            || reader.is_careful()
            || reader.bytes >= UNWRITTEN.0
            || now >= reader.stored_at + UNWRITTEN.1;
        if (due || unwritten && (enough || !full))
            && !self.store(reader, lease, false, None).await?
        {
            return Ok(Some(End::Changed));
        }
        if !unwritten {
            saw(&self.seen, reader.at);
        }
        if reader.generations.0.live.tag == self.tag {
            self.means.vital.problem("projection", None);
        }
        if !full {
            reader.folder.forget();
            self.idle(reader.at).await;
        }
        Ok(None)
    }

    /// Entries that it has not read are gone: it waits for an operator who says that this is well.
    async fn trimmed(&self, reader: &mut Reader, lease: &str, before: Position) -> Result<End> {
        let why = format!(
            "position {}: entries up to {before} were trimmed from the log, or archived with their \
             streams, before it read them",
            reader.at.0 + 1
        );
        let paused = Paused { at: before, gone: true, why };
        if !self.store(reader, lease, false, Some(&paused)).await? {
            return Ok(End::Changed);
        }
        Ok(self.waits(&reader.generations.0, format!("paused at {}", paused.why)))
    }

    /// Only the service's own entries and the topics it follows.
    fn visible(&self, mut page: Page) -> Page {
        page.entries.retain(|entry| {
            let followed = entry.topic.as_ref().is_some_and(|t| self.means.follows.contains(t));
            entry.source == self.means.service || followed
        });
        page
    }

    /// Folds a page, in pieces that end at marks.
    async fn fold(
        &self,
        reader: &mut Reader,
        lease: &str,
        page: &Page,
        full: bool,
    ) -> Result<Option<End>> {
        let stride = if full { STRIDE.1 } else { STRIDE.0 };
        let mut entries = &page.entries[..];
        while reader.at < page.through {
            let first = entries.first().map(|entry| entry.position);
            let to = piece(reader.at, first, page.through, stride);
            let (these, later) = entries.split_at(entries.partition_point(|e| e.position <= to));
            let paused = self.take(reader, these).await?.as_ref().map(Paused::at);
            reader.at = paused.as_ref().map_or(to, |paused| Position(paused.at.0 - 1));
            entries = later;
            let marks = to.0.is_multiple_of(stride) && paused.is_none();
            if marks && reader.folder.changed() == 0 {
                // Nothing is unwritten, so the digest is as it was.
                reader.checkpoint.mark(reader.at);
            } else if (marks || paused.is_some())
                && !self.store(reader, lease, marks, paused.as_ref()).await?
            {
                return Ok(Some(End::Changed));
            }
            if let Some(paused) = paused {
                let why = format!("paused at {}", paused.why);
                tracing::error!(projection = %self.name(), why);
                return Ok(Some(self.waits(&reader.generations.0, why)));
            }
        }
        Ok(None)
    }

    async fn take(&self, reader: &mut Reader, entries: &[Recorded]) -> Result<Option<Poison>> {
        let (needed, poison) = reader.folder.take_in(entries);
        let ids: Vec<&str> = needed.iter().map(String::as_str).collect();
        let found = if ids.is_empty() {
            vec![]
        } else {
            self.means.database().get(&self.collection(), &ids).await?
        };
        reader.folder.fold(needed, &found)?;
        reader.bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        Ok(poison)
    }

    fn collection(&self) -> Text {
        collection(&self.id, self.means.projection.collection(), &self.tag)
    }

    fn write(&self, folded: Folded) -> Write {
        let collection = self.collection();
        match folded {
            Folded::Put(id, sort, body) => {
                let sort = sort.map(|sort| Sort::Text(sort.into()));
                Write::Put { collection, id: id.into(), sort, body: body.into() }
            }
            Folded::Delete(id) => Write::Delete { collection, id: id.into() },
            Folded::Sql(statement) => Write::Run(statement),
        }
    }

    /// Commits what is unwritten with the checkpoint; false where somebody else changed it, or
    /// the projection's generations.
    async fn store(
        &self,
        reader: &mut Reader,
        lease: &str,
        marks: bool,
        paused: Option<&Paused>,
    ) -> Result<bool> {
        let mut checkpoint = reader.checkpoint.clone();
        let folded = reader.folder.write(&mut checkpoint.digest)?;
        checkpoint.position = reader.at;
        checkpoint.paused = paused.map(|paused| paused.why.clone());
        checkpoint.unreadable = paused.filter(|paused| !paused.gone).map(|paused| paused.at);
        checkpoint.gone = paused.filter(|paused| paused.gone).map(|paused| paused.at);
        checkpoint.time = Some(self.means.clock().now());
        if marks {
            checkpoint.mark(reader.at);
        }
        let mut writes: Vec<_> = folded.into_iter().map(|folded| self.write(folded)).collect();
        let (collection, id) = (Text::from(names::CHECKPOINTS), self.name());
        let body = serde_json::to_vec(&checkpoint)?.into();
        let put = Write::Put { collection: collection.clone(), id: id.clone(), sort: None, body };
        writes.push(put);
        let generations = Condition::Document {
            collection: names::PROJECTIONS.into(),
            id: self.id.clone(),
            expected: Some(reader.generations.1),
        };
        let conditions = vec![
            Condition::Document { collection, id, expected: reader.version },
            generations,
            Condition::Lease { name: lease.into(), epoch: reader.epoch },
        ];
        match self.means.committer.commit(Commit { conditions, writes }).await {
            Ok(_) => {
                reader.version = Some(reader.version.unwrap_or_default().next());
                reader.checkpoint = checkpoint;
                reader.bytes = 0;
                reader.stored_at = self.means.clock().elapsed();
                saw(&self.seen, reader.at);
                Ok(true)
            }
            Err(CommitError::Rejected(error) | CommitError::Failed(error)) => Err(error),
            Err(CommitError::Sql(failure)) => self.sql_failed(reader, lease, &failure).await,
            Err(_) => Ok(false),
        }
    }

    /// Of several entries the one whose SQL fails is looked for; by itself it pauses the projection
    /// where it fails for good, and is tried again else.
    async fn sql_failed(
        &self,
        reader: &mut Reader,
        lease: &str,
        failure: &Failure,
    ) -> Result<bool> {
        if !reader.is_careful() {
            reader.careful_until = reader.at;
            return Ok(false);
        }
        let why = format!("position {}: {failure}", reader.at);
        if failure.class != Class::Permanent {
            return Err(Error::unavailable(why));
        }
        tracing::error!(projection = %self.name(), why, "paused");
        let paused = Paused { at: reader.at, gone: false, why };
        reader.at = Position(reader.at.0 - 1);
        // Nothing is unwritten any more, so no SQL can fail in it.
        Box::pin(self.store(reader, lease, false, Some(&paused))).await?;
        Ok(false)
    }

    async fn idle(&self, at: Position) {
        // Others' entries too: who asks for a position wants to know that they were passed.
        let any = Filter::default();
        tokio::select! {
            biased;
            () = self.means.stop.cancelled() => {}
            () = self.means.database().changed(at, &any) => {}
            () = self.means.clock().sleep(RENEW) => {}
        }
    }
}

/// Where the next piece of a page ends: at a mark, or with the page. The last mark before an entry
/// is always the end of a piece, however the log is cut into pages.
fn piece(at: Position, first: Option<Position>, through: Position, stride: u64) -> Position {
    let mark = |position: u64| position / stride * stride;
    let before = mark(first.map_or(through.0, |first| first.0 - 1));
    if before > at.0 {
        return Position(before);
    }
    Position((mark(at.0) + stride).min(through.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(pages: &[u64], entries: &[u64], stride: u64) -> Vec<u64> {
        let (mut at, mut marks) = (Position(0), vec![]);
        for through in pages {
            while at.0 < *through {
                let first = entries.iter().find(|entry| at.0 < **entry && *entry <= through);
                at = piece(at, first.copied().map(Position), Position(*through), stride);
                if at.0.is_multiple_of(stride) {
                    marks.push(at.0);
                }
            }
        }
        marks
    }

    #[test]
    fn the_last_mark_before_an_entry_is_one_for_every_reader() {
        let entries = [3, 41, 42, 57, 99];
        assert_eq!(marks(&[100], &entries, 10), [10, 40, 50, 60, 90, 100]);
        assert_eq!(marks(&[20, 41, 95, 100], &entries, 10), [10, 20, 40, 50, 60, 90, 100]);
    }
}
