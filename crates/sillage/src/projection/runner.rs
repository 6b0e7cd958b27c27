//! Runs a projection: read a page, fold it, commit documents and checkpoint together.

use super::{AnyProjection, Checkpoint, Poison, Progress};
use crate::{
    names,
    runtime::{committer::Committer, health::Vital},
};
use sillage_core::{
    Clock, Commit, CommitError, Condition, Epoch, Filter, Page, Position, Result, Sort, Text,
    Version, Write,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Entries folded at once.
const PAGE: usize = 1000;
/// How long a projection stays with a process that died.
const LEASE: Duration = Duration::from_secs(15);
/// How often the lease is renewed, and the checkpoint stored where nothing matched.
const RENEW: Duration = Duration::from_secs(3);

pub(crate) struct Runner {
    pub(crate) projection: Arc<dyn AnyProjection>,
    pub(crate) service: Text,
    pub(crate) follows: Vec<Text>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) committer: Committer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vital: Arc<Vital>,
    pub(crate) stop: CancellationToken,
}

struct Reader {
    checkpoint: Checkpoint,
    version: Option<Version>,
    /// Folded or passed over, in memory.
    at: Position,
    stored_at: Duration,
    renewed_at: Duration,
    epoch: Epoch,
}

impl Runner {
    /// The projection's stored identity.
    fn id(&self) -> Text {
        identity(&self.service, &*self.projection)
    }

    pub(crate) async fn run(self) {
        let owner = Uuid::from_bytes(rand::random());
        let lease = format!("projection/{}", self.id());
        while !self.stop.is_cancelled() {
            if let Err(error) = self.once(&lease, owner).await {
                self.vital.problem("projection", Some(error.to_string()));
                tracing::warn!(projection = %self.id(), %error, "stopped; starting again");
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.clock.sleep(Duration::from_secs(1)) => {}
            }
        }
        let _ = self.progress.database.lease(&lease, owner, Duration::ZERO).await;
    }

    /// Runs as long as this process owns the projection; else looks how far the owner is.
    async fn once(&self, lease: &str, owner: Uuid) -> Result<()> {
        let (checkpoint, version) = self.stored().await?;
        self.seen(checkpoint.position);
        let Some(epoch) = self.progress.database.lease(lease, owner, LEASE).await? else {
            return Ok(());
        };
        let now = self.clock.elapsed();
        let at = checkpoint.position;
        let mut reader = Reader { checkpoint, version, at, stored_at: now, renewed_at: now, epoch };
        while !self.stop.is_cancelled() {
            let now = self.clock.elapsed();
            if now >= reader.renewed_at + RENEW {
                let renewed = self.progress.database.lease(lease, owner, LEASE).await?;
                if renewed != Some(reader.epoch) {
                    return Ok(());
                }
                reader.renewed_at = now;
            }
            if !self.step(&mut reader, lease).await? {
                return Ok(());
            }
        }
        if reader.at > reader.checkpoint.position {
            self.commit(&mut reader, lease, vec![], None).await?;
        }
        Ok(())
    }

    async fn stored(&self) -> Result<(Checkpoint, Option<Version>)> {
        let stored = self.progress.database.get(names::CHECKPOINTS, &[&self.id()]).await?;
        let Some(stored) = stored.into_iter().flatten().next() else {
            return Ok((Checkpoint::default(), None));
        };
        Ok((serde_json::from_slice(&stored.body)?, Some(stored.version)))
    }

