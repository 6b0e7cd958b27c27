//! What the gateway knows, and how it answers: no I/O, so that a replay of the ledger is the same
//! as having been there.

use super::{ChargeRequest, Entry, Faults, RefundRequest};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

/// The card that is always declined.
const DECLINED_CARD: &str = "4000000000000002";

/// What the gateway answers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Reply {
    /// The money was taken, or taken before under this key.
    Accepted {
        /// What the gateway calls the payment.
        payment_id: String,
    },
    /// It was not, and will not be under this key.
    Declined {
        /// Why: `card_declined`.
        code: String,
    },
    /// The payment was paid back, now or before.
    Refunded,
    /// The request makes no sense.
    Refused {
        /// What is wrong with it.
        detail: String,
    },
}

/// All movements, by operation and by payment.
#[derive(Clone, Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    by_key: HashMap<Uuid, usize>,
    charges: HashMap<String, usize>,
    refunds: HashMap<String, usize>,
}

impl Book {
    /// Every movement, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes in a movement that has happened.
    pub fn apply(&mut self, entry: Entry) {
        let index = self.entries.len();
        let (key, by_payment) = match &entry {
            Entry::Charge { key, payment_id, .. } => (key, Some((&mut self.charges, payment_id))),
            Entry::Refund { key, payment_id, .. } => (key, Some((&mut self.refunds, payment_id))),
            Entry::Decline { key, .. } => (key, None),
        };
        self.by_key.insert(*key, index);
        if let Some((payments, payment_id)) = by_payment {
            payments.insert(payment_id.clone(), index);
        }
        self.entries.push(entry);
    }

    /// Answers a charge; the second part is the movement it makes, not yet taken in.
    pub fn charge(
        &self,
        key: Uuid,
        request: &ChargeRequest,
        faults: &Faults,
    ) -> (Reply, Option<Entry>) {
        if faults.fail_customer.as_ref() == Some(&request.customer_id) {
            let detail = format!("customer `{}` is malformed", request.customer_id);
            return (Reply::Refused { detail }, None);
        }
        if let Some(known) = self.by_key.get(&key).and_then(|index| self.entries.get(*index)) {
            return (again(known, request), None);
        }
        let ChargeRequest { order_id, amount, .. } = *request;
        if amount.minor <= 0 {
            return (Reply::Refused { detail: "a charge is of more than nothing".into() }, None);
        }
        if is_declined(request, faults) {
            let code = String::from("card_declined");
            let reply = Reply::Declined { code: code.clone() };
            return (reply, Some(Entry::Decline { key, order_id, amount, code }));
        }
        let payment_id = format!("pay_{}", key.simple());
        let reply = Reply::Accepted { payment_id: payment_id.clone() };
        (reply, Some(Entry::Charge { key, payment_id, order_id, amount }))
    }

    /// Answers a refund; the second part is the movement it makes, not yet taken in.
    pub fn refund(&self, key: Uuid, request: &RefundRequest) -> (Reply, Option<Entry>) {
        let RefundRequest { payment_id } = request;
        if self.refunds.contains_key(payment_id) {
            return (Reply::Refunded, None);
        }
        let charge = self.charges.get(payment_id).and_then(|index| self.entries.get(*index));
        let Some(Entry::Charge { payment_id, order_id, amount, .. }) = charge.cloned() else {
            return (
                Reply::Refused { detail: format!("there is no payment `{payment_id}`") },
                None,
            );
        };
        (Reply::Refunded, Some(Entry::Refund { key, payment_id, order_id, amount }))
    }
}

/// The answer to a key that was used before: the same, if it was used for the same.
fn again(known: &Entry, request: &ChargeRequest) -> Reply {
    match known.clone() {
        Entry::Charge { payment_id, order_id, amount, .. }
            if (order_id, amount) == (request.order_id, request.amount) =>
        {
            Reply::Accepted { payment_id }
        }
        Entry::Decline { code, order_id, amount, .. }
            if (order_id, amount) == (request.order_id, request.amount) =>
        {
            Reply::Declined { code }
        }
        _ => Reply::Refused { detail: "this key was used for something else".into() },
    }
}

/// Always the same for the same order, so that totals are the same in every run.
fn is_declined(request: &ChargeRequest, faults: &Faults) -> bool {
    let lot = Uuid::new_v5(&Uuid::NAMESPACE_OID, request.order_id.to_string().as_bytes());
    let lot = f64::from(u16::from_be_bytes([lot.as_bytes()[0], lot.as_bytes()[1]])) / 65_536.0;
    String::from(request.card.clone()) == DECLINED_CARD || lot < faults.decline_share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::OrderId,
        money::{Card, Money},
    };

    fn request(card: Card) -> ChargeRequest {
        let customer_id = "c".parse().unwrap();
        ChargeRequest { order_id: OrderId::of_key("o"), customer_id, card, amount: Money::cents(5) }
    }

    fn move_money(book: &mut Book, reply: (Reply, Option<Entry>)) -> Reply {
        if let Some(entry) = reply.1 {
            book.apply(entry);
        }
        reply.0
    }

    #[test]
    fn a_key_moves_money_once() {
        let (mut book, key) = (Book::default(), Uuid::from_u128(1));
        let (request, faults) = (request(Card::accepted()), Faults::default());
        let reply = book.charge(key, &request, &faults);
        let first = move_money(&mut book, reply);
        assert_eq!(book.charge(key, &request, &faults), (first, None));
        let other = ChargeRequest { amount: Money::cents(6), ..request };
        assert!(matches!(book.charge(key, &other, &faults), (Reply::Refused { .. }, None)));
    }

    #[test]
    fn a_payment_is_paid_back_once_whatever_the_key() {
        let mut book = Book::default();
        let reply = book.charge(Uuid::from_u128(1), &request(Card::accepted()), &Faults::default());
        let Reply::Accepted { payment_id } = move_money(&mut book, reply) else { panic!() };
        let refund = RefundRequest { payment_id };
        let reply = book.refund(Uuid::from_u128(2), &refund);
        assert_eq!(move_money(&mut book, reply), Reply::Refunded);
        assert_eq!(book.refund(Uuid::from_u128(3), &refund), (Reply::Refunded, None));
        assert_eq!(book.entries().len(), 2);
    }

    #[test]
    fn the_declined_card_is_declined_for_good() {
        let (mut book, key) = (Book::default(), Uuid::from_u128(1));
        let reply = book.charge(key, &request(Card::declined()), &Faults::default());
        let first = move_money(&mut book, reply);
        assert_eq!(first, Reply::Declined { code: "card_declined".into() });
        assert_eq!(book.charge(key, &request(Card::declined()), &Faults::default()).0, first);
    }

    #[test]
    fn a_share_of_orders_is_declined_and_always_the_same() {
        let faults = Faults { decline_share: 0.5, ..Faults::default() };
        let declined = |n: u32| {
            let order_id = OrderId::of_key(&n.to_string());
            is_declined(&ChargeRequest { order_id, ..request(Card::accepted()) }, &faults)
        };
        let count = (0..1000).filter(|n| declined(*n)).count();
        assert!((400..600).contains(&count), "{count}");
        assert!((0..50).all(|n| declined(n) == declined(n)));
    }
}
