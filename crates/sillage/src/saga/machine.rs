//! A saga as a pure state machine: what its steps are at, what happened, what follows.
//!
//! No I/O, no clock, no data: steps are numbers. Steps of one *stage* run beside each other; a
//! stage begins when the one before it is done. The search beside this file goes through every
//! interleaving of answers, time-outs, duplicates and late messages of a small saga.
//!
//! After Garcia-Molina and Salem, *Sagas* (1987), with a pivot: before it every step can be undone
//! and a refusal or a time-out undoes what was done, in reverse; from it on there is only forward.

use serde::{Deserialize, Serialize};

/// What a step can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It has an undo.
    Undoable,
    /// It changes nothing, so there is nothing to undo.
    Harmless,
    /// The point of no return.
    Pivot,
    /// Behind the pivot: tried until it is done.
    Forward,
}

/// A step as the machine knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) stage: usize,
    pub(crate) kind: Kind,
    /// So often its command is sent before its outcome counts as unknown.
    pub(crate) tries: u32,
    /// So often its undo is sent before somebody has to look.
    pub(crate) undo_tries: u32,
}

/// What a step is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Its command was sent.
    Sent,
    /// It was answered: done.
    Done,
    /// It was answered: refused, so nothing was done.
    Refused,
    /// It was not answered in time: it may have been done.
    Unknown,
    /// Its undo was sent.
    Undoing,
    /// Its undo was answered, or there was nothing to undo.
    Undone,
    /// It cannot be undone and was not done: somebody has to look.
    Stuck,
    /// Its undo was not done: somebody has to look.
    UndoStuck,
}

/// What a saga is at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It goes forward.
    #[default]
    Running,
    /// What was done is being undone.
    Compensating,
    /// Everything was done: the end.
    Completed,
    /// Everything that was done was undone: the end.
    Compensated,
    /// A step neither goes on nor back by itself.
    Stuck,
}

impl Status {
    /// The word that is stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Compensating => "compensating",
            Status::Completed => "completed",
            Status::Compensated => "compensated",
            Status::Stuck => "stuck",
        }
    }

    /// Whether nothing happens any more.
    pub fn is_end(self) -> bool {
        matches!(self, Status::Completed | Status::Compensated)
    }
}

/// A step of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) progress: Progress,
    /// Which try of its command, or of its undo, is under way.
    pub(crate) attempt: u32,
}

/// An instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// What was done is to be undone.
    pub(crate) back: bool,
    pub(crate) steps: Vec<Step>,
}

/// What happens to an instance; steps by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Start,
    Done(usize),
    Refused(usize),
    Undone(usize),
    UndoRefused(usize),
    /// The timer of a step is due.
    Due(usize),
    /// An operator: what is stuck is sent again.
    Retry,
    /// An operator: what is stuck counts as done, or as undone.
    Skip,
    /// An operator: undo everything, where that can still be.
    Cancel,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send the step's command, and wait for its answer.
    Do(usize),
    /// Send the step's undo, and wait for its answer.
    Undo(usize),
    /// It was refused, but there is no way but this one: wait, then it is due.
    Rest(usize),
    /// The step was answered: nothing is waited for any more.
    Settle(usize),
    Completed,
    Compensated,
    /// Nothing goes on by itself.
    Stuck(usize),
}

impl State {
    pub(crate) fn new(steps: usize) -> Self {
        State { steps: vec![Step::default(); steps], ..State::default() }
    }

    /// Takes in what happened. Whatever is late, comes twice or does not fit changes nothing.
    pub(crate) fn apply(&mut self, plan: &[Planned], input: Input) -> Vec<Output> {
        let mut out = vec![];
        match input {
            Input::Start => self.move_on(plan, &mut out),
            Input::Done(step) => self.done(plan, step, &mut out),
            Input::Refused(step) => self.refused(plan, step, &mut out),
            Input::Undone(step) => self.undone(plan, step, &mut out),
            Input::UndoRefused(step) => self.undo_refused(plan, step, &mut out),
            Input::Due(step) => self.due(plan, step, &mut out),
            Input::Retry => self.retry(&mut out),
            Input::Skip => self.skip(plan, &mut out),
            Input::Cancel => self.cancel(plan, &mut out),
        }
        self.status = self.status();
        out
    }

    /// Whether it can still be undone as a whole.
    pub(crate) fn can_cancel(&self, plan: &[Planned]) -> bool {
        let is_beyond = |(step, planned): (&Step, &Planned)| {
            matches!(planned.kind, Kind::Pivot | Kind::Forward)
                && step.progress != Progress::Waiting
        };
        !self.back && !self.status.is_end() && !self.steps.iter().zip(plan).any(is_beyond)
    }

    fn done(&mut self, plan: &[Planned], step: usize, out: &mut Vec<Output>) {
        if matches!(self.at(step), Progress::Sent | Progress::Stuck | Progress::Unknown) {
            self.set(step, Progress::Done);
            out.push(Output::Settle(step));
            self.move_on(plan, out);
        }
    }

    fn refused(&mut self, plan: &[Planned], step: usize, out: &mut Vec<Output>) {
        match (self.at(step), plan[step].kind) {
            (Progress::Sent, Kind::Forward) => self.again_later(plan[step].tries, step, out),
            (Progress::Sent | Progress::Stuck | Progress::Unknown, kind)
                if kind != Kind::Forward =>
            {
                self.set(step, Progress::Refused);
                out.push(Output::Settle(step));
                self.go_back(plan, out);
            }
            _ => {}
        }
    }

