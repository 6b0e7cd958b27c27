//! Choosing which generation is read: the comparison before it, and the one commit that does it.
//!
//! *Guarantees.* What is read from then on has seen at least what was read until then.

use super::{Checkpoint, Digest, Generation, checkpoint, stored};
use crate::names;
use sillage_core::{Commit, Condition, Database, Error, Position, Result, Text, Version};
use std::fmt;

/// What is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The rebuilt one.
    Switch,
    /// The one that was read before.
    RollBack,
}

/// Why it is not chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no other one.
    Nothing,
    /// It has not seen what the live one has seen.
    Behind { live: Position, other: Position },
    /// There is no position yet at which both digests are known.
    Unknown,
    /// At that position they were not the same.
    Differs { position: Position, live: Digest, other: Digest },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Nothing => f.write_str("there is no other generation"),
            Refused::Behind { live, other } => {
                write!(f, "the live one is at position {live}, the other one at {other}")
            }
            Refused::Unknown => f.write_str("they were at no position both yet"),
            Refused::Differs { position, live, other } => write!(
                f,
                "they differ at position {position}: {} documents with digest {}, and {} with {}",
                live.documents, live.hash, other.documents, other.hash
            ),
        }
    }
}

/// The commit that chooses, or why not. `force`: also where it is behind or differs.
pub(crate) async fn choose(
    database: &dyn Database,
    id: &Text,
    choice: Choice,
    force: bool,
) -> Result<Result<Commit, Refused>> {
    let Some((mut generations, since)) = stored(database, id).await? else {
        return Ok(Err(Refused::Nothing));
    };
    let other = match choice {
        Choice::Switch => &generations.shadow,
        Choice::RollBack => &generations.former,
    };
    let Some(other) = other else { return Ok(Err(Refused::Nothing)) };
    let [live, other_one] = checkpoints(database, id, [&generations.live, other]).await?;
    let compared = choice == Choice::Switch && other.version == generations.live.version;
    if !force && let Err(refused) = agree(&live.0, &other_one.0, compared) {
        return Ok(Err(refused));
    }
    let unmoved = Condition::Document {
        collection: names::CHECKPOINTS.into(),
        id: checkpoint(id, &generations.live.tag),
        expected: live.1,
    };
    match choice {
        Choice::Switch => generations.switch(),
        Choice::RollBack => generations.roll_back(),
    }
    let (condition, write) = generations.replace(id, Some(since))?;
    // The other one only moves on; that the live one has not is the condition.
    let conditions = if force { vec![condition] } else { vec![condition, unmoved] };
    Ok(Ok(Commit { conditions, writes: vec![write] }))
}

fn agree(live: &Checkpoint, other: &Checkpoint, compared: bool) -> Result<(), Refused> {
    if other.position < live.position {
        return Err(Refused::Behind { live: live.position, other: other.position });
    }
    if !compared {
        return Ok(());
    }
    match live.common(other) {
        None => Err(Refused::Unknown),
        Some((position, live, other)) if live != other => {
            Err(Refused::Differs { position, live, other })
        }
        Some(_) => Ok(()),
    }
}

/// Two checkpoints in one read, with their versions.
pub(crate) async fn checkpoints(
    database: &dyn Database,
    id: &str,
    of: [&Generation; 2],
) -> Result<[(Checkpoint, Option<Version>); 2]> {
    let names = of.map(|of| checkpoint(id, &of.tag));
    let stored = database.get(names::CHECKPOINTS, &[&names[0], &names[1]]).await?;
    let mut read = vec![];
    for stored in stored {
        read.push(match stored {
            Some(stored) => (serde_json::from_slice(&stored.body)?, Some(stored.version)),
            None => (Checkpoint::default(), None),
        });
    }
    read.try_into().map_err(|_| Error::unavailable("the database did not answer for both"))
}
