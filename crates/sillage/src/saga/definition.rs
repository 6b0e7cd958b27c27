//! A saga's definition with its code, and how an instance of it reacts.

use super::{
    machine::{Input, Kind, Output, Planned, Progress, State, Status},
    run::{Moment, Run},
    shape::{Asks, SagaShape, StepShape},
};
use crate::{
    names, observe,
    process::{About, Alias, control},
    runtime::operation,
};
use serde_json::value::RawValue;
use sillage_core::{Due, Effect, Effects, Failure, Key, Message};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub(crate) type Make<S> = Box<dyn Fn(&S) -> Effects + Send + Sync>;
pub(crate) type Begin<S> = Box<dyn Fn(&Message) -> Result<S, Failure> + Send + Sync>;
pub(crate) type Fold<S> = Box<dyn Fn(&mut S, &Message) -> Result<(), Failure> + Send + Sync>;
pub(crate) type Only<S> = Box<dyn Fn(&S, &Message) -> Result<bool, Failure> + Send + Sync>;
pub(crate) type KeyOf = Box<dyn Fn(&Message) -> Result<Key, Failure> + Send + Sync>;
pub(crate) type Migrate = Box<dyn Fn(&RawValue) -> Result<Box<RawValue>, Failure> + Send + Sync>;

/// What an instance tells itself when a step was not answered in time.
pub(crate) const DEADLINE: &str = "saga.deadline";
/// What operators ask of an instance.
pub(crate) const RETRY: &str = "saga.retry";
pub(crate) const SKIP: &str = "saga.skip";
pub(crate) const CANCEL: &str = "saga.cancel";
/// All of an instance's own messages.
pub(crate) const CONTROLS: [&str; 4] = [DEADLINE, RETRY, SKIP, CANCEL];

/// What an event is to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Done,
    Refused,
    Undone,
    UndoRefused,
}

/// A step with its code.
pub(crate) struct Step<S> {
    pub(crate) name: &'static str,
    pub(crate) stage: usize,
    pub(crate) kind: Kind,
    pub(crate) asks: Asked,
    pub(crate) undo: Option<Asked>,
    pub(crate) within: Duration,
    /// The pauses before it is asked again; `None`: nothing was said.
    pub(crate) retry: Option<Vec<Duration>>,
    pub(crate) run: Make<S>,
    pub(crate) revert: Make<S>,
    /// Which of the events of a name are its own, where other steps await the name as well.
    pub(crate) only: BTreeMap<&'static str, Only<S>>,
}

/// An event, and the topic it comes from.
pub(crate) type Heard = (&'static str, Option<&'static str>);

/// A command, by name, and the events that answer it, with their topics.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub(crate) command: &'static str,
    pub(crate) done: Heard,
    pub(crate) failed: Heard,
}

/// A version of a saga.
pub(crate) struct Definition<S> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) start: Heard,
    pub(crate) begin: Begin<S>,
    pub(crate) steps: Vec<Step<S>>,
    pub(crate) folds: BTreeMap<&'static str, Fold<S>>,
    pub(crate) keys: BTreeMap<&'static str, KeyOf>,
    pub(crate) completed: Make<S>,
    pub(crate) compensated: Make<S>,
    /// Versions whose instances end as they began, or are brought over where that can be.
    pub(crate) older: Vec<(Arc<dyn AnyDefinition>, Option<Migrate>)>,
    pub(crate) aliases: BTreeSet<Alias>,
    pub(crate) errors: Vec<String>,
}

/// A version of a saga whose types are forgotten.
pub(crate) trait AnyDefinition: Send + Sync {
    fn version(&self) -> u32;
    fn shape(&self) -> SagaShape;
    fn errors(&self) -> Vec<String>;
    fn start(&self) -> Heard;
    /// The events that answer its steps, with their topics.
    fn inputs(&self) -> Vec<Heard>;
    /// The names that its events and commands had before.
    fn aliases(&self) -> &BTreeSet<Alias>;
    /// The key of an event whose own key does not name the instance.
    fn key(&self, message: &Message) -> Option<Result<Key, Failure>>;
    fn older(&self) -> Vec<Arc<dyn AnyDefinition>>;
    /// Brings an instance of an older version over, where its steps are the beginning of these.
    fn migrate(&self, run: &mut Run) -> Result<(), Failure>;
    fn begin(&self, message: &Message, about: &About<'_>) -> Result<(Run, Effects), Failure>;
    fn react(
        &self,
        run: &mut Run,
        message: &Message,
        about: &About<'_>,
    ) -> Result<Effects, Failure>;
}

/// So often, and with these pauses, what has no other way is tried again.
const AGAIN: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];

impl<S> Step<S> {
    fn pauses(&self) -> &[Duration] {
        self.retry.as_deref().unwrap_or(&AGAIN)
    }

