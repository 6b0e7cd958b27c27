//! What is wrong with a definition, before anything runs.

use super::{definition::Definition, machine::Kind};
use std::collections::{BTreeMap, BTreeSet};

/// Each mistake is a sentence.
pub(crate) fn errors<S>(saga: &Definition<S>) -> Vec<String> {
    let mut errors = vec![];
    let (name, version) = (saga.name, saga.version);
    let mut names = BTreeSet::new();
    for step in &saga.steps {
        if !names.insert(step.name) {
            errors.push(format!("saga `{name}` has two steps called `{}`", step.name));
        }
        if step.name.is_empty() || step.name.len() > 100 || step.name.contains('/') {
            errors.push(format!(
                "saga `{name}`: step name `{}`: use 1 to 100 characters without `/`",
                step.name
            ));
        }
    }
    if saga.start.1.is_none() {
        errors.push(format!(
            "saga `{name}` begins with `{}`, which has no topic: nothing would ever come",
            saga.start.0
        ));
    }
    for (older, _) in &saga.older {
        if older.version() >= version {
            errors.push(format!(
                "saga `{name}` version {version} follows version {}: a newer one has a higher number",
                older.version()
            ));
        }
    }
    unreachable(saga, &mut errors);
    ambiguous(saga, &mut errors);
    for event in saga.folds.keys() {
        if !saga.steps.iter().flat_map(super::definition::Step::answers).any(|(n, ..)| n == *event)
        {
            errors.push(format!(
                "saga `{name}` remembers something of `{event}`, which answers none of its steps"
            ));
        }
    }
    errors
}

/// Steps behind one that nothing can answer.
fn unreachable<S>(saga: &Definition<S>, errors: &mut Vec<String>) {
    for (number, step) in saga.steps.iter().enumerate() {
        let unheard = |(event, topic): (&str, Option<&str>)| event.is_empty() || topic.is_none();
        if unheard(step.asks.done) {
            let behind = saga.steps.iter().skip(number + 1).find(|other| other.stage > step.stage);
            let what = behind.map_or_else(
                || "its end is unreachable".to_owned(),
                |behind| format!("step `{}` is unreachable", behind.name),
            );
            errors.push(format!(
                "saga `{}`: {what}: nothing can say that step `{}` was done, as its answer `{}` has \
                 no topic",
                saga.name, step.name, step.asks.done.0
            ));
        }
        if let Some(undo) = step.undo.filter(|undo| unheard(undo.done)) {
            errors.push(format!(
                "saga `{}`: nothing can say that step `{}` was undone, as the answer `{}` of `{}` has \
                 no topic",
                saga.name, step.name, undo.done.0, undo.command
            ));
        }
        let beside = saga.steps.iter().any(|o| o.stage == step.stage && o.name != step.name);
        if step.kind == Kind::Pivot && beside {
            errors.push(format!(
                "saga `{}`: nothing can run beside the pivot `{}`: what fails there could not be \
                 undone",
                saga.name, step.name
            ));
        }
    }
}

/// Steps that wait for the same event, and nothing tells them apart.
fn ambiguous<S>(saga: &Definition<S>, errors: &mut Vec<String>) {
    let mut waiting: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::new();
    for step in &saga.steps {
        let mut own = BTreeSet::new();
        for (event, ..) in step.answers() {
            if !own.insert(event) {
                errors.push(format!(
                    "saga `{}`: step `{}` waits for `{event}` twice, so that nothing says which of \
                     the two has happened: let its command and its undo be answered by different \
                     events",
                    saga.name, step.name
                ));
                continue;
            }
            let told = step.only.contains_key(event);
            waiting.entry(event).or_default().push((step.name, told));
        }
    }
    for (event, steps) in waiting {
        if event == saga.start.0 {
            errors.push(format!(
                "saga `{}` begins with `{event}`, which answers step `{}` as well: an instance \
                 would begin instead of going on",
                saga.name, steps[0].0
            ));
        }
        if steps.len() > 1 && steps.iter().any(|(_, told)| !told) {
            let names: Vec<_> = steps.iter().map(|(name, _)| format!("`{name}`")).collect();
            errors.push(format!(
                "saga `{}`: steps {} wait for the same `{event}`: say which is whose, with \
                 `.only::<…>(…)` at each",
                saga.name,
                names.join(" and ")
            ));
        }
    }
}
