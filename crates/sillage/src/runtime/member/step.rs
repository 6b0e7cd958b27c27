//! Starting what is ready: one delivery of a lane at a time, as many lanes as there are slots.

use super::{Fetched, Head, Member, Pending, Run};
use crate::{
    handler::{Context, Handled},
    runtime::{lane::LaneId, member::intake::Guard, watermark::Fate},
};
use bytes::Bytes;
use sillage_core::{
    Commit, Condition, Delivery, Effects, Error, Failure, Header, Message, Offset, Text, Write,
};
use std::{sync::Arc, time::Duration};

/// So often a process may die on a message before it is a dead letter.
const DEATHS: u32 = 3;
/// So much of a failure's text is in a dead letter, in characters.
const LONGEST_REASON: usize = 4_000;
/// Until a gate is asked again that nobody tells of.
pub(super) const BRIEFLY: Duration = Duration::from_millis(100);

impl Member {
    /// Starts what can be started.
    pub(super) fn dispatch(&mut self) {
        self.now = self.means.clock.elapsed();
        self.lanes.due(self.now);
        self.wake_parked();
        while !self.paused && self.slots.has_free() && self.admits() {
            let Some(lane) = self.lanes.next() else { return };
            self.step(lane);
        }
    }

    fn step(&mut self, lane: LaneId) {
        let head = if self.heads.is_empty() { None } else { self.heads.remove(&lane) };
        if let Some(head) = head
            && self.key_of(lane, &head).is_some()
        {
            return self.start(lane, head.message.clone(), Some(head));
        }
        if !self.parked.is_empty() && self.step_parked(lane) {
            return;
        }
        let Some(work) = self.lanes.front(lane) else { return self.lanes.rest(lane) };
        let (place, assignment, guarded) = (work.partition, work.assignment, work.guarded);
        let message = work.delivery.message.clone();
        let assigned = &self.partitions[place];
        if !assigned.owned || assigned.assignment != assignment || assigned.revoked.is_some() {
            self.lanes.pop(lane);
            return self.lanes.rest(lane);
        }
        if guarded {
            self.start(lane, message, None);
        } else {
            self.guard(lane, place);
        }
    }

    fn start(&mut self, lane: LaneId, message: Arc<Message>, parked: Option<Head>) {
        let spec = &self.means.spec;
        let Some(handler) = spec.handlers.get(&*message.name).or(spec.any.as_ref()) else {
            return self.without_handler(lane, &message, parked);
        };
        let Some(permits) = self.permits() else {
            // Another member of this process took the last one since `dispatch` asked.
            return self.lanes.wait(lane, self.now + BRIEFLY);
        };
        let (mut attempt, mut redrives, mut offset) = (1, 0, None);
        if let Some(head) = &parked {
            offset = head.parked.position.map(|position| Offset(position.0));
            if let Some(key) = self.lanes.name_of(lane).and_then(|name| self.parked.get(&name)) {
                (attempt, redrives) = (key.state.attempts + 1, key.state.redrives);
            }
        } else if let Some(work) = self.lanes.front(lane) {
            (attempt, offset) = (work.attempt, Some(work.delivery.offset));
        }
        let mut delivered = Context::new(message, attempt, self.means.shared.clone());
        (delivered.redrives, delivered.offset) = (redrives, offset);
        match self.slots.start(|slot| handler.start(delivered, slot)) {
            Some(Ok(ended)) => {
                self.tell_gates(&permits, ended.result.as_ref().err());
                self.handled(lane, parked, ended);
            }
            Some(Err(slot)) => {
                let until = self.now + self.means.spec.time_limit;
                self.runs[slot] = Some(Run { lane, parked, until, permits });
            }
            // No slot: `dispatch` asked before.
            None => self.lanes.rest(lane),
        }
    }

    /// Runs a delivery at once, before it even has a lane, where nothing is in its way: most
    /// handlings end here. Its message, where it is finished; what is not gets its lane then.
    pub(super) fn run_at_once(
        &mut self,
        name: Option<u64>,
        place: usize,
        delivery: Delivery,
    ) -> Option<Arc<Message>> {
        let spec = &self.means.spec;
        let message = &delivery.message;
        if self.last.as_ref().is_none_or(|(last, _)| !Arc::ptr_eq(last, &message.name)) {
            let handler = spec.handlers.get(&*message.name).or(spec.any.as_ref());
            self.last = handler.map(|handler| (message.name.clone(), handler.clone()));
        }
        let Some((_, handler)) = &self.last else {
            let work = self.work(place, delivery, false);
            self.lanes.push(name, work);
            return None;
        };
        let mut delivered = Context::new(message.clone(), 1, self.means.shared.clone());
        delivered.offset = Some(delivery.offset);
        let started = self.slots.start(|slot| handler.start(delivered, slot));
        if let Some(Ok(ended)) = &started
            && ended.is_nothing()
            && self.means.spec.failing.is_none()
        {
            self.kill_switch.handled();
            let assigned = &mut self.partitions[place];
            assigned.watermark.pass(delivery.offset, Fate::Done);
            assigned.finished.push(delivery.offset);
            return Some(delivery.message);
        }
        let work = self.work(place, delivery, false);
        match started {
            Some(Ok(ended)) => {
                self.tell_gates(&[], ended.result.as_ref().err());
                let lane = self.lanes.push_busy(name, work);
                self.handled(lane, None, ended);
            }
            Some(Err(slot)) => {
                let lane = self.lanes.push_busy(name, work);
                let until = self.now + self.means.spec.time_limit;
                self.runs[slot] = Some(Run { lane, parked: None, until, permits: vec![] });
            }
            None => self.lanes.push(name, work),
        }
        None
    }

