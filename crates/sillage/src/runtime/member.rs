//! One process's member of a consumer: from deliveries through lanes and handlers to commits.
//!
//! One task drives everything, with a batch as its unit: what arrives is put into lanes, lanes
//! that are ready get a slot, what handlers return is committed, what is committed is finished,
//! and the watermark of finished deliveries is settled. See `docs/delivery.md` for the states of
//! a delivery.

mod gates;
mod intake;
pub(crate) use intake::Mark;
mod outcome;
mod parked;
mod settle;
mod step;

use super::{
    committer::{Answer, Answers, Committer},
    dependency::Dependencies,
    health::Vital,
    kill_switch::KillSwitch,
    lane::{LaneId, Lanes},
    outlet::Outlet,
    parking::{self, Head},
    rate::Rate,
    retry::Retry,
    slots::Slots,
};
use crate::handler::{AnyHandler, Shared};
use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt as _},
};
use gates::{Gates, Permits};
use intake::Assigned;
pub(crate) use outcome::settings;
pub(crate) use parked::read_parked;
use rand::{SeedableRng as _, rngs::SmallRng};
use sillage_core::{
    BoxFuture, Clock, Commit, Database, Decision, Epoch, Inbound, Message, Partition, PublishError,
    Receipt, Receiver, Result, Settler, Start, Stored, Text, Timestamp, Transaction,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Handlers by the name of what they take.
pub(crate) type Handlers = HashMap<&'static str, Arc<dyn AnyHandler>, foldhash::fast::RandomState>;

/// What a consumer is, once the app is built.
pub(crate) struct Spec {
    /// `service/name`.
    pub(crate) name: Text,
    pub(crate) topics: Vec<Text>,
    pub(crate) handlers: Handlers,
    pub(crate) any: Option<Arc<dyn AnyHandler>>,
    pub(crate) strict: bool,
    pub(crate) retry: Retry,
    pub(crate) time_limit: Duration,
    pub(crate) concurrency: usize,
    pub(crate) window: usize,
    pub(crate) start: Start,
    pub(crate) broadcast: bool,
    /// How long a broker may bring a message again.
    pub(crate) horizon: Duration,
    /// What it runs is a user's: it pauses where too many keys fail for good, and may kill the process.
    pub(crate) is_users: bool,
    /// Dependencies that are asked before a handler starts, without having failed one.
    pub(crate) depends_on: Vec<Text>,
    pub(crate) rate: Option<Rate>,
    /// This share of handlings is to fail.
    pub(crate) failing: Option<f64>,
}

/// What an operator, or the kill switch, wants of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// Nothing is started; the reason.
    pub(crate) paused: Option<String>,
    /// Grows when parked keys may have changed in the database.
    pub(crate) changes: u64,
}

/// What a member works with.
pub(crate) struct Means {
    pub(crate) spec: Arc<Spec>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) committer: Option<Committer>,
    /// Messages are in the log of this database.
    pub(crate) is_log: bool,
    /// The broker has offsets, so that a watermark says what is finished.
    pub(crate) offsets: bool,
    /// Whose offsets they are.
    pub(crate) cluster: Option<Text>,
    /// Where effects go, where there is no database.
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) control: watch::Sender<Control>,
    pub(crate) vital: Arc<Vital>,
    pub(crate) dependencies: Arc<Dependencies>,
    pub(crate) stop: CancellationToken,
    pub(crate) drain_limit: Duration,
}

/// What runs in a slot.
struct Run {
    lane: LaneId,
    /// The head of a parked key; else the head of the lane.
    parked: Option<Head>,
    until: Duration,
    permits: Permits,
}

/// What a commit is for.
enum Pending {
    Handled(LaneId),
    Guarded(LaneId),
    Parked(LaneId, parking::Key),
    Popped(LaneId, Popping),
    Noted(LaneId, parking::Key),
    Settled(usize, u64),
    /// For operators to see: nothing waits for it.
    Noticed,
}

/// A parked head whose effects are committed.
struct Popping {
    /// The key's lane, and the key behind the head.
    name: u64,
    next: Option<parking::Key>,
    head: Head,
}

/// What was read or published in the background.
enum Fetched {
    Assigned(usize, u64, Result<intake::Loaded>),
    Decisions(usize, u64, Result<Vec<Option<Decision>>>),
    Head(LaneId, Result<Option<Head>>),
    Keys(Result<Vec<Stored>>),
    /// The dead letter, if it is one.
    Published(LaneId, Option<Arc<Message>>, Vec<Result<Receipt, PublishError>>),
}

/// The parked keys are being read again.
#[derive(Default)]
struct Reading {
    is_under_way: bool,
    /// Something changed in the database since the question.
    is_asked_again: bool,
    /// Keys that were changed here since the question: of them the answer may be older.
    touched: HashSet<u64>,
}

