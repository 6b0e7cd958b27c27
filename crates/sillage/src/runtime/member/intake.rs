//! What comes in: assignments, batches, revocations, and redelivery after a crash.

use super::{Fetched, Member};
use crate::{
    names,
    runtime::{
        lane::Work,
        parking,
        watermark::{Fate, Tally, Watermark},
    },
};
use serde::{Deserialize, Serialize};
use sillage_core::{
    Database, Decision, Deliveries, Delivery, Epoch, Error, Message, Offset, Partition, Result,
    Stored, Text, Timestamp,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How many deliveries run one by one, each with its attempt stored first, after a process died
/// without draining: those that may have been under way.
const CAREFUL: usize = 256;

/// The watermark of a consumer in a partition, as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) offset: Offset,
    /// A member has it and has not given it back: after a crash it still says so.
    pub(crate) open: bool,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// The delivery that was being handled alone, and how often the process died on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<Guard>,
    /// The member that stored it. One that finds itself here has not died since.
    #[serde(default)]
    pub(crate) by: Option<Uuid>,
    /// The cluster whose offset it is, where the broker tells, and when it was stored then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
}

/// A delivery that runs alone after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guard {
    pub(crate) offset: Offset,
    /// Its source and id.
    pub(crate) message: Text,
    pub(crate) deaths: u32,
    /// The member that noted it. One that notes it again, as it lost the partition meanwhile, has not
    /// died.
    #[serde(default)]
    pub(crate) by: Uuid,
}

impl Guard {
    /// Of a delivery, behind what was noted last in its partition.
    pub(super) fn behind(
        before: Option<Guard>,
        (offset, message): (Offset, Text),
        by: Uuid,
    ) -> Guard {
        let same = before.filter(|guard| guard.message == message);
        let deaths = same.map_or(0, |guard| guard.deaths + u32::from(guard.by != by));
        Guard { offset, message, deaths, by }
    }
}

/// What is known of a partition once it is this member's.
pub(crate) struct Loaded {
    mark: Option<Mark>,
    keys: Vec<Stored>,
    /// Whatever comes behind it was in nobody's hands before; `None`: nobody knows.
    end: Option<Offset>,
}

/// A partition of this member.
pub(super) struct Assigned {
    pub(super) partition: Partition,
    /// As inbox rows and parked keys name it.
    pub(super) name: Text,
    /// Grows with each assignment; what an older one brought is dropped.
    pub(super) assignment: u64,
    pub(super) owned: bool,
    pub(super) ready: bool,
    pub(super) revoked: Option<Duration>,
    /// Since when it is not this member's any more.
    pub(super) gone: Option<Duration>,
    pub(super) fence: Option<(Text, Epoch)>,
    pub(super) watermark: Watermark,
    /// Finished, and the broker has not heard of it.
    pub(super) finished: Vec<Offset>,
    /// So many of these are in the stored tally, or in that which is being stored.
    pub(super) counted: usize,
    pub(super) settling: bool,
    /// What was stored last; `None`: nothing yet.
    pub(super) stored: Option<Mark>,
    pub(super) guard: Option<Guard>,
    /// Where the watermark was when it was stored last. Not the stored offset: that is 0 for nothing
    /// as well as for a partition's first message.
    pub(super) marked: Option<Offset>,
    /// When storing that mark failed: it may be stored, or not.
    pub(super) unsaved: Option<Duration>,
    /// Up to there the broker may be told that all is finished, once the mark is stored.
    pub(super) to_settle: Option<Offset>,
    /// The last of what the broker is being told about it.
    pub(super) told: Option<JoinHandle<()>>,
    /// What came before it may be taken in.
    held: VecDeque<Vec<Delivery>>,
    looking: Option<Vec<Delivery>>,
    /// So many deliveries may have been decided before: they are looked up before they run.
    lookups: usize,
    /// None behind this offset: it came after the assignment.
    end: Option<Offset>,
    careful: usize,
    careful_left: usize,
}

impl Assigned {
    fn new(partition: Partition) -> Self {
        Assigned {
            name: partition.to_string().into(),
            partition,
            assignment: 0,
            owned: false,
            ready: false,
            revoked: None,
            gone: None,
            fence: None,
            watermark: Watermark::default(),
            finished: vec![],
            counted: 0,
            settling: false,
            stored: None,
            guard: None,
            marked: None,
            unsaved: None,
            to_settle: None,
            told: None,
            held: VecDeque::new(),
            looking: None,
            lookups: 0,
            end: None,
            careful: 0,
            careful_left: 0,
        }
    }

