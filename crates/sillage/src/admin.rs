//! Every operator verb, once: the command line and the console both call these.
//!
//! They need a database, never the app's code: an app declares itself in its *manifest* when it
//! starts, and obeys commits on its documents. Each act is also a fact in the stream `operator`,
//! in the same commit, so whoever changed something can be asked.

mod dead_letters;
mod differences;
mod doctor;
mod journal;
mod projections;
mod replay;
mod retention;
mod sagas;
mod status;
mod streams;
mod trace;

use crate::{
    clock::SystemClock,
    names,
    runtime::{assemble::foreign, member::settings},
};
pub use dead_letters::{DeadLetter, Delivered, Redriven};
pub use differences::{Difference, Differences};
pub use doctor::Finding;
pub use journal::{Checked, Gap, Search};
pub use projections::{Comparison, GenerationStatus, ProjectionStatus};
pub use replay::{ReplayCount, Replaying};
pub use retention::RetentionStatus;
pub use sagas::{SagaDetail, SagaStatus, StepStatus, UnknownReply};
use serde_json::{Value, json};
use sillage_core::{
    Broker, Clock, Commit, CommitError, Committed, Database, Draft, Error, ErrorKind, Key, Message,
    Result, Text, Timestamp, Write,
};
pub use status::{BreakerStatus, ConsumerStatus, TimerStatus};
use std::sync::Arc;
pub use trace::{Trace, TraceNode};

/// The operator verbs on one database.
#[derive(Clone)]
pub struct Admin {
    database: Arc<dyn Database>,
    broker: Option<Arc<dyn Broker>>,
    clock: Arc<dyn Clock>,
    who: Text,
}

/// A message to be published by an operator.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What it is: `order.create`.
    pub name: String,
    /// The version of its payload.
    pub version: u32,
    /// Where it goes.
    pub topic: String,
    /// What orders it.
    pub key: Option<String>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl Outgoing {
    /// The message, with the operator as its source: for [`Admin::append`], or for a broker.
    pub fn message(self, now: Timestamp) -> Result<Message> {
        let draft = Draft {
            name: self.name.into(),
            version: self.version,
            topic: Some(self.topic.into()),
            key: self.key.map(Key::of),
            operation_id: None,
            headers: vec![],
            payload: Ok(self.payload.into()),
        };
        foreign("operator", draft, now).map_err(|failure| Error::invalid(failure.to_string()))
    }
}

impl Admin {
    /// The verbs on this database, done by `who`.
    pub fn new(database: Arc<dyn Database>, who: impl Into<Text>) -> Self {
        Admin { database, broker: None, clock: Arc::new(SystemClock), who: who.into() }
    }

    /// The broker that the apps on this database read from, where it is not the database's log:
    /// it knows how far their consumers are.
    #[must_use]
    pub fn broker(mut self, broker: impl Into<Option<Arc<dyn Broker>>>) -> Self {
        self.broker = broker.into();
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The database.
    pub fn database(&self) -> &Arc<dyn Database> {
        &self.database
    }

    /// Publishes a message through the log, with the operator as its source.
    pub async fn publish(&self, outgoing: Outgoing) -> Result<(Message, Committed)> {
        let message = outgoing.message(self.clock.now())?;
        let committed = self.append(message.clone()).await?;
        Ok((message, committed))
    }

    /// Appends a message as it is, with its own id and source: again is refused by its id.
    pub async fn append(&self, message: Message) -> Result<Committed> {
        let append = Write::Append { stream: None, message: Arc::new(message) };
        self.commit(Commit { conditions: vec![], writes: vec![append] }).await
    }

    /// Pauses a consumer in all its processes, until it is resumed.
    pub async fn pause(&self, consumer: &str, why: &str) -> Result<Committed> {
        self.known_consumer(consumer).await?;
        let commit = settings(&consumer.into(), Some(why))?;
        self.act("pause", json!({ "consumer": consumer, "why": why }), commit).await
    }

    /// Lets a paused consumer go on.
    pub async fn resume(&self, consumer: &str) -> Result<Committed> {
        self.known_consumer(consumer).await?;
        let commit = settings(&consumer.into(), None)?;
        self.act("resume", json!({ "consumer": consumer }), commit).await
    }

    async fn known_consumer(&self, consumer: &str) -> Result<()> {
        let consumers = self.consumers().await?;
        if consumers.iter().any(|known| *known.name == *consumer) {
            return Ok(());
        }
        let names: Vec<_> = consumers.iter().map(|known| &*known.name).collect();
        Err(Error::new(
            ErrorKind::NotFound,
            format!("no consumer `{consumer}`; there are: {}", names.join(", ")),
        ))
    }

    /// Commits what an operator does together with the fact that it was done.
    async fn act(&self, verb: &str, what: Value, mut commit: Commit) -> Result<Committed> {
        let payload = json!({ "who": self.who, "what": what });
        let draft = Draft {
            name: format!("operator.{verb}").into(),
            version: 1,
            topic: None,
            key: None,
            operation_id: None,
            headers: vec![],
            payload: Ok(serde_json::to_vec(&payload)?.into()),
        };
        let message = foreign("operator", draft, self.clock.now());
        let message = message.map_err(|failure| Error::invalid(failure.to_string()))?;
        let stream = Some(names::OPERATOR.into());
        commit.writes.push(Write::Append { stream, message: Arc::new(message) });
        self.commit(commit).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        let answer = self.database.commit(vec![commit]).await.pop();
        answer.unwrap_or_else(|| Err(CommitError::Failed(unanswered()))).map_err(refused)
    }
}

fn unanswered() -> Error {
    Error::unavailable("the database gave no answer")
}

/// Whether somebody else changed what was to be changed.
fn conflicts(error: &Error) -> bool {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref::<CommitError>()).is_some()
}

fn refused(error: CommitError) -> Error {
    match error {
        CommitError::Rejected(error) | CommitError::Failed(error) => error,
        changed => {
            let why = "it was changed meanwhile: look again, then retry";
            Error::new(ErrorKind::Invalid, why).because(changed)
        }
    }
}
