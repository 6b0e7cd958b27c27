//! The order as a state machine: pure, no I/O, no clock.

use crate::{
    catalog,
    events::{CreateOrder, Item, OrderCancelled, OrderCompleted, OrderCreated, OrderPaid, Why},
    ids::ProductId,
    money::Money,
};
use sillage::prelude::*;
use std::{collections::BTreeMap, fmt};

/// How many different products an order may have.
const MOST_PRODUCTS: usize = 50;
/// How many of one product an order may have.
const MOST_OF_ONE: u32 = 1_000;

/// What is recorded of an order.
#[derive(Events, Clone, Debug, PartialEq)]
pub enum OrderEvent {
    /// It was placed.
    Created(OrderCreated),
    /// Its payment was taken.
    Paid(OrderPaid),
    /// It was shipped: the end.
    Completed(OrderCompleted),
    /// It was given up: the end.
    Cancelled(OrderCancelled),
}

/// What can be asked of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderCommand {
    /// Place it. Asking again for the very same changes nothing.
    Create(CreateOrder),
    /// Take its payment. Too late for one that was cancelled.
    Pay,
    /// Give it up, unless its payment was taken.
    GiveUp(Why),
    /// Give it up because its payment was paid back.
    TakeBack(Why),
    /// It was shipped.
    Complete,
    /// It was paid for and shipped: both at once.
    Close,
}

/// Why an order does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderRefusal {
    /// It has no items.
    NoItems,
    /// It has too many different products.
    TooManyProducts,
    /// A quantity of zero, or too large.
    BadQuantity(ProductId),
    /// Nobody sells that.
    UnknownProduct(ProductId),
    /// There is an order of that id, and it is another one.
    AlreadyCreated,
    /// It is not in a state in which that can happen: a bug elsewhere, never an accident.
    Never(&'static str),
}

impl fmt::Display for OrderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderRefusal::NoItems => f.write_str("an order needs at least one item"),
            OrderRefusal::TooManyProducts => {
                write!(f, "an order has at most {MOST_PRODUCTS} different products")
            }
            OrderRefusal::BadQuantity(id) => {
                write!(f, "of `{id}` an order has 1 to {MOST_OF_ONE}")
            }
            OrderRefusal::UnknownProduct(id) => write!(f, "there is no product `{id}`"),
            OrderRefusal::AlreadyCreated => f.write_str("there is another order of this id"),
            OrderRefusal::Never(what) => f.write_str(what),
        }
    }
}

/// An order, folded from its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    placed: Option<OrderCreated>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Placed,
    Paid,
    Completed,
    Cancelled,
}

impl Decider for Order {
    const STREAM: &'static str = "order";
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Refusal = OrderRefusal;

    fn initial() -> Self {
        Order::default()
    }

    fn decide(&self, command: OrderCommand) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match (command, &self.placed) {
            (OrderCommand::Create(create), None) => Ok(vec![place(create)?.into()]),
            (OrderCommand::Create(create), Some(placed)) => again(create, placed),
            (_, None) => Err(OrderRefusal::Never("this order was never placed")),
            (OrderCommand::Pay, Some(placed)) => Ok(self.pay(placed)),
            (OrderCommand::GiveUp(why), Some(placed)) => Ok(self.give_up(placed, why)),
            (OrderCommand::TakeBack(why), Some(placed)) => self.take_back(placed, why),
            (OrderCommand::Complete, Some(placed)) => self.complete(placed),
            (OrderCommand::Close, Some(placed)) => self.close(placed),
        }
    }

    fn evolve(self, event: &OrderEvent) -> Self {
        match event {
            OrderEvent::Created(placed) => {
                Order { placed: Some(placed.clone()), state: State::Placed }
            }
            OrderEvent::Paid(_) => Order { state: State::Paid, ..self },
            OrderEvent::Completed(_) => Order { state: State::Completed, ..self },
            OrderEvent::Cancelled(_) => Order { state: State::Cancelled, ..self },
        }
    }
}

