//! Each invariant catches what it is there for.

use super::*;
use crate::{events::Item, ids::ProductId};
use uuid::Uuid;

/// One completed order of two bells, one cancelled after payment, one declined.
fn sound() -> Evidence {
    let bells = vec![Item { product_id: "bell".parse().unwrap(), quantity: 2 }];
    let story = |end| Story { items: bells.clone(), total: Money::cents(100), ends: vec![end] };
    let mut orders = Orders::default();
    orders.stories.insert(id(1), story(End::Completed));
    orders.stories.insert(id(2), story(End::Cancelled));
    orders.stories.insert(id(3), story(End::Cancelled));
    Evidence {
        orders,
        ledger: vec![charge(1), charge(2), refund(2)],
        stock: PRODUCTS.iter().map(shelf).collect(),
        letters: vec![id(1), id(2), id(3)],
    }
}

fn shelf(product: &crate::catalog::Product) -> Stock {
    let shipped = if product.id == "bell" { 2 } else { 0 };
    let product_id: ProductId = product.id.parse().unwrap();
    Stock { product_id, on_hand: product.initial_stock - shipped, reserved: 0, shipped }
}

fn id(n: u32) -> OrderId {
    OrderId::of_key(&n.to_string())
}

fn charge(n: u32) -> Entry {
    let (key, payment_id) = (Uuid::from_u128(n.into()), format!("pay_{n}"));
    Entry::Charge { key, payment_id, order_id: id(n), amount: Money::cents(100) }
}

fn refund(n: u32) -> Entry {
    let (key, payment_id) = (Uuid::from_u128(n.into()), format!("pay_{n}"));
    Entry::Refund { key, payment_id, order_id: id(n), amount: Money::cents(100) }
}

/// The invariants that the change breaks, in their order.
fn broken(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = sound();
    change(&mut evidence);
    let report = Report::of(&evidence, &[id(1), id(2), id(3)]);
    let broken = report.invariants.iter().filter(|invariant| !invariant.holds);
    broken.map(|invariant| invariant.name).collect()
}

fn story(evidence: &mut Evidence, n: u32) -> &mut Story {
    evidence.orders.stories.get_mut(&id(n)).unwrap()
}

#[test]
fn what_is_sound_holds() {
    assert!(broken(|_| {}).is_empty());
    let report = Report::of(&sound(), &[]);
    assert_eq!((report.orders, report.completed, report.cancelled, report.emails), (3, 1, 2, 3));
    assert_eq!((report.charged, report.refunded), (200, 100));
    assert_eq!(report.stock.on_hand + report.stock.shipped, report.stock.initial);
}

#[test]
fn a_lost_order_is_found() {
    let names = broken(|e| drop(e.orders.stories.remove(&id(3))));
    assert_eq!(names, ["no order is lost", "one e-mail per outcome"]);
}

#[test]
fn an_order_without_an_end_or_with_two_is_found() {
    const ENDED: &str = "every order ends completed or cancelled, once";
    assert_eq!(broken(|e| story(e, 3).ends.clear())[0], ENDED);
    assert_eq!(broken(|e| story(e, 3).ends.push(End::Cancelled))[0], ENDED);
}

#[test]
fn money_that_is_kept_or_given_away_is_found() {
    const MONEY: &str = "charged − refunded = completed orders";
    assert_eq!(broken(|e| drop(e.ledger.pop())), [MONEY]);
    assert_eq!(broken(|e| drop(e.ledger.remove(0))), [MONEY]);
    assert_eq!(broken(|e| e.ledger.push(refund(1))), [MONEY]);
}

#[test]
fn a_double_charge_is_found_even_if_it_was_paid_back() {
    let names = broken(|e| e.ledger.extend([charge(1), refund(1)]));
    assert_eq!(names, ["no order is charged or refunded twice"]);
}

#[test]
fn stock_that_vanishes_or_stays_reserved_is_found() {
    const STOCK: &str = "stock on hand + reserved + shipped is constant";
    assert_eq!(broken(|e| e.stock[0].on_hand -= 1), [STOCK]);
    let reserve = |e: &mut Evidence| {
        e.stock[0].on_hand -= 1;
        e.stock[0].reserved += 1;
    };
    assert_eq!(broken(reserve), [STOCK]);
    assert_eq!(broken(|e| e.stock.clear()), [STOCK]);
}

#[test]
fn a_missing_or_second_letter_is_found() {
    assert_eq!(broken(|e| e.letters.truncate(2)), ["one e-mail per outcome"]);
    assert_eq!(broken(|e| e.letters.push(id(1))), ["one e-mail per outcome"]);
}
