//! Publishing with confirms: in rounds, so that every message has an answer of its own.
//!
//! A key is always in the same lane, a lane is one channel, and a lane sends its next round when
//! the last one is answered. So messages of a key go out in the order they came, what gathers
//! meanwhile is one round, and a returned message belongs to its round: the client attaches it to
//! whichever confirmation comes first, not to that of its message.

use crate::{
    connection::{Link, OPEN, answered},
    error::{NOT_FOUND, code, describe, words},
    topology::{Topology, is_commands, missing},
    wire,
};
use futures_util::{FutureExt as _, future::join_all};
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::{BasicReturnMessage, Delivery},
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use sillage_core::{
    Error, ErrorKind, Message, Partition, PublishError, Receipt, Result, Text, partition_of,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

/// Channels that publish at the same time: a server does the work of one on one core.
const LANES: u32 = 4;
/// Messages of one round at most.
const ROUND: usize = 1024;
/// And their bytes.
const ROUND_BYTES: usize = 8 * 1024 * 1024;
/// What a server may take to confirm a round. Its answers can wait for a disk or for a majority;
/// beyond this it is short of memory or disk space.
const CONFIRM: Duration = Duration::from_secs(30);
/// How often a server is looked at that takes no messages.
const LOOK: Duration = Duration::from_millis(200);

type Outcome = Result<Receipt, PublishError>;

/// Messages with their places in the batch.
struct Job {
    messages: Vec<(usize, Arc<Message>)>,
    done: oneshot::Sender<Vec<(usize, Outcome)>>,
}

/// Hands messages to its lanes.
pub(crate) struct Publisher {
    lanes: Vec<mpsc::UnboundedSender<Job>>,
}

impl Publisher {
    pub(crate) fn start(link: Link, topology: &Arc<Topology>) -> Publisher {
        let link = Arc::new(link);
        let lane = |_| {
            let (sender, jobs) = mpsc::unbounded_channel();
            let lane = Lane { link: link.clone(), topology: topology.clone(), channel: None };
            tokio::spawn(lane.run(jobs));
            sender
        };
        Publisher { lanes: (0..LANES).map(lane).collect() }
    }

    /// Hands messages over, in this call.
    pub(crate) fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + use<> {
        let count = batch.len();
        let mut shares: Vec<Vec<_>> = self.lanes.iter().map(|_| vec![]).collect();
        for (place, message) in batch.into_iter().enumerate() {
            shares[lane_of(&message)].push((place, message));
        }
        let mut answers = vec![];
        for (lane, messages) in self.lanes.iter().zip(shares) {
            if !messages.is_empty() {
                let (done, answer) = oneshot::channel();
                // A lane ends with its runtime: then nobody answers.
                let _ = lane.send(Job { messages, done });
                answers.push(answer);
            }
        }
        async move {
            let mut outcomes: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
            for answer in answers {
                for (place, outcome) in answer.await.unwrap_or_default() {
                    outcomes[place] = Some(outcome);
                }
            }
            let unanswered = || Err(unknown("publishing has ended"));
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
        }
    }
}

fn lane_of(message: &Message) -> usize {
    let id = message.id.as_str().as_bytes();
    partition_of(message.key.as_ref().map_or(id, |key| key.as_bytes()), LANES) as usize
}

/// How many of these messages are the next round.
fn round_of(messages: &[Arc<Message>]) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Arc<Message>| {
        bytes += message.size();
        bytes <= ROUND_BYTES
    };
    messages.iter().take(ROUND).take_while(fits).count().max(1)
}

fn unknown(why: &str) -> PublishError {
    PublishError::Unknown(Error::unavailable(why))
}

/// One channel and what is sent on it.
struct Lane {
    link: Arc<Link>,
    topology: Arc<Topology>,
    channel: Option<Channel>,
}

/// A message that goes out.
struct Parcel {
    message: Arc<Message>,
    partition: Partition,
}

/// What is written on it.
struct Label {
    routing_key: ShortString,
    properties: BasicProperties,
}

/// What the server said of a parcel.
type Answer = lapin::Result<Confirmation>;

