//! A whole shop in memory and in virtual time: nothing here waits for a real clock or a network.

use shop::{
    audit::{Evidence, Orders, Report, Source},
    customer::{Customer, register},
    email::Mailer,
    events::{CreateOrder, Item},
    gateway::{Faults, Gateway},
    ids::{CustomerId, OrderId},
    inventory,
    money::Card,
    order::{Order, OrderCommand, OrderView, PaymentTerm, Status},
    parts::{Flow, Needs, Part, assemble},
};
use sillage::{App, Clock as _, Database, Running, Text, admin::Admin, hours, ms};
use sillage_testkit::{Memory, TokioClock};
use std::sync::Arc;
use tempfile::TempDir;

/// A shop of which everything is in hand.
pub(crate) struct World {
    pub(crate) clock: TokioClock,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) gateway: Gateway,
    pub(crate) running: Running,
    letters: TempDir,
}

impl World {
    /// All services, one customer, full shelves.
    pub(crate) async fn open() -> World {
        World::of(Flow::Choreography).await
    }

    /// The same, in this flow.
    pub(crate) async fn of(flow: Flow) -> World {
        let clock = TokioClock::default();
        let database: Arc<dyn Database> = Arc::new(Memory::new(Arc::new(clock)));
        let gateway = Gateway::in_memory();
        let letters = tempfile::tempdir().unwrap();
        let mailer = Mailer::folder(letters.path()).unwrap();
        let needs = Needs {
            gateway: gateway.clone(),
            mailer,
            term: PaymentTerm::default(),
            flow,
            failing: None,
        };
        let app = App::new(database.clone()).clock(Arc::new(clock));
        let running = assemble(app, &Part::all(), &needs).start().await.unwrap();
        inventory::fill_shelves(&running.service("inventory")).await.unwrap();
        World { clock, database, gateway, running, letters }
    }

    pub(crate) fn customer() -> CustomerId {
        "ann".parse().unwrap()
    }

    /// Registers the one customer.
    pub(crate) async fn register(&self) {
        let (name, email) = ("Ann Ahoy".to_owned(), "ann@example.com".to_owned());
        let customer = Customer { customer_id: World::customer(), name, email };
        self.running.service("customer").commit(register(customer)).await.unwrap();
    }

    /// Places an order of one of each product.
    pub(crate) async fn place(&self, key: &str, products: &[&str], card: Card) -> OrderId {
        let order_id = OrderId::of_key(key);
        let item = |id: &&str| Item { product_id: id.parse().unwrap(), quantity: 1 };
        let items = products.iter().map(item).collect();
        let create = CreateOrder { order_id, customer_id: World::customer(), items, card };
        let orders = self.running.service("order");
        orders.execute::<Order>(order_id, OrderCommand::Create(create)).await.unwrap();
        order_id
    }

    pub(crate) async fn gateway_down(&self, down: bool) {
        self.gateway.misbehave(&Faults { down, ..Faults::default() }).await.unwrap();
    }

    /// What its customer sees of an order.
    pub(crate) async fn see(&self, order_id: OrderId) -> OrderView {
        let view = self.running.view::<OrderView>("order");
        view.get(order_id).await.unwrap().unwrap_or_default()
    }

    /// Waits until the order's customer sees this.
    pub(crate) async fn until(&self, order_id: OrderId, status: Status) -> OrderView {
        let end = self.clock.elapsed() + hours(2);
        loop {
            let view = self.see(order_id).await;
            if view.status == status {
                return view;
            }
            assert!(self.clock.elapsed() < end, "never {status:?}: {view:#?}");
            self.clock.sleep(ms(20)).await;
        }
    }

    /// Waits until everything adds up.
    pub(crate) async fn settled(&self) -> Report {
        self.settled_with(|_| true).await
    }

    /// Waits until everything adds up and the report says so.
    pub(crate) async fn settled_with(&self, says: impl Fn(&Report) -> bool) -> Report {
        let end = self.clock.elapsed() + hours(2);
        loop {
            let report = self.audit().await;
            if report.holds() && says(&report) {
                return report;
            }
            assert!(self.clock.elapsed() < end, "{report:#?} {:?}", self.running.health());
            self.clock.sleep(ms(20)).await;
        }
    }

    /// The operator.
    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.database.clone(), "test").clock(Arc::new(self.clock))
    }

    /// Waits for a dead letter of this consumer, and names it.
    pub(crate) async fn dead_letter(&self, consumer: &str) -> Text {
        let end = self.clock.elapsed() + hours(2);
        loop {
            let dead = self.admin().dead_letters(Some(consumer), false).await.unwrap();
            if let Some(dead) = dead.into_iter().next() {
                return dead.id;
            }
            assert!(self.clock.elapsed() < end, "no dead letter of {consumer}");
            self.clock.sleep(ms(20)).await;
        }
    }

    async fn audit(&self) -> Report {
        let ledger = Source::Gateway(self.gateway.clone());
        let orders = Orders::default();
        let databases = std::slice::from_ref(&self.database);
        let evidence = Evidence::gather(databases, orders, &ledger, self.letters.path()).await;
        Report::of(&evidence.unwrap(), &[])
    }
}

/// The names of what happened to an order, in order.
pub(crate) fn names(view: &OrderView) -> Vec<&str> {
    view.timeline.iter().map(|moment| moment.event.as_str()).collect()
}
