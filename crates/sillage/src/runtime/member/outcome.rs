//! What became of a delivery: its handler's return value, and then its commit, decide.

use super::{Head, Member, Pending, Popping, Run, step::BRIEFLY};
use crate::{
    handler::{Also, Handled},
    names,
    runtime::{
        assemble::{Cause, Origin},
        committer::Answer,
        kill_switch::Verdict,
        lane::LaneId,
        parking::{Failed, Key, Parked},
        retry::{Next, back_off},
        slots::SlotId,
        watermark::Fate,
    },
};
use rand::RngExt as _;
use sillage_core::{
    Class, Commit, CommitError, Condition, Decision, Delivered, Effects, Error, ErrorKind, Failure,
    Message, PublishError, Receipt, Result, Text, Write,
};

/// So many reruns on conflict follow at once; later ones back off.
const RERUNS: u32 = 5;

impl Member {
    pub(super) fn ended(&mut self, slot: SlotId, handled: Handled) {
        let Some(run) = self.runs[slot].take() else { return };
        self.tell_gates(&run.permits, handled.result.as_ref().err());
        if !self.is_dropped(&run) {
            self.handled(run.lane, run.parked, handled);
        }
    }

    pub(super) fn timed_out(&mut self, slot: SlotId) {
        let Some(run) = self.runs[slot].take() else { return };
        self.drop_permits(&run.permits);
        if !self.is_dropped(&run) {
            let limit = self.means.spec.time_limit;
            let why = format!("the handler did not end within its time limit of {limit:?}");
            self.failed(run.lane, run.parked, &Failure::transient(why));
        }
    }

    /// Drops what was begun under an assignment that has ended since: under a later one of this
    /// member its commit would not be fenced, and its inbox row may be gone.
    fn is_dropped(&mut self, run: &Run) -> bool {
        let Some(work) = self.lanes.front(run.lane).filter(|_| run.parked.is_none()) else {
            return false;
        };
        let (place, assignment) = (work.partition, work.assignment);
        let lost = !self.is_current(place, assignment);
        if lost {
            self.lanes.pop(run.lane);
            self.lanes.rest(run.lane);
        }
        lost
    }

    pub(super) fn handled(&mut self, lane: LaneId, parked: Option<Head>, handled: Handled) {
        let is_nothing = handled.is_nothing();
        let (result, Also { commit: also, transaction }) = handled.into_parts();
        let share = self.means.spec.failing.filter(|_| result.is_ok());
        let result = match share {
            Some(share) if self.random.random_bool(share) => {
                Err(Failure::transient("one of those that `fail_handlers` lets fail"))
            }
            _ => result,
        };
        let effects = match result {
            Ok(effects) => effects,
            Err(failure) => return self.failed_on(lane, parked, &failure, also.conditions),
        };
        self.kill_switch.handled();
        if is_nothing && parked.is_none() {
            return self.finish(lane, Fate::Done);
        }
        match self.handling(lane, parked.as_ref(), effects, also) {
            Ok((commit, pending)) if self.means.committer.is_some() => {
                self.commit_in(transaction, commit, pending);
            }
            Ok((commit, _)) => self.publish(lane, commit),
            Err(failure) => self.failed(lane, parked, &failure),
        }
    }

