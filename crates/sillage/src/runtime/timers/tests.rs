//! Random schedules on virtual time, with pumps that die and come back and commits that fail.

use super::*;
use crate::runtime::{
    assemble::{Cause, Origin, foreign},
    member::Control,
};
use proptest::prelude::*;
use sillage_core::{Draft, Due, Effect, Effects, Filter, Header, Key, Position, Text};
use sillage_testkit::{Memory, MemoryBroker, TokioClock};
use std::collections::HashMap;
use tokio::{sync::watch, task::JoinHandle};

const TOKENS: usize = 4;
const PUMPS: usize = 2;

/// What happens.
#[derive(Clone, Debug)]
enum Act {
    /// A handler cancels a timer, sets it, or does both in one commit.
    Commit {
        token: usize,
        cancel: bool,
        delay: Option<Duration>,
    },
    Pass(Duration),
    /// A process dies, as by SIGKILL.
    Kill(usize),
    Start(usize),
    /// A commit fails, or its answer is lost.
    Fail {
        applied: bool,
    },
}

/// Whole seconds, so that much happens at the same moment.
fn seconds(most: u64) -> impl Strategy<Value = Duration> {
    (0..most).prop_map(Duration::from_secs)
}

fn act() -> impl Strategy<Value = Act> {
    let delay = prop::option::weighted(0.8, seconds(10));
    prop_oneof![
        6 => (0..TOKENS, any::<bool>(), delay)
            .prop_map(|(token, cancel, delay)| Act::Commit { token, cancel, delay }),
        5 => seconds(5).prop_map(Act::Pass),
        1 => (0..PUMPS).prop_map(Act::Kill),
        2 => (0..PUMPS).prop_map(Act::Start),
        1 => any::<bool>().prop_map(|applied| Act::Fail { applied }),
    ]
}

/// A timer as it was set.
#[derive(Clone, Copy, Debug)]
struct Set {
    due: Timestamp,
    /// When it was cancelled or set anew.
    gone: Option<Timestamp>,
}

