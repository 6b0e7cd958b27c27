//! How things are named in the database: one place, so that runtime and operator verbs agree.

use sillage_core::{Database, Key, Offset, Partition, Range, Result, Stored, Text};
use uuid::Uuid;

/// Documents of parked keys.
pub(crate) const PARKED_KEYS: &str = "parked_keys";
/// Documents of single parked deliveries.
pub(crate) const PARKED: &str = "parked";
/// Documents of deliveries that an operator skipped.
pub(crate) const SKIPPED: &str = "skipped";
/// Documents of timers.
pub(crate) const TIMERS: &str = "timers";
/// Documents of projections' generations.
pub(crate) const PROJECTIONS: &str = "projections";
/// Documents of projection checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Documents of consumers' watermarks.
pub(crate) const WATERMARKS: &str = "watermarks";
/// Documents of consumers' living members.
pub(crate) const MEMBERS: &str = "members";
/// Documents of consumers' settings: paused by an operator or by the kill switch.
pub(crate) const CONSUMERS: &str = "consumers";
/// Documents of breakers that are open.
pub(crate) const BREAKERS: &str = "breakers";
/// Documents of apps' manifests.
pub(crate) const MANIFESTS: &str = "manifests";
/// Documents of sagas' instances.
pub(crate) const SAGAS: &str = "sagas";
/// Documents of process managers' instances.
pub(crate) const PROCESSES: &str = "processes";
/// Documents of sagas' definitions, one a version.
pub(crate) const DEFINITIONS: &str = "saga_definitions";
/// Documents of events whose instance was never there.
pub(crate) const ORPHANS: &str = "orphans";
/// Documents of operations that were undone.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// Documents of what is archived, a stream each.
pub(crate) const ARCHIVES: &str = "archives";
/// Documents of how the log is trimmed.
pub(crate) const RETENTION: &str = "retention";
/// In place of a partition: inbox rows that are forgotten by their age, in seconds since 1970.
pub(crate) const BY_AGE: &str = "age";
/// The consumer that carries the log to a broker outside the database.
pub(crate) const RELAY: &str = "broker/relay";
/// The stream of what operators did.
pub(crate) const OPERATOR: &str = "operator";

/// A service's own collection.
pub(crate) fn collection(service: &str, name: &str) -> Text {
    joined(service, name)
}

/// A service's own stream.
pub(crate) fn stream(service: &str, name: &str) -> Text {
    joined(service, name)
}

/// A service's consumer, projection or other part with stored identity.
pub(crate) fn part(service: &str, name: &str) -> Text {
    joined(service, name)
}

/// All documents of a collection whose ids begin so.
pub(crate) async fn all(
    database: &dyn Database,
    collection: &str,
    prefix: &str,
) -> Result<Vec<Stored>> {
    let (mut all, mut after) = (vec![], Text::from(""));
    loop {
        let range = Range::Ids { prefix, after: &after };
        let page = database.list(collection, range, 500).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.id.clone();
        all.extend(page);
    }
}

/// What the ids of a consumer's watermarks begin with.
pub(crate) fn watermarks(consumer: &str) -> String {
    format!("{consumer}/")
}

/// The watermark of a consumer in a partition.
pub(crate) fn watermark(consumer: &str, partition: &Partition) -> Text {
    format!("{}{partition}", watermarks(consumer)).into()
}

/// The sort key of an offset: its twenty digits.
pub(crate) fn offset(offset: Offset) -> Text {
    format!("{:020}", offset.0).into()
}

/// The longest label of a key that is a part of an id: of longer ones, which only others publish, a
/// hash is.
const LONGEST_KEY: usize = 1_000;

/// The parked key of a consumer.
pub(crate) fn parked_key(consumer: &str, topic: &str, key: Option<&Key>, id: &str) -> Text {
    match key {
        Some(key) => {
            let label = key.label();
            if label.len() <= LONGEST_KEY {
                return format!("{consumer}/{topic}/{label}").into();
            }
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes());
            format!("{consumer}/{topic}/%#{hash}").into()
        }
        // A message without a key is a key of its own.
        None => format!("{consumer}/{topic}/%/{id}").into(),
    }
}

/// The parked delivery of that number under a parked key.
pub(crate) fn parked(parked_key: &str, number: u64) -> Text {
    format!("{parked_key}/{number:010}").into()
}

/// The timer of a token under a key.
pub(crate) fn timer(service: &str, key: Option<&Key>, token: &str) -> Text {
    let label = key.map(Key::label).unwrap_or_default();
    format!("{service}/{label}/{token}").into()
}

/// An instance of a process manager or a saga.
pub(crate) fn instance(process: &str, key: &str) -> Text {
    joined(process, key)
}

/// A version of a saga's definition.
pub(crate) fn definition(saga: &str, version: u32) -> Text {
    format!("{saga}@{version}").into()
}

/// An event of that name whose instance was never there.
pub(crate) fn orphan(process: &str, name: &str, key: &str) -> Text {
    format!("{process}/{name}/{key}").into()
}

/// An operation that a service has undone.
pub(crate) fn tombstone(service: &str, operation: &str) -> Text {
    joined(service, operation)
}

fn joined(owner: &str, name: &str) -> Text {
    [owner, "/", name].concat().into()
}