    /// Nothing came before that must be taken in before what comes now.
    fn is_open(&self) -> bool {
        let known = self.ready && self.lookups == 0 && self.looking.is_none();
        known && self.held.is_empty() && self.careful == 0 && self.careful_left == 0
    }

    /// How much came that is not taken in yet.
    pub(super) fn held(&self) -> usize {
        self.held.iter().chain(&self.looking).map(Vec::len).sum()
    }

    /// A delivery that ran alone is finished.
    pub(super) fn careful_done(&mut self) {
        self.careful_left = self.careful_left.saturating_sub(1);
    }
}

impl Member {
    pub(super) fn assigned(&mut self, partitions: Vec<Partition>) {
        for partition in partitions {
            let place = *self.places.entry(partition.clone()).or_insert_with(|| {
                self.partitions.push(Assigned::new(partition.clone()));
                self.partitions.len() - 1
            });
            let assignment = self.partitions[place].assignment + 1;
            let fence = self.settler.fence(&partition);
            let told = self.partitions[place].told.take();
            let fresh = Assigned::new(partition.clone());
            self.partitions[place] = Assigned { assignment, owned: true, fence, told, ..fresh };
            if self.throttled
                && let Err(error) = self.settler.pause(std::slice::from_ref(&partition))
            {
                tracing::warn!(%partition, %error, "pausing failed");
            }
            match self.database().cloned() {
                Some(database) if !self.means.spec.broadcast => {
                    let (consumer, is_log) = (self.means.spec.name.clone(), self.means.is_log);
                    self.fetch(async move {
                        let loaded = load(&*database, &consumer, &partition, is_log).await;
                        Fetched::Assigned(place, assignment, loaded)
                    });
                }
                _ => self.partitions[place].ready = true,
            }
        }
        self.means.vital.partitions(self.owned().count());
    }