pub(crate) struct Member {
    means: Means,
    receiver: Box<dyn Receiver>,
    settler: Arc<dyn Settler>,
    lanes: Lanes,
    slots: Slots,
    runs: Vec<Option<Run>>,
    partitions: Vec<Assigned>,
    places: HashMap<Partition, usize>,
    parked: HashMap<u64, parking::Key>,
    reading: Reading,
    due: BTreeSet<(Timestamp, u64)>,
    heads: HashMap<LaneId, Head>,
    pending: HashMap<u64, Pending>,
    ticket: u64,
    answer: mpsc::UnboundedSender<(u64, Answer)>,
    answers: Answers,
    fetching: FuturesUnordered<BoxFuture<'static, Fetched>>,
    random: SmallRng,
    kill_switch: KillSwitch,
    /// The name of what ran last and its handler: most of what comes is alike.
    last: Option<(Text, Arc<dyn AnyHandler>)>,
    control: watch::Receiver<Control>,
    gates: Gates,
    /// Breakers have changed, or let more calls begin.
    gates_changed: watch::Receiver<()>,
    /// When time limits were looked at last.
    ticked_at: Duration,
    /// Receiving has failed: not before then again. What is under way goes on.
    receives_at: Duration,
    settled_at: Duration,
    /// Settling has failed: not before then again.
    settles_at: Duration,
    /// Since when deliveries have ended that are not settled.
    unsettled: Option<Duration>,
    forgets_at: Duration,
    /// Among all that ever had its partitions.
    id: Uuid,
    throttled: bool,
    paused: bool,
    /// Elapsed time when the last turn began.
    now: Duration,
}

/// How soon the watermark is settled after a delivery has ended.
const SETTLE: Duration = Duration::from_millis(100);
/// How often running handlers are looked at for their time limit, and how long after a failure it is
/// received again.
const TICK: Duration = Duration::from_secs(1);
/// A partition that the broker has lost is back by then, or something is wrong.
const CUT_OFF: Duration = Duration::from_secs(15);

