//! A connection that is made when it is needed, and made again when it is lost.

use crate::{
    config::Config,
    error::{ACCESS_REFUSED, code, describe},
};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Connection, ConnectionProperties, ConnectionStatus, Consumer,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    runtime::default_runtime,
    tcp::AMQPUriTcpExt,
    types::FieldTable,
    uri::AMQPUri,
};
use sillage_core::{Error, Result};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};

/// What an attempt to connect may take, from the first packet to an open connection.
const CONNECT: Duration = Duration::from_secs(10);
/// What a server may take to say that a channel or a connection is closed.
const CLOSE: Duration = Duration::from_secs(5);
/// What a server may take to open a channel, which is nothing to do for it.
pub(crate) const OPEN: Duration = Duration::from_secs(10);
/// What it may take to begin a consumer: a queue that has no leader waits for one.
const BEGIN: Duration = Duration::from_secs(30);
/// The first pause after a failed attempt; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A pause after so many failures in a row, with jitter: what was cut off together does not come
/// back together.
pub(crate) fn pause(failures: u32) -> Duration {
    let pause = FIRST_PAUSE * 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    pause.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.5..1.0))
}

/// One connection to the server, whoever needs it first makes it.
///
/// Publishing, consuming and asking have a link each: a server that is short of memory stops
/// reading from connections that publish, and acknowledgements must go on.
pub(crate) struct Link {
    config: Arc<Config>,
    purpose: String,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    connection: Option<Connection>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, purpose: impl Into<String>) -> Link {
        Link { config, purpose: purpose.into(), held: Mutex::default() }
    }

    /// A new channel. Makes the connection where there is none, once for all who ask, and with
    /// growing pauses between attempts: an error comes at most once per attempt.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let mut held = self.held.lock().await;
        if let Some(connection) = &held.connection
            && connection.status().connected()
        {
            match answered(OPEN, connection.create_channel()).await {
                Ok(channel) => return Ok(channel),
                Err(error) if connection.status().connected() => {
                    return Err(describe(format!("{}: no channel", self.config), error));
                }
                Err(_) => {}
            }
        }
        held.connection = None;
        if let Some(moment) = held.not_before {
            sleep_until(moment).await;
        }
        let connected = async {
            let connection = connect(&self.config, &self.purpose).await?;
            let channel = answered(OPEN, connection.create_channel()).await;
            let channel = channel.map_err(|error| unreachable(&self.config, error))?;
            Ok((connection, channel))
        };
        match connected.await {
            Ok((connection, channel)) => {
                *held = Held { connection: Some(connection), ..Held::default() };
                Ok(channel)
            }
            Err(error) => {
                held.failures += 1;
                held.not_before = Some(Instant::now() + pause(held.failures));
                Err(error)
            }
        }
    }

    /// Where the server is.
    pub(crate) fn place(&self) -> &Config {
        &self.config
    }

    /// Whether the server has asked for nothing more to be published.
    pub(crate) async fn is_blocked(&self) -> bool {
        let held = self.held.lock().await;
        // A connection that is lost stays blocked.
        let blocks = |status: &ConnectionStatus| status.connected() && status.blocked();
        held.connection.as_ref().is_some_and(|connection| blocks(connection.status()))
    }

    /// Gives the connection up: what it still had to send is dropped.
    pub(crate) async fn close(&self) {
        let connection = self.held.lock().await.connection.take();
        if let Some(connection) = connection {
            let closed = timeout(CLOSE, connection.close(200, "done".into())).await;
            if let Ok(Err(error)) = closed {
                tracing::debug!(%error, "a connection was closed already");
            }
        }
    }
}

async fn connect(config: &Arc<Config>, purpose: &str) -> Result<Connection> {
    let name = format!("sillage {purpose}").into();
    let properties = ConnectionProperties::default().with_connection_name(name);
    let runtime = default_runtime().map_err(|error| unreachable(config, error))?;
    let settings = config.clone();
    // The client waits for this on a thread of its own, which nobody else would call back.
    let stream = async move |uri: AMQPUri, runtime| {
        let stream = uri.connect_with_config_async(settings.tls.as_ref(), &runtime);
        let stream = timeout(CONNECT, stream).await;
        stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Into::into)
    };
    let connection = Connection::connector(config.uri.clone(), runtime, stream, properties);
    match timeout(CONNECT, connection).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if code(&error) == Some(ACCESS_REFUSED) => {
            let user = &config.uri.authority.userinfo.username;
            Err(describe(
                format!("{config} does not let user `{user}` in: check its name and password"),
                error,
            ))
        }
        Ok(Err(error)) => Err(unreachable(config, error)),
        Err(_) => Err(Error::unavailable(format!(
            "{config} does not answer within {} s; is it a RabbitMQ server, and is it running?",
            CONNECT.as_secs()
        ))),
    }
}

/// An answer that has to come: who asks while the connection is lost may never hear of it from the
/// client.
pub(crate) async fn answered<T>(
    within: Duration,
    answer: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    timeout(within, answer).await.unwrap_or_else(late)
}

fn unreachable(config: &Config, error: lapin::Error) -> Error {
    describe(format!("{config} cannot be reached"), error)
}

/// A queue that is being read, on a channel of its own.
///
/// However it ends, the channel is closed before the client may cancel the consumer: at
/// `basic.cancel` what was delivered stays with the channel, later messages go to the next
/// consumer, and what comes back when the channel ends is behind them.
pub(crate) struct Tap {
    channel: Channel,
    deliveries: Option<Consumer>,
}

impl Tap {
    /// Begins to read a queue; at most `prefetch` deliveries are under way unacknowledged.
    pub(crate) async fn open(
        channel: Channel,
        queue: &str,
        prefetch: u16,
        arguments: FieldTable,
    ) -> lapin::Result<Tap> {
        let mut tap = Tap { channel, deliveries: None };
        answered(OPEN, tap.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consume = tap.channel.basic_consume(queue.into(), "".into(), options, arguments);
        tap.deliveries = Some(answered(BEGIN, consume).await?);
        // Who begins when the connection has just been lost is told nothing of that any more.
        if !tap.channel.status().connected() {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
        Ok(tap)
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// What comes next; `None`: the server has ended the reading. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        self.deliveries.as_mut()?.next().await
    }

    /// Waits until acknowledgements have reached the queue.
    ///
    /// A channel sends a quorum queue 32 at a time, holds back what comes meanwhile, and forgets
    /// it when it is closed: what was finished would come again. Beginning and ending a consumer
    /// are done when the queue has done them, and both are behind what was sent before. The first
    /// lets the channel send what it held back, the second waits for that. The queue has a single
    /// active consumer, which this one never is.
    pub(crate) async fn flush(&self, queue: &str) {
        const TAG: &str = "flush";
        let flushed = timeout(CLOSE, async {
            let options = BasicConsumeOptions::default();
            let consume = self.channel.basic_consume(
                queue.into(),
                TAG.into(),
                options,
                FieldTable::default(),
            );
            let _consumer = consume.await?;
            self.channel.basic_cancel(TAG.into(), BasicCancelOptions::default()).await
        });
        let flushed = flushed.await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::debug!(queue, ?flushed, "what was finished last may come again");
        }
    }

    /// Waits until the server has taken back what was not acknowledged.
    pub(crate) async fn close(self) {
        let closed = timeout(CLOSE, self.channel.close(200, "done".into())).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::debug!(?closed, "a channel was closed already, or the server is gone");
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The client takes the closing over when it is first polled, and cancels nothing then.
        let _ = Box::pin(self.channel.close(200, "dropped".into())).now_or_never();
    }
}
