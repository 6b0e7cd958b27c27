//! Signs of life: what each part of a running app reports, and what health makes of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Deliveries wait and the watermark stands still for this long: something is wrong.
const STILL: Duration = Duration::from_secs(30);

/// What one consumer, projection or other part reports.
#[derive(Default)]
pub(crate) struct Vital(Mutex<State>);

#[derive(Default)]
struct State {
    problems: BTreeMap<&'static str, String>,
    passed: u64,
    moved_at: Duration,
    waiting: usize,
    blocked: Option<String>,
    partitions: usize,
}

impl Vital {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says, or takes back, that something is wrong.
    pub(crate) fn problem(&self, what: &'static str, problem: Option<String>) {
        let mut state = self.state();
        match problem {
            Some(problem) => drop(state.problems.insert(what, problem)),
            None => drop(state.problems.remove(what)),
        }
    }

    /// How far it is, how many deliveries wait, and the key that holds the oldest.
    pub(crate) fn watermark(
        &self,
        passed: u64,
        waiting: usize,
        blocked: Option<String>,
        now: Duration,
    ) {
        let mut state = self.state();
        if passed != state.passed || waiting == 0 || state.waiting == 0 {
            state.moved_at = now;
        }
        state.passed = passed;
        state.waiting = waiting;
        state.blocked = blocked;
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self, partitions: usize) {
        self.state().partitions = partitions;
    }

    /// What is wrong, as sentences.
    pub(crate) fn problems(&self, name: &str, now: Duration) -> Vec<String> {
        let state = self.state();
        let told = state.problems.iter().map(|(what, why)| format!("{name}: {what}: {why}"));
        let mut problems: Vec<_> = told.collect();
        let still = now.saturating_sub(state.moved_at);
        if state.waiting > 0 && still >= STILL {
            let key = state.blocked.as_deref().unwrap_or("?");
            problems.push(format!(
                "{name}: {} deliveries wait and the watermark has not moved for {} s; key `{key}` \
                 holds it",
                state.waiting,
                still.as_secs()
            ));
        }
        problems
    }

    /// Whether it has no partition: it waits for one.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state().partitions == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_that_stands_still_names_its_key() {
        let vital = Vital::default();
        let at = Duration::from_secs;
        vital.watermark(5, 3, Some("o-1".into()), at(1));
        vital.watermark(5, 3, Some("o-1".into()), at(20));
        assert!(vital.problems("payment/payment", at(30)).is_empty());
        let problems = vital.problems("payment/payment", at(31));
        assert!(problems[0].contains("payment/payment") && problems[0].contains("`o-1`"));
        vital.watermark(6, 3, Some("o-1".into()), at(32));
        assert!(vital.problems("payment/payment", at(50)).is_empty());
    }

    #[test]
    fn waiting_for_nothing_is_well() {
        let vital = Vital::default();
        vital.watermark(5, 0, None, Duration::ZERO);
        assert!(vital.problems("x", Duration::from_secs(3600)).is_empty());
        vital.problem("broker", Some("unreachable".into()));
        assert_eq!(vital.problems("x", Duration::ZERO), ["x: broker: unreachable"]);
        vital.problem("broker", None);
        assert!(vital.problems("x", Duration::ZERO).is_empty());
    }
}
