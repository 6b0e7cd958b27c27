//! The thread that always polls: it gathers deliveries, and does what the group, the member and
//! the broker ask for, one after the other.

use super::{
    Command, Seat,
    assignments::{Assignments, Phase, offset},
    context::{Context, Event},
    decode::Records,
    jobs::Jobs,
    membership::Membership,
    outbox::{Item, Outbox},
};
use crate::{admin::list, error};
use rdkafka::{
    Message as _, Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode as Code,
};
use sillage_core::{
    Error, ErrorKind, HeaderLayout, Inbound, Partition, Result, Settled, Subscription,
};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// Records gathered at once.
const BATCH: usize = 512;
/// Turns of rest for which what is fetched ahead is kept while all partitions are held: 30 s.
/// Pausing throws it away, to be fetched again for each few messages that are handled.
const KEEP: u32 = 300;
/// What is settled is committed within this, where all is well.
const COMMITTED: Duration = Duration::from_secs(5);
/// With nothing to do the thread is woken by the client; this is for what it is not woken for.
const IDLE: Duration = Duration::from_millis(100);

pub(super) struct Poller {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) subscription: Subscription,
    /// Where Kafka is, for people.
    pub(super) servers: String,
    pub(super) outbox: Arc<Outbox>,
    pub(super) jobs: Jobs,
    pub(super) assignments: Assignments,
    /// The group waits to hear that these were taken.
    pub(super) arriving: Option<Vec<Partition>>,
    /// Where some begin is being found out.
    pub(super) finding: bool,
    pub(super) gathered: Gathered,
    /// Partitions that stopped, of which is not known which they are.
    pub(super) stopped: usize,
    /// Idle turns until they are looked for again.
    pub(super) look_in: u32,
    membership: Membership,
    /// Since when something is stored that the client has not committed.
    pub(super) uncommitted_since: Option<Instant>,
    /// It ends once what was begun has ended: it was told to, or its client hangs.
    closes: bool,
    hangs: bool,
    /// Turns of rest while all partitions are held.
    held: u32,
}

/// Why a poller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to, and has left the group.
    Closed,
    /// Its client does nothing any more.
    Hung,
}

