//! The audit: whether the whole shop adds up, from evidence that no service can bend.
//!
//! It reads the log of facts, the stock, the gateway's own ledger and the letters that went out,
//! and asks nobody. Every invariant is a sentence that holds or does not, with what breaks it.

mod evidence;

pub use evidence::{End, Evidence, Orders, Source, Story};

use crate::{catalog::PRODUCTS, gateway::Entry, ids::OrderId, inventory::Stock, money::Money};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many orders a detail names at most.
const NAMED: usize = 3;

/// Something that must hold.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub holds: bool,
    /// What was counted, or what breaks it.
    pub detail: String,
}

/// How many pieces there are of everything together.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// When the shop opened.
    pub initial: u64,
    /// On the shelf.
    pub on_hand: u64,
    /// Set aside.
    pub reserved: u64,
    /// On their way.
    pub shipped: u64,
}

/// What the audit found. Amounts are in minor units.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    /// How many orders were placed.
    pub orders: usize,
    /// How many of them were completed.
    pub completed: usize,
    /// How many of them were cancelled.
    pub cancelled: usize,
    /// How many letters went out.
    pub emails: usize,
    /// What was charged.
    pub charged: i64,
    /// What was paid back.
    pub refunded: i64,
    /// The stock.
    pub stock: Pieces,
    /// What must hold.
    pub invariants: Vec<Invariant>,
}

impl Report {
    /// Audits the evidence; all of `expected` must have been placed.
    pub fn of(evidence: &Evidence, expected: &[OrderId]) -> Self {
        let ended = |end| evidence.stories().filter(|(_, story)| story.ends == [end]).count();
        let (charged, refunded) = sums(&evidence.ledger);
        Report {
            orders: evidence.orders.stories.len(),
            completed: ended(End::Completed),
            cancelled: ended(End::Cancelled),
            emails: evidence.letters.len(),
            charged: charged.minor,
            refunded: refunded.minor,
            stock: pieces(&evidence.stock),
            invariants: vec![
                nothing_lost(evidence, expected),
                ended_once(evidence),
                money(evidence),
                charged_once(evidence),
                stock(evidence),
                letters(evidence),
            ],
        }
    }

    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.holds)
    }
}

fn invariant(name: &'static str, breaks: &[String], counted: String) -> Invariant {
    let mut detail = breaks.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if breaks.len() > NAMED {
        detail = format!("{detail}; and {} more", breaks.len() - NAMED);
    }
    let holds = breaks.is_empty();
    Invariant { name, holds, detail: if holds { counted } else { detail } }
}

fn nothing_lost(evidence: &Evidence, expected: &[OrderId]) -> Invariant {
    let lost = expected.iter().filter(|id| !evidence.orders.stories.contains_key(id));
    let lost: Vec<_> = lost.map(|id| format!("order {id} is nowhere")).collect();
    invariant("no order is lost", &lost, format!("{} orders", evidence.orders.stories.len()))
}

fn ended_once(evidence: &Evidence) -> Invariant {
    let wrong = evidence.stories().filter(|(_, story)| story.ends.len() != 1);
    let wrong = wrong.map(|(id, story)| match story.ends.len() {
        0 => format!("order {id} has not ended"),
        n => format!("order {id} ended {n} times"),
    });
    let wrong: Vec<_> = wrong.collect();
    let counted = format!("{} ends", evidence.orders.stories.len());
    invariant("every order ends completed or cancelled, once", &wrong, counted)
}

fn sums(ledger: &[Entry]) -> (Money, Money) {
    let charged = ledger.iter().filter_map(|entry| match entry {
        Entry::Charge { amount, .. } => Some(*amount),
        _ => None,
    });
    let refunded = ledger.iter().filter_map(|entry| match entry {
        Entry::Refund { amount, .. } => Some(*amount),
        _ => None,
    });
    (charged.sum(), refunded.sum())
}

/// Not only in sum: what is kept of each order is its total if it was completed, else nothing.
fn money(evidence: &Evidence) -> Invariant {
    let mut kept = BTreeMap::<OrderId, i64>::new();
    for entry in &evidence.ledger {
        match entry {
            Entry::Charge { order_id, amount, .. } => {
                *kept.entry(*order_id).or_default() += amount.minor;
            }
            Entry::Refund { order_id, amount, .. } => {
                *kept.entry(*order_id).or_default() -= amount.minor;
            }
            Entry::Decline { .. } => {}
        }
    }
    let due = |id: &OrderId| {
        let story = evidence.orders.stories.get(id);
        story.filter(|story| story.ends.contains(&End::Completed)).map_or(0, |s| s.total.minor)
    };
    let ids: BTreeSet<_> = kept.keys().chain(evidence.orders.stories.keys()).collect();
    let wrong = ids.into_iter().filter_map(|id| {
        let (kept, due) = (kept.get(id).copied().unwrap_or(0), due(id));
        (kept != due).then(|| format!("of order {id} {kept} is kept, but {due} is due"))
    });
    let (charged, refunded) = sums(&evidence.ledger);
    let counted = format!("charged {charged}, refunded {refunded}");
    invariant("charged − refunded = completed orders", &wrong.collect::<Vec<_>>(), counted)
}

