//! What a reader has folded, written with its checkpoint: at once, or while it goes on folding.
//!
//! *Guarantees.* One commit is on its way at most; the next holds only if that one was accepted, and
//! what it changed stays in memory until then. What was folded on top of one that is refused is thrown
//! away with the reader.

use super::{
    Checkpoint, Generations,
    ahead::Ahead,
    collection,
    fold::{Folded, Folder, Poison},
    runner::Runner,
    view::saw,
};
use crate::{names, runtime::committer::Answer};
use sillage_core::{
    BoxFuture, Class, Commit, CommitError, Condition, Epoch, Error, Failure, Position, Result,
    Sort, Text, Version, Write,
};
use std::time::Duration;

/// What a reader knows while it owns the generation.
pub(super) struct Reader {
    pub(super) ahead: Ahead,
    pub(super) folder: Box<dyn Folder>,
    pub(super) checkpoint: Checkpoint,
    /// Of the stored checkpoint, and of the projection's generations.
    pub(super) version: Option<Version>,
    pub(super) generations: (Generations, Version),
    /// Folded or passed over, in memory.
    pub(super) at: Position,
    /// Entries of streams may be in archives up to here. What is archived later this has read.
    pub(super) archived: Position,
    /// The last entry of the page that is being folded.
    pub(super) folding: Position,
    /// It was at the end of the log with its last page.
    pub(super) is_near: bool,
    /// Bytes of payloads folded and not written.
    pub(super) bytes: usize,
    pub(super) stored_at: Duration,
    pub(super) renewed_at: Duration,
    /// What is being written while the next entries are folded.
    pub(super) writing: Option<Writing>,
    /// The lease that it holds, and since which change of owners.
    pub(super) lease: (Text, Epoch),
    /// Up to here entries are written one by one, as one of them panicked, or its SQL failed.
    pub(super) careful_until: Position,
}

impl Reader {
    /// Until that is written of which one failed.
    pub(super) fn is_careful(&self) -> bool {
        self.checkpoint.position < self.careful_until
    }
}

/// A commit that is on its way.
pub(super) struct Writing {
    /// What it holds is folded up to here.
    at: Position,
    /// As it is stored, until this commit is accepted.
    before: Checkpoint,
    answer: BoxFuture<'static, Answer>,
}

/// Why a reader does not go on: an entry that it cannot read, or entries that are gone.
pub(super) struct Paused {
    pub(super) at: Position,
    pub(super) gone: bool,
    pub(super) why: String,
}

impl Paused {
    pub(super) fn at(poison: &Poison) -> Self {
        let why = format!("position {}: {}", poison.position, poison.why);
        Paused { at: poison.position, gone: false, why }
    }
}

impl Runner {
    /// Commits what is unwritten with the checkpoint; false where somebody else changed it, or
    /// the projection's generations.
    pub(super) async fn store(
        &self,
        reader: &mut Reader,
        marks: bool,
        paused: Option<&Paused>,
    ) -> Result<bool> {
        if !self.settle(reader).await? {
            return Ok(false);
        }
        self.begin(reader, marks, paused)?;
        self.settle(reader).await
    }

    /// As `store`. Where there is more of the log to fold, the answer is waited for by the next
    /// one, or by `settle`; but SQL may fail, and then it is this commit's.
    pub(super) async fn store_behind(
        &self,
        reader: &mut Reader,
        marks: bool,
        more: bool,
    ) -> Result<bool> {
        if !more || reader.is_careful() || self.means.projection.writes_tables() {
            return self.store(reader, marks, None).await;
        }
        if !self.settle(reader).await? {
            return Ok(false);
        }
        self.begin(reader, marks, None)?;
        Ok(true)
    }

    /// Waits for what is on its way; false as `store` says.
    pub(super) async fn settle(&self, reader: &mut Reader) -> Result<bool> {
        let Some(writing) = reader.writing.take() else { return Ok(true) };
        let Err(error) = writing.answer.await else {
            reader.version = Some(reader.version.unwrap_or_default().next());
            saw(&self.seen, writing.at);
            return Ok(true);
        };
        reader.checkpoint = writing.before;
        match error {
            CommitError::Rejected(error) | CommitError::Failed(error) => Err(error),
            CommitError::Sql(failure) => self.sql_failed(reader, &failure).await,
            _ => Ok(false),
        }
    }

    /// Hands the commit over.
    fn begin(&self, reader: &mut Reader, marks: bool, paused: Option<&Paused>) -> Result<()> {
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
        let documents = self.collection();
        let mut writes: Vec<_> =
            folded.into_iter().map(|folded| write(documents.clone(), folded)).collect();
        let (collection, id) = (Text::from(names::CHECKPOINTS), self.name());
        let body = serde_json::to_vec(&checkpoint)?.into();
        let put = Write::Put { collection: collection.clone(), id: id.clone(), sort: None, body };
        writes.push(put);
        let generations = Condition::Document {
            collection: names::PROJECTIONS.into(),
            id: self.id.clone(),
            expected: Some(reader.generations.1),
        };
        let (name, epoch) = reader.lease.clone();
        let conditions = vec![
            Condition::Document { collection, id, expected: reader.version },
            generations,
            Condition::Lease { name, epoch },
        ];
        let answer = self.means.committer.begin(Commit { conditions, writes });
        let before = std::mem::replace(&mut reader.checkpoint, checkpoint);
        reader.writing = Some(Writing { at: reader.at, before, answer: Box::pin(answer) });
        reader.bytes = 0;
        reader.stored_at = self.means.clock().elapsed();
        Ok(())
    }

    /// Of several entries the one whose SQL fails is looked for; by itself it pauses the projection
    /// where it fails for good, and is tried again else.
    async fn sql_failed(&self, reader: &mut Reader, failure: &Failure) -> Result<bool> {
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
        Box::pin(self.store(reader, false, Some(&paused))).await?;
        Ok(false)
    }

    /// Where its documents are.
    pub(super) fn collection(&self) -> Text {
        collection(&self.id, self.means.projection.collection(), &self.tag)
    }
}

fn write(collection: Text, folded: Folded) -> Write {
    match folded {
        Folded::Put(id, sort, body) => {
            let sort = sort.map(|sort| Sort::Text(sort.into()));
            Write::Put { collection, id: id.into(), sort, body: body.into() }
        }
        Folded::Delete(id) => Write::Delete { collection, id: id.into() },
        Folded::Sql(statement) => Write::Run(statement),
    }
}