    fn without_handler(&mut self, lane: LaneId, message: &Message, parked: Option<Head>) {
        if message.name.is_empty() {
            let why = "the message does not say what it is: it has neither a `ce_type` (on AMQP \
                       `cloudEvents:type`) nor an `event-type` header";
            return self.failed(lane, parked, &Failure::permanent(why));
        }
        if !self.means.spec.strict {
            let nothing = Handled::plain(Ok(Effects::none()));
            return match parked {
                None => self.finish(lane, Fate::Ignored),
                // It waited behind a failed one of its key, and leaves the key with no effect.
                waited => self.handled(lane, waited, nothing),
            };
        }
        let why = format!(
            "consumer `{}` has no handler for `{}`; add one with `.on(…)`, or leave `.strict()` \
             away to pass over what is not known",
            self.means.spec.name, message.name
        );
        self.failed(lane, parked, &Failure::permanent(why));
    }

    /// After a crash: notes that this delivery is tried now, before its handler runs.
    fn guard(&mut self, lane: LaneId, place: usize) {
        let Some(work) = self.lanes.front(lane) else { return };
        let (offset, message) = (work.delivery.offset, &work.delivery.message);
        // By identity: where a broker has no offsets, a redelivery has another number.
        let message = Text::from(format!("{}/{}", message.source, message.id));
        let assigned = &mut self.partitions[place];
        let guard = Guard::behind(assigned.guard.take(), (offset, message), self.id);
        let deaths = guard.deaths;
        assigned.guard = Some(guard);
        if deaths >= DEATHS {
            let why = format!("the process died {deaths} times while it handled this message");
            return self.failed(lane, None, &Failure::permanent(why));
        }
        match self.mark(place, true) {
            Ok(commit) => self.commit(commit, Pending::Guarded(lane)),
            Err(failure) => self.failed(lane, None, &failure),
        }
    }

    /// Without a database: effects go straight to the broker, at least once.
    pub(super) fn publish(&mut self, lane: LaneId, commit: Commit) {
        let writes = commit.writes.into_iter();
        let messages: Option<Vec<_>> = writes
            .map(|write| match write {
                Write::Append { message, stream: None } => Some(message),
                _ => None,
            })
            .collect();
        if let Some(messages) = messages {
            return self.send_out(lane, None, messages);
        }
        let why = "without a database a handler can only publish and send";
        self.failed(lane, None, &Failure::permanent(why));
    }

    /// Without a database: dead letters go to the topic `<consumer>.dead-letters`.
    pub(super) fn publish_dead(&mut self, lane: LaneId, failure: &Failure) {
        let Some(work) = self.lanes.front(lane) else { return };
        let attempts = work.attempt.to_string();
        let offset = work.delivery.offset.0.to_string();
        let message = work.delivery.message.clone();
        let key = self.key_id(&message);
        if !self.may_set_aside(lane, &key, failure) {
            return;
        }
        if self.is_judged(failure) {
            self.kill_switch.answered(Some(&key), self.now);
        }
        let mut dead = (*message).clone();
        let header = |name: &str, value: String| Header { name: name.into(), value: value.into() };
        dead.headers.retain(|header| !header.name.starts_with("dlq-"));
        dead.headers.extend([
            header("dlq-origin-topic", dead.topic.as_deref().unwrap_or_default().to_owned()),
            header("dlq-origin-offset", offset),
            header("dlq-consumer", self.means.spec.name.to_string()),
            header("dlq-error-class", failure.class.to_string()),
            header("dlq-error-message", failure.to_string().chars().take(LONGEST_REASON).collect()),
            header("dlq-attempts", attempts),
            header("dlq-failed-at", self.means.clock.now().to_string()),
        ]);
        dead.topic = Some(dead_letters(&self.means.spec.name));
        self.send_dead(lane, Arc::new(dead));
    }

    fn send_dead(&self, lane: LaneId, dead: Arc<Message>) {
        self.send_out(lane, Some(dead.clone()), vec![dead]);
    }

    fn send_out(&self, lane: LaneId, dead: Option<Arc<Message>>, messages: Vec<Arc<Message>>) {
        let outlet = self.means.outlet.clone();
        self.fetch(async move { Fetched::Published(lane, dead, outlet.publish(messages).await) });
    }

    /// The broker takes no such dead letter, as it is larger than its message: it goes out without the
    /// message's payload, which is where it came from. If it is refused even so, it is told here.
    pub(super) fn dead_refused(&mut self, lane: LaneId, dead: Option<&Message>, error: &Error) {
        let Some(dead) = dead else { return };
        let name = &self.means.spec.name;
        if dead.payload.is_empty() {
            let (id, source) = (&dead.id, &dead.source);
            tracing::error!(consumer = %name, %id, %source, %error, "a dead letter is lost");
            return self.finish(lane, Fate::Parked);
        }
        let mut bare = dead.clone();
        bare.payload = Bytes::new();
        let kept = |header: &Header| header.name.starts_with("dlq-");
        bare.headers.retain(kept);
        let size = dead.payload.len().to_string();
        bare.headers.push(Header { name: "dlq-payload-bytes".into(), value: size.into() });
        self.send_dead(lane, Arc::new(bare));
    }

    /// The conditions under which this member's commits for a partition hold.
    pub(super) fn fence(&self, place: usize) -> Option<Condition> {
        let fence = self.partitions[place].fence.clone();
        fence.map(|(name, epoch)| Condition::Lease { name, epoch })
    }
}

/// The topic of a consumer's dead letters, where there is no database.
pub(crate) fn dead_letters(consumer: &str) -> Text {
    format!("{}.dead-letters", consumer.replace('/', ".")).into()
}