    /// Folds one page; false where somebody else has moved the checkpoint.
    async fn step(&self, reader: &mut Reader, lease: &str) -> Result<bool> {
        let database = &self.progress.database;
        let filter = Filter { names: self.projection.events(), ..Filter::default() };
        let page = database.log(reader.at, &filter, PAGE).await?;
        if page.through <= reader.at {
            return self.idle(reader, lease).await;
        }
        let visible = self.visible(page);
        let (batch, poison) = self.projection.begin(&visible.entries);
        let through = poison.as_ref().map_or(visible.through, |p| Position(p.position.0 - 1));
        let ids: Vec<&str> = batch.ids().iter().map(String::as_str).collect();
        let nothing = ids.is_empty();
        let stored = database.get(&self.progress.collection, &ids).await?;
        let folded = batch.finish(&stored)?;
        reader.at = reader.at.max(through);
        let due = self.clock.elapsed() >= reader.stored_at + RENEW;
        if !nothing || due || poison.is_some() {
            let writes = folded.into_iter().map(|folded| self.write(folded)).collect();
            if !self.commit(reader, lease, writes, poison.as_ref()).await? {
                return Ok(false);
            }
        }
        self.seen(reader.at);
        if let Some(poison) = poison {
            return self.paused(&poison).await;
        }
        self.vital.problem("projection", None);
        Ok(true)
    }

    /// Only the service's own entries and the topics it follows.
    fn visible(&self, mut page: Page) -> Page {
        page.entries.retain(|entry| {
            let followed = entry.topic.as_ref().is_some_and(|t| self.follows.contains(t));
            entry.source == self.service || followed
        });
        page
    }

    fn write(&self, folded: super::Folded) -> Write {
        let (collection, id) = (self.progress.collection.clone(), folded.id.into());
        match folded.document {
            Some((sort, body)) => {
                let sort = sort.map(|sort| Sort::Text(sort.into()));
                Write::Put { collection, id, sort, body: body.into() }
            }
            None => Write::Delete { collection, id },
        }
    }

    async fn commit(
        &self,
        reader: &mut Reader,
        lease: &str,
        mut writes: Vec<Write>,
        poison: Option<&Poison>,
    ) -> Result<bool> {
        let paused = poison.map(|poison| format!("position {}: {}", poison.position, poison.error));
        let checkpoint = Checkpoint { position: reader.at, paused };
        let (collection, id) = (Text::from(names::CHECKPOINTS), self.id());
        let body = serde_json::to_vec(&checkpoint)?.into();
        writes.push(Write::Put {
            collection: collection.clone(),
            id: id.clone(),
            sort: None,
            body,
        });
        let conditions = vec![
            Condition::Document { collection, id, expected: reader.version },
            Condition::Lease { name: lease.into(), epoch: reader.epoch },
        ];
        match self.committer.commit(Commit { conditions, writes }).await {
            Ok(_) => {
                reader.version = Some(reader.version.unwrap_or_default().next());
                reader.checkpoint = checkpoint;
                reader.stored_at = self.clock.elapsed();
                Ok(true)
            }
            Err(CommitError::Rejected(error) | CommitError::Failed(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    async fn idle(&self, reader: &mut Reader, lease: &str) -> Result<bool> {
        let due = self.clock.elapsed() >= reader.stored_at + RENEW;
        if due && reader.at > reader.checkpoint.position {
            return self.commit(reader, lease, vec![], None).await;
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.progress.database.changed(reader.at) => {}
            () = self.clock.sleep(RENEW) => {}
        }
        Ok(true)
    }

    /// A poison event: the projection waits for a reader that knows it, or for an operator.
    async fn paused(&self, poison: &Poison) -> Result<bool> {
        let why = format!("paused at position {}: {}", poison.position, poison.error);
        tracing::error!(projection = %self.id(), why);
        self.vital.problem("projection", Some(why));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.clock.sleep(Duration::from_secs(5)) => {}
        }
        Ok(true)
    }

    fn seen(&self, position: Position) {
        self.progress.position.send_if_modified(|seen| {
            let moved = *seen < position;
            *seen = (*seen).max(position);
            moved
        });
    }
}

/// A projection's stored identity.
pub(crate) fn identity(service: &str, projection: &dyn AnyProjection) -> Text {
    format!("{service}/{}@{}", projection.name(), projection.version()).into()
}
