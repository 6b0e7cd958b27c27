//! What blocks, beside the poller: where partitions begin, and what offsets they have.

use super::{Command, Line, context::Context, outbox::Outbox};
use crate::{
    admin::blocking,
    offsets::{self, Ends},
};
use rdkafka::consumer::BaseConsumer;
use sillage_core::{Partition, Result, Start, Subscription};
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
}

/// Starts jobs; their answers come as commands.
pub(super) struct Jobs {
    consumer: Arc<BaseConsumer<Context>>,
    start: Start,
    broadcast: bool,
    line: Line,
    outbox: Arc<Outbox>,
    runtime: Handle,
    under_way: usize,
    leaving: Arc<AtomicBool>,
}

impl Jobs {
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<Context>>,
        subscription: &Subscription,
        (line, outbox): (Line, Arc<Outbox>),
        runtime: Handle,
    ) -> Jobs {
        let (start, broadcast) = (subscription.start, subscription.broadcast);
        let (consumer, leaving) = (consumer.clone(), Arc::default());
        Jobs { consumer, start, broadcast, line, outbox, runtime, under_way: 0, leaving }
    }

    /// Finds out where these begin. Tries until it knows, as the group waits for it; or until
    /// the group is being left: then the answer is empty.
    pub(super) fn place(&mut self, partitions: Vec<Partition>) {
        self.under_way += 1;
        let (consumer, answer) = (self.consumer.clone(), Answer::to(&self.line));
        let (start, broadcast, leaving) = (self.start, self.broadcast, self.leaving.clone());
        let outbox = self.outbox.clone();
        self.runtime.spawn(async move {
            let mut placed = vec![];
            while !leaving.load(Ordering::Acquire) {
                let (consumer, partitions) = (consumer.clone(), partitions.clone());
                let work = move || place(&consumer, partitions, start, broadcast);
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

    /// Finds out which offsets these have.
    pub(super) fn range(&mut self, partitions: Vec<Partition>) {
        self.under_way += 1;
        let (consumer, answer) = (self.consumer.clone(), Answer::to(&self.line));
        self.runtime.spawn(async move {
            let asking = partitions.clone();
            let ends = blocking(move || offsets::ends(&consumer, &asking, LIMIT)).await;
            let ranged = ends.map(|ends| partitions.into_iter().zip(ends).collect());
            answer.give(Command::Ranged(ranged));
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
    start: Start,
    broadcast: bool,
) -> Result<Vec<Placed>> {
    if partitions.is_empty() {
        return Ok(vec![]);
    }
    let committed = if broadcast {
        vec![None; partitions.len()]
    } else {
        offsets::committed(consumer, &partitions, LIMIT)?
    };
    let ends = offsets::ends(consumer, &partitions, LIMIT)?;
    let starts = offsets::start(consumer, &partitions, (start, &ends), LIMIT)?;
    let known = committed.into_iter().zip(ends).zip(starts);
    let at = |((committed, ends), start): ((Option<u64>, Ends), u64)| match committed {
        Some(next) if ends.low <= next && next <= ends.high => At::Stored(next),
        Some(next) => At::Gone(next, ends),
        None => At::Start(start, ends),
    };
    let place = |(partition, known)| Placed { partition, at: at(known) };
    Ok(partitions.into_iter().zip(known).map(place).collect())
}
