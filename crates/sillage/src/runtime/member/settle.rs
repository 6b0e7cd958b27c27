//! Settling: the watermark goes to the database, which fences what is below it, and then to the
//! broker.

use super::{
    Member, Pending, SETTLE,
    intake::{Assigned, Mark},
};
use crate::{names, runtime::committer::Answer};
use futures_util::FutureExt as _;
use sillage_core::{Commit, CommitError, Failure, Offset, Settled, Sort, Text, Timestamp, Write};
use std::time::Duration;

/// So many deliveries of a partition that have ended do not wait for others, where a broker counts each:
/// it sends only so many ahead (RabbitMQ 1,024), and then nothing until it hears of some.
const MANY: usize = 256;
/// How long after a failure it is settled again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often rows behind the redelivery horizon are forgotten.
const FORGET: Duration = Duration::from_secs(60);

impl Member {
    /// Settles what moved, a while after the first of it: what comes in that time shares the durable
    /// write, and what follows from a delivery does not wait behind the one for its watermark.
    pub(super) fn settle(&mut self, now: bool) {
        let time = self.means.clock.elapsed();
        if time < self.settles_at {
            return;
        }
        let is_due = self.is_due(time);
        if !now && !is_due {
            return self.settle_many(time);
        }
        (self.settled_at, self.unsettled) = (time, None);
        self.kill_switch.count(time);
        for place in 0..self.partitions.len() {
            if self.partitions[place].owned && !self.partitions[place].settling {
                self.settle_one(place, time);
            }
        }
        self.report();
    }

    fn is_due(&mut self, time: Duration) -> bool {
        if !self.is_unsettled() {
            self.unsettled = None;
        } else if time < *self.unsettled.get_or_insert(time) + SETTLE {
            return false;
        }
        self.lanes.works() == 0 || time >= self.settled_at + SETTLE
    }

    /// Settles those partitions of which the broker may send nothing more before it hears what has
    /// ended. Not the others: it works as long on an acknowledgement of a few as on one of many.
    fn settle_many(&mut self, time: Duration) {
        if self.means.offsets {
            return;
        }
        for place in 0..self.partitions.len() {
            let assigned = &self.partitions[place];
            if assigned.owned && !assigned.settling && assigned.finished.len() >= MANY {
                self.settle_one(place, time);
            }
        }
    }

    /// Deliveries have ended, and it was not said yet. Whoever waits for a partition, or for the word
    /// that it is handled, does not wait for more of them.
    fn is_unsettled(&self) -> bool {
        let stores = self.database().is_some() && !self.means.spec.broadcast;
        let is_new = |p: &Assigned| p.revoked.is_some() || (stores && p.stored.is_none());
        !self.owned().any(is_new) && self.owned().any(|p| !p.settling && !p.finished.is_empty())
    }

    pub(super) fn settle_due(&self) -> Option<Duration> {
        let moved = self.owned().any(|p| !p.settling && !p.finished.is_empty());
        let since = self.unsettled.unwrap_or(self.settled_at).max(self.settled_at);
        let moved = moved.then_some(since + SETTLE);
        let revoked = self.owned().filter(|p| !p.settling).filter_map(|p| p.revoked).min();
        let next = self.settled_at + SETTLE;
        let due = moved.into_iter().chain(revoked.map(|end| end.max(next))).min();
        due.map(|due| due.max(self.settles_at))
    }

    fn settle_one(&mut self, place: usize, time: Duration) {
        let assigned = &self.partitions[place];
        let closing = assigned
            .revoked
            .is_some_and(|end| end <= time || !self.is_under_way(place, assigned.assignment));
        if self.database().is_none() || self.means.spec.broadcast {
            self.partitions[place].counted = self.partitions[place].finished.len();
            self.settle_broker(place, self.partitions[place].watermark.passed_here());
            if closing {
                self.release(place);
            }
            return;
        }
        if !assigned.ready {
            if closing {
                self.release(place);
            }
            return;
        }
        let stored = assigned.stored.as_ref();
        let unguarded = assigned.guard.is_none() && stored.is_some_and(|mark| mark.guard.is_some());
        // Who gives a partition back does not wait for ever until it is stored.
        let is_unsaved =
            assigned.unsaved.is_some() && assigned.revoked.is_none_or(|end| time < end);
        let moved = unguarded || is_unsaved || assigned.marked != assigned.watermark.passed();
        // Where each is settled by itself, what is finished need not wait for what came before it.
        let moved = moved || (!self.means.offsets && !assigned.finished.is_empty());
        let open = stored.is_some_and(|mark| mark.open);
        if (closing && open) || moved || (stored.is_none() && !closing) {
            let assignment = assigned.assignment;
            match self.mark(place, !closing) {
                Ok(commit) => {
                    self.partitions[place].settling = true;
                    self.commit(commit, Pending::Settled(place, assignment));
                }
                Err(failure) => tracing::error!(%failure, "the watermark cannot be written"),
            }
        } else if closing {
            self.release(place);
        }
    }

    /// Whether deliveries of the partition are still being handled or committed.
    fn is_under_way(&self, place: usize, assignment: u64) -> bool {
        self.lanes.has_busy(place, assignment)
    }