    /// The commit of a handling: inbox, what was read, effects; for a parked one also the key.
    pub(super) fn handling(
        &mut self,
        lane: LaneId,
        parked: Option<&Head>,
        effects: Effects,
        also: Commit,
    ) -> Result<(Commit, Pending), Failure> {
        let now = self.means.clock.now();
        let shared = self.means.shared.clone();
        let origin = |message| {
            let cause = Some(Cause { message, consumer: &shared.consumer });
            Origin { service: &shared.service, now, cause }
        };
        if let Some(head) = parked {
            let key = self.key_of(lane, head).ok_or_else(gone)?;
            let mut commit = origin(&head.message).commit(effects, also.conditions)?;
            commit.writes.extend(also.writes);
            let (next, pop) = key.pop(&head.parked, Decision::Done, now)?;
            commit.conditions.extend(pop.conditions);
            commit.conditions.extend(self.key_fence(&key));
            commit.writes.extend(pop.writes);
            let name = self.lanes.name_of(lane).unwrap_or_default();
            return Ok((commit, Pending::Popped(lane, Popping { name, next, head: head.clone() })));
        }
        let Some(work) = self.lanes.front(lane) else { return Err(gone()) };
        let (place, offset) = (work.partition, work.delivery.offset);
        let message = work.delivery.message.clone();
        let (source, id) = (message.source.clone(), message.id.text());
        let delivery = Delivered { consumer: shared.consumer.clone(), source, id };
        let mut commit = origin(&message).commit(effects, also.conditions)?;
        commit.writes.extend(also.writes);
        if self.means.committer.is_none() {
            return Ok((commit, Pending::Handled(lane)));
        }
        commit.conditions.insert(0, Condition::FirstTime(delivery.clone()));
        let until = Some(self.forgettable(place, offset));
        commit.conditions.extend(self.fence(place));
        commit.writes.push(Write::Decide { delivery, decision: Decision::Done, until });
        Ok((commit, Pending::Handled(lane)))
    }

