//! Sample customers and orders, all of which follow from a seed.

use crate::{
    catalog::{self, PRODUCTS, SOLD_OUT},
    events::Item,
    http::{NewCustomer, NewOrder},
    ids::{CustomerId, OrderId, ProductId},
    money::{Card, Money},
};
use std::collections::BTreeSet;
use uuid::Uuid;

const NAMES: [&str; 12] = [
    "Ada", "Bram", "Chloé", "Dmitri", "Elif", "Femke", "Goran", "Hanae", "Idris", "Jonna", "Kofi",
    "Lucía",
];

/// What to make up.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Everything follows from it.
    pub seed: u64,
    /// How many customers there are.
    pub customers: u64,
    /// How many orders of a hundred have a card that is declined.
    pub decline_percent: u64,
    /// How many orders of a hundred have a product that is sold out, on a card that is accepted.
    pub shortage_percent: u64,
}

/// How a sample order ends, if it is paid in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is shipped.
    Completed,
    /// Its card is declined.
    Declined,
    /// It is short of something.
    Short,
}

impl Sampler {
    /// The idempotency key of the `n`th customer.
    pub fn customer_key(&self, n: u64) -> String {
        format!("sample-{}-customer-{n}", self.seed)
    }

    /// The id of the `n`th customer.
    pub fn customer_id(&self, n: u64) -> CustomerId {
        CustomerId::of_key(&self.customer_key(n))
    }

    /// The `n`th customer.
    pub fn customer(&self, n: u64) -> NewCustomer {
        let name = NAMES.iter().cycle().nth(usize::try_from(n % 1_000).unwrap_or(0));
        let name = format!("{} {n}", name.copied().unwrap_or_default());
        NewCustomer { name, email: format!("customer-{n}@example.com") }
    }

    /// The idempotency key of the `n`th order.
    pub fn order_key(&self, n: u64) -> String {
        format!("sample-{}-order-{n}", self.seed)
    }

    /// The id of the `n`th order.
    pub fn order_id(&self, n: u64) -> OrderId {
        OrderId::of_key(&self.order_key(n))
    }

    /// Which customer places the `n`th order.
    pub fn customer_of(&self, n: u64) -> u64 {
        self.roll(n, "customer", self.customers.max(1))
    }

    /// How the `n`th order ends.
    pub fn fate(&self, n: u64) -> Fate {
        let lot = self.roll(n, "fate", 100);
        if lot < self.decline_percent {
            Fate::Declined
        } else if lot < self.decline_percent + self.shortage_percent {
            Fate::Short
        } else {
            Fate::Completed
        }
    }

    /// The `n`th order.
    pub fn order(&self, n: u64) -> NewOrder {
        let fate = self.fate(n);
        let mut products: BTreeSet<&str> = (0..=self.roll(n, "size", 3))
            .map(|i| PRODUCTS[self.index(n, i)].id)
            .filter(|id| *id != SOLD_OUT)
            .collect();
        if fate == Fate::Short {
            products.insert(SOLD_OUT);
        } else if products.is_empty() {
            products.insert(PRODUCTS[0].id);
        }
        let item = |id: &str| {
            let quantity = u32::try_from(1 + self.roll(n, id, 3)).unwrap_or(1);
            id.parse::<ProductId>().ok().map(|product_id| Item { product_id, quantity })
        };
        let card = if fate == Fate::Declined { Card::declined() } else { Card::accepted() };
        let customer_id = self.customer_id(self.customer_of(n));
        NewOrder { customer_id, items: products.into_iter().filter_map(item).collect(), card }
    }

    /// What the `n`th order costs.
    pub fn total(&self, n: u64) -> Money {
        let price = |item: &Item| Some(catalog::find(&item.product_id)?.price.times(item.quantity));
        self.order(n).items.iter().filter_map(price).sum()
    }

    fn index(&self, n: u64, i: u64) -> usize {
        let lot = self.roll(n, &format!("product-{i}"), PRODUCTS.len() as u64);
        usize::try_from(lot).unwrap_or(0)
    }

    /// A number below `sides`, the same for the same seed, `n` and purpose.
    fn roll(&self, n: u64, purpose: &str, sides: u64) -> u64 {
        let name = format!("{}/{n}/{purpose}", self.seed);
        let (lot, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair();
        lot % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLER: Sampler =
        Sampler { seed: 7, customers: 10, decline_percent: 10, shortage_percent: 5 };

    #[test]
    fn everything_follows_from_the_seed() {
        for n in 0..50 {
            assert_eq!(SAMPLER.order(n).items, SAMPLER.order(n).items);
            assert_eq!(SAMPLER.fate(n), SAMPLER.fate(n));
        }
        let other = Sampler { seed: 8, ..SAMPLER };
        assert!((0..50).any(|n| other.order(n).items != SAMPLER.order(n).items));
        assert_ne!(other.order_id(1), SAMPLER.order_id(1));
    }

    #[test]
    fn shares_are_about_what_was_asked() {
        let count = |fate| (0..2000).filter(|n| SAMPLER.fate(*n) == fate).count();
        assert!((150..250).contains(&count(Fate::Declined)), "{}", count(Fate::Declined));
        assert!((60..140).contains(&count(Fate::Short)), "{}", count(Fate::Short));
    }

    #[test]
    fn orders_are_what_their_fate_says() {
        for n in 0..500 {
            let order = SAMPLER.order(n);
            let short = order.items.iter().any(|item| item.product_id.as_str() == SOLD_OUT);
            assert_eq!(short, SAMPLER.fate(n) == Fate::Short);
            assert_eq!(order.card == Card::declined(), SAMPLER.fate(n) == Fate::Declined);
            assert!(!order.items.is_empty() && SAMPLER.total(n).minor > 0);
        }
    }
}
