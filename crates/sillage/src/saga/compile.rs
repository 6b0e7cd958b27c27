//! From a saga to the process manager it runs as.

use super::{
    Saga,
    definition::{AnyDefinition, CONTROLS},
    run::Run,
    shape::SagaShape,
};
use crate::process::{Alias, Memory, Missing, Process, Reaction};
use sillage_core::{Failure, Message};
use std::{collections::BTreeSet, sync::Arc};

/// A saga as the service keeps it: what runs it, and all versions of its definition.
pub(crate) struct Compiled {
    pub(crate) process: Process<Run>,
    pub(crate) shapes: Vec<SagaShape>,
    /// Events and commands that had other names, under which definitions may be stored.
    pub(crate) renamed: BTreeSet<Alias>,
}

pub(crate) fn compile<S: Memory>(saga: Saga<S>) -> Compiled {
    let (name, version) = (saga.name, saga.version);
    let newest: Arc<dyn AnyDefinition> = Arc::new(saga.define());
    let mut versions = newest.older();
    versions.push(newest.clone());
    let mut process = Process::<Run>::new(name, version);
    process.saga = Some(|run| (run.state.status.word(), run.version));
    process.errors = newest.errors();
    let shapes = versions.iter().map(|version| version.shape()).collect();
    let versions: Arc<[Arc<dyn AnyDefinition>]> = versions.into();
    begins(&mut process, &newest);
    let answers = versions.iter().flat_map(|version| version.inputs());
    for (event, topic) in answers.collect::<BTreeSet<_>>() {
        goes_on(&mut process, &versions, event, topic);
    }
    for event in CONTROLS {
        goes_on(&mut process, &versions, event, None);
    }
    let renamed: BTreeSet<Alias> =
        versions.iter().flat_map(|version| version.aliases().clone()).collect();
    let is_heard = |(_, name, _): &&Alias| process.reactions.contains_key(name);
    process.aliases = renamed.iter().filter(is_heard).copied().collect();
    Compiled { process, shapes, renamed }
}

fn begins(process: &mut Process<Run>, newest: &Arc<dyn AnyDefinition>) {
    let (event, topic) = newest.start();
    let reaction = process.reactions.entry(event).or_insert_with(|| Reaction::of(topic));
    let newest = newest.clone();
    reaction.begin = Some(Box::new(move |message, about| newest.begin(message, about)));
}

fn goes_on(
    process: &mut Process<Run>,
    versions: &Arc<[Arc<dyn AnyDefinition>]>,
    event: &'static str,
    topic: Option<&'static str>,
) {
    let name = process.name;
    let reaction = process.reactions.entry(event).or_insert_with(|| Reaction::of(topic));
    reaction.missing = Missing::Record;
    let known = versions.clone();
    reaction.react = Some(Box::new(move |run, message, about| {
        if let Some(newest) = known.last() {
            newest.migrate(run)?;
        }
        let of_it = known.iter().find(|version| version.version() == run.version);
        let of_it = of_it.ok_or_else(|| unknown(name, run.version))?;
        of_it.react(run, message, about)
    }));
    let keyed = versions.clone();
    reaction.key = Some(Box::new(move |message: &Message| {
        let by = keyed.iter().rev().find_map(|version| version.key(message));
        by.unwrap_or_else(|| {
            message.key.clone().ok_or_else(|| {
                Failure::permanent(format!(
                    "`{}` has no key, so it names no instance of `{name}`: say which with `.by(…)`",
                    message.name
                ))
            })
        })
    }));
}

/// A newer process may know it: a deployment in progress.
fn unknown(saga: &str, version: u32) -> Failure {
    Failure::transient(format!(
        "an instance runs on version {version} of saga `{saga}`, which is not known here: give it to \
         `.keep(…)` or `.migrate(…)`"
    ))
}
