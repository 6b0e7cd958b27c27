//! The inventory: how many of each product there are, and which are set aside for whom.
//!
//! ```text
//! order.created + payment.completed ─▶ reserve ─┬─▶ stock.reserved ──▶ shipping.shipped ─▶ gone
//!                                               │         └─ order.cancelled ─▶ stock.released
//!                                               └─▶ stock.short
//! ```
//!
//! What an order needs comes on one topic, that it was paid on another, in either order: both meet
//! in the order's [`Reservation`]. An order that is cancelled before they have met is closed, and
//! nothing is ever set aside for it.
//!
//! *Guarantees.* All products of an order change in one commit, each on the version that was read;
//! on hand + reserved + shipped of a product never changes.

use crate::{
    catalog::PRODUCTS,
    events::{
        Item, OrderCancelled, OrderCreated, OrderShipped, PaymentCompleted, ReleaseStock,
        ReserveStock, StockReleased, StockReserved, StockShort,
    },
    ids::{OrderId, ProductId},
    parts::Flow,
};
use serde::{Deserialize, Serialize};
use sillage::{CommitError, prelude::*};
use std::collections::BTreeMap;

/// How many of a product there are, and where.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[document(collection = "stock")]
pub struct Stock {
    /// Which product.
    #[document(id, sort)]
    pub product_id: ProductId,
    /// On the shelf.
    pub on_hand: u32,
    /// Set aside for orders.
    pub reserved: u32,
    /// On their way, or there.
    pub shipped: u32,
}

/// What is set aside for an order.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "reservations")]
pub struct Reservation {
    /// Which order.
    #[document(id)]
    pub order_id: OrderId,
    /// What it needs, once that is known.
    pub items: Option<BTreeMap<ProductId, u32>>,
    /// Whether it was paid.
    pub paid: bool,
    /// How far it is.
    pub state: ReservationState,
}

/// How far a reservation is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationState {
    /// Waits for the order or its payment.
    Open,
    /// Everything is set aside.
    Reserved,
    /// Everything has left the house.
    Shipped,
    /// Nothing is set aside, and nothing will be.
    Closed,
}

impl Reservation {
    fn open(order_id: OrderId) -> Self {
        Reservation { order_id, items: None, paid: false, state: ReservationState::Open }
    }
}

/// The service. Orders meet at the products, not at a key, so too many at once would mostly run
/// into each other and start over.
pub fn service(flow: Flow) -> Service {
    let consumer = Consumer::new("inventory").on(reserve).on(shipped).concurrency(16);
    let consumer = match flow {
        Flow::Choreography => consumer.on(ordered).on(paid).on(cancelled).on(release),
        Flow::Orchestration => consumer.on(undo_reserve),
    };
    Service::new("inventory").consumer(consumer)
}