    pub(super) fn answered(&mut self, ticket: u64, answer: Answer) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let failed = matches!(answer, Err(CommitError::Failed(_)));
        if let Err(CommitError::Failed(error)) = &answer {
            tracing::warn!(consumer = %self.means.spec.name, %error, "commit failed");
        }
        let problem = answer.as_ref().err().filter(|_| failed).map(ToString::to_string);
        self.means.vital.problem("database", problem);
        match pending {
            Pending::Handled(lane) => self.committed(lane, answer),
            Pending::Guarded(lane) => self.guarded(lane, &answer),
            Pending::Parked(lane, key) => self.parked(lane, key, answer),
            Pending::Popped(lane, popping) => self.popped(lane, popping, answer),
            Pending::Noted(lane, key) => self.noted(lane, key, answer),
            Pending::Settled(place, assignment) => self.settled(place, assignment, answer),
            Pending::Noticed => {}
        }
    }

    fn committed(&mut self, lane: LaneId, answer: Answer) {
        match answer {
            Ok(_) => self.finish(lane, Fate::Done),
            Err(CommitError::AlreadyHandled) => self.finish(lane, Fate::Duplicate),
            Err(CommitError::Rejected(error)) => {
                self.failed(lane, None, &Failure::permanent(error));
            }
            Err(CommitError::Sql(failure)) => self.failed(lane, None, &failure),
            Err(CommitError::Fenced) => self.fenced(lane),
            Err(CommitError::Conflict { .. }) => self.rerun(lane, RERUNS),
            Err(CommitError::Failed(_) | CommitError::Held(_)) => self.rerun(lane, 0),
        }
    }

    fn guarded(&mut self, lane: LaneId, answer: &Answer) {
        match answer {
            Ok(_) => {
                if let Some(work) = self.lanes.front(lane) {
                    work.guarded = true;
                }
                self.lanes.rest(lane);
            }
            Err(CommitError::Fenced) => self.fenced(lane),
            Err(_) => self.rerun(lane, 0),
        }
    }

    /// The same delivery again, on fresh state; spends no attempt.
    pub(super) fn rerun(&mut self, lane: LaneId, at_once: u32) {
        let now = self.means.clock.elapsed();
        let Some(work) = self.lanes.front(lane) else { return self.lanes.rest(lane) };
        work.waits = work.waits.saturating_add(1);
        let waits = work.waits;
        match waits.checked_sub(at_once + 1) {
            None => self.lanes.rest(lane),
            Some(over) => {
                let delay = back_off(over, &mut self.random);
                self.lanes.wait(lane, now + delay);
            }
        }
    }

    /// Another process owns the partition: what it brought is dropped.
    pub(super) fn fenced(&mut self, lane: LaneId) {
        if let Some(work) = self.lanes.pop(lane) {
            let (place, assignment) = (work.partition, work.assignment);
            if self.is_current(place, assignment) {
                self.let_go(place);
            }
        }
        self.lanes.rest(lane);
    }

    pub(super) fn failed(&mut self, lane: LaneId, parked: Option<Head>, failure: &Failure) {
        self.failed_on(lane, parked, failure, vec![]);
    }

    /// The same of a handler that had read something. That nothing can help holds while it is so;
    /// else the delivery runs again.
    fn failed_on(
        &mut self,
        lane: LaneId,
        parked: Option<Head>,
        failure: &Failure,
        mut read: Vec<Condition>,
    ) {
        if failure.class != Class::Permanent {
            read.clear();
        }
        let now = self.means.clock.elapsed();
        self.unguard(lane);
        if let Class::Unavailable(dependency) = &failure.class {
            let why = format!("`{dependency}` is unavailable: {failure}");
            tracing::debug!(consumer = %self.means.spec.name, why);
            if parked.is_none()
                && self.is_broken(dependency)
                && let Some(work) = self.lanes.front(lane)
            {
                // As soon as the breaker lets it.
                work.waits = 0;
                return self.lanes.rest(lane);
            }
            return match parked {
                Some(_) => self.lanes.wait(lane, now + back_off(6, &mut self.random)),
                None => self.rerun(lane, 0),
            };
        }
        if let Some(head) = parked {
            return self.failed_again(lane, &head, failure, read);
        }
        let Some(work) = self.lanes.front(lane) else { return self.lanes.rest(lane) };
        let attempt = work.attempt;
        let next = self.means.spec.retry.after(attempt, &failure.class, &mut self.random);
        if let Next::InLane(delay) = next {
            work.attempt += 1;
            tracing::debug!(consumer = %self.means.spec.name, attempt, %failure, "tried in vain");
            return self.lanes.wait(lane, now + delay);
        }
        if self.means.committer.is_none() {
            return self.publish_dead(lane, failure);
        }
        self.park(lane, next, failure, read);
    }

    /// A handler that returned, even in vain, did not take the process down: what dies while the
    /// delivery waits for its next try is not counted against it.
    fn unguard(&mut self, lane: LaneId) {
        if let Some(work) = self.lanes.front(lane)
            && work.careful
            && work.guarded
        {
            work.guarded = false;
            let place = work.partition;
            self.partitions[place].guard = None;
        }
    }

    /// Whether a delivery that has failed may be set aside. If it failed for good with too many others,
    /// as after a bad deployment, the consumer pauses instead: the kill switch.
    pub(super) fn may_set_aside(&mut self, lane: LaneId, key: &str, failure: &Failure) -> bool {
        if !self.is_judged(failure) {
            return true;
        }
        if self.paused {
            self.lanes.rest(lane);
            return false;
        }
        let now = self.means.clock.elapsed();
        match self.kill_switch.judge(key, now) {
            Verdict::SetAside => return true,
            Verdict::Wait => self.lanes.wait(lane, now + BRIEFLY),
            Verdict::Pause => {
                self.pause_for(failure);
                self.lanes.rest(lane);
            }
        }
        false
    }

    /// Whether the kill switch counts that failure.
    pub(super) fn is_judged(&self, failure: &Failure) -> bool {
        self.means.spec.is_users && failure.class == Class::Permanent
    }

    fn pause_for(&mut self, failure: &Failure) {
        let name = &self.means.spec.name;
        let then = match &self.means.committer {
            Some(_) => format!("`sillage consumers resume {name}`"),
            None => "start the app again".to_owned(),
        };
        let why = format!(
            "too many keys fail for good, the last with `{failure}`: nothing more is set aside; \
             mend the handler, then {then}"
        );
        tracing::error!(consumer = %name, why);
        self.kill_switch.reset();
        if let Ok(commit) = settings(name, Some(&why)) {
            self.commit(commit, Pending::Noticed);
        }
        self.paused = true;
        self.means.control.send_modify(|control| control.paused = Some(why));
    }

    fn park(&mut self, lane: LaneId, next: Next, failure: &Failure, read: Vec<Condition>) {
        let now = self.means.clock.now();
        let is_log = self.means.is_log;
        let Some(work) = self.lanes.front(lane) else { return self.lanes.rest(lane) };
        let next_try = match next {
            Next::Park(delay) => Some(now + delay),
            Next::InLane(_) | Next::Dead => None,
        };
        let (message, place) = (work.delivery.message.clone(), work.partition);
        let parked = copy_of(&work.delivery, is_log);
        let attempts = work.attempt;
        let failed = Failed { name: &message.name, failure, attempts, now, next_try };
        let partition = &self.partitions[place].name;
        let consumer = &self.means.spec.name;
        let made = parked.and_then(|p| Key::park(consumer, partition, &message, &p, &failed));
        match made {
            Ok((key, mut commit)) => {
                if !self.may_set_aside(lane, &key.id, failure) {
                    return;
                }
                commit.conditions.extend(read);
                commit.conditions.extend(self.fence(place));
                self.commit(commit, Pending::Parked(lane, key));
            }
            Err(error) => self.stuck(lane, &error),
        }
    }

    /// A delivery that cannot even be set aside holds its lane, and health says so.
    pub(super) fn stuck(&mut self, lane: LaneId, error: &Error) {
        tracing::error!(consumer = %self.means.spec.name, %error, "cannot be parked");
        self.means.vital.problem("parking", Some(error.to_string()));
        self.rerun(lane, 0);
    }

    /// The delivery at the head of the lane is finished.
    pub(super) fn finish(&mut self, lane: LaneId, fate: Fate) {
        if let Some(work) = self.lanes.pop(lane) {
            let assigned = &mut self.partitions[work.partition];
            if assigned.owned && assigned.assignment == work.assignment {
                assigned.watermark.finish(work.number, fate);
                assigned.finished.push(work.delivery.offset);
                if work.careful {
                    assigned.careful_done();
                    self.take_held(work.partition);
                }
            }
        }
        self.lanes.rest(lane);
    }

    pub(super) fn published(
        &mut self,
        lane: LaneId,
        dead: Option<&Message>,
        receipts: Vec<Result<Receipt, PublishError>>,
    ) {
        let refused = receipts.into_iter().find_map(Result::err);
        match refused {
            None => self.finish(lane, if dead.is_some() { Fate::Parked } else { Fate::Done }),
            Some(PublishError::Refused(error)) if dead.is_none() => {
                self.failed(lane, None, &Failure::permanent(error));
            }
            Some(PublishError::Refused(error)) if error.kind() == ErrorKind::Invalid => {
                self.dead_refused(lane, dead, &error);
            }
            Some(error) => {
                tracing::warn!(consumer = %self.means.spec.name, %error, "publishing failed");
                self.rerun(lane, 0);
            }
        }
    }
}

/// A parked delivery: its place in the log where this database's log is the broker, or a copy.
pub(super) fn copy_of(delivery: &sillage_core::Delivery, is_log: bool) -> Result<Parked> {
    if is_log {
        Ok(Parked::at(sillage_core::Position(delivery.offset.0), &delivery.message))
    } else {
        Parked::copy(&delivery.message)
    }
}

/// The commit that keeps a consumer paused, or lets it run, across restarts.
pub(crate) fn settings(consumer: &Text, paused: Option<&str>) -> Result<Commit> {
    let (collection, id) = (names::CONSUMERS.into(), consumer.clone());
    let body = serde_json::to_vec(&serde_json::json!({ "paused": paused }))?.into();
    let put = Write::Put { collection, id, sort: None, body };
    Ok(Commit { conditions: vec![], writes: vec![put] })
}

fn gone() -> Failure {
    Failure::transient("the parked key was changed meanwhile")
}