impl Lane {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut gathered = vec![];
        while jobs.recv_many(&mut gathered, ROUND).await > 0 {
            let mut messages = vec![];
            let mut ends = vec![];
            for job in gathered.drain(..) {
                let (places, all): (Vec<_>, Vec<_>) = job.messages.into_iter().unzip();
                messages.extend(all);
                ends.push((places, job.done));
            }
            let mut outcomes = Vec::with_capacity(messages.len());
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let (round, behind) = rest.split_at(round_of(rest));
                outcomes.extend(self.round(round).await);
                rest = behind;
            }
            let mut outcomes = outcomes.into_iter();
            for (places, done) in ends {
                let answer = places.into_iter().zip(outcomes.by_ref()).collect();
                // Who published may not wait for the answer.
                let _ = done.send(answer);
            }
        }
    }

    /// Publishes messages, and waits for all answers.
    async fn round(&mut self, messages: &[Arc<Message>]) -> Vec<Outcome> {
        let channel = self.channel().await;
        let (mut parcels, mut sending) = (Vec::with_capacity(messages.len()), vec![]);
        for message in messages {
            let packed = self.pack(message).await;
            parcels.push(match (packed, &channel) {
                (Ok((parcel, label)), Ok(channel)) => {
                    sending.push(sent(channel, &parcel, label));
                    Ok(parcel)
                }
                (Ok(_), Err(error)) => Err(unknown(&error.to_string())),
                (Err(error), _) => Err(error),
            });
        }
        let answers = timeout(CONFIRM, join_all(sending)).await;
        let Ok(answers) = answers else {
            let why = self.give_up().await;
            return parcels.into_iter().map(|p| Err(p.err().unwrap_or(unknown(&why)))).collect();
        };
        self.outcomes(parcels, answers)
    }

    /// What a message needs to go out, or why it cannot.
    async fn pack(&self, message: &Arc<Message>) -> Result<(Parcel, Label), PublishError> {
        let refused = PublishError::Refused;
        let topic = message.topic.clone().ok_or_else(|| {
            refused(Error::invalid(format!("message {} has no topic", message.id)))
        })?;
        let properties = wire::properties(message).map_err(refused)?;
        let count = match self.topology.partitions(&topic).await {
            Ok(Some(count)) => count,
            Ok(None) => return Err(refused(missing(&topic))),
            Err(error) if error.is_transient() => return Err(PublishError::Unknown(error)),
            Err(error) => return Err(refused(error)),
        };
        let number = wire::partition(message, count);
        let routing_key = wire::routing_key(message, number).map_err(refused)?;
        let partition = Partition { topic, number };
        let parcel = Parcel { message: message.clone(), partition };
        Ok((parcel, Label { routing_key, properties }))
    }

    /// The lane's channel, made anew if the last one was closed.
    async fn channel(&mut self) -> Result<Channel> {
        self.until_unblocked().await?;
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected())
        {
            return Ok(channel.clone());
        }
        let channel = self.link.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        let confirms = answered(OPEN, confirms).await;
        confirms.map_err(|error| describe(format!("{}", self.link.place()), error))?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// While the server takes no messages, none are sent: they would gather in the client.
    async fn until_unblocked(&self) -> Result<()> {
        let end = Instant::now() + CONFIRM;
        while self.link.is_blocked().await {
            if Instant::now() >= end {
                return Err(Error::unavailable(self.alarm()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn alarm(&self) -> String {
        format!(
            "{} takes no messages: it is short of memory or disk space (see `rabbitmqctl status`)",
            self.link.place()
        )
    }

    /// Does not wait for answers any more, and says why. What they were for may still be
    /// published; the next round is on a channel of its own.
    async fn give_up(&mut self) -> String {
        self.channel = None;
        if self.link.is_blocked().await {
            return self.alarm();
        }
        self.link.close().await;
        format!("{} has not confirmed within {} s", self.link.place(), CONFIRM.as_secs())
    }

    fn outcomes(
        &self,
        parcels: Vec<Result<Parcel, PublishError>>,
        mut answers: Vec<Answer>,
    ) -> Vec<Outcome> {
        let returned: Vec<BasicReturnMessage> =
            answers.iter_mut().filter_map(take_returned).collect();
        let mut answers = answers.into_iter();
        let outcome = |parcel| {
            let parcel: Parcel = parcel?;
            let answer = answers.next().unwrap_or(Ok(Confirmation::NotRequested));
            self.outcome(parcel, answer, &returned)
        };
        parcels.into_iter().map(outcome).collect()
    }

    fn outcome(&self, parcel: Parcel, answer: Answer, returned: &[BasicReturnMessage]) -> Outcome {
        let topic = &parcel.partition.topic;
        match answer {
            Ok(Confirmation::Ack(_)) if returned.iter().any(|back| is_it(back, &parcel)) => {
                Err(PublishError::Refused(unclaimed(&parcel.message, topic)))
            }
            Ok(Confirmation::Ack(_)) => {
                Ok(Receipt { partition: Some(parcel.partition), offset: None })
            }
            Ok(_) => Err(unknown(&format!(
                "{} could not keep message {}",
                self.link.place(),
                parcel.message.id
            ))),
            // The channel is closed because of one topic: of the others nothing is known.
            Err(error) if words(&error).contains(&format!("exchange '{topic}'")) => {
                self.topology.forget(topic);
                Err(PublishError::Refused(match code(&error) {
                    Some(NOT_FOUND) => missing(topic).because(error),
                    _ => describe(format!("topic `{topic}` cannot be published to"), error),
                }))
            }
            Err(error) => Err(PublishError::Unknown(self.lost(error))),
        }
    }

    fn lost(&self, error: lapin::Error) -> Error {
        let what = format!("{}: the channel was lost before it confirmed", self.link.place());
        Error::unavailable(what).because(error)
    }
}

/// The client takes a message over in this call, so that all go out in the order they came.
fn sent(channel: &Channel, parcel: &Parcel, label: Label) -> impl Future<Output = Answer> + use<> {
    let (channel, message, topic) =
        (channel.clone(), parcel.message.clone(), parcel.partition.topic.clone());
    let mut sending = Box::pin(async move {
        let Label { routing_key, properties } = label;
        let options = BasicPublishOptions { mandatory: is_commands(&topic), ..Default::default() };
        let (exchange, body) = ((&*topic).into(), &message.payload);
        channel.basic_publish(exchange, routing_key, options, body, properties).await?.await
    });
    let early = (&mut sending).now_or_never();
    async move {
        match early {
            Some(answer) => answer,
            None => sending.await,
        }
    }
}

/// The server confirms a mandatory message that no queue takes, after it has returned it.
fn take_returned(answer: &mut Answer) -> Option<BasicReturnMessage> {
    match answer {
        Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) => returned.take(),
        _ => None,
    }
}

fn is_it(back: &BasicReturnMessage, parcel: &Parcel) -> bool {
    let Delivery { exchange, properties, .. } = &back.delivery;
    exchange.as_str() == &*parcel.partition.topic && wire::are_of(properties, &parcel.message)
}

fn unclaimed(message: &Message, topic: &Text) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "no queue for command {} (`{}`): nobody has subscribed to `{topic}`; start its owner \
             once, which makes the queues",
            message.id, message.name
        ),
    )
}