impl Order {
    fn pay(&self, placed: &OrderCreated) -> Vec<OrderEvent> {
        match self.state {
            State::Placed => vec![OrderPaid { order_id: placed.order_id }.into()],
            State::Paid | State::Completed | State::Cancelled => vec![],
        }
    }

    fn give_up(&self, placed: &OrderCreated, why: Why) -> Vec<OrderEvent> {
        match self.state {
            State::Placed => vec![cancelled(placed, why)],
            State::Paid | State::Completed | State::Cancelled => vec![],
        }
    }

    fn take_back(&self, placed: &OrderCreated, why: Why) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match self.state {
            State::Placed | State::Paid => Ok(vec![cancelled(placed, why)]),
            State::Cancelled => Ok(vec![]),
            State::Completed => Err(OrderRefusal::Never("a completed order was paid back")),
        }
    }

    fn close(&self, placed: &OrderCreated) -> Result<Vec<OrderEvent>, OrderRefusal> {
        let paid = self.pay(placed);
        let order = paid.iter().fold(self.clone(), Decider::evolve);
        Ok(paid.into_iter().chain(order.complete(placed)?).collect())
    }

    fn complete(&self, placed: &OrderCreated) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match self.state {
            State::Paid => {
                let OrderCreated { order_id, customer_id, total, .. } = placed.clone();
                Ok(vec![OrderCompleted { order_id, customer_id, total }.into()])
            }
            State::Completed => Ok(vec![]),
            State::Placed => Err(OrderRefusal::Never("an unpaid order was shipped")),
            State::Cancelled => Err(OrderRefusal::Never("a cancelled order was shipped")),
        }
    }
}

fn place(create: CreateOrder) -> Result<OrderCreated, OrderRefusal> {
    let items = basket(create.items)?;
    let total = price(&items)?;
    let CreateOrder { order_id, customer_id, card, .. } = create;
    Ok(OrderCreated { order_id, customer_id, items, card, total })
}

fn again(create: CreateOrder, placed: &OrderCreated) -> Result<Vec<OrderEvent>, OrderRefusal> {
    match place(create) {
        Ok(same) if same == *placed => Ok(vec![]),
        _ => Err(OrderRefusal::AlreadyCreated),
    }
}

fn cancelled(placed: &OrderCreated, why: Why) -> OrderEvent {
    let OrderCreated { order_id, customer_id, .. } = placed.clone();
    OrderCancelled { order_id, customer_id, why }.into()
}

/// Each product once, by its id.
fn basket(items: Vec<Item>) -> Result<Vec<Item>, OrderRefusal> {
    let mut basket = BTreeMap::<ProductId, u32>::new();
    for Item { product_id, quantity } in items {
        let so_far = basket.get(&product_id).copied().unwrap_or(0);
        let quantity = so_far.saturating_add(quantity);
        if !(1..=MOST_OF_ONE).contains(&quantity) {
            return Err(OrderRefusal::BadQuantity(product_id));
        }
        basket.insert(product_id, quantity);
    }
    match basket.len() {
        0 => Err(OrderRefusal::NoItems),
        1..=MOST_PRODUCTS => {
            let item = |(product_id, quantity)| Item { product_id, quantity };
            Ok(basket.into_iter().map(item).collect())
        }
        _ => Err(OrderRefusal::TooManyProducts),
    }
}

