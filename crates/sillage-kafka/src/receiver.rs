//! Receiving: one client on a thread of its own that always polls, and what it hands over.

mod assignments;
mod context;
mod decode;
mod jobs;
mod lost;
mod membership;
mod outbox;
mod placing;
mod poller;

use crate::{
    admin::{Admin, blocking},
    config::Config,
    error,
    settler::KafkaSettler,
};
use context::Context;
use decode::Desk;
use jobs::Jobs;
use membership::Membership;
use outbox::{Item, Outbox};
use poller::{Ended, Poller};
use rdkafka::{
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
};
use sillage_core::{
    BoxFuture, Error, Inbound, Partition, Receiver, Result, Settled, Subscribed, Subscription,
};
use std::{
    sync::{Arc, OnceLock, mpsc},
    thread::{self, Thread},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch};
use uuid::Uuid;

/// Between tries to make a client.
const AGAIN: Duration = Duration::from_secs(1);

/// What the poller is told.
#[derive(Debug)]
pub(crate) enum Command {
    Settle(Vec<Settled>),
    Release(Vec<Partition>),
    Pause(Vec<Partition>),
    Resume(Vec<Partition>),
    Close,
    /// Where partitions begin that have just come.
    Placed(Vec<jobs::Placed>),
    /// Where some begin of which that was not known.
    Found(Vec<jobs::Placed>),
    /// The offsets that partitions have.
    Ranged(Result<Vec<(Partition, crate::offsets::Ends)>>),
    /// Whether the group knows this member.
    Known(Result<bool>),
}

/// Tells the poller, and wakes it.
#[derive(Clone)]
pub(crate) struct Line {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
}

/// Wakes the poller's thread.
#[derive(Default)]
pub(crate) struct Waker(OnceLock<Thread>);

impl Waker {
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Line {
    /// `false`: the poller has ended.
    pub(crate) fn tell(&self, command: Command) -> bool {
        let told = self.commands.send(command).is_ok();
        self.waker.wake();
        told
    }
}

/// What both sides of a subscription hold: the poller ends once nobody does.
pub(crate) struct Tie {
    pub(crate) line: Line,
    pub(crate) outbox: Arc<Outbox>,
    /// `true` once the group was left.
    pub(crate) left: watch::Receiver<bool>,
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.line.tell(Command::Close);
    }
}

/// Joins a consumer.
pub(crate) async fn subscribe(
    config: &Arc<Config>,
    subscription: Subscription,
) -> Result<Subscribed> {
    let (asking, topics) = (config.clone(), subscription.topics.clone());
    let partitions = blocking(move || Admin::new(&asking)?.partitions(&topics)).await?;
    let (commands, heard) = mpsc::channel();
    let line = Line { commands, waker: Arc::default() };
    let outbox = Arc::new(Outbox::new(line.waker.clone()));
    let seat = Seat {
        config: config.clone(),
        subscription,
        partitions,
        line: line.clone(),
        outbox: outbox.clone(),
        runtime: Handle::current(),
    };
    let poller = seat.take()?;
    let (leave, left) = watch::channel(false);
    thread::Builder::new()
        .name("kafka-receiver".into())
        .spawn(move || {
            let _ = seat.line.waker.0.set(thread::current());
            seat.keep(poller, &heard);
            leave.send_replace(true);
        })
        .map_err(|error| Error::unavailable("no thread for receiving").because(error))?;
    let tie = Arc::new(Tie { line, outbox, left });
    let settler = Arc::new(KafkaSettler::new(tie.clone()));
    let desk = Desk::new(tie.outbox.clone());
    Ok((Box::new(KafkaReceiver { tie, desk }), settler))
}

/// A place in a consumer, which is taken again with a fresh client where one has failed.
struct Seat {
    config: Arc<Config>,
    subscription: Subscription,
    /// All there are, for a broadcast.
    partitions: Vec<Partition>,
    line: Line,
    outbox: Arc<Outbox>,
    runtime: Handle,
}

impl Seat {
    fn take(&self) -> Result<Poller> {
        let Subscription { consumer, topics, broadcast, .. } = &self.subscription;
        let group = if *broadcast {
            format!("{consumer}.{}", Uuid::new_v4())
        } else {
            consumer.to_string()
        };
        let properties = self.config.consumer(&group, *broadcast);
        let context = Context::new(consumer.clone());
        let made = BaseConsumer::from_config_and_context(&properties, context);
        let what = || format!("no consumer for Kafka at {} can be made", self.config.servers);
        let mut client = made.map_err(|error| error::describe(what(), error))?;
        let waker = self.line.waker.clone();
        client.set_nonempty_callback(move || waker.wake());
        if *broadcast {
            client.context().assigned(self.partitions.clone());
        } else {
            let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            let what = || format!("consumer `{consumer}` cannot join");
            client.subscribe(&topics).map_err(|error| error::describe(what(), error))?;
        }
        let client = Arc::new(client);
        let name = properties.get("client.id").unwrap_or_default();
        let jobs = Jobs::new(&client, (self, name));
        let membership = Membership::new(self.config.session());
        Ok(Poller::new(client, self, jobs, membership))
    }

    /// Polls until the consumer is closed.
    fn keep(&self, mut poller: Poller, heard: &mpsc::Receiver<Command>) {
        while poller.run(heard) == Ended::Hung {
            loop {
                match self.take() {
                    Ok(fresh) => {
                        poller = fresh;
                        break;
                    }
                    Err(error) => self.outbox.fail(error),
                }
                thread::park_timeout(AGAIN);
                if heard.try_iter().any(|command| matches!(command, Command::Close)) {
                    return self.outbox.close();
                }
            }
        }
    }
}

/// The receiving side of a subscription.
pub(crate) struct KafkaReceiver {
    tie: Arc<Tie>,
    desk: Arc<Desk>,
}

impl Receiver for KafkaReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(async {
            Ok(match self.tie.outbox.next().await? {
                Item::Inbound(inbound) => inbound,
                Item::Records(partition, records) => {
                    let deliveries = self.desk.read(partition.clone(), records);
                    Inbound::Batch(partition, deliveries)
                }
            })
        })
    }
}