/// Records of one turn, by place.
#[derive(Default)]
pub(super) struct Gathered {
    batches: Vec<(usize, Records)>,
    layout: HeaderLayout,
    /// Empty ones for what comes next.
    spare: Vec<Records>,
    /// The place of the last record: they come in runs. The topic by its address in the client,
    /// which is the same as long as a partition of it is assigned.
    pub(super) last: Option<(usize, i32, usize)>,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Context>>,
        seat: &Seat,
        jobs: Jobs,
        membership: Membership,
    ) -> Poller {
        Poller {
            consumer,
            subscription: seat.subscription.clone(),
            servers: seat.config.servers.clone(),
            outbox: seat.outbox.clone(),
            jobs,
            membership,
            assignments: Assignments::default(),
            arriving: None,
            finding: false,
            gathered: Gathered::default(),
            stopped: 0,
            look_in: 0,
            uncommitted_since: None,
            closes: false,
            hangs: false,
            held: 0,
        }
    }

    /// Polls until the consumer is closed and has left the group, or its client hangs.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) -> Ended {
        loop {
            if self.is_ending() && self.jobs.are_done() {
                let ended = if self.closes { Ended::Closed } else { Ended::Hung };
                self.leave();
                return ended;
            }
            let mut is_busy = false;
            while let Ok(command) = commands.try_recv() {
                self.obey(command);
                is_busy = true;
            }
            for event in self.consumer.context().events() {
                self.heed(event);
                is_busy = true;
            }
            if self.holds() {
                // No more than keeps the group informed: what it wants comes before what was
                // fetched, which is out of date then.
                self.gather(1);
            } else {
                is_busy |= self.gather(BATCH);
                self.hand_over();
            }
            self.tend();
            if !is_busy {
                self.rest();
            }
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.closes || self.hangs
    }

    fn rest(&mut self) {
        thread::park_timeout(IDLE);
        self.held = self.held.saturating_add(1);
        self.look_in = self.look_in.saturating_sub(1);
    }

    /// All partitions are held, for now: what is fetched ahead stays where it is.
    fn holds(&mut self) -> bool {
        let are_held = self.assignments.are_held(self.outbox.is_full());
        if !are_held {
            self.held = 0;
        }
        are_held && self.held <= KEEP
    }

    /// Does what it is told.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Settle(settled) => self.settle(&settled),
            Command::Release(partitions) => self.release(&partitions),
            Command::Pause(partitions) => self.assignments.hold(&partitions, true),
            Command::Resume(partitions) => self.assignments.hold(&partitions, false),
            Command::Close => {
                self.closes = true;
                self.jobs.leave();
            }
            Command::Placed(placed) => {
                self.jobs.answered();
                self.placed(placed);
            }
            Command::Found(found) => {
                self.jobs.answered();
                self.found(found);
            }
            Command::Ranged(ranged) => {
                self.jobs.answered();
                self.ranged(ranged);
            }
            Command::Known(known) => {
                self.jobs.answered();
                self.known(known);
            }
        }
    }

    /// Does what the group wants.
    fn heed(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => {
                self.jobs.place(partitions.clone());
                self.arriving = Some(partitions);
            }
            Event::Revoked { partitions, lost } => {
                if lost {
                    self.lose();
                }
                self.forget(&partitions);
                let draining = self.assignments.revoke(partitions);
                if !draining.is_empty() {
                    self.outbox.push([Item::Inbound(Inbound::Revoked(draining))]);
                }
            }
            Event::Committed { partitions, error: None } => {
                self.uncommitted_since = None;
                self.outbox.settled(None);
                self.assignments.stored(&partitions);
            }
            Event::Committed { error: Some(code), .. } => self.uncommitted(code),
        }
    }

    /// Some offsets were not committed.
    fn uncommitted(&mut self, code: Code) {
        // The group moves on without us, or there was nothing to commit: no trouble of settling.
        let is_usual = matches!(
            code,
            Code::NoOffset
                | Code::AssignmentLost
                | Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
        );
        let consumer = &self.subscription.consumer;
        tracing::debug!(target: "sillage_kafka", %consumer, %code, "offsets were not committed");
        if is_usual {
            // An answer, too.
            self.uncommitted_since = None;
        } else {
            self.outbox.settled(Some(code));
        }
    }

    /// What has to be looked at in each turn.
    fn tend(&mut self) {
        if !self.subscription.broadcast && self.consumer.assignment_lost() {
            self.lose();
        }
        if let Some(returned) = self.assignments.returned() {
            self.give_back(&returned);
        }
        self.place_again();
        self.find();
        self.look_for();
        // Asked again: what was handed over may have been the last that there was room for.
        if !self.holds() {
            let (pause, resume) = self.assignments.pauses(self.outbox.is_full());
            self.on_list(&pause, Position::Invalid, "pausing", BaseConsumer::pause);
            self.on_list(&resume, Position::Invalid, "resuming", BaseConsumer::resume);
        }
        if self.stopped > 0 && self.look_in == 0 {
            self.look();
        }
    }

    /// Who has nothing for a while, or cannot commit, is looked for in its group.
    fn look_for(&mut self) {
        if self.subscription.broadcast || self.is_ending() {
            return;
        }
        let now = Instant::now();
        let has = self.assignments.all().any(|place| place.phase != Phase::Gone);
        let commits = self.uncommitted_since.is_none_or(|since| now - since < COMMITTED);
        if self.membership.is_to_be_asked(has && commits, now) {
            self.jobs.look_for();
        }
    }

    fn known(&mut self, known: Result<bool>) {
        let consumer = &self.subscription.consumer;
        if let Err(error) = &known {
            tracing::info!(target: "sillage_kafka", %consumer, %error, "who is in the group?");
        }
        if self.membership.answered(known.ok(), Instant::now()) && !self.is_ending() {
            let why =
                self.consumer.context().reason().unwrap_or_else(|| "it does not say why".into());
            self.outbox.fail(Error::unavailable(format!(
                "the client of consumer `{consumer}` does not come back into its group, though \
                 Kafka answers ({why}): it is given up for a fresh one"
            )));
            self.lose();
            self.hangs = true;
            self.jobs.leave();
        }
    }

    /// Calls the client with a list; what it refuses is no more than told.
    pub(super) fn on_list(
        &self,
        partitions: &[Partition],
        position: Position,
        what: &str,
        call: impl Fn(&BaseConsumer<Context>, &TopicPartitionList) -> KafkaResult<()>,
    ) {
        if partitions.is_empty() {
            return;
        }
        let list = list(partitions.iter().map(|partition| (partition, position)));
        let called = list.map(|list| call(&self.consumer, &list));
        if let Ok(Err(error)) = called {
            let consumer = &self.subscription.consumer;
            tracing::debug!(target: "sillage_kafka", %consumer, %error, what, "refused");
        }
    }

    /// Everything is another member's already: nothing of it is settled any more.
    fn lose(&mut self) {
        let all: Vec<Partition> = self
            .assignments
            .all()
            .filter(|place| place.phase != Phase::Gone)
            .map(|place| place.partition.clone())
            .collect();
        // What is stored would be committed when the partitions are given up.
        self.on_list(&all, Position::Invalid, "forgetting offsets", BaseConsumer::store_offsets);
        self.forget(&all);
        self.stopped = 0;
        self.uncommitted_since = None;
        let lost = self.assignments.lose();
        if !lost.is_empty() {
            tracing::warn!(
                target: "sillage_kafka",
                consumer = %self.subscription.consumer,
                partitions = lost.len(),
                "partitions are another member's already: this one did not answer for too long"
            );
            self.outbox.push([Item::Inbound(Inbound::Lost(lost))]);
        }
    }

    /// The client settles what is stored, and the group gives them to others.
    fn give_back(&mut self, partitions: &[Partition]) {
        self.gathered.last = None;
        let call = BaseConsumer::incremental_unassign;
        self.on_list(partitions, Position::Invalid, "giving back", call);
    }

    fn settle(&mut self, settled: &[Settled]) {
        let next = |settled: &Settled| {
            let next = self.assignments.settle(settled)?;
            Some((settled.partition.clone(), Position::Offset(next.cast_signed())))
        };
        let stored: Vec<_> = settled.iter().filter_map(next).collect();
        if stored.is_empty() || self.subscription.broadcast {
            return;
        }
        let list = list(stored.iter().map(|(partition, position)| (partition, *position)));
        let kept = list.map(|list| self.consumer.store_offsets(&list));
        if let Ok(Err(error)) = kept {
            let consumer = &self.subscription.consumer;
            tracing::debug!(target: "sillage_kafka", %consumer, %error, "settled too late");
        } else {
            self.uncommitted_since.get_or_insert_with(Instant::now);
        }
    }

    fn release(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if self.assignments.release(partition) {
                self.forget(std::slice::from_ref(partition));
            }
        }
    }

    /// Gathers what is there, up to so many records. `false`: there was nothing.
    fn gather(&mut self, most: usize) -> bool {
        let consumer = self.consumer.clone();
        let calls = consumer.context().calls();
        let mut count = 0;
        while count < most {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => self.take(&record),
                Some(Err(error)) => self.failed(&error),
                None => break,
            }
            count += 1;
        }
        count > 0 || calls != consumer.context().calls()
    }

    fn hand_over(&mut self) {
        let batches = self.gathered.batches.drain(..);
        let assignments = &mut self.assignments;
        let batches: Vec<Item> = batches
            .map(|(place, batch)| Item::Records(assignments.place(place).partition.clone(), batch))
            .collect();
        if !batches.is_empty() {
            self.outbox.push(batches);
            self.outbox.spare(&mut self.gathered.spare);
        }
    }

    /// Nothing that waits of these comes out any more.
    fn forget(&mut self, partitions: &[Partition]) {
        self.outbox.forget(partitions);
        let assignments = &mut self.assignments;
        let mut is_kept = |place: usize| !partitions.contains(&assignments.place(place).partition);
        self.gathered.batches.retain(|(place, _)| is_kept(*place));
    }

    fn take(&mut self, record: &BorrowedMessage<'_>) {
        let Some(place) = self.place_of(record) else { return };
        let offset = offset(record.offset());
        if !self.assignments.deliver(place, offset.0) {
            return;
        }
        let batches = &mut self.gathered.batches;
        let last = batches.iter().rposition(|(number, _)| *number == place);
        let begun = last.filter(|last| !batches[*last].1.is_full()).unwrap_or_else(|| {
            let fresh = self.gathered.spare.pop().unwrap_or_default();
            batches.push((place, fresh));
            batches.len() - 1
        });
        batches[begun].1.push(offset, record, &mut self.gathered.layout);
    }

    fn place_of(&mut self, record: &BorrowedMessage<'_>) -> Option<usize> {
        // Compared and never followed.
        let (topic, number) = (record.topic_ptr() as usize, record.partition());
        if let Some((last, partition, place)) = self.gathered.last
            && (last, partition) == (topic, number)
        {
            return Some(place);
        }
        let partition = Partition { topic: record.topic().into(), number: number.unsigned_abs() };
        let place = self.assignments.find(&partition)?;
        self.gathered.last = Some((topic, number, place));
        Some(place)
    }

    /// An error instead of a record.
    fn failed(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::AutoOffsetReset {
            self.stopped += 1;
            return self.look();
        }
        let consumer = &self.subscription.consumer;
        let why = self.consumer.context().reason().unwrap_or_else(|| code.to_string());
        match error::kind(code) {
            // The client goes on trying by itself.
            ErrorKind::Unavailable if code != Code::AllBrokersDown => {
                tracing::info!(target: "sillage_kafka", %consumer, %code, why, "receiving waits");
            }
            kind => {
                let sentence = format!("consumer `{consumer}` cannot receive: {why}");
                self.outbox.fail(Error::new(kind, sentence));
            }
        }
    }

    /// Leaves the group: what is stored is settled then.
    fn leave(mut self) {
        let hangs = self.hangs;
        if self.closes {
            self.outbox.close();
        }
        let consumer = self.consumer.clone();
        consumer.context().leave();
        for event in consumer.context().events() {
            match event {
                Event::Assigned(partitions) => self.arriving = Some(partitions),
                Event::Revoked { partitions, .. } => drop(self.assignments.revoke(partitions)),
                Event::Committed { .. } => {}
            }
        }
        // The group waits for these answers, and does not go on to the end without them.
        self.placed(vec![]);
        self.assignments.lose();
        if let Some(wanted) = self.assignments.returned() {
            self.give_back(&wanted);
        }
        drop(self);
        // Blocks until offsets are committed and the group knows.
        let leave = move || drop(consumer);
        if hangs {
            // Which may be never.
            drop(thread::Builder::new().name("kafka-hung".into()).spawn(leave));
        } else {
            leave();
        }
    }
}
