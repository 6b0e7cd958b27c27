//! Receiving: one client on a thread of its own that always polls, and what it hands over.

mod assignments;
mod context;
mod decode;
mod jobs;
mod lost;
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
use outbox::{Item, Outbox};
use poller::Poller;
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
};
use tokio::{runtime::Handle, sync::watch};
use uuid::Uuid;

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
    /// The offsets that partitions have.
    Ranged(Result<Vec<(Partition, crate::offsets::Ends)>>),
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
    let consumer = consumer(config, &subscription, &line)?;
    if subscription.broadcast {
        consumer.context().assigned(partitions);
    } else {
        let topics: Vec<&str> = subscription.topics.iter().map(|topic| &**topic).collect();
        let what = || format!("consumer `{}` cannot join", subscription.consumer);
        consumer.subscribe(&topics).map_err(|error| error::describe(what(), error))?;
    }
    let consumer = Arc::new(consumer);
    let (leave, left) = watch::channel(false);
    let told = (line.clone(), outbox.clone());
    let jobs = Jobs::new(&consumer, &subscription, told, Handle::current());
    let waker = line.waker.clone();
    let who = (subscription, config.servers.clone());
    let poller = Poller::new(consumer, who, outbox.clone(), jobs);
    thread::Builder::new()
        .name("kafka-receiver".into())
        .spawn(move || {
            let _ = waker.0.set(thread::current());
            poller.run(&heard);
            leave.send_replace(true);
        })
        .map_err(|error| Error::unavailable("no thread for receiving").because(error))?;
    let tie = Arc::new(Tie { line, outbox, left });
    let settler = Arc::new(KafkaSettler::new(tie.clone()));
    let desk = Desk::new(tie.outbox.clone());
    Ok((Box::new(KafkaReceiver { tie, desk }), settler))
}

fn consumer(
    config: &Config,
    subscription: &Subscription,
    line: &Line,
) -> Result<BaseConsumer<Context>> {
    let broadcast = subscription.broadcast;
    let group = if broadcast {
        format!("{}.{}", subscription.consumer, Uuid::new_v4())
    } else {
        subscription.consumer.to_string()
    };
    let context = Context::new(subscription.consumer.clone());
    let made = BaseConsumer::from_config_and_context(&config.consumer(&group, broadcast), context);
    let what = || format!("no consumer for Kafka at {} can be made", config.servers);
    let mut consumer = made.map_err(|error| error::describe(what(), error))?;
    let waker = line.waker.clone();
    consumer.set_nonempty_callback(move || waker.wake());
    Ok(consumer)
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
