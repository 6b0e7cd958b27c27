//! Every order in which one order's deliveries can be handled, searched through to the end.
//!
//! The handlers are the real ones; broker, timer and crashes are a few lines here. A consumer
//! handles the deliveries of a topic in order, and those of two topics in any; dunning gives the order
//! up at any moment, also when it is paid; once, anywhere, a process may die after its handler has run and
//! before its commit. In each end that is reached, the shop must add up.

use crate::{
    catalog::{PRODUCTS, SOLD_OUT},
    events::{CancelOrder, CreateOrder, Item, OrderCreated, PaymentCompleted, Why},
    gateway::{Entry, Gateway},
    ids::OrderId,
    inventory::{self, Stock},
    money::Card,
    order::{self, Order, OrderCommand, OrderEvent},
    payment,
    shipping::{self, Shipment},
};
use sillage::{
    BoxFuture, Commit, Database, Draft, Effect, Events as _, Handler, Input, Message, MessageId,
    Outcome, States, Text, Version, Write, prelude::*,
};
use sillage_testkit::{ManualClock, Memory};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt::Write as _,
    sync::Arc,
};

/// What `__private::context` calls the service.
const SERVICE: &str = "test";

type Run = Box<dyn Fn(Arc<Message>, Arc<dyn Database>, Gateway) -> Handling>;
type Handling = BoxFuture<'static, Result<Effects, Failure>>;
/// A consumer and a topic.
type Lane = (&'static str, &'static str);

struct Route {
    lane: Lane,
    event: &'static str,
    run: Run,
}

fn route<H, Args: 'static>(consumer: &'static str, handler: H) -> Route
where
    H: Handler<Args, Message: Input, Rest: sillage::Extract, Output: Outcome, Future: Send>,
{
    let run = move |message, database, gateway: Gateway| -> Handling {
        let handler = handler.clone();
        let mut states = States::default();
        states.insert(gateway);
        let context = sillage::__private::context(message, 1, states, Some(database));
        Box::pin(async move { sillage::__private::run(&handler, &context).await })
    };
    let topic = <H::Message as Input>::FROM.unwrap();
    let event = <H::Message as Input>::ACCEPTS.unwrap();
    Route { lane: (consumer, topic), event, run: Box::new(run) }
}

