//! Where partitions begin: when they come, and when they begin again.

use super::{
    assignments::Phase,
    jobs::{At, Placed},
    outbox::Item,
    poller::Poller,
};
use crate::{admin::list, error};
use rdkafka::{
    Offset as Position,
    consumer::{BaseConsumer, Consumer as _},
};
use sillage_core::{ErrorKind, Inbound, Partition};
use std::time::Duration;
use tokio::time::Instant;

/// For placing a partition.
const PLACE: Duration = Duration::from_secs(1);

impl Poller {
    /// Takes partitions whose beginnings are known.
    pub(super) fn placed(&mut self, placed: Vec<Placed>) {
        let Some(arriving) = self.arriving.take() else { return };
        // Else its member would hear of what this client gives back.
        let placed = if self.is_ending() { vec![] } else { placed };
        self.gathered.last = None;
        let broadcast = self.subscription.broadcast;
        // Nothing is known when the group is being left: it is told what it waits for.
        let offsets = placed.iter().map(|placed| {
            let at = |offset: u64| Position::Offset(offset.cast_signed());
            let position = match placed.at {
                At::Stored(offset) => at(offset),
                At::Start(offset, _) if broadcast => at(offset),
                // Until its start is committed nothing of it is delivered: what the client fetched
                // from there meanwhile, all that it keeps ahead, it would fetch once more.
                At::Start(_, ends) => at(ends.high),
                At::Unknown => Position::End,
                // The client needs one that is there; nothing of it is delivered.
                At::Gone(_, ends) | At::Forgotten(_, ends) => at(ends.low),
            };
            (&placed.partition, position)
        });
        let taken = list(offsets).and_then(|list| {
            let taken = if broadcast {
                self.consumer.assign(&list)
            } else {
                self.consumer.incremental_assign(&list)
            };
            taken.map_err(|error| error::describe("partitions cannot be taken", error))
        });
        if let Err(error) = taken {
            let count = arriving.len();
            tracing::warn!(target: "sillage_kafka", %error, count, "an assignment failed");
            return self.outbox.fail(error);
        }
        let (mut flowing, mut paused, mut opening) = (vec![], vec![], vec![]);
        for placed in placed {
            let partition = placed.partition.clone();
            let (phase, was_paused) = self.begin(placed, Phase::Flowing, &mut opening);
            if was_paused {
                paused.push(partition.clone());
            }
            if phase == Phase::Flowing {
                flowing.push(partition);
            }
        }
        self.on_list(&paused, Position::Invalid, "resuming", BaseConsumer::resume);
        self.open(&opening);
        if !flowing.is_empty() {
            self.outbox.push([Item::Inbound(Inbound::Assigned(flowing))]);
        }
    }

    /// Begins with one, which is in this phase where nothing holds it up; those that start come to
    /// `opening`. The phase that it is in, and whether the client has it paused still.
    fn begin(
        &mut self,
        Placed { partition, at }: Placed,
        unhindered: Phase,
        opening: &mut Vec<(Partition, u64)>,
    ) -> (Phase, bool) {
        let (offset, phase) = match at {
            At::Stored(offset) => (offset, unhindered),
            At::Start(offset, _) if self.subscription.broadcast => (offset, unhindered),
            At::Start(offset, _) => (offset, Phase::Opening),
            At::Unknown => (0, Phase::Unplaced),
            At::Gone(offset, _) | At::Forgotten(offset, _) => (offset, Phase::Stopped),
        };
        let was_paused = self.assignments.take(&partition, offset, phase);
        match at {
            At::Gone(_, ends) => self.stop(&partition, offset, ends),
            At::Forgotten(_, ends) => self.stop_forgotten(&partition, offset, ends),
            At::Unknown => self.outbox.stop(
                partition.clone(),
                ErrorKind::Unavailable,
                format!(
                    "consumer `{}` gets nothing of {partition}, which has no leader",
                    self.subscription.consumer
                ),
            ),
            At::Start(..) if phase == Phase::Opening => opening.push((partition, offset)),
            At::Start(..) | At::Stored(_) => {}
        }
        (phase, was_paused)
    }

    /// Looks after those whose beginning is not known.
    pub(super) fn find(&mut self) {
        let unplaced = self.assignments.in_phase(Phase::Unplaced);
        if !unplaced.is_empty() && !self.finding && !self.is_ending() {
            self.finding = true;
            self.jobs.find(unplaced);
        }
    }

    /// Begins with what was found out of those; one may have been given back meanwhile.
    pub(super) fn found(&mut self, found: Vec<Placed>) {
        self.finding = false;
        let unplaced = self.assignments.in_phase(Phase::Unplaced);
        let (mut paused, mut opening) = (vec![], vec![]);
        for placed in found {
            let partition = placed.partition.clone();
            if matches!(placed.at, At::Unknown) || !unplaced.contains(&partition) {
                continue;
            }
            self.outbox.forget(std::slice::from_ref(&partition));
            // The client has it somewhere else: it is to be told.
            let (_, was_paused) = self.begin(placed, Phase::Placing, &mut opening);
            if was_paused {
                paused.push(partition);
            }
        }
        self.on_list(&paused, Position::Invalid, "resuming", BaseConsumer::resume);
        self.open(&opening);
    }

    /// Stores where these start, which the client commits soon, before anything of them is
    /// delivered: else a crash would say it anew, and `Latest` would skip what came in between.
    pub(super) fn open(&mut self, starts: &[(Partition, u64)]) {
        if starts.is_empty() {
            return;
        }
        let place = |(partition, offset): &(Partition, u64)| {
            (partition.clone(), Position::Offset(offset.cast_signed()))
        };
        let places: Vec<_> = starts.iter().map(place).collect();
        let list = list(places.iter().map(|(partition, position)| (partition, *position)));
        let Ok(list) = list else { return };
        self.uncommitted_since.get_or_insert_with(Instant::now);
        if let Err(error) = self.consumer.store_offsets(&list) {
            self.outbox.fail(error::describe("where a consumer starts cannot be stored", error));
        }
    }

    /// Has the client read from where partitions are settled, which then flow.
    pub(super) fn place_again(&mut self) {
        let placing = self.assignments.in_phase(Phase::Placing);
        if placing.is_empty() {
            return;
        }
        let settled = |partition: &Partition| {
            let places = &mut self.assignments;
            let number = places.find(partition)?;
            Some(Position::Offset(places.place(number).settled.cast_signed()))
        };
        let positions: Vec<_> =
            placing.iter().map(settled).map(|at| at.unwrap_or(Position::Invalid)).collect();
        let Ok(list) = list(placing.iter().zip(positions)) else { return };
        let placed = match self.consumer.seek_partitions(list, PLACE) {
            Ok(placed) => placed,
            Err(error) => {
                return tracing::debug!(target: "sillage_kafka", %error, "placing takes longer");
            }
        };
        let is_placed = |partition: &Partition| {
            let number = partition.number.cast_signed();
            let element = placed.find_partition(&partition.topic, number);
            element.is_some_and(|element| element.error().is_ok())
        };
        let flowing: Vec<Partition> =
            placing.into_iter().filter(is_placed).filter(|p| self.assignments.placed(p)).collect();
        if !flowing.is_empty() {
            self.outbox.push([Item::Inbound(Inbound::Assigned(flowing))]);
        }
    }
}