struct World {
    memory: Memory,
    clock: Arc<TokioClock>,
    pumps: [Option<JoinHandle<()>>; PUMPS],
    /// By token: the name of what is published.
    current: [Option<Text>; TOKENS],
    sets: HashMap<Text, Set>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TokioClock::default());
        let memory = Memory::new(clock.clone());
        let (pumps, current) = ([const { None }; PUMPS], [const { None }; TOKENS]);
        World { memory, clock, pumps, current, sets: HashMap::new() }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Commit { token, cancel, delay } => self.commit(token, cancel, delay).await,
            Act::Pass(time) => self.clock.sleep(time).await,
            Act::Kill(pump) => self.kill(pump).await,
            Act::Start(pump) => self.start(pump),
            Act::Fail { applied: true } => self.memory.fail_after_apply(1),
            Act::Fail { applied: false } => self.memory.fail_next(1),
        }
    }

    fn start(&mut self, pump: usize) {
        if self.pumps[pump].is_none() {
            self.pumps[pump] = Some(tokio::spawn(self.pump(vec![]).run()));
        }
    }

    fn pump(&self, gates: Vec<Gate>) -> Pump {
        let database: Arc<dyn Database> = Arc::new(self.memory.clone());
        Pump {
            committer: Committer::start(database.clone()),
            database,
            clock: self.clock.clone(),
            vital: Arc::default(),
            stop: CancellationToken::new(),
            gates,
        }
    }

    /// How often a message of that name was published.
    async fn published(&self, name: &str) -> usize {
        let fired = Filter { names: vec![name.into()], ..Filter::default() };
        self.memory.log(Position(0), &fired, 1_000).await.unwrap().entries.len()
    }

    async fn put(&self, effect: Effect) {
        let (service, now) = (Text::from("shop"), self.clock.now());
        let origin = Origin { service: &service, now, cause: None };
        let commit = origin.commit(Effects::one(effect), vec![]).unwrap();
        self.memory.commit(vec![commit]).await.pop().unwrap().unwrap();
    }

    async fn kill(&mut self, pump: usize) {
        if let Some(running) = self.pumps[pump].take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// A handler's commit, made elsewhere: no pump is told of it.
    async fn commit(&mut self, token: usize, cancel: bool, delay: Option<Duration>) {
        let name = Text::from(format!("timer.{}", self.sets.len()));
        let mut effects = Effects::none();
        if cancel {
            effects =
                effects.and(Effects::one(Effect::Cancel { token: token.to_string(), key: None }));
        }
        if let Some(delay) = delay {
            let (due, message) = (Due::After(delay), draft(&name));
            let token = token.to_string();
            effects = effects.and(Effects::one(Effect::Schedule { due, token, message }));
        }
        // Each is caused by a message of its own, as else the ids would be the same.
        let message = foreign("test", draft("order.created"), self.clock.now()).unwrap();
        let (service, cause) = (Text::from("shop"), Cause { message: &message, consumer: "x" });
        let now = self.clock.now();
        let origin = Origin { service: &service, now, cause: Some(cause) };
        let commit = origin.commit(effects, vec![]).unwrap();
        while self.memory.commit(vec![commit.clone()]).await.pop().unwrap().is_err() {}
        let replaced = (cancel || delay.is_some()).then(|| self.current[token].take()).flatten();
        if let Some(gone) = replaced {
            self.sets.get_mut(&gone).unwrap().gone = Some(now);
        }
        if let Some(delay) = delay {
            self.current[token] = Some(name.clone());
            self.sets.insert(name, Set { due: now + delay, gone: None });
        }
    }

    async fn check(&self, is_calm: bool) -> Result<(), TestCaseError> {
        let page = self.memory.log(Position(0), &Filter::default(), 10_000).await.unwrap();
        let mut fired: HashMap<Text, Vec<Timestamp>> = HashMap::new();
        for entry in &page.entries {
            fired.entry(entry.name.clone()).or_default().push(entry.time);
        }
        for (name, set) in &self.sets {
            let times = fired.get(name).map_or(&[][..], Vec::as_slice);
            let early = times.iter().any(|time| *time < set.due);
            let late = is_calm && times.iter().any(|time| *time > set.due + POLL);
            let once = times.len() <= 1 && !early && !late;
            prop_assert!(once, "{name}: {set:?} fired at {times:?}");
            match set.gone {
                None => prop_assert_eq!(times.len(), 1, "{} did not fire: {:?}", name, set),
                Some(gone) if gone < set.due => {
                    prop_assert_eq!(times.len(), 0, "{} was gone: {:?}", name, set);
                }
                // It may have fired before it was cancelled.
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn draft(name: &str) -> Draft {
    let (key, payload) = (Some(Key::of("o-1")), Ok("{}".into()));
    let (topic, operation_id, headers) = (Some("order".into()), None, vec![]);
    Draft { name: name.into(), version: 1, topic, key, operation_id, headers, payload }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever dies and fails, and whoever pumps beside: a timer that was neither cancelled nor
    /// set anew fires once, and none before it is due; where all is well, none a second late.
    #[test]
    fn each_timer_fires_once(is_calm: bool, acts in prop::collection::vec(act(), 1..60)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.start(0);
            for act in acts {
                if !is_calm || matches!(act, Act::Commit { .. } | Act::Pass(_) | Act::Start(_)) {
                    world.act(act).await;
                }
            }
            world.start(1);
            world.clock.sleep(Duration::from_secs(15)).await;
            world.check(is_calm).await
        })?;
    }
}

/// Between the moment a pump reads a timer and its commit, the timer is cancelled and set anew.
#[tokio::test(start_paused = true)]
async fn a_timer_set_anew_is_not_taken_for_the_one_that_was_read() {
    let delay = Some(Duration::from_secs(5));
    let mut world = World::new();
    world.commit(0, false, delay).await;
    world.clock.sleep(Duration::from_secs(5)).await;
    let read = world.memory.list(names::TIMERS, Range::Due, 1).await.unwrap();
    world.commit(0, true, None).await;
    world.commit(0, false, delay).await;
    let commit = firing(&read[0], world.clock.now()).unwrap();
    let answer = world.memory.commit(vec![commit]).await.pop().unwrap();
    assert!(matches!(answer, Err(CommitError::Fenced)), "{answer:?}");
    world.start(0);
    world.clock.sleep(Duration::from_secs(6)).await;
    world.check(true).await.unwrap();
}

/// A timer of the service, so long from now.
fn set(number: usize, delay: Duration) -> Commit {
    let effect = Effect::Schedule {
        due: Due::After(delay),
        token: number.to_string(),
        message: draft("timer.due"),
    };
    let (service, now) = (Text::from("shop"), Timestamp::default());
    Origin { service: &service, now, cause: None }.commit(Effects::one(effect), vec![]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn however_many_wait_a_second_costs_one_query_and_a_due_batch_one() {
    let mut world = World::new();
    let pending = (0..100_000).map(|number| set(number, Duration::from_secs(3_600)));
    world.memory.commit(pending.collect()).await;
    world.start(0);
    world.clock.sleep(Duration::from_secs(2)).await;
    let before = world.memory.reads();
    world.clock.sleep(Duration::from_secs(60)).await;
    let asked = world.memory.reads() - before;
    assert!(asked <= 60, "{asked} queries in a minute");
    let due = (0..200).map(|number| set(100_000 + number, Duration::from_secs(10)));
    world.memory.commit(due.collect()).await;
    let before = world.memory.reads();
    world.clock.sleep(Duration::from_secs(20)).await;
    let fired = Filter { names: vec!["timer.due".into()], ..Filter::default() };
    let page = world.memory.log(Position(0), &fired, 1_000).await.unwrap();
    assert_eq!(page.entries.len(), 200);
    // One each second, one for the batch, and then where the next one is: two.
    let asked = world.memory.reads() - before;
    assert!(asked <= 20 + 1 + 2 + 1, "{asked} queries for 200 timers");
}

/// As above, where it is set for a time that is over, or for the same time.
#[tokio::test(start_paused = true)]
async fn a_timer_set_anew_for_the_past_is_not_taken_for_the_one_that_was_read() {
    let delay = Duration::from_secs(5);
    for again in [delay, Duration::from_secs(1)] {
        let mut world = World::new();
        let at = |time| Effect::Schedule {
            due: Due::At(time),
            token: "0".into(),
            message: draft("timer.due"),
        };
        let start = world.clock.now();
        world.put(at(start + delay)).await;
        world.clock.sleep(delay).await;
        let read = world.memory.list(names::TIMERS, Range::Due, 1).await.unwrap();
        world.clock.sleep(Duration::from_millis(1)).await;
        world.put(Effect::Cancel { token: "0".into(), key: Some(Key::of("o-1")) }).await;
        world.put(at(start + again)).await;
        let commit = firing(&read[0], world.clock.now()).unwrap();
        let answer = world.memory.commit(vec![commit]).await.pop().unwrap();
        assert!(matches!(answer, Err(CommitError::Fenced)), "{answer:?}");
        world.start(0);
        world.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.published("timer.due").await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_whose_message_is_in_the_log_goes() {
    let world = World::new();
    let delay = Duration::from_secs(5);
    world.memory.commit(vec![set(0, delay)]).await;
    world.clock.sleep(delay).await;
    let stored = world.memory.list(names::TIMERS, Range::Due, 1).await.unwrap().remove(0);
    let mut pump = world.pump(vec![]);
    pump.fire(&mut Known::default()).await.unwrap();
    let Stored { id, body, .. } = stored;
    let sort = Some(sillage_core::Sort::After(Duration::ZERO));
    let writes = vec![Write::Put { collection: names::TIMERS.into(), id, sort, body }];
    world.memory.commit(vec![Commit { conditions: vec![], writes }]).await;
    pump.fire(&mut Known::default()).await.unwrap();
    assert_eq!(world.published("timer.due").await, 1);
    assert!(world.memory.list(names::TIMERS, Range::Due, 1).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_holds_the_timers_of_its_consumer_and_for_ten_minutes() {
    let (world, away) = (World::new(), MemoryBroker::new(1, true));
    away.set_silent(true);
    let pump = world.pump(vec![Gate {
        consumer: "shop/checkout".into(),
        topics: vec!["order".into()],
        broker: Arc::new(away),
        log: Arc::new(MemoryBroker::new(1, true)),
        control: watch::channel(Control::default()).1,
        state: GateState::default(),
    }]);
    let header = Header { name: tokens::TIMER.into(), value: "1 shop/checkout a".into() };
    let deadline = Draft { headers: vec![header], ..draft("saga.deadline") };
    let due = Due::After(Duration::from_secs(5));
    world.put(Effect::Schedule { due, token: "a".into(), message: deadline }).await;
    let message = draft("timer.due");
    world.put(Effect::Schedule { due, token: "b".into(), message }).await;
    let vital = pump.vital.clone();
    let running = tokio::spawn(pump.run());
    world.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!(world.published("timer.due").await, 1);
    assert_eq!(world.published("saga.deadline").await, 0);
    let told = vital.problems("timers", Duration::ZERO);
    assert!(told[0].contains("those of `shop/checkout` wait"), "{told:?}");
    world.clock.sleep(Duration::from_secs(590)).await;
    assert_eq!(world.published("saga.deadline").await, 0);
    world.clock.sleep(Duration::from_secs(20)).await;
    assert_eq!(world.published("saga.deadline").await, 1);
    assert!(vital.problems("timers", Duration::ZERO).is_empty());
    running.abort();
}
