//! What blocks, beside the poller: where partitions begin, and what offsets they have.

use super::{Command, Line, Seat, context::Context, outbox::Outbox};
use crate::{
    admin::{Admin, blocking},
    config::Config,
    offsets::{self, Ends},
};
use rdkafka::consumer::BaseConsumer;
use sillage_core::{Offset, Partition, Reached, Result, Start, Subscription};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// For one request.
const LIMIT: Duration = Duration::from_secs(5);
/// Between tries.
const WAIT: Duration = Duration::from_millis(500);

/// Where a partition begins.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(super) partition: Partition,
    pub(super) at: At,
}

#[derive(Debug)]
pub(super) enum At {
    /// At what is settled.
    Stored(u64),
    /// At what the subscription says, as nothing is stored.
    Start(u64, Ends),
    /// This is stored, and not there any more.
    Gone(u64, Ends),
    /// It has no leader, and nobody else knows what there is.
    Unknown,
    /// Nothing is stored, though the consumer has come this far.
    Forgotten(u64, Ends),
}

/// Starts jobs; their answers come as commands.
pub(super) struct Jobs {
    consumer: Arc<BaseConsumer<Context>>,
    config: Arc<Config>,
    subscription: Subscription,
    /// What the client calls itself.
    client: String,
    line: Line,
    outbox: Arc<Outbox>,
    runtime: Handle,
    under_way: usize,
    leaving: Arc<AtomicBool>,
}

impl Jobs {
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<Context>>,
        (seat, client): (&Seat, &str),
    ) -> Jobs {
        Jobs {
            consumer: consumer.clone(),
            config: seat.config.clone(),
            subscription: seat.subscription.clone(),
            client: client.into(),
            line: seat.line.clone(),
            outbox: seat.outbox.clone(),
            runtime: seat.runtime.clone(),
            under_way: 0,
            leaving: Arc::default(),
        }
    }

    /// Finds out where these begin. Tries until it knows, as the group waits for it; or until
    /// the group is being left: then the answer is empty.
    pub(super) fn place(&mut self, partitions: Vec<Partition>) {
        self.under_way += 1;
        let (consumer, answer) = (self.consumer.clone(), Answer::to(&self.line));
        let (subscription, outbox) = (self.subscription.clone(), self.outbox.clone());
        let leaving = self.leaving.clone();
        self.runtime.spawn(async move {
            let mut placed = vec![];
            while !leaving.load(Ordering::Acquire) {
                let (consumer, subscription) = (consumer.clone(), subscription.clone());
                let partitions = partitions.clone();
                let work = move || place(&consumer, partitions, &subscription);
                match blocking(work).await {
                    Ok(known) => {
                        placed = known;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(target: "sillage_kafka", %error, "where to begin?");
                        // Until then nothing comes of any of them.
                        outbox.fail(error);
                        tokio::time::sleep(WAIT).await;
                    }
                }
            }
            drop(consumer);
            answer.give(Command::Placed(placed));
        });
    }

    /// Finds out where those of these begin that have a leader after a moment.
    pub(super) fn find(&mut self, partitions: Vec<Partition>) {
        self.under_way += 1;
        let (consumer, answer) = (self.consumer.clone(), Answer::to(&self.line));
        let subscription = self.subscription.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(WAIT).await;
            let found = blocking(move || place(&consumer, partitions, &subscription)).await;
            answer.give(Command::Found(found.unwrap_or_default()));
        });
    }

    /// Finds out which offsets these have.
    pub(super) fn range(&mut self, partitions: Vec<Partition>) {
        self.under_way += 1;
        let (consumer, answer) = (self.consumer.clone(), Answer::to(&self.line));
        self.runtime.spawn(async move {
            let asking = partitions.clone();
            let ends = blocking(move || offsets::known_ends(&consumer, &asking, LIMIT)).await;
            let known = |(partition, ends): (_, Option<_>)| Some((partition, ends?));
            let ranged =
                ends.map(|ends| partitions.into_iter().zip(ends).filter_map(known).collect());
            answer.give(Command::Ranged(ranged));
        });
    }

    /// Finds out whether the group knows this member, by a client that is not its own: of that one
    /// is not known what it still does.
    pub(super) fn look_for(&mut self) {
        self.under_way += 1;
        let answer = Answer::to(&self.line);
        let (config, client) = (self.config.clone(), self.client.clone());
        let Subscription { consumer: group, topics, .. } = self.subscription.clone();
        self.runtime.spawn(async move {
            let work = move || Admin::has_member(&config, (&group, &client), &topics);
            answer.give(Command::Known(blocking(work).await));
        });
    }

    /// A job has answered.
    pub(super) fn answered(&mut self) {
        self.under_way -= 1;
    }

    pub(super) fn are_done(&self) -> bool {
        self.under_way == 0
    }

    /// Jobs that wait for better times end.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

/// Answers when it is dropped: also where the runtime ends before the job does, as the poller
/// waits for it.
struct Answer {
    line: Line,
    command: Option<Command>,
}

impl Answer {
    fn to(line: &Line) -> Answer {
        Answer { line: line.clone(), command: None }
    }

    fn give(mut self, command: Command) {
        self.command = Some(command);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.line.tell(self.command.take().unwrap_or(Command::Placed(vec![])));
    }
}

fn place(
    consumer: &BaseConsumer<Context>,
    partitions: Vec<Partition>,
    subscription: &Subscription,
) -> Result<Vec<Placed>> {
    if partitions.is_empty() {
        return Ok(vec![]);
    }
    let committed = if subscription.broadcast {
        vec![None; partitions.len()]
    } else {
        offsets::committed(consumer, &partitions, LIMIT)?
    };
    let ends = offsets::known_ends(consumer, &partitions, LIMIT)?;
    let known = partitions.into_iter().zip(committed).zip(ends);
    let (mut placed, mut starting) = (vec![], vec![]);
    for ((partition, committed), ends) in known {
        let at = match (committed, ends) {
            (_, None) => At::Unknown,
            (Some(next), Some(ends)) if next < ends.low || ends.high < next => At::Gone(next, ends),
            (Some(next), Some(_)) => At::Stored(next),
            (None, Some(ends)) => {
                starting.push((partition, ends));
                continue;
            }
        };
        placed.push(Placed { partition, at });
    }
    let (partitions, ends): (Vec<_>, Vec<_>) = starting.into_iter().unzip();
    let starts = offsets::start(consumer, &partitions, (subscription.start, &ends), LIMIT)?;
    for ((partition, start), ends) in partitions.into_iter().zip(starts).zip(ends) {
        let reached = subscription.reached.iter().find(|of| of.partition == partition);
        let next = reached.map_or(start, |reached| reached.offset.0 + 1);
        let at = match reached {
            Some(reached) if next != start && is_the_same(consumer, reached, ends)? => {
                At::Forgotten(next, ends)
            }
            _ => At::Start(start, ends),
        };
        placed.push(Placed { partition, at });
    }
    Ok(placed)
}

/// Whether a partition still is the one that a consumer has reached, or was made anew since: then it
/// is shorter, or all that is in it came later.
fn is_the_same(consumer: &BaseConsumer<Context>, reached: &Reached, ends: Ends) -> Result<bool> {
    let Offset(last) = reached.offset;
    if last < ends.low || ends.high <= last {
        return Ok(last < ends.low);
    }
    let (of, since) = (std::slice::from_ref(&reached.partition), Start::Since(reached.at));
    let later = offsets::start(consumer, of, (since, &[ends]), LIMIT)?;
    Ok(later.first().is_some_and(|later| *later > ends.low))
}
