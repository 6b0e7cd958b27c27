//! What operators see of retention, and what they do about a reader that holds it back or was passed.

use super::Admin;
use crate::{
    log_broker::{SLOTS, partition, passed},
    names,
    retention::{LogReader, readers, stored, trimmed_before},
    runtime::Mark,
};
use serde::Serialize;
use serde_json::json;
use sillage_core::{
    Commit, Condition, Error, ErrorKind, Offset, Position, Result, Sort, Text, Write,
};
use std::time::Duration;

/// How the log is trimmed.
#[derive(Clone, Debug, Serialize)]
pub struct RetentionStatus {
    /// For how long entries without a stream stay; `None`: no app says, and they all stay.
    pub keep_seconds: Option<u64>,
    /// Entries without a stream are gone up to here.
    pub trimmed_before: Position,
    /// They are old enough up to here.
    pub due: Position,
    /// Everybody who reads the log, the last one first.
    pub readers: Vec<LogReader>,
}

impl RetentionStatus {
    /// For how long entries without a stream stay.
    pub fn keep(&self) -> Option<Duration> {
        self.keep_seconds.map(Duration::from_secs)
    }

    /// Who keeps entries that are old enough.
    pub fn holding(&self) -> impl Iterator<Item = &LogReader> {
        self.readers.iter().filter(|reader| reader.position < self.due)
    }
}

impl Admin {
    /// How the log is trimmed, and who holds that back.
    pub async fn retention(&self) -> Result<RetentionStatus> {
        let (state, _) = stored(&*self.database).await?.unzip();
        let now = self.database.now().await?;
        let keep_seconds = state.as_ref().map(|state| state.keep);
        Ok(RetentionStatus {
            keep_seconds,
            trimmed_before: trimmed_before(&*self.database).await?,
            due: state.map_or(Position(0), |mut state| state.due(now)),
            readers: readers(&*self.database).await?.0,
        })
    }

    /// Lets a consumer of the log go on that had not read all that was trimmed: what is gone it never
    /// sees. Answers up to where; nothing is done where it has lost nothing. Refused while it runs, as it would store where it is.
    pub async fn accept_loss(&self, consumer: &str) -> Result<Position> {
        self.known_consumer(consumer).await?;
        let members = self.all(names::MEMBERS, &format!("{consumer}/")).await?;
        if !members.is_empty() {
            let what = format!("consumer `{consumer}` runs: stop its app, and start it after this");
            return Err(Error::invalid(what));
        }
        let gone = trimmed_before(&*self.database).await?;
        let mut commit = Commit::default();
        for (slot, place) in (0..SLOTS).zip(passed(&*self.database, consumer).await?) {
            if place.is_none_or(|place| place >= gone.0) {
                continue;
            }
            let id = names::watermark(consumer, &partition(slot));
            let stored = self.database.get(names::WATERMARKS, &[&id]).await?.pop().flatten();
            let Some(stored) = stored else { continue };
            let mark: Mark = serde_json::from_slice(&stored.body)?;
            let offset = Offset(gone.0);
            let body = serde_json::to_vec(&Mark { offset, guard: None, ..mark })?.into();
            let (collection, sort) =
                (Text::from(names::WATERMARKS), Some(Sort::Text(names::offset(offset))));
            commit.conditions.push(Condition::Document {
                collection: collection.clone(),
                id: id.clone(),
                expected: Some(stored.version),
            });
            commit.writes.push(Write::Put { collection, id, sort, body });
        }
        if commit.writes.is_empty() {
            return Ok(gone);
        }
        let what = json!({ "consumer": consumer, "through": gone });
        self.act("accept-loss", what, commit).await?;
        Ok(gone)
    }

    /// Forgets a service that is gone for good: its consumers hold back nothing any more. It signs in
    /// anew when it starts.
    pub async fn forget_service(&self, service: &str) -> Result<()> {
        let stored = self.database.get(names::MANIFESTS, &[service]).await?.pop().flatten();
        if stored.is_none() {
            let known = self.all(names::MANIFESTS, "").await?;
            let known: Vec<_> = known.iter().map(|known| &*known.id).collect();
            let sentence = format!("no service `{service}`; there are: {}", known.join(", "));
            return Err(Error::new(ErrorKind::NotFound, sentence));
        }
        let (collection, id) = (names::MANIFESTS.into(), service.into());
        let commit = Commit { conditions: vec![], writes: vec![Write::Delete { collection, id }] };
        self.act("forget-service", json!({ "service": service }), commit).await.map(drop)
    }
}