    pub(super) fn loaded(&mut self, place: usize, assignment: u64, loaded: Result<Loaded>) {
        if !self.is_current(place, assignment) {
            return;
        }
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return self.load_again(place, &error),
        };
        let name = self.partitions[place].name.clone();
        let mut keys = vec![];
        for stored in &loaded.keys {
            match parking::Key::read(stored) {
                Ok(key) if key.state.partition == name => keys.push(key),
                Ok(_) => {}
                Err(error) => tracing::error!(id = %stored.id, %error, "parked key unreadable"),
            }
        }
        if keys.iter().any(|key| self.is_committing(self.lane_name(key))) {
            let error = Error::unavailable("a commit of the last assignment is not answered yet");
            return self.load_again(place, &error);
        }
        let window = self.means.spec.window;
        let assigned = &mut self.partitions[place];
        let mark = loaded.mark.unwrap_or_default();
        // Where a broker has no offsets they count from one again in each process.
        let is_here = mark.cluster.is_none() || mark.cluster == self.means.cluster;
        let is_known = self.means.offsets && is_here && mark.offset.0 > 0;
        let passed = is_known.then_some(mark.offset);
        assigned.watermark = Watermark::starting(passed, mark.tally);
        assigned.marked = passed;
        (assigned.lookups, assigned.end) = (window, loaded.end);
        let may_kill = mark.open && mark.by != Some(self.id) && self.means.spec.is_users;
        assigned.careful = if may_kill { CAREFUL } else { 0 };
        assigned.guard = mark.guard;
        assigned.stored = None;
        assigned.ready = true;
        for key in keys {
            self.hold(key);
        }
        self.take_held(place);
    }

    fn load_again(&mut self, place: usize, error: &Error) {
        tracing::warn!(consumer = %self.means.spec.name, %error, "loading a partition failed");
        let assigned = &self.partitions[place];
        let (partition, assignment) = (assigned.partition.clone(), assigned.assignment);
        let (consumer, is_log) = (self.means.spec.name.clone(), self.means.is_log);
        let pause = self.means.clock.sleep(Duration::from_secs(1));
        if let Some(database) = self.database().cloned() {
            self.fetch(async move {
                pause.await;
                let loaded = load(&*database, &consumer, &partition, is_log).await;
                Fetched::Assigned(place, assignment, loaded)
            });
        }
    }

    pub(super) fn is_current(&self, place: usize, assignment: u64) -> bool {
        let assigned = &self.partitions[place];
        assigned.owned && assigned.assignment == assignment
    }

    pub(super) fn batch(&mut self, partition: &Partition, mut deliveries: Deliveries) {
        let Some(place) = self.places.get(partition).copied() else { return };
        let assigned = &mut self.partitions[place];
        if !assigned.owned || assigned.revoked.is_some() {
            return;
        }
        if assigned.is_open() {
            while let Some(delivery) = deliveries.next() {
                if let Some(finished) = self.push(place, delivery, false) {
                    deliveries.give_back(finished);
                }
            }
        } else {
            assigned.held.push_back(deliveries.collect());
            self.take_held(place);
        }
    }

    /// Nothing more comes up to there; once nothing is held back, the watermark may know.
    pub(super) fn passed(&mut self, partition: &Partition, offset: Offset) {
        let Some(place) = self.places.get(partition).copied() else { return };
        let assigned = &mut self.partitions[place];
        let empty = assigned.held.is_empty() && assigned.looking.is_none();
        if assigned.owned && assigned.ready && empty && assigned.revoked.is_none() {
            assigned.watermark.pass(offset, Fate::Nothing);
        }
    }

    /// Takes in what was held back, as far as it can be now.
    pub(super) fn take_held(&mut self, place: usize) {
        loop {
            let assigned = &mut self.partitions[place];
            let waits = !assigned.ready || assigned.looking.is_some();
            // What runs alone is finished before anything runs beside it.
            let alone = assigned.careful == 0 && assigned.careful_left > 0;
            if waits || alone || assigned.revoked.is_some() {
                return;
            }
            let Some(batch) = assigned.held.pop_front() else { return };
            let is_new = |end| batch.first().is_some_and(|first| first.offset > end);
            if assigned.end.is_some_and(is_new) {
                assigned.lookups = 0;
            }
            if assigned.lookups == 0 {
                self.push_all(place, batch, &[]);
                continue;
            }
            assigned.lookups = assigned.lookups.saturating_sub(batch.len());
            let assignment = assigned.assignment;
            let ids = batch.iter().map(|d| (d.message.source.clone(), d.message.id.text()));
            let ids: Vec<_> = ids.collect();
            assigned.looking = Some(batch);
            self.look_up(place, assignment, ids, Duration::ZERO);
        }
    }

    fn look_up(&self, place: usize, assignment: u64, ids: Vec<(Text, Text)>, pause: Duration) {
        let Some(database) = self.database().cloned() else { return };
        let consumer = self.means.spec.name.clone();
        let pause = self.means.clock.sleep(pause);
        self.fetch(async move {
            pause.await;
            let found = database.decisions(&consumer, &ids).await;
            Fetched::Decisions(place, assignment, found)
        });
    }

    pub(super) fn decided(
        &mut self,
        place: usize,
        assignment: u64,
        found: Result<Vec<Option<Decision>>>,
    ) {
        if !self.is_current(place, assignment) {
            return;
        }
        let Some(batch) = self.partitions[place].looking.take() else { return };
        match found {
            Ok(found) => {
                self.push_all(place, batch, &found);
                self.take_held(place);
            }
            Err(error) => {
                tracing::warn!(consumer = %self.means.spec.name, %error, "inbox unreadable");
                let ids = batch.iter().map(|d| (d.message.source.clone(), d.message.id.text()));
                let ids = ids.collect();
                self.partitions[place].looking = Some(batch);
                self.look_up(place, assignment, ids, Duration::from_secs(1));
            }
        }
    }

    /// Puts deliveries into lanes; those decided before are finished at once.
    fn push_all(&mut self, place: usize, batch: Vec<Delivery>, found: &[Option<Decision>]) {
        // A whole batch or none of it: what runs alone must not be overtaken by its own batch.
        let careful = self.partitions[place].careful > 0;
        for (index, delivery) in batch.into_iter().enumerate() {
            let assigned = &mut self.partitions[place];
            if found.get(index).is_some_and(Option::is_some) {
                let offset = delivery.offset;
                assigned.watermark.pass(offset, Fate::Duplicate);
                assigned.finished.push(offset);
                continue;
            }
            assigned.careful = assigned.careful.saturating_sub(1);
            self.push(place, delivery, careful);
        }
    }

    /// Starts a delivery, or puts it into its lane. Its message, where it is finished.
    fn push(&mut self, place: usize, delivery: Delivery, careful: bool) -> Option<Arc<Message>> {
        let message = &delivery.message;
        let name = if careful {
            // Alone in the partition: one lane for all of them.
            Some(self.lanes.name("", &sillage_core::Key::of(&self.partitions[place].name)))
        } else {
            let topic = message.topic.as_deref().unwrap_or_default();
            message.key.as_ref().map(|key| self.lanes.name(topic, key))
        };
        let free = !self.paused && !careful && self.parked.is_empty() && self.slots.has_free();
        if free && self.gates.is_empty() && self.lanes.is_clear(name) {
            return self.run_at_once(name, place, delivery);
        }
        let work = self.work(place, delivery, careful);
        self.lanes.push(name, work);
        None
    }

    /// Takes a delivery into its partition's watermark.
    pub(super) fn work(&mut self, place: usize, delivery: Delivery, careful: bool) -> Work {
        let assigned = &mut self.partitions[place];
        assigned.careful_left += usize::from(careful);
        Work {
            partition: place,
            assignment: assigned.assignment,
            number: assigned.watermark.push(delivery.offset),
            delivery,
            attempt: 1,
            waits: 0,
            careful,
            guarded: !careful,
        }
    }

    /// Another member wants it: nothing new is started, what runs may end.
    pub(super) fn revoked(&mut self, partition: &Partition) {
        let Some(place) = self.places.get(partition).copied() else { return };
        let now = self.means.clock.elapsed();
        let assigned = &mut self.partitions[place];
        assigned.revoked.get_or_insert(now + Duration::from_secs(5));
        assigned.held.clear();
        assigned.looking = None;
        let assignment = assigned.assignment;
        self.lanes.purge(place, assignment);
    }

    /// Another member has it already: nothing of it is settled any more.
    pub(super) fn lost(&mut self, partition: &Partition) {
        let Some(place) = self.places.get(partition).copied() else { return };
        self.let_go(place);
    }

    /// The partition is not this member's any more.
    pub(super) fn let_go(&mut self, place: usize) {
        let now = self.means.clock.elapsed();
        let assigned = &mut self.partitions[place];
        let (assignment, name) = (assigned.assignment, assigned.name.clone());
        (assigned.owned, assigned.gone) = (false, Some(now));
        assigned.assignment += 1;
        assigned.held.clear();
        self.lanes.purge(place, assignment);
        self.forget_keys(&name);
        self.means.vital.partitions(self.owned().count());
    }

    pub(super) fn owned(&self) -> impl Iterator<Item = &Assigned> {
        self.partitions.iter().filter(|assigned| assigned.owned)
    }
}