fn price(items: &[Item]) -> Result<Money, OrderRefusal> {
    let price = |item: &Item| match catalog::find(&item.product_id) {
        Some(product) => Ok(product.price.times(item.quantity)),
        None => Err(OrderRefusal::UnknownProduct(item.product_id.clone())),
    };
    items.iter().map(price).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::OrderId, money::Card};

    fn create(items: &[(&str, u32)]) -> CreateOrder {
        let item = |(id, quantity): &(&str, u32)| Item {
            product_id: id.parse().unwrap(),
            quantity: *quantity,
        };
        CreateOrder {
            order_id: OrderId::of_key("o"),
            customer_id: "ann".parse().unwrap(),
            items: items.iter().map(item).collect(),
            card: Card::accepted(),
        }
    }

    /// What an order that went through these commands answers to the last.
    fn after(
        commands: impl IntoIterator<Item = OrderCommand>,
    ) -> Result<Vec<&'static str>, OrderRefusal> {
        let (mut order, mut last) = (Order::initial(), vec![]);
        let placing = OrderCommand::Create(create(&[("bell", 2)]));
        for command in [placing].into_iter().chain(commands) {
            let events = order.decide(command)?;
            order = events.iter().fold(order, Decider::evolve);
            last = events;
        }
        Ok(last.iter().map(sillage::Events::name).collect())
    }

    use OrderCommand::{Close, Complete, Create, GiveUp, Pay, TakeBack};

    #[test]
    fn an_order_is_placed_paid_and_completed() {
        assert_eq!(after([]).unwrap(), ["order.created"]);
        assert_eq!(after([Pay]).unwrap(), ["order.paid"]);
        assert_eq!(after([Pay, Complete]).unwrap(), ["order.completed"]);
        assert_eq!(after([Close]).unwrap(), ["order.paid", "order.completed"]);
        assert_eq!(after([Close, Close]).unwrap(), [""; 0]);
    }

    #[test]
    fn it_is_given_up_until_it_is_paid() {
        assert_eq!(after([GiveUp(Why::Unpaid)]).unwrap(), ["order.cancelled"]);
        assert_eq!(after([Pay, GiveUp(Why::Unpaid)]).unwrap(), [""; 0]);
        assert_eq!(after([Pay, TakeBack(Why::Unpaid)]).unwrap(), ["order.cancelled"]);
    }

    #[test]
    fn whatever_comes_late_or_again_changes_nothing() {
        let nothing = [""; 0];
        assert_eq!(after([Create(create(&[("bell", 2)]))]).unwrap(), nothing);
        assert_eq!(after([GiveUp(Why::Unpaid), Pay]).unwrap(), nothing);
        assert_eq!(after([GiveUp(Why::Unpaid), TakeBack(Why::Unpaid)]).unwrap(), nothing);
        assert_eq!(after([Pay, Complete, Complete]).unwrap(), nothing);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(after([Complete]), Err(OrderRefusal::Never(_))));
        assert!(matches!(after([GiveUp(Why::Unpaid), Complete]), Err(OrderRefusal::Never(_))));
        assert!(matches!(Order::initial().decide(Pay), Err(OrderRefusal::Never(_))));
        let other = Create(create(&[("bell", 3)]));
        assert_eq!(after([other]), Err(OrderRefusal::AlreadyCreated));
    }

    #[test]
    fn a_basket_has_each_product_once_and_its_price() {
        let order = place(create(&[("shackle", 1), ("bell", 2), ("shackle", 3)])).unwrap();
        let items: Vec<_> =
            order.items.iter().map(|i| (i.product_id.as_str(), i.quantity)).collect();
        assert_eq!(items, [("bell", 2), ("shackle", 4)]);
        assert_eq!(order.total, Money::cents(2 * 4550 + 4 * 540));
        let refused = |items: &[(&str, u32)]| place(create(items)).unwrap_err();
        assert_eq!(refused(&[]), OrderRefusal::NoItems);
        assert_eq!(refused(&[("bell", 0)]), OrderRefusal::BadQuantity("bell".parse().unwrap()));
        let twice = [("bell", 600), ("bell", 600)];
        assert_eq!(refused(&twice), OrderRefusal::BadQuantity("bell".parse().unwrap()));
        assert_eq!(refused(&[("moon", 1)]), OrderRefusal::UnknownProduct("moon".parse().unwrap()));
    }
}
