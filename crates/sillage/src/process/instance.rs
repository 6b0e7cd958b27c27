//! An instance as it is stored, and events whose instance was never there.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sillage_core::{Result, Stored, Text, Timestamp};
use std::collections::BTreeMap;

/// An instance of a process manager or a saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    /// `service/name`.
    pub(crate) process: Text,
    pub(crate) version: u32,
    /// The label of its key.
    pub(crate) key: Text,
    pub(crate) status: Text,
    /// Shared by all that follows from what began it.
    pub(crate) correlation_id: Text,
    pub(crate) started: Timestamp,
    pub(crate) updated: Timestamp,
    /// `None`: it has not begun; events that came early wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Box<RawValue>>,
    /// Timers that are set, by their tokens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) timers: BTreeMap<String, Set>,
    /// Grows with each timer, so that one of the same token is told from an older one; begins at a
    /// number of the instance's own.
    #[serde(default)]
    pub(crate) generation: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) early: Vec<Early>,
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Set {
    pub(crate) generation: u64,
    /// The label of the key it was set under.
    pub(crate) key: Text,
}

/// An event that came before its instance began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Early {
    pub(crate) until: Timestamp,
    pub(crate) message: Box<RawValue>,
}

/// An event whose instance is not there, and why it had no effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orphan {
    pub(crate) process: Text,
    pub(crate) key: Text,
    /// What it is: `payment.completed`.
    pub(crate) name: Text,
    pub(crate) source: Text,
    pub(crate) message: Text,
    pub(crate) at: Timestamp,
    pub(crate) why: String,
}

impl Instance {
    pub(crate) fn read(stored: &Stored) -> Result<Self> {
        Ok(serde_json::from_slice(&stored.body)?)
    }

    /// What instances are listed by: what they are at, then the process, its version and their age.
    pub(crate) fn sort(&self) -> String {
        format!("{}/{}/{:06}/{}", self.status, self.process, self.version, self.started)
    }
}
