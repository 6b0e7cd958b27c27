//! Deciders, documents, projections and timers, on the reference database with virtual time.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created};
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, Database as _, ExecuteError, Filter, ReadError, prelude::*};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "seat.taken")]
struct Taken {
    #[event(key)]
    row: String,
    seat: u32,
}

#[derive(Events, Clone, Debug, PartialEq)]
enum RowEvent {
    Taken(Taken),
}

#[derive(Clone, Debug, Default)]
struct Row {
    taken: Vec<u32>,
}

#[derive(Debug, PartialEq)]
struct Full;

impl Decider for Row {
    const STREAM: &'static str = "row";
    type Command = String;
    type Event = RowEvent;
    type Refusal = Full;
    fn initial() -> Self {
        Row::default()
    }
    fn decide(&self, row: String) -> Result<Vec<RowEvent>, Full> {
        let seat = u32::try_from(self.taken.len()).unwrap();
        if seat == 100 { Err(Full) } else { Ok(vec![Taken { row, seat }.into()]) }
    }
    fn evolve(mut self, event: &RowEvent) -> Self {
        let RowEvent::Taken(taken) = event;
        self.taken.push(taken.seat);
        self
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_on_one_stream_share_a_few_batches() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("hall")).await;
    harness.settle().await;
    let before = harness.memory.batches();
    let calls = (0..100).map(|_| {
        let hall = app.service("hall");
        tokio::spawn(async move { hall.execute::<Row>("a", "a".to_owned()).await.unwrap() })
    });
    let mut seats = vec![];
    for call in calls.collect::<Vec<_>>() {
        let RowEvent::Taken(taken) = call.await.unwrap().events.remove(0);
        seats.push(taken.seat);
    }
    let batches = harness.memory.batches() - before;
    seats.sort_unstable();
    assert_eq!(seats, (0..100).collect::<Vec<_>>());
    assert!(batches <= 5, "{batches} batches");
    let full = app.service("hall").execute::<Row>("a", "a".to_owned()).await;
    assert!(matches!(full, Err(ExecuteError::Refused(Full))));
    app.drain().await;
}

/// Two apps stand for two processes: conflicts are decided again, nothing is given out twice.
#[tokio::test(start_paused = true)]
async fn two_processes_execute_on_one_stream() {
    let harness = Harness::new();
    let apps = [
        harness.start_service(Service::new("hall")).await,
        harness.start_service(Service::new("hall")).await,
    ];
    let calls = (0..100).map(|n| {
        let hall = apps[n % 2].service("hall");
        tokio::spawn(async move { hall.execute::<Row>("a", "a".to_owned()).await.unwrap() })
    });
    let mut seats = vec![];
    for call in calls.collect::<Vec<_>>() {
        let RowEvent::Taken(taken) = call.await.unwrap().events.remove(0);
        seats.push(taken.seat);
    }
    seats.sort_unstable();
    assert_eq!(seats, (0..100).collect::<Vec<_>>());
    for app in apps {
        app.drain().await;
    }
}

/// The database applied a commit and could not say so: nothing is decided, or changed, twice.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_not_doubled() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("hall")).await;
    let hall = app.service("hall");
    harness.settle().await;
    for seat in 0..3 {
        harness.memory.fail_after_apply(1);
        let taken = hall.execute::<Row>("a", "a".to_owned()).await.unwrap();
        assert_eq!(taken.version, sillage::Version(seat + 1));
        harness.memory.fail_after_apply(1);
        let add = |count: Option<Count>| {
            let before = count.map_or(0, |count| count.count);
            put(Count { id: "all".into(), count: before + 1 })
        };
        hall.update::<Count, _>("all", add).await.unwrap();
    }
    let stream = harness.memory.stream("hall/row-a", sillage::Version(0), 100).await.unwrap();
    assert_eq!(stream.len(), 3);
    assert_eq!(hall.load::<Count>("all").await.unwrap().unwrap().count, 3);
    app.drain().await;
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "counts")]
struct Count {
    #[document(id)]
    id: String,
    count: u32,
}

fn counts() -> Projection<Count> {
    Projection::<Count>::new("counts", 1)
        .on::<Created>(|view, order| {
            view.id.clone_from(&order.order_id);
            view.count += 1;
        })
        .delete_on::<Invoiced>()
}