async fn load(
    database: &dyn Database,
    consumer: &str,
    partition: &Partition,
    is_log: bool,
) -> Result<Loaded> {
    // An offset is a position there.
    let end = if is_log { Some(Offset(database.head().await?.last.0)) } else { None };
    let id = names::watermark(consumer, partition);
    let mark = database.get(names::WATERMARKS, &[&id]).await?.pop().flatten();
    let mark = mark.map(|stored| serde_json::from_slice(&stored.body)).transpose()?;
    Ok(Loaded { mark, keys: keys(database, consumer).await?, end })
}

/// All parked keys of a consumer.
pub(super) async fn keys(database: &dyn Database, consumer: &str) -> Result<Vec<Stored>> {
    names::all(database, names::PARKED_KEYS, &format!("{consumer}/")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_lose_a_partition_is_not_to_die() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let note = |before, message: &str, by| {
            Guard::behind(Some(before), (Offset(7), message.into()), by)
        };
        let first = Guard::behind(None, (Offset(7), "m".into()), one);
        assert_eq!((first.deaths, first.by), (0, one));
        let again = note(first, "m", one);
        assert_eq!(again.deaths, 0, "whoever comes back lives");
        let second = note(again, "m", other);
        assert_eq!((second.deaths, second.by), (1, other));
        assert_eq!(note(second.clone(), "m", other).deaths, 1);
        assert_eq!(note(second.clone(), "m", one).deaths, 2);
        assert_eq!(note(second, "another", one).deaths, 0);
    }
}
