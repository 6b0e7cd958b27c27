//! The relay: carries what is in the log and has a topic to a broker outside the database.
//!
//! It is a consumer of the log like any other, with a handler that publishes. So it has lanes: of
//! each key one message is on its way at a time, and the next one follows when the broker has
//! confirmed it; its checkpoint is the watermark of what was confirmed; its slots are leased, and
//! several processes share them; what the broker refuses for good is parked with the later
//! messages of its key, for the same operator verbs.
//!
//! *Guarantees.* A message is published if and only if its commit happened. A process that dies,
//! or is a zombie, publishes again what it had published, from some message on and in the same
//! order: consumers drop that by its ids. While the broker is away everything waits, and no
//! attempt is spent.

use super::{chain::Chain, member::Spec, outlet::Outlet, retry::Retry};
use crate::{
    handler::{AnyHandler, Context, Handled},
    log_broker::slot_of_message,
    names,
};
use sillage_core::{
    Broker, Database, Effects, ErrorKind, Failure, Header, Message, Offset, PublishError, Result,
    Start, Text,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::ReusableBoxFuture;
use uuid::Uuid;

/// Messages on their way at once, each of another key.
const CONCURRENCY: usize = 1024;
/// Messages from the oldest that is not confirmed to the newest.
const WINDOW: usize = 16_384;
/// The broker's client goes on by itself while the broker is away: no time is too long.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The consumer of this log that publishes to `broker`.
pub(crate) fn spec(
    broker: Arc<dyn Broker>,
    database: Arc<dyn Database>,
    incarnation: Uuid,
) -> Spec {
    let incarnation = Text::from(incarnation.to_string());
    let (outlet, chain) = (Outlet::new(broker), Chain::new(database));
    let relay = Relay(Arc::new(Inner { outlet, chain, incarnation }));
    let in_lane = [100, 1_000, 5_000, 20_000].map(Duration::from_millis);
    Spec {
        name: names::RELAY.into(),
        topics: vec![],
        handlers: crate::runtime::member::Handlers::default(),
        any: Some(Arc::new(relay)),
        strict: false,
        retry: Retry::in_lane(in_lane).then_park([60, 600, 3_600].map(Duration::from_secs)),
        time_limit: NO_LIMIT,
        concurrency: CONCURRENCY,
        window: WINDOW,
        start: Start::Earliest,
        broadcast: false,
        horizon: Duration::ZERO,
        is_users: false,
        depends_on: vec![],
        rate: None,
        failing: None,
    }
}

struct Relay(Arc<Inner>);

struct Inner {
    outlet: Outlet,
    chain: Chain,
    incarnation: Text,
}

impl AnyHandler for Relay {
    fn start(&self, context: Context, slot: &mut ReusableBoxFuture<'static, Handled>) {
        let inner = self.0.clone();
        slot.set(async move {
            let result = inner.carry(&context).await.map(|()| Effects::none());
            Handled::plain(result)
        });
    }
}

impl Inner {
    async fn carry(&self, context: &Context) -> Result<(), Failure> {
        let message = &context.message;
        if message.topic.is_none() || message.is_copy() {
            return Ok(());
        }
        let placed = self.with_sequence(context).await?;
        match self.outlet.publish(vec![Arc::new(placed)]).await.pop() {
            Some(Ok(_)) => Ok(()),
            // It waits in its lane, and no attempt is spent.
            Some(Err(PublishError::Unknown(error))) => Err(Failure::unavailable("broker", error)),
            // Nobody has subscribed to it yet, or somebody has deleted it.
            Some(Err(PublishError::Refused(error))) if error.kind() == ErrorKind::NotFound => {
                Err(error.into())
            }
            Some(Err(PublishError::Refused(error))) => Err(Failure::permanent(error)),
            None => Err(Failure::transient("the broker gave no answer")),
        }
    }

    /// Where in which log it is, and what was published before it there, for whoever keeps a copy of
    /// that log.
    async fn with_sequence(&self, context: &Context) -> Result<Message, Failure> {
        let mut message = (*context.message).clone();
        if let Some(position) = context.offset {
            let header = |name: &str, value: &str| Header {
                name: name.into(),
                value: value.to_owned().into(),
            };
            message.headers.push(header("ce_sequence", &names::offset(position)));
            message.headers.push(header("ce_incarnation", &self.incarnation));
            let before = self.chain.before(position.0, slot_of_message(&message)).await;
            // It waits in its lane, and no attempt is spent.
            let before = before.map_err(|error| Failure::unavailable("database", error))?;
            if let Some(before) = before {
                message.headers.push(header("ce_previous", &names::offset(Offset(before))));
            }
        }
        Ok(message)
    }
}