#[tokio::test(start_paused = true)]
async fn a_view_shows_what_was_committed_and_only_what_the_service_may_see() {
    let harness = Harness::new();
    let service = Service::new("shop").projection(counts());
    let app = harness.start_service(service).await;
    let (shop, view) = (app.service("shop"), app.view::<Count>("shop"));
    shop.commit(publish(created("a"))).await.unwrap();
    let done = shop.commit(publish(created("a"))).await.unwrap();
    let read = view.get("a").at_least(done.position).await.unwrap().unwrap();
    assert_eq!(read.count, 2);
    // Somebody else's event of the same name, on a topic that is not followed.
    let payload = serde_json::to_string(&created("a")).unwrap();
    harness.garbage_named("order", "order.created", "a", &payload).await;
    let done = shop.commit(publish(Invoiced { order_id: "b".into() })).await.unwrap();
    view.wait_for(done.position, secs(10)).await.unwrap();
    assert_eq!(view.get("a").await.unwrap().unwrap().count, 2);
    let done = shop.commit(publish(Invoiced { order_id: "a".into() })).await.unwrap();
    assert_eq!(view.get("a").at_least(done.position).within(secs(10)).await.unwrap(), None);
    app.drain().await;
    // After a restart it goes on where it was.
    let service = Service::new("shop").projection(counts()).follow(["order"]);
    let app = harness.start_service(service).await;
    harness.garbage_named("order", "order.created", "a", &payload).await;
    let head = harness.memory.head().await.unwrap().last;
    let read = app.view::<Count>("shop").get("a").at_least(head).within(secs(10)).await;
    assert_eq!(read.unwrap().unwrap().count, 1);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_in_vain_says_why() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").projection(counts())).await;
    let view = app.view::<Count>("shop");
    let unknown = view.get("a").at_least(Position(99_999)).await;
    assert!(matches!(unknown, Err(ReadError::Unknown)));
    app.drain().await;
    let done = app.service("shop").commit(publish(created("a"))).await.unwrap();
    let stale = view.get("a").at_least(done.position).within(secs(5)).await;
    assert!(matches!(stale, Err(ReadError::Stale { behind }) if behind > 0), "{stale:?}");
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_pauses_the_projection_and_says_so() {
    let harness = Harness::new();
    let service = Service::new("shop").projection(counts()).follow(["order"]);
    let app = harness.start_service(service).await;
    let shop = app.service("shop");
    shop.commit(publish(created("a"))).await.unwrap();
    harness.garbage("a", "garbage").await;
    let after = shop.commit(publish(created("a"))).await.unwrap();
    harness.until(|| async { !app.health().ready }).await;
    assert!(app.health().problems[0].contains("paused at position"), "{:?}", app.health());
    let view = app.view::<Count>("shop");
    assert_eq!(view.get("a").await.unwrap().unwrap().count, 1);
    assert!(view.get("a").at_least(after.position).await.is_err());
    app.drain().await;
}

async fn remind(order: Created) -> Effects {
    schedule(after(mins(15)), "unpaid", Invoiced { order_id: order.order_id })
}

fn reminding(log: &Probe) -> Consumer {
    let log = log.clone();
    let due = move |due: Invoiced| {
        let log = log.clone();
        async move { log.note(&due.order_id) }
    };
    Consumer::new("reminders").on(remind).on(due)
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_once_when_it_is_due_and_not_when_cancelled() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.paid")]
    struct Paid {
        #[event(key)]
        order_id: String,
    }
    async fn paid(_: Paid) -> Effects {
        cancel("unpaid")
    }
    let (harness, log) = (Harness::new(), Probe::default());
    let apps = [
        harness.start(reminding(&log).on(paid)).await,
        harness.start(reminding(&log).on(paid)).await,
    ];
    let shop = apps[0].service("shop");
    let both = publish(created("late")).and(publish(created("paid")));
    shop.commit(both).await.unwrap();
    harness.until(|| async { harness.admin().timers(9).await.unwrap().len() == 2 }).await;
    harness.clock.sleep(mins(14)).await;
    assert!(log.notes().is_empty());
    shop.commit(publish(Paid { order_id: "paid".into() })).await.unwrap();
    harness.clock.sleep(mins(30)).await;
    assert_eq!(log.notes(), ["late"]);
    assert!(harness.admin().timers(9).await.unwrap().is_empty());
    for app in apps {
        app.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_came_due_while_nothing_ran_fires_after_the_start() {
    let (harness, log) = (Harness::new(), Probe::default());
    let app = harness.start(reminding(&log)).await;
    app.service("shop").commit(publish(created("o"))).await.unwrap();
    harness.until(|| async { !harness.admin().timers(9).await.unwrap().is_empty() }).await;
    app.drain().await;
    harness.clock.sleep(hours(2)).await;
    let app = harness.start(reminding(&log)).await;
    log.reached("o").await;
    harness.settle().await;
    assert_eq!(log.notes(), ["o"]);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn mistakes_in_an_app_are_told_before_it_starts() {
    async fn needs_state(_: Created, State(_): State<u8>) {}
    async fn plain(_: Created) {}
    let harness = Harness::new();
    let consumer = Consumer::new("Billing").on(needs_state).on(plain);
    let app = App::new(harness.database())
        .service(Service::new("shop").consumer(consumer).consumer(Consumer::new("empty")));
    let told = app.check().unwrap_err().to_string();
    for part in
        ["State<u8>", "two handlers for `order.created`", "`Billing`", "`empty` has no topic"]
    {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
    let head = harness.memory.log(Position(0), &Filter::default(), 1).await.unwrap();
    assert!(head.entries.is_empty());
}
