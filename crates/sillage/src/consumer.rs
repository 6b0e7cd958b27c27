//! Consumers: named sets of handlers that share one subscription.

use crate::{
    handler::{AnyHandler, Erased, Extract, Handler, Input, Needs, Raw, Shared},
    names,
    process::{AnyProcess, CONTROL_EXPIRED, Reactor, control_topic},
    runtime::{
        member::{Handlers, Spec},
        rate::Rate,
        retry::Retry,
    },
};
use sillage_core::{Outcome, Start, Text};
use std::{sync::Arc, time::Duration};

/// A named set of handlers, one an event, that share one subscription.
///
/// The name is stored identity: its place in each topic, its inbox and its parked keys go by it.
#[must_use = "a consumer does nothing until it is given to a service"]
pub struct Consumer {
    pub(crate) name: &'static str,
    pub(crate) topics: Vec<Text>,
    pub(crate) needs: Needs,
    pub(crate) errors: Vec<String>,
    handlers: Handlers,
    any: Option<Arc<dyn AnyHandler>>,
    strict: bool,
    retry: Retry,
    time_limit: Duration,
    concurrency: usize,
    window: usize,
    start: Start,
    pub(crate) broadcast: bool,
    horizon: Duration,
    pub(crate) depends_on: Vec<Text>,
    rate: Option<Rate>,
    /// It runs a process manager or a saga.
    pub(crate) instances: bool,
}

/// A broker may bring a message again for so long, at least: producers that were cut off, backups.
pub(crate) const HORIZON: Duration = Duration::from_secs(14 * 24 * 3600);

impl Consumer {
    /// A consumer of that name; a service adds its own name in front.
    pub fn new(name: &'static str) -> Self {
        Consumer {
            name,
            topics: vec![],
            needs: Needs::default(),
            errors: vec![],
            handlers: Handlers::default(),
            any: None,
            strict: false,
            retry: Retry::default(),
            time_limit: Duration::from_secs(30),
            concurrency: 256,
            window: 4096,
            start: Start::Earliest,
            broadcast: false,
            horizon: HORIZON,
            depends_on: vec![],
            rate: None,
            instances: false,
        }
    }

    /// Handles one event or command. A message of its topics that no handler takes is ignored,
    /// and counted.
    pub fn on<H, Args: 'static>(mut self, handler: H) -> Self
    where
        H: Handler<Args, Message: Input, Rest: Extract, Output: Outcome, Future: Send>,
    {
        H::Rest::needs(&mut self.needs);
        self.add_topic(<H::Message as Input>::FROM);
        let handler: Arc<dyn AnyHandler> = Arc::new(Erased::<H, Args>::new(handler));
        let Some(name) = <H::Message as Input>::ACCEPTS else {
            if self.any.replace(handler).is_some() {
                self.errors.push(format!(
                    "consumer `{}` has two handlers for any message: keep one",
                    self.name
                ));
            }
            return self;
        };
        if <H::Message as Input>::FROM.is_none() {
            self.errors.push(format!(
                "consumer `{}` handles `{name}`, which has no topic: nothing would ever come; give \
                 it a topic, or leave `internal` away",
                self.name
            ));
        }
        self.add_handler(name, handler.clone());
        for (alias, topic) in <H::Message as Input>::ALIASES {
            self.add_topic(*topic);
            self.add_handler(alias, handler.clone());
        }
        self
    }