    fn undone(&mut self, plan: &[Planned], step: usize, out: &mut Vec<Output>) {
        if matches!(self.at(step), Progress::Undoing | Progress::UndoStuck) {
            self.set(step, Progress::Undone);
            out.push(Output::Settle(step));
            self.move_on(plan, out);
        }
    }

    fn undo_refused(&mut self, plan: &[Planned], step: usize, out: &mut Vec<Output>) {
        if self.at(step) == Progress::Undoing {
            self.again_later(plan[step].undo_tries, step, out);
        }
    }

    /// It was refused where there is no other way: later again, or somebody has to look.
    fn again_later(&mut self, tries: u32, step: usize, out: &mut Vec<Output>) {
        if self.steps[step].attempt < tries {
            out.push(Output::Rest(step));
        } else {
            self.stick(step, out);
        }
    }

    fn due(&mut self, plan: &[Planned], step: usize, out: &mut Vec<Output>) {
        let attempt = self.steps[step].attempt;
        match self.at(step) {
            Progress::Sent if attempt < plan[step].tries => self.send(step, attempt + 1, out),
            Progress::Sent => match plan[step].kind {
                Kind::Undoable | Kind::Harmless => {
                    self.set(step, Progress::Unknown);
                    self.go_back(plan, out);
                }
                Kind::Pivot | Kind::Forward => self.stick(step, out),
            },
            Progress::Undoing if attempt < plan[step].undo_tries => {
                self.undo(step, attempt + 1, out);
            }
            Progress::Undoing => self.stick(step, out),
            _ => {}
        }
    }

    fn retry(&mut self, out: &mut Vec<Output>) {
        for step in 0..self.steps.len() {
            match self.at(step) {
                Progress::Stuck => self.send(step, 1, out),
                Progress::UndoStuck => self.undo(step, 1, out),
                _ => {}
            }
        }
    }

    fn skip(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        for step in 0..self.steps.len() {
            match self.at(step) {
                Progress::Stuck => self.set(step, Progress::Done),
                Progress::UndoStuck => self.set(step, Progress::Undone),
                _ => continue,
            }
            out.push(Output::Settle(step));
        }
        self.move_on(plan, out);
    }

    fn cancel(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        if self.can_cancel(plan) {
            self.go_back(plan, out);
        }
    }

    fn go_back(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        self.back = true;
        self.move_on(plan, out);
    }

    /// Starts what can be started now.
    fn move_on(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        if self.status.is_end() {
            return;
        }
        if self.back { self.move_back(plan, out) } else { self.move_forward(plan, out) }
    }

    fn move_forward(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        if self.steps.iter().any(|s| !matches!(s.progress, Progress::Waiting | Progress::Done)) {
            return;
        }
        let waiting = |step: &usize| self.at(*step) == Progress::Waiting;
        let next = (0..plan.len()).filter(waiting).map(|step| plan[step].stage).min();
        let Some(stage) = next else {
            self.status = Status::Completed;
            return out.push(Output::Completed);
        };
        let open = (0..plan.len()).filter(|step| plan[*step].stage < stage);
        if open.into_iter().all(|step| self.at(step) == Progress::Done) {
            for step in (0..plan.len()).filter(|step| plan[*step].stage == stage) {
                self.send(step, 1, out);
            }
        }
    }

    /// The last stage first; the one before it when all of its undos were answered. A step whose
    /// answer is still awaited is awaited: it may yet be refused, and then there is nothing to undo.
    fn move_back(&mut self, plan: &[Planned], out: &mut Vec<Output>) {
        if self.steps.iter().any(|step| step.progress == Progress::Sent) {
            return;
        }
        for (step, planned) in self.steps.iter_mut().zip(plan) {
            let is_open = matches!(step.progress, Progress::Done | Progress::Unknown);
            if is_open && planned.kind == Kind::Harmless {
                step.progress = Progress::Undone;
            }
        }
        let is_open = |step: &usize| {
            use Progress::{Done, UndoStuck, Undoing, Unknown};
            matches!(self.at(*step), Done | Unknown | Undoing | UndoStuck)
        };
        let Some(stage) = (0..plan.len()).filter(is_open).map(|step| plan[step].stage).max() else {
            self.status = Status::Compensated;
            return out.push(Output::Compensated);
        };
        for step in (0..plan.len()).filter(|step| plan[*step].stage == stage) {
            if matches!(self.at(step), Progress::Done | Progress::Unknown) {
                self.undo(step, 1, out);
            }
        }
    }

    fn send(&mut self, step: usize, attempt: u32, out: &mut Vec<Output>) {
        self.steps[step] = Step { progress: Progress::Sent, attempt };
        out.push(Output::Do(step));
    }

    fn undo(&mut self, step: usize, attempt: u32, out: &mut Vec<Output>) {
        self.steps[step] = Step { progress: Progress::Undoing, attempt };
        out.push(Output::Undo(step));
    }

    fn stick(&mut self, step: usize, out: &mut Vec<Output>) {
        let undoing = self.at(step) == Progress::Undoing;
        self.set(step, if undoing { Progress::UndoStuck } else { Progress::Stuck });
        out.push(Output::Stuck(step));
    }

    fn at(&self, step: usize) -> Progress {
        self.steps[step].progress
    }

    fn set(&mut self, step: usize, progress: Progress) {
        self.steps[step].progress = progress;
    }

    fn status(&self) -> Status {
        let is_stuck = |step: &Step| matches!(step.progress, Progress::Stuck | Progress::UndoStuck);
        if self.status.is_end() {
            self.status
        } else if self.steps.iter().any(is_stuck) {
            Status::Stuck
        } else if self.back {
            Status::Compensating
        } else {
            Status::Running
        }
    }
}

#[cfg(test)]
mod search;