/// Puts the shop's initial stock on the shelf, of each product once in the life of a database.
pub async fn fill_shelves(inventory: &ServiceHandle) -> Result<(), CommitError> {
    for product in PRODUCTS {
        let Ok(product_id) = product.id.parse::<ProductId>() else { continue };
        let on_hand = product.initial_stock;
        let stock = Stock { product_id, on_hand, reserved: 0, shipped: 0 };
        match inventory.commit(put(stock)).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) async fn ordered(
    order: OrderCreated,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    let mut reservation = known.unwrap_or_else(|| Reservation::open(order.order_id));
    reservation.items = Some(by_product(order.items));
    advance(reservation, &stock).await
}

pub(crate) async fn paid(
    payment: PaymentCompleted,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    let mut reservation = known.unwrap_or_else(|| Reservation::open(payment.order_id));
    reservation.paid = true;
    advance(reservation, &stock).await
}

pub(crate) async fn cancelled(
    order: OrderCancelled,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    close(known.unwrap_or_else(|| Reservation::open(order.order_id)), &stock).await
}

pub(crate) async fn shipped(
    parcel: OrderShipped,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    let Some(mut reservation) = known.filter(|r| r.state == ReservationState::Reserved) else {
        let order_id = parcel.order_id;
        return Err(Failure::permanent(format!(
            "nothing is reserved for shipped order {order_id}"
        )));
    };
    let moved = shift(&reservation, &stock, |stock, quantity| {
        stock.reserved = stock.reserved.checked_sub(quantity)?;
        stock.shipped = stock.shipped.checked_add(quantity)?;
        Some(())
    });
    let moved = moved.await?.map_err(|short| Failure::permanent(unbalanced(&short)))?;
    reservation.state = ReservationState::Shipped;
    Ok(moved.and(put(reservation)))
}

/// The same as an answer to a command.
pub async fn reserve(
    command: ReserveStock,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    let mut reservation = known.unwrap_or_else(|| Reservation::open(command.order_id));
    reservation.items = Some(by_product(command.items));
    reservation.paid = true;
    advance(reservation, &stock).await
}

/// Puts back what was set aside, if anything was.
pub async fn release(
    command: ReleaseStock,
    Load(known): Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    close(known.unwrap_or_else(|| Reservation::open(command.order_id)), &stock).await
}

/// The undo of a reservation in orchestration: answered also where nothing was set aside, as the
/// saga waits for the answer.
pub(crate) async fn undo_reserve(
    command: ReleaseStock,
    known: Load<Reservation>,
    stock: Documents,
) -> Result<Effects, Failure> {
    let released = StockReleased { order_id: command.order_id };
    let back = release(command, known, stock).await?;
    if back.published::<StockReleased>().is_empty() {
        return Ok(back.and(publish(released)));
    }
    Ok(back)
}

/// Reserves once the order is known and paid; until then only remembers what was heard.
async fn advance(mut reservation: Reservation, stock: &Documents) -> Result<Effects, Failure> {
    let ready = reservation.paid && reservation.items.is_some();
    if reservation.state != ReservationState::Open || !ready {
        return Ok(put(reservation));
    }
    let order_id = reservation.order_id;
    let taken = shift(&reservation, stock, |stock, quantity| {
        stock.on_hand = stock.on_hand.checked_sub(quantity)?;
        stock.reserved = stock.reserved.checked_add(quantity)?;
        Some(())
    });
    let (stock, state, answer) = match taken.await? {
        Ok(taken) => (taken, ReservationState::Reserved, publish(StockReserved { order_id })),
        Err(product_id) => {
            let short = publish(StockShort { order_id, product_id });
            (Effects::none(), ReservationState::Closed, short)
        }
    };
    reservation.state = state;
    Ok(stock.and(put(reservation)).and(answer))
}

async fn close(mut reservation: Reservation, stock: &Documents) -> Result<Effects, Failure> {
    let order_id = reservation.order_id;
    let effects = match reservation.state {
        ReservationState::Closed => return Ok(Effects::none()),
        ReservationState::Open => Effects::none(),
        ReservationState::Shipped => {
            let gone = format!("order {order_id} was cancelled, but its items have left the house");
            return Err(Failure::permanent(gone));
        }
        ReservationState::Reserved => {
            let back = shift(&reservation, stock, |stock, quantity| {
                stock.reserved = stock.reserved.checked_sub(quantity)?;
                stock.on_hand = stock.on_hand.checked_add(quantity)?;
                Some(())
            });
            let back = back.await?.map_err(|short| Failure::permanent(unbalanced(&short)))?;
            back.and(publish(StockReleased { order_id }))
        }
    };
    reservation.state = ReservationState::Closed;
    Ok(effects.and(put(reservation)))
}

/// Moves what the order needs of each product; if that cannot be, says of which, and moves nothing.
async fn shift(
    reservation: &Reservation,
    stock: &Documents,
    step: impl Fn(&mut Stock, u32) -> Option<()>,
) -> Result<Result<Effects, ProductId>, Failure> {
    let mut moved = Effects::none();
    for (product_id, quantity) in reservation.items.iter().flatten() {
        let Load(Some(mut product)) = stock.load::<Stock>(product_id).await? else {
            return Ok(Err(product_id.clone()));
        };
        match step(&mut product, *quantity) {
            Some(()) => moved = moved.and(put(product)),
            None => return Ok(Err(product_id.clone())),
        }
    }
    Ok(Ok(moved))
}

fn unbalanced(product_id: &ProductId) -> String {
    format!("fewer of `{product_id}` are reserved than the orders say")
}

fn by_product(items: Vec<Item>) -> BTreeMap<ProductId, u32> {
    let mut quantities = BTreeMap::<_, u32>::new();
    for Item { product_id, quantity } in items {
        let sum = quantities.entry(product_id).or_default();
        *sum = sum.saturating_add(quantity);
    }
    quantities
}
