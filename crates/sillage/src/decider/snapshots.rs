//! Snapshots: a stream's state at a version, kept as a document so that a long stream need not be
//! read from its beginning.
//!
//! *Guarantees.* A snapshot is written by the commit that appends what leads to it, or not at all.
//! It is only a short cut: one of another version of the state, one that cannot be read, and one
//! that is ahead of its stream (a log that was restored) are passed over, and the stream is read.

use super::{Decider, local_stream};
use crate::names;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sillage_core::{Database, Effect, Effects, Result, Text, Version};

/// The collection of snapshots within a service.
const COLLECTION: &str = "snapshots";

/// When and how the state of a decider is kept beside its stream.
///
/// ```
/// # use sillage::prelude::*;
/// # use serde::{Serialize, Deserialize};
/// # #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// # #[event(name = "door.opened")]
/// # struct Opened { #[event(key)] door: String }
/// # #[derive(Events, Clone, Debug, PartialEq)]
/// # enum DoorEvent { Opened(Opened) }
/// #[derive(Serialize, Deserialize, Clone, Default)]
/// struct Door { opened: u64 }
///
/// impl Decider for Door {
///     fn snapshots() -> Option<Snapshots<Self>> {
///         Some(Snapshots::version(1).every(500))
///     }
///     // …
/// #   const STREAM: &'static str = "door";
/// #   type Command = Opened;
/// #   type Event = DoorEvent;
/// #   type Refusal = &'static str;
/// #   fn initial() -> Self { Door::default() }
/// #   fn decide(&self, open: Opened) -> Result<Vec<DoorEvent>, &'static str> { Ok(vec![open.into()]) }
/// #   fn evolve(self, _: &DoorEvent) -> Self { Door { opened: self.opened + 1 } }
/// }
/// ```
pub struct Snapshots<D> {
    version: u32,
    every: u64,
    write: fn(&D) -> serde_json::Result<Box<RawValue>>,
    read: fn(&RawValue) -> serde_json::Result<D>,
}

impl<D: Serialize + DeserializeOwned> Snapshots<D> {
    /// Of this version of the state, every 100 events: a higher number when the state, or what
    /// `evolve` makes of events, has changed. Older snapshots are passed over then.
    #[must_use]
    pub fn version(version: u32) -> Self {
        let write = |state: &D| serde_json::value::to_raw_value(state);
        Snapshots { version, every: 100, write, read: |state| serde_json::from_str(state.get()) }
    }

    /// One whenever the stream's version passes a multiple of so many events.
    #[must_use]
    pub fn every(mut self, events: u64) -> Self {
        self.every = events.max(1);
        self
    }
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    /// Of the state.
    version: u32,
    /// Of the stream.
    stream: Version,
    state: Box<RawValue>,
}

/// The effect that keeps the state at a stream's new version, where that is due.
pub(super) fn keep<D: Decider>(id: &str, before: Version, state: &D, now: Version) -> Effects {
    let Some(kept) = D::snapshots() else { return Effects::none() };
    if before.0 / kept.every == now.0 / kept.every {
        return Effects::none();
    }
    let (version, stream) = (kept.version, now);
    let written = (kept.write)(state)
        .and_then(|state| serde_json::to_vec(&Snapshot { version, stream, state }));
    match written {
        Ok(body) => Effects::one(Effect::Put {
            collection: COLLECTION,
            id: local_stream::<D>(id),
            sort: None,
            body: Ok(body.into()),
            blind: true,
        }),
        Err(error) => {
            tracing::warn!(stream = local_stream::<D>(id), %error, "no snapshot is kept");
            Effects::none()
        }
    }
}

/// The state that was kept last, and the version of the stream that it says it is of.
pub(super) async fn kept<D: Decider>(
    database: &dyn Database,
    service: &str,
    id: &str,
) -> Result<Option<(D, Version)>> {
    let Some(kept) = D::snapshots() else { return Ok(None) };
    let (collection, stream) = (names::collection(service, COLLECTION), local_stream::<D>(id));
    let stored = database.get(&collection, &[&stream]).await?.pop().flatten();
    let Some(stored) = stored else { return Ok(None) };
    let snapshot = match serde_json::from_slice::<Snapshot>(&stored.body) {
        Ok(snapshot) if snapshot.version == kept.version && snapshot.stream.0 > 0 => snapshot,
        Ok(_) => return Ok(None),
        Err(error) => return Ok(passed_over(&stored.id, &error)),
    };
    match (kept.read)(&snapshot.state) {
        Ok(state) => Ok(Some((state, snapshot.stream))),
        Err(error) => Ok(passed_over(&stored.id, &error)),
    }
}

fn passed_over<T>(stream: &Text, error: &serde_json::Error) -> Option<T> {
    tracing::warn!(%stream, %error, "a snapshot cannot be read; the stream is read instead");
    None
}