    fn planned(&self) -> Planned {
        let tries = |pauses: usize| u32::try_from(1 + pauses).unwrap_or(u32::MAX);
        let undo_tries = tries(self.pauses().len());
        let tries = match self.kind {
            Kind::Pivot | Kind::Forward => undo_tries,
            Kind::Undoable | Kind::Harmless => tries(self.retry.as_ref().map_or(0, Vec::len)),
        };
        Planned { stage: self.stage, kind: self.kind, tries, undo_tries }
    }

    /// What answers it, and how.
    pub(crate) fn answers(
        &self,
    ) -> impl Iterator<Item = (&'static str, Option<&'static str>, Answers)> {
        let undo = self
            .undo
            .iter()
            .flat_map(|undo| [(undo.done, Answers::Undone), (undo.failed, Answers::UndoRefused)]);
        let all = [(self.asks.done, Answers::Done), (self.asks.failed, Answers::Refused)];
        let all = all.into_iter().chain(undo).filter(|((name, _), _)| !name.is_empty());
        all.map(|((name, topic), answers)| (name, topic, answers))
    }

    pub(crate) fn shape(&self) -> StepShape {
        let asks = |asked: &Asked| Asks {
            command: asked.command.into(),
            done: asked.done.0.into(),
            failed: (!asked.failed.0.is_empty()).then(|| asked.failed.0.into()),
        };
        StepShape {
            name: self.name.into(),
            stage: self.stage,
            kind: self.kind,
            asks: asks(&self.asks),
            undo: self.undo.as_ref().map(asks),
            within_ms: u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl<S: crate::process::Memory> Definition<S> {
    fn plan(&self) -> Vec<Planned> {
        self.steps.iter().map(Step::planned).collect()
    }

    /// What a message is to this instance.
    fn input(
        &self,
        memory: &S,
        message: &Message,
        about: &About<'_>,
    ) -> Result<Option<Input>, Failure> {
        match &*message.name {
            RETRY => return Ok(Some(Input::Retry)),
            SKIP => return Ok(Some(Input::Skip)),
            CANCEL => return Ok(Some(Input::Cancel)),
            DEADLINE => {
                let due = |step: &Step<S>| about.timer == Some(step.name);
                return Ok(self.steps.iter().position(due).map(Input::Due));
            }
            _ => {}
        }
        for (number, step) in self.steps.iter().enumerate() {
            let Some((_, _, answers)) = step.answers().find(|(name, ..)| *name == &*message.name)
            else {
                continue;
            };
            let only = step.only.get(&*message.name);
            if only.map_or(Ok(true), |only| only(memory, message))? {
                return Ok(Some(match answers {
                    Answers::Done => Input::Done(number),
                    Answers::Refused => Input::Refused(number),
                    Answers::Undone => Input::Undone(number),
                    Answers::UndoRefused => Input::UndoRefused(number),
                }));
            }
        }
        Ok(None)
    }

    /// From what follows to effects.
    fn effects(
        &self,
        run: &mut Run,
        memory: &S,
        outputs: Vec<Output>,
        about: &About<'_>,
    ) -> Effects {
        let mut effects = Effects::none();
        let name = names::part(about.service, self.name);
        for output in outputs {
            self.count(&name, run, output);
            effects = effects.and(match output {
                Output::Do(step) => {
                    let command = (self.steps[step].run)(memory);
                    self.ask(step, command, false, about)
                }
                Output::Undo(step) => {
                    let command = (self.steps[step].revert)(memory);
                    self.ask(step, command, true, about)
                }
                Output::Rest(step) => {
                    let tried = run.state.steps[step].attempt.saturating_sub(1) as usize;
                    let pauses = self.steps[step].pauses();
                    let pause = pauses.get(tried).or(pauses.last()).copied().unwrap_or(AGAIN[0]);
                    self.deadline(step, pause, about)
                }
                Output::Settle(step) => sillage_core::cancel(self.steps[step].name),
                Output::Completed => (self.completed)(memory).and(sillage_core::end()),
                Output::Compensated => (self.compensated)(memory).and(sillage_core::end()),
                Output::Stuck(step) => {
                    run.why = Some(self.stuck(run, step));
                    tracing::error!(saga = about.instance, why = run.why, "stuck");
                    Effects::none()
                }
            });
        }
        effects
    }

    /// What follows, as metrics.
    fn count(&self, saga: &str, run: &Run, output: Output) {
        match output {
            Output::Do(step) | Output::Undo(step) if run.state.steps[step].attempt > 1 => {
                observe::saga_retry(saga, self.steps[step].name);
            }
            Output::Completed => observe::saga_ended(saga, Status::Completed),
            Output::Compensated => observe::saga_ended(saga, Status::Compensated),
            Output::Stuck(step) => observe::saga_stuck(saga, self.steps[step].name),
            _ => {}
        }
    }

    fn ask(&self, step: usize, command: Effects, undo: bool, about: &About<'_>) -> Effects {
        let step_of = &self.steps[step];
        let operation = format!("{}/{}", about.instance, step_of.name);
        let marked = command.into_iter().map(|effect| match effect {
            Effect::Send(mut draft) => {
                operation::mark(&mut draft, operation.as_str().into(), undo);
                Effects::one(Effect::Send(draft))
            }
            other => Effects::one(other),
        });
        let marked: Effects = marked.collect();
        marked.and(self.deadline(step, step_of.within, about))
    }

    fn deadline(&self, step: usize, delay: Duration, about: &About<'_>) -> Effects {
        let token = self.steps[step].name.to_owned();
        let message = control(about, self.name, DEADLINE);
        Effects::one(Effect::Schedule { due: Due::After(delay), token, message })
    }

    fn stuck(&self, run: &Run, step: usize) -> String {
        let (at, of_it) = (run.state.steps[step], &self.steps[step]);
        let (what, command) = match (&of_it.undo, at.progress) {
            (Some(undo), Progress::UndoStuck) => ("the undo of step", undo.command),
            _ => ("step", of_it.asks.command),
        };
        format!(
            "{what} `{}`: `{command}` was sent {} times and not done, each time within {:?}",
            of_it.name, at.attempt, of_it.within
        )
    }

    /// Notes what has changed, for people.
    fn note(&self, run: &mut Run, before: &State, message: &Message) {
        for (number, step) in self.steps.iter().enumerate() {
            let now = run.state.steps[number];
            if before.steps.get(number) != Some(&now) {
                let moment = Moment {
                    at: message.time,
                    step: step.name.into(),
                    progress: now.progress,
                    attempt: now.attempt,
                    because: message.name.clone(),
                };
                run.note(moment);
            }
        }
        if run.state.status != Status::Stuck {
            run.why = None;
        }
    }
}

impl<S: crate::process::Memory> AnyDefinition for Definition<S> {
    fn version(&self) -> u32 {
        self.version
    }

    fn shape(&self) -> SagaShape {
        SagaShape {
            name: self.name.into(),
            version: self.version,
            start: self.start.0.into(),
            steps: self.steps.iter().map(Step::shape).collect(),
        }
    }

    fn errors(&self) -> Vec<String> {
        let own = self.errors.iter().cloned().chain(super::check::errors(self));
        own.chain(self.older.iter().flat_map(|(older, _)| older.errors())).collect()
    }

    fn start(&self) -> Heard {
        self.start
    }

    fn inputs(&self) -> Vec<Heard> {
        let answers = self.steps.iter().flat_map(Step::answers);
        answers.map(|(name, topic, _)| (name, topic)).collect()
    }

    fn aliases(&self) -> &BTreeSet<Alias> {
        &self.aliases
    }

    fn key(&self, message: &Message) -> Option<Result<Key, Failure>> {
        self.keys.get(&*message.name).map(|key| key(message))
    }

    fn older(&self) -> Vec<Arc<dyn AnyDefinition>> {
        let of_it = |(older, _): &(Arc<dyn AnyDefinition>, _)| {
            let mut all = older.older();
            all.push(older.clone());
            all
        };
        self.older.iter().flat_map(of_it).collect()
    }

    fn migrate(&self, run: &mut Run) -> Result<(), Failure> {
        let older = self.older.iter().find(|(older, _)| older.version() == run.version);
        let Some((older, Some(migrate))) = older else { return Ok(()) };
        if let Some(steps) = super::run::moved(&older.shape(), &self.shape(), &run.state) {
            run.data = migrate(&run.data)?;
            run.state.steps = steps;
            run.version = self.version;
        }
        Ok(())
    }

    fn begin(&self, message: &Message, about: &About<'_>) -> Result<(Run, Effects), Failure> {
        let memory = (self.begin)(message)?;
        let before = State::new(self.steps.len());
        let mut run = Run::new(self.version, before.clone(), written(&memory)?);
        let outputs = run.state.apply(&self.plan(), Input::Start);
        let effects = self.effects(&mut run, &memory, outputs, about);
        self.note(&mut run, &before, message);
        Ok((run, effects))
    }

    fn react(
        &self,
        run: &mut Run,
        message: &Message,
        about: &About<'_>,
    ) -> Result<Effects, Failure> {
        let read = serde_json::from_str(run.data.get());
        let mut memory: S = read.map_err(|error| {
            Failure::permanent(format!("the memory of saga `{}`: {error}", about.instance))
        })?;
        let Some(input) = self.input(&memory, message, about)? else { return Ok(Effects::none()) };
        let before = run.state.clone();
        let outputs = run.state.apply(&self.plan(), input);
        if run.state != before
            && let Some(fold) = self.folds.get(&*message.name)
        {
            fold(&mut memory, message)?;
            run.data = written(&memory)?;
        }
        let effects = self.effects(run, &memory, outputs, about);
        self.note(run, &before, message);
        Ok(effects)
    }
}

fn written<S: serde::Serialize>(memory: &S) -> Result<Box<RawValue>, Failure> {
    serde_json::value::to_raw_value(memory).map_err(Failure::permanent)
}
