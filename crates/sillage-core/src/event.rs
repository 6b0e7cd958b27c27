//! Contracts: typed events and commands with a stable name, a version, a topic and a key.

use crate::{Draft, Key};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// Why a payload could not be read as a contract.
#[derive(Debug)]
pub struct DecodeError {
    what: String,
    newer: bool,
    source: Option<serde_json::Error>,
}

impl DecodeError {
    /// No event of this name belongs to the set that was asked for.
    pub fn unknown(name: &str) -> Self {
        DecodeError {
            what: format!("`{name}` is not one of the expected events"),
            newer: false,
            source: None,
        }
    }

    /// This version of the contract cannot be read.
    pub fn version(name: &str, known: u32, version: u32) -> Self {
        let newer = version > known;
        let hint = if newer {
            "a newer producer sent it: deploy a reader that knows it"
        } else {
            "say how to read it: `was = …` with a `From` of the older type"
        };
        let what = format!("`{name}` version {version} is not known here (up to {known}): {hint}");
        DecodeError { what, newer, source: None }
    }

    /// The payload is not the JSON that the contract expects.
    pub fn json(name: &str, version: u32, error: serde_json::Error) -> Self {
        let what = format!("the payload of `{name}` version {version} cannot be read");
        DecodeError { what, newer: false, source: Some(error) }
    }

    /// Whether a newer deployment may be able to read it, so that waiting can help.
    pub fn is_newer_version(&self) -> bool {
        self.newer
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// A published type: stable name, version, topic, key. Derive [`Event`] or [`Command`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an event nor a command",
    note = "derive it: #[derive(Event)] or #[derive(Command)], with #[event(name = \"order.created\")]"
)]
pub trait Contract: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// The stable name: `order.created`.
    const NAME: &'static str;
    /// The version of the payload that this type writes, from 1.
    const VERSION: u32;
    /// Where it is published; `None` stays in the log.
    const TOPIC: Option<&'static str>;
    /// Names it had before, each with the topic it came on: what has such a name is read as this.
    const ALIASES: &'static [(&'static str, Option<&'static str>)] = &[];

    /// What orders it; `None` is ordered with nothing.
    fn key(&self) -> Option<Key>;

    /// Reads the payload of any version that was ever published.
    ///
    /// A newer version than this type knows is tried as it is, as added fields are no obstacle.
    fn read(version: u32, payload: &[u8]) -> Result<Self, DecodeError> {
        if version < Self::VERSION {
            return Self::upcast(version, payload);
        }
        serde_json::from_slice(payload).map_err(|error| {
            if version > Self::VERSION {
                DecodeError::version(Self::NAME, Self::VERSION, version)
            } else {
                DecodeError::json(Self::NAME, version, error)
            }
        })
    }

    /// Reads an older version; the derive's `was = …` writes this.
    fn upcast(version: u32, _payload: &[u8]) -> Result<Self, DecodeError> {
        Err(DecodeError::version(Self::NAME, Self::VERSION, version))
    }
}

/// A past fact, immutable.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    note = "an event is a past fact: what `publish` takes and what answers a command; an intention goes with `send`"
)]
pub trait Event: Contract {}

/// An intention for one owner, who may refuse it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    note = "`send` is for commands (intentions); a past fact goes with `publish`"
)]
pub trait Command: Contract {}

/// A command that names the events which answer it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no answer, so nobody can wait for it",
    note = "name the events that answer it: #[command(name = \"…\", done = StockReserved, failed = StockShort)]"
)]
pub trait Answered: Command {
    /// What says that it was done.
    type Done: Event;
    /// What says that it was refused.
    type Failed: Event;
}

/// A closed set of events: what a decider decides, what a stream holds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of events",
    note = "derive it on an enum with one event a variant: #[derive(Events)]"
)]
pub trait Events: Sized + Send + Sync + 'static {
    /// The names of all events in the set.
    const NAMES: &'static [&'static str];
    /// The name of this one.
    fn name(&self) -> &'static str;
    /// This one, ready to be committed.
    fn draft(&self) -> Draft;
    /// Reads one of the set.
    fn read(name: &str, version: u32, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// The refusal of a command that cannot be refused. Never constructed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

#[diagnostic::do_not_recommend]
impl Contract for Never {
    const NAME: &'static str = "";
    const VERSION: u32 = 1;
    const TOPIC: Option<&'static str> = None;
    fn key(&self) -> Option<Key> {
        match *self {}
    }
}

#[diagnostic::do_not_recommend]
impl Event for Never {}
