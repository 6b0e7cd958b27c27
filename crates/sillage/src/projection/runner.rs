//! Runs one generation of a projection: read a page, fold it, commit documents and checkpoint
//! together.
//!
//! A reader that is at the end of the log commits what each page changed. One that is far behind
//! goes on folding in memory and commits now and then, so a document that many entries change is
//! written once; it reads the next page, and waits for its last commit, while it folds.

use super::{
    Checkpoint, Generations,
    ahead::Ahead,
    checkpoint,
    fold::Poison,
    keeper::Means,
    store::{Paused, Reader},
    stored,
    view::{Seen, saw},
};
use crate::{archive::archived_through, names, panics::panicked};
use futures_util::FutureExt as _;
use sillage_core::{Failure, Filter, Page, Position, Recorded, Result, Text, Version};
use std::{iter, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a generation stays with a process that died.
const LEASE: Duration = Duration::from_secs(15);
/// How often the lease is renewed, and the checkpoint stored where nothing matched.
const RENEW: Duration = Duration::from_secs(3);
/// What a reader that is behind holds unwritten at most: bytes of payloads, time.
const UNWRITTEN: (usize, Duration) = (8 << 20, Duration::from_secs(1));
/// Positions between marks, near the end of the log, for who has been there, and far from it.
const STRIDE: (u64, u64) = (256, 16_384);

pub(crate) struct Runner {
    pub(crate) means: Arc<Means>,
    /// The projection, as `service/name`.
    pub(crate) id: Text,
    pub(crate) tag: Text,
    pub(crate) seen: Seen,
}

/// What a process remembers of runs that ended.
#[derive(Default)]
struct Tried {
    /// What could not be folded, and after how many times of being resumed.
    paused: Option<(Position, u64)>,
    careful_until: Position,
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
                    // Of one that nobody reads yet only the log tells.
                    if self.means.progress.reading().tag == self.tag {
                        self.means.vital.problem("projection", Some(error.to_string()));
                    }
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
    pub(super) fn name(&self) -> Text {
        checkpoint(&self.id, &self.tag)
    }

    /// Runs as long as this process owns the generation.
    async fn once(&self, lease: &str, owner: Uuid, tried: &mut Tried) -> Result<End> {
        let database = self.means.database();
        let Some(generations) = stored(database, &self.id).await? else { return Ok(End::Idle) };
        if !generations.0.has(&self.tag) {
            return Ok(End::Gone);
        }
        let (mut checkpoint, version) = self.stored().await?;
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
            self.goes_on(&generations.0);
            return Ok(End::Idle);
        };
        // Whether it pauses is to be seen, in this process.
        checkpoint.paused = None;
        let now = self.means.clock().elapsed();
        let folder = self.means.projection.folder(version.is_none());
        let filter = Filter { names: self.means.projection.events(), ..Filter::default() };
        let mut reader = Reader {
            ahead: Ahead::new(self.means.progress.database.clone(), filter, folder.pages()),
            folder,
            at: checkpoint.position,
            checkpoint,
            version,
            generations,
            archived: archived_through(database).await?,
            folding: Position::default(),
            is_near: false,
            bytes: 0,
            stored_at: now,
            renewed_at: now,
            writing: None,
            lease: (lease.into(), epoch),
            careful_until: tried.careful_until,
        };
        let end = match AssertUnwindSafe(self.read(&mut reader, owner)).catch_unwind().await {
            Ok(end) => end,
            Err(panic) => self.panicked(&mut reader, &panicked(&*panic)).await,
        };
        // What is on its way arrives before anything is looked at again.
        let end = match self.settle(&mut reader).await {
            Ok(true) => end,
            refused => end.and(refused.map(|_| End::Changed)),
        };
        tried.careful_until = reader.careful_until;
        if reader.checkpoint.paused.is_some() {
            tried.paused = Some((reader.at, reader.checkpoint.resumed));
        }
        end
    }

    async fn read(&self, reader: &mut Reader, owner: Uuid) -> Result<End> {
        while !self.means.stop.is_cancelled() {
            let now = self.means.clock().elapsed();
            if now >= reader.renewed_at + RENEW {
                let (lease, epoch) = &reader.lease;
                let renewed = self.means.database().lease(lease, owner, LEASE).await?;
                if renewed != Some(*epoch) {
                    return Ok(End::Idle);
                }
                reader.renewed_at = now;
            }
            if let Some(end) = self.step(reader).await? {
                return Ok(end);
            }
        }
        if reader.at > reader.checkpoint.position {
            self.store(reader, false, None).await?;
        }
        Ok(End::Idle)
    }

    /// A fold has panicked. Of several entries the one that it did at is looked for; by itself it
    /// pauses the projection.
    async fn panicked(&self, reader: &mut Reader, failure: &Failure) -> Result<End> {
        // It may have changed a document by half.
        reader.folder.forget();
        if !reader.is_careful() {
            reader.careful_until = reader.folding;
            return Ok(End::Changed);
        }
        let why = format!("position {}: {failure}", reader.folding);
        let paused = Paused { at: reader.folding, gone: false, why };
        reader.at = Position(reader.folding.0 - 1);
        self.pause(reader, &paused).await
    }

    /// The live generation goes on, here or elsewhere.
    fn goes_on(&self, generations: &Generations) {
        if generations.live.tag == self.tag {
            self.means.vital.problem("projection", None);
        }
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
    async fn step(&self, reader: &mut Reader) -> Result<Option<End>> {
        let (page, more) = if reader.is_careful() {
            reader.ahead.one(reader.at).await?
        } else {
            reader.ahead.page(reader.at).await?
        };
        let gone = page.trimmed_before.max(reader.archived);
        if gone > reader.at.max(reader.checkpoint.lost) {
            return self.trimmed(reader, gone).await.map(Some);
        }
        reader.folding = page.entries.last().map_or(page.through, |entry| entry.position);
        if page.through > reader.at
            && let Some(end) = self.fold(reader, page, more).await?
        {
            return Ok(Some(end));
        }
        if !self.write(reader, more).await? {
            return Ok(Some(End::Changed));
        }
        self.goes_on(&reader.generations.0);
        reader.is_near = !more;
        if !more {
            reader.folder.forget();
            self.idle(reader.at).await;
        }
        Ok(None)
    }

    /// Writes what is to be written by now; false where somebody else changed something.
    async fn write(&self, reader: &mut Reader, more: bool) -> Result<bool> {
        let now = self.means.clock().elapsed();
        let unwritten = reader.folder.changed() > 0;
        let due = now >= reader.stored_at + RENEW && reader.at > reader.checkpoint.position;
        let enough = reader.folder.is_full()
            || reader.is_careful()
            || reader.bytes >= UNWRITTEN.0
            || now >= reader.stored_at + UNWRITTEN.1;
        let written = if due || unwritten && (enough || !more) {
            self.store_behind(reader, false, more).await?
        } else {
            more || self.settle(reader).await?
        };
        if written && reader.writing.is_none() && reader.folder.changed() == 0 {
            saw(&self.seen, reader.at);
        }
        Ok(written)
    }

    /// Entries that it has not read are gone: it waits for an operator who says that this is well.
    async fn trimmed(&self, reader: &mut Reader, before: Position) -> Result<End> {
        let why = format!(
            "position {}: entries up to {before} were trimmed from the log, or archived with their \
             streams, before it read them",
            reader.at.0 + 1
        );
        let paused = Paused { at: before, gone: true, why };
        if !self.store(reader, false, Some(&paused)).await? {
            return Ok(End::Changed);
        }
        Ok(self.waits(&reader.generations.0, format!("paused at {}", paused.why)))
    }

    /// Only the service's own entries and the topics it follows.
    fn sees(&self, entry: &Recorded) -> bool {
        let follows = |topic: &Text| self.means.follows.contains(topic);
        entry.source == self.means.service || entry.topic.as_ref().is_some_and(follows)
    }

    /// Folds a page, in pieces that end at marks.
    async fn fold(&self, reader: &mut Reader, page: Page, more: bool) -> Result<Option<End>> {
        let stride = if reader.is_near && !more { STRIDE.0 } else { STRIDE.1 };
        // One by one, so that each is gone before the next is looked at.
        let mut entries = page.entries.into_iter().filter(|entry| self.sees(entry)).peekable();
        while reader.at < page.through {
            let first = entries.peek().map(|entry| entry.position);
            let to = piece(reader.at, first, page.through, stride);
            let mut these = iter::from_fn(|| entries.next_if(|entry| entry.position <= to));
            let poison = self.take(reader, &mut these).await?;
            if let Some(paused) = poison.as_ref().map(Paused::at) {
                reader.at = Position(paused.at.0 - 1);
                return self.pause(reader, &paused).await.map(Some);
            }
            reader.at = to;
            if !to.0.is_multiple_of(stride) {
                continue;
            }
            if reader.folder.changed() == 0 {
                // Nothing is unwritten, so the digest is as it was.
                reader.checkpoint.mark(reader.at);
            } else if !self.store_behind(reader, true, more).await? {
                return Ok(Some(End::Changed));
            }
        }
        Ok(None)
    }

    async fn pause(&self, reader: &mut Reader, paused: &Paused) -> Result<End> {
        if !self.store(reader, false, Some(paused)).await? {
            return Ok(End::Changed);
        }
        let why = format!("paused at {}", paused.why);
        tracing::error!(projection = %self.name(), why);
        Ok(self.waits(&reader.generations.0, why))
    }

    async fn take(
        &self,
        reader: &mut Reader,
        entries: &mut (dyn Iterator<Item = Recorded> + Send),
    ) -> Result<Option<Poison>> {
        let bytes = &mut reader.bytes;
        let mut entries = entries.inspect(|entry| *bytes += entry.payload.len());
        let (needed, poison) = reader.folder.take_in(&mut entries);
        let ids: Vec<&str> = needed.iter().map(String::as_str).collect();
        let found = if ids.is_empty() {
            vec![]
        } else {
            self.means.database().get(&self.collection(), &ids).await?
        };
        reader.folder.fold(needed, &found)?;
        Ok(poison)
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