impl Member {
    pub(crate) fn new(
        means: Means,
        receiver: Box<dyn Receiver>,
        settler: Arc<dyn Settler>,
    ) -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        let paused = means.control.borrow().paused.is_some();
        let slots = means.spec.concurrency.max(1);
        Member {
            receiver,
            settler,
            lanes: Lanes::default(),
            slots: Slots::new(slots),
            runs: (0..slots).map(|_| None).collect(),
            partitions: vec![],
            places: HashMap::new(),
            parked: HashMap::new(),
            reading: Reading::default(),
            due: BTreeSet::new(),
            heads: HashMap::new(),
            pending: HashMap::new(),
            ticket: 0,
            answer,
            answers,
            fetching: FuturesUnordered::new(),
            random: SmallRng::from_rng(&mut rand::rng()),
            kill_switch: KillSwitch::default(),
            last: None,
            control: means.control.subscribe(),
            gates: Gates::new(&means),
            gates_changed: means.dependencies.changes(),
            ticked_at: Duration::ZERO,
            receives_at: Duration::ZERO,
            settled_at: Duration::ZERO,
            settles_at: Duration::ZERO,
            unsettled: None,
            forgets_at: Duration::ZERO,
            id: Uuid::new_v4(),
            throttled: false,
            paused,
            now: Duration::ZERO,
            means,
        }
    }

    /// Runs until the app stops, then drains.
    pub(crate) async fn run(mut self) -> Result<()> {
        while !self.means.stop.is_cancelled() {
            self.dispatch();
            self.settle(false);
            self.throttle();
            if let Err(error) = self.advance(true).await {
                self.means.vital.problem("broker", Some(error.to_string()));
                tracing::warn!(consumer = %self.means.spec.name, %error, "receiving failed");
                self.receives_at = self.means.clock.elapsed() + TICK;
            }
        }
        self.drain().await;
        self.settler.close().await
    }

    /// Waits for what happens next, and takes it in.
    async fn advance(&mut self, receiving: bool) -> Result<()> {
        self.now = self.means.clock.elapsed();
        if self.now >= self.ticked_at + TICK {
            self.tick();
        }
        let wait = self.next_wake(self.now).saturating_sub(self.now);
        let receives = receiving && self.now >= self.receives_at;
        let stop = self.means.stop.clone();
        tokio::select! {
            biased;
            (slot, handled) = self.slots.next() => self.ended(slot, handled),
            Some((ticket, answer)) = self.answers.recv() => self.answered(ticket, answer),
            Some(fetched) = self.fetching.next(), if !self.fetching.is_empty() => {
                self.fetched(fetched);
            }
            () = stop.cancelled(), if receiving => {}
            Ok(()) = self.control.changed() => self.controlled(),
            Ok(()) = self.gates_changed.changed(), if !self.gates.is_empty() => self.report_gates(),
            inbound = self.receiver.next(), if receives => {
                let inbound = inbound?;
                self.means.vital.problem("broker", None);
                self.inbound(inbound);
            }
            () = self.means.clock.sleep(wait) => self.tick(),
        }
        Ok(())
    }

    fn next_wake(&self, now: Duration) -> Duration {
        let mut wake = now + TICK;
        let lanes = self.lanes.next_due().into_iter();
        let due = lanes.chain(self.parked_due(now)).chain(self.settle_due());
        let again = (self.receives_at > now).then_some(self.receives_at);
        for due in due.chain(self.gates.next).chain(again) {
            wake = wake.min(due);
        }
        wake
    }

    fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Batch(partition, deliveries) => self.batch(&partition, deliveries),
            Inbound::Passed(partition, offset) => self.passed(&partition, offset),
            Inbound::Assigned(partitions) => self.assigned(partitions),
            Inbound::Revoked(partitions) => {
                for partition in partitions {
                    self.revoked(&partition);
                }
            }
            Inbound::Lost(partitions) => {
                for partition in partitions {
                    self.lost(&partition);
                }
            }
        }
    }

    fn fetched(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Assigned(place, assignment, loaded) => self.loaded(place, assignment, loaded),
            Fetched::Decisions(place, assignment, found) => self.decided(place, assignment, found),
            Fetched::Head(lane, head) => self.head(lane, head),
            Fetched::Keys(keys) => self.keys(keys),
            Fetched::Published(lane, dead, receipts) => {
                self.published(lane, dead.as_deref(), receipts);
            }
        }
    }

    /// Reads in the background; the answer comes back through [`Member::fetched`].
    fn fetch(&self, future: impl Future<Output = Fetched> + Send + 'static) {
        self.fetching.push(Box::pin(future));
    }

    fn commit(&mut self, commit: Commit, pending: Pending) {
        self.commit_in(None, commit, pending);
    }

    /// In a transaction of a handler's own, where there is one.
    fn commit_in(
        &mut self,
        transaction: Option<Box<dyn Transaction>>,
        commit: Commit,
        pending: Pending,
    ) {
        let Some(committer) = &self.means.committer else { return };
        self.ticket += 1;
        self.pending.insert(self.ticket, pending);
        match transaction {
            None => committer.submit(commit, self.ticket, &self.answer),
            Some(own) => committer.submit_in(own, commit, self.ticket, &self.answer),
        }
    }

    /// Looks at time limits and at breakers.
    fn tick(&mut self) {
        let now = self.means.clock.elapsed();
        self.ticked_at = now;
        if !self.gates.is_empty() {
            self.report_gates();
        }
        self.report_cut_off(now);
        for slot in 0..self.runs.len() {
            if self.runs[slot].as_ref().is_some_and(|run| run.until <= now) {
                self.slots.stop(slot);
                self.timed_out(slot);
            }
        }
    }

    /// Partitions whose leases are this member's, and that the broker brings nothing of.
    fn report_cut_off(&self, now: Duration) {
        let is_late = |p: &&Assigned| !p.owned && p.gone.is_some_and(|gone| now >= gone + CUT_OFF);
        let leased = |p: &&Assigned| {
            self.settler.fence(&p.partition).is_some_and(|(_, epoch)| epoch != Epoch(0))
        };
        let mut cut_off = self.partitions.iter().filter(is_late).filter(leased);
        let problem = cut_off.next().map(|first| {
            let (first, others) = (&first.name, cut_off.count());
            format!("nothing comes of {first} and {others} others since the broker lost them")
        });
        self.means.vital.problem("partitions", problem);
    }

    fn controlled(&mut self) {
        let control = self.control.borrow_and_update().clone();
        self.paused = control.paused.is_some();
        self.means.vital.problem("paused", control.paused);
        self.reload_keys();
    }

    fn database(&self) -> Option<&Arc<dyn Database>> {
        self.means.shared.database.as_ref()
    }

    /// Lets nothing more come while too much is under way, or while a breaker is open.
    fn throttle(&mut self) {
        let works = self.lanes.works() + self.owned().map(Assigned::held).sum::<usize>();
        let shut = !self.gates.is_empty() && self.gates.are_shut(self.now);
        let over = shut || works >= self.means.spec.window;
        let under = !shut && works <= self.means.spec.window / 2;
        if (over && !self.throttled) || (under && self.throttled) {
            let done = if over {
                let owned: Vec<_> = self.owned().map(|owned| owned.partition.clone()).collect();
                self.settler.pause(&owned)
            } else {
                // What was lost meanwhile too: it may come again only when it is not paused any more.
                let all: Vec<_> = self.places.keys().cloned().collect();
                self.settler.resume(&all)
            };
            match done {
                Ok(()) => self.throttled = over,
                Err(error) => tracing::warn!(%error, "pausing or resuming failed"),
            }
        }
    }

    /// Ends what runs, commits and settles it, and gives the partitions back.
    async fn drain(&mut self) {
        let end = self.means.clock.elapsed() + self.means.drain_limit;
        for partition in self.places.keys().cloned().collect::<Vec<_>>() {
            self.revoked(&partition);
        }
        while self.owned().next().is_some() && self.means.clock.elapsed() < end {
            self.settle(true);
            if self.advance(false).await.is_err() {
                break;
            }
        }
        // What is being settled is settled before the member leaves.
        let told: Vec<_> = self.partitions.iter_mut().filter_map(|p| p.told.take()).collect();
        let left = end.saturating_sub(self.means.clock.elapsed());
        tokio::select! {
            biased;
            _ = join_all(told) => {}
            () = self.means.clock.sleep(left) => {}
        }
    }
}
