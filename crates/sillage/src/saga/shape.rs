//! A saga's definition as it is stored and shown: no code, only names.

use super::machine::Kind;
use serde::{Deserialize, Serialize};
use sillage_core::Text;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A saga's definition, as its app declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaShape {
    /// Its name within the service.
    pub name: Text,
    /// Its version.
    pub version: u32,
    /// The event that begins an instance.
    pub start: Text,
    /// Its steps, in order.
    pub steps: Vec<StepShape>,
}

/// A step of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShape {
    /// Its name.
    pub name: Text,
    /// Steps of one stage run beside each other.
    pub stage: usize,
    /// Whether it can be undone.
    pub kind: Kind,
    /// What is sent, and what answers it.
    #[serde(flatten)]
    pub asks: Asks,
    /// What undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Asks>,
    /// How long an answer is waited for, in milliseconds.
    pub within_ms: u64,
}

/// A command and the events that answer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// What is sent.
    pub command: Text,
    /// What says that it was done.
    pub done: Text,
    /// What says that it was refused; `None`: it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Text>,
}

impl SagaShape {
    /// The same with what events and commands are called now, where they had other names.
    pub(crate) fn renamed(&self, names: &BTreeMap<&'static str, &'static str>) -> SagaShape {
        let now =
            |name: &Text| names.get(&**name).map_or_else(|| name.clone(), |now| (*now).into());
        let asks = |asks: &Asks| Asks {
            command: now(&asks.command),
            done: now(&asks.done),
            failed: asks.failed.as_ref().map(now),
        };
        let mut shape = SagaShape { start: now(&self.start), ..self.clone() };
        for step in &mut shape.steps {
            (step.asks, step.undo) = (asks(&step.asks), step.undo.as_ref().map(asks));
        }
        shape
    }

    /// The same for the same steps, however long they may take: what must not change under a
    /// version.
    pub fn fingerprint(&self) -> String {
        let parts = |asks: &Asks| format!("{} {} {:?}", asks.command, asks.done, asks.failed);
        let mut all = format!("{} {}", self.name, self.start);
        for step in &self.steps {
            let undo = step.undo.as_ref().map(parts);
            let does = parts(&step.asks);
            let line = format!("\n{} {} {:?} {does} {undo:?}", step.name, step.stage, step.kind);
            all.push_str(&line);
        }
        Uuid::new_v5(&Uuid::NAMESPACE_OID, all.as_bytes()).to_string()
    }
}
