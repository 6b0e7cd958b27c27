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
/// goes back, or has begun something that the newer one does not know or does at another place or in
/// another order.
pub(crate) fn moved(older: &SagaShape, newer: &SagaShape, state: &State) -> Option<Vec<Step>> {
    if state.back || state.status.is_end() {
        return None;
    }
    let begun = |(_, step): &(_, &Step)| step.progress != Progress::Waiting;
    let begun: Vec<_> = older.steps.iter().zip(&state.steps).filter(begun).collect();
    let mut steps = vec![Step::default(); newer.steps.len()];
    let mut before = None;
    for (of_it, step) in &begun {
        let place = newer.steps.iter().position(|new| {
            new.name == of_it.name && new.asks == of_it.asks && new.kind == of_it.kind
        })?;
        let (was, is) = (of_it.stage, newer.steps[place].stage);
        // Undone in reverse of the newer order, which has to be the one they were done in.
        if before.is_some_and(|(older, newer)| was.cmp(&older) != is.cmp(&newer)) {
            return None;
        }
        steps[place] = **step;
        before = Some((was, is));
    }
    let (_, last) = before.unwrap_or_default();
    let is_skipped = |(new, step): (&super::shape::StepShape, &Step)| {
        new.stage <= last && step.progress == Progress::Waiting
    };
    (!begun.is_empty() && !newer.steps.iter().zip(&steps).any(is_skipped)).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            machine::Kind,
            shape::{Asks, StepShape},
        },
        *,
    };

    /// Steps, with their stages.
    fn shape(steps: &[(&str, usize)]) -> SagaShape {
        let asks = |name: &str| Asks {
            command: format!("{name}.do").into(),
            done: format!("{name}.done").into(),
            failed: None,
        };
        let step = |(name, stage): &(&str, usize)| StepShape {
            name: (*name).into(),
            stage: *stage,
            kind: Kind::Undoable,
            asks: asks(name),
            undo: None,
            within_ms: 1,
        };
        let steps = steps.iter().map(step).collect();
        SagaShape { name: "checkout".into(), version: 1, start: "order.created".into(), steps }
    }

    #[test]
    fn steps_that_were_begun_keep_their_order_or_stay_where_they_are() {
        let older = shape(&[("a", 0), ("b", 1), ("c", 2)]);
        let mut state = State::new(3);
        state.steps[0].progress = Progress::Done;
        state.steps[1].progress = Progress::Done;
        let goes = |newer: &[(&str, usize)]| moved(&older, &shape(newer), &state).is_some();
        assert!(goes(&[("a", 0), ("b", 1), ("d", 2)]));
        assert!(!goes(&[("b", 0), ("a", 1), ("c", 2)]), "undone in the wrong order");
        assert!(!goes(&[("a", 0), ("b", 0), ("c", 1)]), "undone beside each other");
        assert!(!goes(&[("a", 0), ("x", 1), ("b", 2)]), "one between them is skipped");
        let beside = shape(&[("a", 0), ("b", 0), ("c", 1)]);
        let goes = |newer: &[(&str, usize)]| moved(&beside, &shape(newer), &state).is_some();
        assert!(goes(&[("b", 0), ("a", 0), ("d", 1)]));
        assert!(!goes(&[("a", 0), ("b", 1), ("d", 2)]));
    }
}