    /// Handles whatever the topics bring, undecoded, where no other handler takes it.
    pub fn on_any<H, Args: 'static>(
        mut self,
        topics: impl IntoIterator<Item = impl Into<Text>>,
        handler: H,
    ) -> Self
    where
        H: Handler<Args, Message = Raw, Rest: Extract, Output: Outcome, Future: Send>,
    {
        self.topics.extend(topics.into_iter().map(Into::into));
        self.on(handler)
    }

    /// The retry ladder.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// A message without a handler is a permanent failure, instead of ignored.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// How long a handler may take; over it is a transient failure. 30 s unless said.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Its handlers call this dependency: its breaker and its rate limit, as the service says them,
    /// are asked before each of them starts. A breaker finds out by itself that a consumer depends
    /// on it, by the first failure; a rate limit does not.
    pub fn depends_on(mut self, dependency: impl Into<Text>) -> Self {
        self.depends_on.push(dependency.into());
        self
    }

    /// How often handlers of this consumer may start in this process.
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        if let Some(error) = rate.error() {
            self.errors.push(format!("consumer `{}`: {error}", self.name));
        }
        self.rate = Some(rate);
        self
    }

    /// How many keys are handled at once in this process. 256 unless said.
    pub fn concurrency(mut self, slots: usize) -> Self {
        if slots == 0 {
            self.errors
                .push(format!("consumer `{}`: concurrency 0 would handle nothing", self.name));
        }
        self.concurrency = slots;
        self
    }

    /// How many deliveries may be under way in this process. 4,096 unless said.
    pub fn window(mut self, deliveries: usize) -> Self {
        self.window = deliveries.max(1);
        self
    }

    /// Where it starts the first time: at the earliest message unless said. Stored then.
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Every process gets every message, from its start on; what came while it was stopped is not
    /// caught up. Effects are committed once all the same: by the process that is first.
    pub fn broadcast(mut self) -> Self {
        self.broadcast = true;
        self.start = Start::Latest;
        self
    }

    /// How long a broker may bring a message again, and so how long the inbox remembers what was
    /// decided about it: 14 days unless said, and never less. Nothing for the embedded broker,
    /// where what was passed cannot come back.
    pub fn redelivery_horizon(mut self, horizon: Duration) -> Self {
        if horizon < HORIZON {
            self.errors.push(format!(
                "consumer `{}`: a redelivery horizon below 14 days would let a message that comes \
                 again be handled twice",
                self.name
            ));
        }
        self.horizon = horizon;
        self
    }

    /// What a process manager or a saga runs as.
    pub(crate) fn of_process(service: &str, process: &Arc<dyn AnyProcess>) -> Self {
        let mut consumer = Consumer::new(process.name());
        consumer.needs.database = true;
        consumer.errors = process.errors().to_vec();
        consumer.topics.push(control_topic(service, process.name()));
        let reactor: Arc<dyn AnyHandler> = Arc::new(Reactor::new(process.clone()));
        for (name, topic) in process.inputs() {
            consumer.add_topic(topic);
            consumer.handlers.insert(name, reactor.clone());
        }
        for (alias, _, topic) in process.aliases() {
            consumer.add_topic(*topic);
            consumer.add_handler(alias, reactor.clone());
        }
        consumer.handlers.insert(CONTROL_EXPIRED, reactor);
        consumer.instances = true;
        consumer
    }

    fn add_handler(&mut self, name: &'static str, handler: Arc<dyn AnyHandler>) {
        if self.handlers.insert(name, handler).is_some() {
            self.errors.push(format!(
                "consumer `{}` has two handlers for `{name}`: keep one, or put the other in a \
                 consumer of its own",
                self.name
            ));
        }
    }

    fn add_topic(&mut self, topic: Option<&'static str>) {
        let known = |topic: &&str| self.topics.iter().any(|known| **known == **topic);
        if let Some(topic) = topic.filter(|topic| !known(topic)) {
            self.topics.push(topic.into());
        }
    }

    pub(crate) fn events(&self) -> Vec<&'static str> {
        let mut events: Vec<_> = self.handlers.keys().copied().collect();
        events.sort_unstable();
        events
    }

    pub(crate) fn retry_policy(&self) -> &Retry {
        &self.retry
    }

    pub(crate) fn build(self, service: &str) -> Spec {
        Spec {
            name: names::part(service, self.name),
            topics: self.topics,
            handlers: self.handlers,
            any: self.any,
            strict: self.strict,
            retry: self.retry,
            time_limit: self.time_limit,
            concurrency: self.concurrency,
            window: self.window,
            start: self.start,
            broadcast: self.broadcast,
            horizon: self.horizon,
            is_users: true,
            depends_on: self.depends_on,
            rate: self.rate,
            failing: None,
        }
    }
}

impl Shared {
    pub(crate) fn of(
        service: &str,
        consumer: &str,
        states: Arc<crate::handler::States>,
        database: Option<Arc<dyn sillage_core::Database>>,
        clock: Arc<dyn sillage_core::Clock>,
    ) -> Arc<Self> {
        let consumer = names::part(service, consumer);
        Arc::new(Shared { service: service.into(), consumer, states, database, clock })
    }
}