fn routes() -> Vec<Route> {
    vec![
        route("order", order::give_up),
        route("order", order::paid),
        route("order", order::declined),
        route("order", order::refunded),
        route("order", order::shipped),
        route("payment", payment::take_payment),
        route("payment", payment::refund_short),
        route("payment", payment::refund_cancelled),
        route("inventory", inventory::ordered),
        route("inventory", inventory::paid),
        route("inventory", inventory::cancelled),
        route("inventory", inventory::shipped),
        route("shipping", shipping::paid),
        route("shipping", shipping::reserved),
        route("shipping", shipping::short),
        route("shipping", shipping::cancelled),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next delivery of a lane is handled.
    Handle(Lane),
    /// The same, but the process dies before the commit.
    Crash(Lane),
    /// Dunning gives up.
    Timer,
}

/// One order on its way, and everything that is known of it.
struct World {
    database: Arc<dyn Database>,
    gateway: Gateway,
    lanes: BTreeMap<Lane, VecDeque<Arc<Message>>>,
    timer: Option<Draft>,
    published: BTreeMap<Text, usize>,
    crashes: usize,
    trouble: Option<String>,
}

impl World {
    /// Full shelves, and an order just placed.
    async fn new(routes: &[Route], card: Card, product: &str) -> World {
        let database: Arc<dyn Database> = Arc::new(Memory::new(Arc::new(ManualClock::default())));
        let mut world = World {
            database,
            gateway: Gateway::in_memory(),
            lanes: BTreeMap::new(),
            timer: None,
            published: BTreeMap::new(),
            crashes: 0,
            trouble: None,
        };
        for product in PRODUCTS.iter().filter(|product| matches!(product.id, "bell" | SOLD_OUT)) {
            let (product_id, on_hand) = (product.id.parse().unwrap(), product.initial_stock);
            let stock = Stock { product_id, on_hand, reserved: 0, shipped: 0 };
            world.apply(routes, put(stock)).await;
        }
        let items = vec![Item { product_id: product.parse().unwrap(), quantity: 2 }];
        let (order_id, customer_id) = (order_id(), "ann".parse().unwrap());
        let create = CreateOrder { order_id, customer_id, items, card };
        let events = Order::initial().decide(OrderCommand::Create(create)).unwrap();
        let placed = append(format!("order-{order_id}"), sillage::Expected::NoStream, &events);
        world.apply(routes, placed).await;
        world.timer = Some(Draft::of(&CancelOrder { order_id, why: Why::Unpaid }));
        world
    }

    fn steps(&self) -> Vec<Step> {
        let waiting = self.lanes.iter().filter(|(_, lane)| !lane.is_empty());
        let lanes: Vec<_> = waiting.map(|(lane, _)| *lane).collect();
        let mut steps: Vec<_> = lanes.iter().copied().map(Step::Handle).collect();
        if self.crashes == 0 {
            steps.extend(lanes.into_iter().map(Step::Crash));
        }
        steps.extend(self.timer.as_ref().map(|_| Step::Timer));
        steps
    }

    async fn step(&mut self, routes: &[Route], step: Step) {
        let (lane, dies) = match step {
            Step::Handle(lane) => (lane, false),
            Step::Crash(lane) => (lane, true),
            Step::Timer => {
                let due = self.timer.take().unwrap();
                return self.publish(routes, &due);
            }
        };
        let message = self.lanes[&lane].front().unwrap().clone();
        let takes = |route: &&Route| route.lane == lane && *route.event == *message.name;
        let route = routes.iter().find(takes).unwrap();
        let handled = (route.run)(message.clone(), self.database.clone(), self.gateway.clone());
        let handled = handled.await;
        if dies {
            self.crashes += 1;
            return;
        }
        self.lanes.get_mut(&lane).unwrap().pop_front();
        match handled {
            Ok(effects) => self.apply(routes, effects).await,
            Err(failure) => {
                self.trouble = Some(format!("{} at {}: {failure}", message.name, lane.0));
            }
        }
    }

    async fn apply(&mut self, routes: &[Route], effects: Effects) {
        let mut writes = vec![];
        for effect in effects {
            match effect {
                Effect::Publish(draft) => self.publish(routes, &draft),
                Effect::Append { stream, events, .. } => {
                    let stream: Text = format!("{SERVICE}/{stream}").into();
                    for event in events {
                        let message = self.message(&event);
                        writes.push(Write::Append { stream: Some(stream.clone()), message });
                        self.publish(routes, &event);
                    }
                }
                Effect::Put { collection, id, body, .. } => {
                    let collection = format!("{SERVICE}/{collection}").into();
                    let (id, body) = (id.into(), body.unwrap());
                    writes.push(Write::Put { collection, id, sort: None, body });
                }
                other => panic!("the shop has no such effect: {other:?}"),
            }
        }
        let commit = Commit { conditions: vec![], writes };
        self.database.commit(vec![commit]).await.remove(0).unwrap();
    }

    fn publish(&mut self, routes: &[Route], draft: &Draft) {
        let message = self.message(draft);
        *self.published.entry(draft.name.clone()).or_default() += 1;
        for route in routes.iter().filter(|route| *route.event == *draft.name) {
            self.lanes.entry(route.lane).or_default().push_back(message.clone());
        }
    }

    /// Named by what it is, so that two ways to the same state are seen to be the same.
    fn message(&self, draft: &Draft) -> Arc<Message> {
        let count = self.published.get(&draft.name).copied().unwrap_or(0);
        Arc::new(Message {
            id: MessageId::new(format!("{}-{count}", draft.name)),
            source: SERVICE.into(),
            name: draft.name.clone(),
            version: draft.version,
            topic: draft.topic.clone(),
            key: draft.key.clone(),
            time: Timestamp::default(),
            correlation_id: "c".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: draft.payload.clone().unwrap(),
        })
    }

    async fn documents(&self, collection: &str) -> Vec<(Text, bytes::Bytes)> {
        let all = sillage::Range::Ids { prefix: "", after: "" };
        let found = self.database.list(&format!("{SERVICE}/{collection}"), all, 100).await;
        found.unwrap().into_iter().map(|stored| (stored.id, stored.body)).collect()
    }

    /// Everything that what comes next can depend on.
    async fn state(&self) -> String {
        let mut state = format!("{} {:?} ", self.crashes, self.timer.is_some());
        for (lane, messages) in &self.lanes {
            let names: Vec<_> = messages.iter().map(|message| &message.name).collect();
            let _ = write!(state, "{lane:?}{names:?} ");
        }
        for collection in ["payments", "reservations", "shipments", "stock"] {
            let _ = write!(state, "{:?} ", self.documents(collection).await);
        }
        let _ = write!(state, "{:?} {:?}", self.events().await, self.published);
        let _ = write!(state, "{:?}", self.gateway.ledger().await.unwrap());
        state
    }

    async fn events(&self) -> Vec<OrderEvent> {
        let stream = format!("{SERVICE}/order-{}", order_id());
        let entries = self.database.stream(&stream, Version(0), 100).await.unwrap();
        let read = |entry: sillage::Recorded| {
            OrderEvent::read(&entry.name, entry.body.version, &entry.payload).unwrap()
        };
        entries.into_iter().map(read).collect()
    }

    /// What is wrong once nothing more can happen.
    async fn wrong(&self) -> Option<String> {
        let events = self.events().await;
        let completed = events.iter().filter(|e| matches!(e, OrderEvent::Completed(_))).count();
        let cancelled = events.iter().filter(|e| matches!(e, OrderEvent::Cancelled(_))).count();
        if completed + cancelled != 1 {
            return Some(format!("{completed} times completed, {cancelled} times cancelled"));
        }
        let Some(OrderEvent::Created(OrderCreated { total, .. })) = events.first() else {
            return Some("never placed".into());
        };
        let (mut charges, mut kept) = (0, 0);
        for entry in self.gateway.ledger().await.unwrap() {
            match entry {
                Entry::Charge { amount, .. } => {
                    (charges, kept) = (charges + 1, kept + amount.minor);
                }
                Entry::Refund { amount, .. } => kept -= amount.minor,
                Entry::Decline { .. } => {}
            }
        }
        let due = if completed == 1 { total.minor } else { 0 };
        if charges > 1 || kept != due {
            return Some(format!("{charges} charges; {kept} is kept, {due} is due"));
        }
        for (_, body) in self.documents("stock").await {
            let stock: Stock = serde_json::from_slice(&body).unwrap();
            let initial = PRODUCTS.iter().find(|p| p.id == stock.product_id.as_str()).unwrap();
            let sold = if completed == 1 && initial.id == "bell" { 2 } else { 0 };
            let sum = stock.on_hand + stock.reserved + stock.shipped;
            if (sum, stock.reserved, stock.shipped) != (initial.initial_stock, 0, sold) {
                return Some(format!("{stock:?}, {sold} sold"));
            }
        }
        None
    }
}

fn order_id() -> OrderId {
    OrderId::of_key("one")
}

/// What a search found: how many different states, and the first end that is wrong.
struct Found {
    states: usize,
    ends: HashSet<&'static str>,
    wrong: Option<(String, Vec<Step>)>,
}

async fn search(routes: &[Route], card: Card, product: &str) -> Found {
    let (mut seen, mut ends) = (HashSet::new(), HashSet::new());
    let mut open = vec![vec![]];
    while let Some(path) = open.pop() {
        let mut world = World::new(routes, card.clone(), product).await;
        for step in &path {
            world.step(routes, *step).await;
        }
        if !seen.insert(world.state().await) {
            continue;
        }
        let steps = world.steps();
        let over = steps.is_empty().then_some(());
        let wrong = match (world.trouble.clone(), over) {
            (None, Some(())) => world.wrong().await,
            (trouble, _) => trouble,
        };
        if let Some(wrong) = wrong {
            return Found { states: seen.len(), ends, wrong: Some((wrong, path)) };
        }
        if over.is_some() {
            ends.insert(match world.events().await.last() {
                Some(OrderEvent::Completed(_)) => "completed",
                Some(OrderEvent::Cancelled(order)) => order.why.word(),
                _ => "neither",
            });
        }
        open.extend(steps.into_iter().map(|step| [path.clone(), vec![step]].concat()));
    }
    Found { states: seen.len(), ends, wrong: None }
}

/// Searches; the ends must be sound, and just these.
async fn sound(card: Card, product: &str, ends: &[&str]) {
    let found = search(&routes(), card, product).await;
    assert_eq!(found.wrong, None);
    assert_eq!(found.ends, ends.iter().copied().collect());
    assert!(found.states > 100, "only {} states", found.states);
}

#[tokio::test]
async fn an_order_in_stock_is_completed_or_too_late_and_always_adds_up() {
    sound(Card::accepted(), "bell", &["completed", "unpaid"]).await;
}

#[tokio::test]
async fn an_order_that_is_short_always_adds_up() {
    sound(Card::accepted(), SOLD_OUT, &["out-of-stock", "unpaid"]).await;
}

#[tokio::test]
async fn a_declined_order_always_adds_up() {
    sound(Card::declined(), "bell", &["declined", "unpaid"]).await;
}

/// The obvious join, and a wrong one: the payment may have come too late.
async fn hasty(payment: PaymentCompleted, Load(known): Load<Shipment>) -> Effects {
    Shipment { paid: true, ..Shipment::of(known, payment.order_id) }.advance()
}

#[tokio::test]
async fn the_search_finds_a_parcel_that_leaves_before_the_order_took_its_payment() {
    let mut routes = routes();
    routes.retain(|route| route.lane != ("shipping", "order"));
    routes.push(route("shipping", shipping::cancelled));
    routes.push(route("shipping", hasty));
    let found = search(&routes, Card::accepted(), "bell").await;
    assert!(found.wrong.is_some(), "{} states, and nothing found", found.states);
}

#[tokio::test]
async fn the_search_finds_a_late_payment_that_is_kept() {
    let mut routes = routes();
    routes.retain(|route| route.lane != ("payment", "order") || route.event != "order.cancelled");
    let found = search(&routes, Card::accepted(), "bell").await;
    assert!(found.wrong.unwrap().0.contains("is kept, 0 is due"));
}