fn charged_once(evidence: &Evidence) -> Invariant {
    let (mut charges, mut refunds) = (BTreeMap::<_, u32>::new(), BTreeMap::<_, u32>::new());
    for entry in &evidence.ledger {
        match entry {
            Entry::Charge { order_id, .. } => *charges.entry(*order_id).or_default() += 1,
            Entry::Refund { order_id, .. } => *refunds.entry(*order_id).or_default() += 1,
            Entry::Decline { .. } => {}
        }
    }
    let twice = |what: &'static str, counts: &BTreeMap<OrderId, u32>| {
        let twice = counts.iter().filter(|(_, count)| **count > 1);
        twice.map(|(id, count)| format!("order {id} was {what} {count} times")).collect::<Vec<_>>()
    };
    let wrong = [twice("charged", &charges), twice("refunded", &refunds)].concat();
    let counted = format!("{} charges, {} refunds", charges.len(), refunds.len());
    invariant("no order is charged or refunded twice", &wrong, counted)
}

fn pieces(stock: &[Stock]) -> Pieces {
    let sum = |part: fn(&Stock) -> u32| stock.iter().map(|stock| u64::from(part(stock))).sum();
    Pieces {
        initial: PRODUCTS.iter().map(|product| u64::from(product.initial_stock)).sum(),
        on_hand: sum(|stock| stock.on_hand),
        reserved: sum(|stock| stock.reserved),
        shipped: sum(|stock| stock.shipped),
    }
}

fn stock(evidence: &Evidence) -> Invariant {
    let mut sold = BTreeMap::<&str, u64>::new();
    let completed = evidence.stories().filter(|(_, story)| story.ends.contains(&End::Completed));
    for item in completed.flat_map(|(_, story)| &story.items) {
        *sold.entry(item.product_id.as_str()).or_default() += u64::from(item.quantity);
    }
    let wrong = PRODUCTS.iter().filter_map(|product| {
        let stock = evidence.stock.iter().find(|stock| stock.product_id.as_str() == product.id)?;
        let (sold, initial) = (sold.get(product.id).copied().unwrap_or(0), product.initial_stock);
        let Stock { on_hand, reserved, shipped, .. } = *stock;
        let sum = [on_hand, reserved, shipped].map(u64::from).into_iter().sum::<u64>();
        let sound = sum == u64::from(initial) && reserved == 0 && u64::from(shipped) == sold;
        (!sound).then(|| {
            let id = product.id;
            format!(
                "`{id}`: {on_hand} on hand, {reserved} reserved, {shipped} shipped of {initial}; \
                 {sold} sold"
            )
        })
    });
    let mut wrong: Vec<_> = wrong.collect();
    if evidence.stock.len() != PRODUCTS.len() {
        let (there, all) = (evidence.stock.len(), PRODUCTS.len());
        wrong.push(format!("{there} of {all} products have a stock"));
    }
    let Pieces { on_hand, shipped, .. } = pieces(&evidence.stock);
    let counted = format!("{on_hand} on hand, {shipped} shipped");
    invariant("stock on hand + reserved + shipped is constant", &wrong, counted)
}

fn letters(evidence: &Evidence) -> Invariant {
    let mut letters = BTreeMap::<OrderId, usize>::new();
    for order_id in &evidence.letters {
        *letters.entry(*order_id).or_default() += 1;
    }
    let ids: BTreeSet<_> = letters.keys().chain(evidence.orders.stories.keys()).collect();
    let wrong = ids.into_iter().filter_map(|id| {
        let ends = evidence.orders.stories.get(id).map_or(0, |story| story.ends.len());
        let letters = letters.get(id).copied().unwrap_or(0);
        (letters != ends).then(|| format!("order {id} ended {ends} times, with {letters} letters"))
    });
    let counted = format!("{} letters", evidence.letters.len());
    invariant("one e-mail per outcome", &wrong.collect::<Vec<_>>(), counted)
}

#[cfg(test)]
mod tests;
