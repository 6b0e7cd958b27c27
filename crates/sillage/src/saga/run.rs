//! An instance of a saga as it is stored, and the move of one to a newer version.

use super::{
    machine::{Progress, State, Step},
    shape::SagaShape,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sillage_core::{Text, Timestamp};

/// So much of what happened is kept with an instance.
const MOMENTS: usize = 100;

/// An instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) version: u32,
    pub(crate) state: State,
    /// Why it is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    pub(crate) history: Vec<Moment>,
    pub(crate) data: Box<RawValue>,
}

/// Something that happened to a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// To which step.
    pub step: Text,
    /// What it was at then.
    pub progress: Progress,
    /// Which try it was.
    pub attempt: u32,
    /// The message because of which it happened.
    pub because: Text,
}

impl Run {
    pub(crate) fn new(version: u32, state: State, data: Box<RawValue>) -> Self {
        Run { version, state, why: None, history: vec![], data }
    }

    pub(crate) fn note(&mut self, moment: Moment) {
        if self.history.len() == MOMENTS {
            self.history.remove(0);
        }
        self.history.push(moment);
    }
}

/// The steps of an instance under a newer definition; `None` where it has to end under its own: it
/// goes back, or has begun something that the newer one does not know or does at another place.
pub(crate) fn moved(older: &SagaShape, newer: &SagaShape, state: &State) -> Option<Vec<Step>> {
    if state.back || state.status.is_end() {
        return None;
    }
    let begun = |(_, step): &(_, &Step)| step.progress != Progress::Waiting;
    let begun: Vec<_> = older.steps.iter().zip(&state.steps).filter(begun).collect();
    let mut steps = vec![Step::default(); newer.steps.len()];
    let mut last = 0;
    for (of_it, step) in &begun {
        let place = newer.steps.iter().position(|new| {
            new.name == of_it.name && new.asks == of_it.asks && new.kind == of_it.kind
        })?;
        steps[place] = **step;
        last = last.max(newer.steps[place].stage);
    }
    let is_skipped = |(new, step): (&super::shape::StepShape, &Step)| {
        new.stage <= last && step.progress == Progress::Waiting
    };
    (!begun.is_empty() && !newer.steps.iter().zip(&steps).any(is_skipped)).then_some(steps)
}
