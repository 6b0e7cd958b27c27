//! Sagas: list, show, and what operators ask of an instance.

use super::Admin;
use crate::{
    names,
    process::{Instance, Orphan, control_topic},
    runtime::assemble::foreign,
    saga::{
        Kind, Moment, Progress, SagaShape, Status,
        definition::{CANCEL, RETRY, SKIP},
        run::Run,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use sillage_core::{Commit, Draft, Error, ErrorKind, Key, Range, Result, Text, Timestamp, Write};
use std::{collections::BTreeMap, sync::Arc};

/// In which order instances are listed: what somebody has to look at comes first.
const ORDER: [Status; 5] =
    [Status::Stuck, Status::Compensating, Status::Running, Status::Compensated, Status::Completed];

/// How an instance of a saga stands.
#[derive(Clone, Debug, Serialize)]
pub struct SagaStatus {
    /// `service/saga/key`: names it for the other verbs.
    pub id: Text,
    /// `service/saga`.
    pub saga: Text,
    /// The version of the definition it runs on.
    pub version: u32,
    /// What it is at.
    pub status: Status,
    /// The steps that are under way, or stuck.
    pub at: Vec<Text>,
    /// Why it is stuck.
    pub why: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When something happened to it last.
    pub updated: Timestamp,
    /// Shared by all that followed from what began it.
    pub correlation_id: Text,
}

/// An instance of a saga with everything that is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct SagaDetail {
    /// How it stands.
    #[serde(flatten)]
    pub status: SagaStatus,
    /// Its steps, in order: what was done, what is under way, what remains.
    pub steps: Vec<StepStatus>,
    /// What happened to it; the last hundred moments.
    pub history: Vec<Moment>,
    /// What it remembers.
    pub memory: Value,
    /// Its definition.
    #[serde(skip)]
    pub shape: SagaShape,
}

/// How a step of an instance stands.
#[derive(Clone, Debug, Serialize)]
pub struct StepStatus {
    /// Its name.
    pub name: Text,
    /// Whether it can be undone.
    pub kind: Kind,
    /// What it sends.
    pub command: Text,
    /// What it sends to undo that.
    pub undo: Option<Text>,
    /// What it is at.
    pub progress: Progress,
    /// Which try is under way, or was the last.
    pub attempt: u32,
    /// When it is not waited for any longer.
    pub deadline: Option<Timestamp>,
}

/// An event whose instance is not there.
#[derive(Clone, Debug, Serialize)]
pub struct UnknownReply {
    /// `service/process`.
    pub process: Text,
    /// The key that names no instance.
    pub key: Text,
    /// What it is: `payment.completed`.
    pub name: Text,
    /// The message's id.
    pub message: Text,
    /// Who produced it.
    pub source: Text,
    /// When it was produced.
    pub at: Timestamp,
    /// Why nothing came of it.
    pub why: String,
}

impl Admin {
    /// Instances, those that somebody has to look at first: of all sagas or of one, whatever they
    /// are at or at this, at most `max`.
    pub async fn sagas(
        &self,
        saga: Option<&str>,
        status: Option<Status>,
        max: usize,
    ) -> Result<Vec<SagaStatus>> {
        let mut found = vec![];
        for of_it in ORDER.into_iter().filter(|of| status.is_none_or(|status| status == *of)) {
            let from = match saga {
                Some(saga) => format!("{}/{saga}/", of_it.word()),
                None => format!("{}/", of_it.word()),
            };
            let range = Range::Sort { from: &from, until: &format!("{from}~") };
            let left = max.saturating_sub(found.len());
            for stored in self.database.list(names::SAGAS, range, left).await? {
                let instance = Instance::read(&stored)?;
                let shape = self.shape_of(&instance).await?;
                found.push(known(&stored.id, &instance, &run_of(&instance)?, &shape));
            }
            if found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// How many instances are at what.
    pub async fn saga_counts(&self) -> Result<BTreeMap<Status, u64>> {
        let mut counts = BTreeMap::new();
        for stored in self.all(names::SAGAS, "").await? {
            let run = run_of(&Instance::read(&stored)?)?;
            *counts.entry(run.state.status).or_default() += 1;
        }
        Ok(counts)
    }

    /// An instance, and everything that is known of it.
    pub async fn saga(&self, id: &str) -> Result<SagaDetail> {
        let instance = self.instance(id).await?;
        let shape = self.shape_of(&instance).await?;
        let run = run_of(&instance)?;
        let (service, name) = instance.process.split_once('/').unwrap_or_default();
        let mut steps = vec![];
        for (step, at) in shape.steps.iter().zip(&run.state.steps) {
            let token = format!("{name}/{}", step.name);
            let key = instance.timers.get(&*step.name).map(|set| Key::from_label(&set.key));
            let timer = names::timer(service, key.as_ref(), &token);
            let timer = self.database.get(names::TIMERS, &[&timer]).await?.pop().flatten();
            steps.push(StepStatus {
                name: step.name.clone(),
                kind: step.kind,
                command: step.asks.command.clone(),
                undo: step.undo.as_ref().map(|undo| undo.command.clone()),
                progress: at.progress,
                attempt: at.attempt,
                deadline: timer.and_then(|timer| timer.sort?.parse().ok()),
            });
        }
        let status = known(&id.into(), &instance, &run, &shape);
        let memory = serde_json::from_str(run.data.get())?;
        Ok(SagaDetail { status, steps, history: run.history, memory, shape })
    }

    /// All definitions that were ever declared, with the services' names in front.
    pub async fn saga_definitions(&self) -> Result<Vec<(Text, SagaShape)>> {
        let mut found = vec![];
        for stored in self.all(names::DEFINITIONS, "").await? {
            let shape: SagaShape = serde_json::from_slice(&stored.body)?;
            let saga = stored.id.rsplit_once('@').map_or(&*stored.id, |(saga, _)| saga);
            found.push((Text::from(saga), shape));
        }
        found.sort_by(|(one, a), (other, b)| (one, a.version).cmp(&(other, b.version)));
        Ok(found)
    }

    /// Answers to sagas, and events that waited for a process manager, whose instance was never
    /// there.
    pub async fn unknown_replies(&self) -> Result<Vec<UnknownReply>> {
        let stored = self.all(names::ORPHANS, "").await?;
        let read = |stored: &sillage_core::Stored| {
            let orphan: Orphan = serde_json::from_slice(&stored.body)?;
            let Orphan { process, key, name, message, source, at, why } = orphan;
            Ok(UnknownReply { process, key, name, message, source, at, why })
        };
        stored.iter().map(read).collect()
    }

    /// Asks again what is stuck, with the operation id it has.
    pub async fn retry_saga(&self, id: &str, why: &str) -> Result<()> {
        self.stuck_saga(id).await?;
        self.ask_saga(id, RETRY, why).await
    }

    /// What is stuck counts as done, or as undone: an operator has seen to it.
    pub async fn skip_saga(&self, id: &str, why: &str) -> Result<()> {
        self.stuck_saga(id).await?;
        self.ask_saga(id, SKIP, why).await
    }

    /// Undoes what was done, where the pivot has not been asked yet. An answer that is awaited is
    /// awaited first.
    pub async fn cancel_saga(&self, id: &str, why: &str) -> Result<()> {
        let detail = self.saga(id).await?;
        let beyond = |step: &&StepStatus| {
            matches!(step.kind, Kind::Pivot | Kind::Forward) && step.progress != Progress::Waiting
        };
        let refused = if detail.status.status.is_end() {
            Some(format!("saga `{id}` has ended: {}", detail.status.status.word()))
        } else if detail.steps.iter().all(|step| !beyond(&step)) {
            None
        } else {
            Some(format!("saga `{id}` has passed its pivot: there is only forward from there"))
        };
        match refused {
            Some(why) => Err(Error::invalid(why)),
            None => self.ask_saga(id, CANCEL, why).await,
        }
    }

    async fn stuck_saga(&self, id: &str) -> Result<()> {
        let status = self.saga(id).await?.status.status;
        if status == Status::Stuck {
            return Ok(());
        }
        let why = format!("saga `{id}` is not stuck, it is {}", status.word());
        Err(Error::invalid(why))
    }

    /// A message to the instance, and the fact that it was asked, in one commit.
    async fn ask_saga(&self, id: &str, what: &'static str, why: &str) -> Result<()> {
        let instance = self.instance(id).await?;
        let (service, saga) = instance.process.split_once('/').unwrap_or_default();
        let draft = Draft {
            name: what.into(),
            version: 1,
            topic: Some(control_topic(service, saga)),
            key: Some(Key::from_label(&instance.key)),
            operation_id: None,
            headers: vec![],
            payload: Ok(serde_json::to_vec(&json!({ "who": self.who, "why": why }))?.into()),
        };
        let message = foreign("operator", draft, self.clock.now());
        let message = message.map_err(|failure| Error::invalid(failure.to_string()))?;
        let append = Write::Append { stream: None, message: Arc::new(message) };
        let commit = Commit { conditions: vec![], writes: vec![append] };
        let verb = what.replace("saga.", "saga-");
        self.act(&verb, json!({ "saga": id, "why": why }), commit).await?;
        Ok(())
    }

    async fn instance(&self, id: &str) -> Result<Instance> {
        let stored = self.database.get(names::SAGAS, &[id]).await?.pop().flatten();
        let missing = || {
            let why = format!("no saga `{id}`; `sillage saga list` shows what there is");
            Error::new(ErrorKind::NotFound, why)
        };
        Instance::read(&stored.ok_or_else(missing)?)
    }

    async fn shape_of(&self, instance: &Instance) -> Result<SagaShape> {
        let id = names::definition(&instance.process, instance.version);
        let stored = self.database.get(names::DEFINITIONS, &[&id]).await?.pop().flatten();
        let missing = || Error::corrupt(format!("the definition `{id}` is not there"));
        Ok(serde_json::from_slice(&stored.ok_or_else(missing)?.body)?)
    }
}

fn run_of(instance: &Instance) -> Result<Run> {
    let missing = || Error::corrupt(format!("saga `{}` has no memory", instance.key));
    let memory = instance.memory.as_ref().ok_or_else(missing)?;
    Ok(serde_json::from_str(memory.get())?)
}

fn known(id: &Text, instance: &Instance, run: &Run, shape: &SagaShape) -> SagaStatus {
    let under_way = |progress: Progress| {
        use Progress::{Sent, Stuck, UndoStuck, Undoing, Unknown};
        matches!(progress, Sent | Unknown | Undoing | Stuck | UndoStuck)
    };
    let steps = shape.steps.iter().zip(&run.state.steps);
    let at = steps.filter(|(_, step)| under_way(step.progress)).map(|(step, _)| step.name.clone());
    SagaStatus {
        id: id.clone(),
        saga: instance.process.clone(),
        version: instance.version,
        status: run.state.status,
        at: at.collect(),
        why: run.why.clone(),
        started: instance.started,
        updated: instance.updated,
        correlation_id: instance.correlation_id.clone(),
    }
}