    /// The commit of a partition's watermark, as it is now.
    pub(super) fn mark(&mut self, place: usize, open: bool) -> Result<Commit, Failure> {
        let assigned = &mut self.partitions[place];
        let passed = assigned.watermark.passed();
        let offset = passed.unwrap_or_default();
        let guard = assigned.guard.clone().filter(|guard| passed.is_none_or(|p| guard.offset > p));
        let tally = if self.means.offsets {
            assigned.watermark.tally()
        } else {
            assigned.watermark.tally_of_finished()
        };
        let cluster = self.means.cluster.clone();
        let at = cluster.is_some().then(|| self.means.clock.now());
        let mark = Mark { offset, open, tally, guard, by: Some(self.id), cluster, at };
        let body = serde_json::to_vec(&mark)?.into();
        assigned.marked = passed;
        assigned.unsaved = None;
        assigned.to_settle = assigned.watermark.passed_here();
        assigned.counted = assigned.finished.len();
        assigned.stored = Some(mark);
        let consumer = self.means.spec.name.clone();
        let id = names::watermark(&consumer, &assigned.partition);
        let sort = Some(Sort::Text(names::offset(offset)));
        let collection = names::WATERMARKS.into();
        let mut writes = vec![Write::Put { collection, id, sort, body }];
        writes.extend(self.forgotten(place, offset));
        Ok(Commit { conditions: self.fence(place).into_iter().collect(), writes })
    }

    /// Inbox rows of what cannot be delivered again. What is in the log of this database comes in
    /// the order of its positions, under the partition's lease; a broker may bring a message again
    /// at a higher offset, so there its row is kept for the redelivery horizon.
    fn forgotten(&mut self, place: usize, offset: Offset) -> Option<Write> {
        let consumer = self.means.spec.name.clone();
        if self.means.is_log {
            let partition = self.partitions[place].name.clone();
            return (offset > Offset(0)).then_some(Write::Forget {
                consumer,
                partition,
                through: offset.0,
            });
        }
        let now = self.means.clock.elapsed();
        if now < self.forgets_at {
            return None;
        }
        self.forgets_at = now + FORGET;
        let through = seconds(self.means.clock.now() - self.means.spec.horizon);
        Some(Write::Forget { consumer, partition: names::BY_AGE.into(), through })
    }

    /// Where the inbox row of a delivery may be forgotten; see [`Member::forgotten`].
    pub(super) fn forgettable(&self, place: usize, offset: Offset) -> (Text, u64) {
        if self.means.is_log {
            (self.partitions[place].name.clone(), offset.0)
        } else {
            (names::BY_AGE.into(), seconds(self.means.clock.now()))
        }
    }

    pub(super) fn settled(&mut self, place: usize, assignment: u64, answer: Answer) {
        if !self.is_current(place, assignment) {
            return;
        }
        self.partitions[place].settling = false;
        match answer {
            Ok(_) => self.settle_broker(place, self.partitions[place].to_settle),
            Err(CommitError::Fenced) => self.let_go(place),
            Err(error) => {
                tracing::warn!(consumer = %self.means.spec.name, %error, "settling failed");
                let now = self.means.clock.elapsed();
                let assigned = &mut self.partitions[place];
                (assigned.stored, assigned.unsaved) = (None, Some(now));
                self.settles_at = now + AGAIN;
            }
        }
    }

    /// Tells the broker what is counted, and nothing else: what it has heard of is not counted
    /// again.
    fn settle_broker(&mut self, place: usize, watermark: Option<Offset>) {
        let assigned = &mut self.partitions[place];
        let counted = std::mem::take(&mut assigned.counted);
        let finished: Vec<_> = assigned.finished.drain(..counted).collect();
        if finished.is_empty() {
            return;
        }
        let partition = assigned.partition.clone();
        let settler = self.settler.clone();
        let vital = self.means.vital.clone();
        self.tell_broker(place, async move {
            let settled = [Settled { partition, watermark, finished }];
            let problem = settler.settle(&settled).await.err().map(|error| error.to_string());
            vital.problem("settling", problem);
        });
    }

    fn release(&mut self, place: usize) {
        let partition = self.partitions[place].partition.clone();
        self.let_go(place);
        self.partitions[place].revoked = None;
        let settler = self.settler.clone();
        self.tell_broker(place, async move {
            if let Err(error) = settler.release(&[partition]).await {
                tracing::warn!(%error, "a partition could not be released; its lease runs out");
            }
        });
    }

    /// Behind what the broker was told about the partition before: a watermark must not go back, and
    /// what is finished is settled before it is given up. What has to wait does so in the background.
    fn tell_broker(&mut self, place: usize, telling: impl Future<Output = ()> + Send + 'static) {
        let assigned = &mut self.partitions[place];
        let before = assigned.told.take().filter(|before| !before.is_finished());
        let mut telling = Box::pin(telling);
        if before.is_none() && (&mut telling).now_or_never().is_some() {
            return;
        }
        assigned.told = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            telling.await;
        }));
    }

    /// What health knows of this member.
    fn report(&self) {
        let passed = self.owned().filter_map(|p| p.watermark.passed()).map(|o| o.0).sum::<u64>();
        let waiting = self.owned().map(|p| p.watermark.span()).sum::<usize>();
        let oldest = self.owned().filter_map(|p| p.watermark.oldest()).min();
        let blocked = oldest.and_then(|offset| self.lanes.key_at(offset));
        self.means.vital.watermark(passed, waiting, blocked, self.means.clock.elapsed());
    }
}

/// Whole seconds since 1970.
fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0)
}
