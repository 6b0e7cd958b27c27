//! Several apps that share a consumer, and several consumers of one topic.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Placed, Probe, invoice},
    world::{BILLING, World},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sillage::prelude::*;

/// Both work, and of one key only one of them at a time.
pub async fn two_apps_share_a_consumer<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(1)));
    let (one, two) = (with_calls_of_its_own(&desk), with_calls_of_its_own(&desk));
    let apps = [world.start(&one).await, world.start(&two).await];
    let mut placed = 0;
    let both = || one.calls.notes().len() > 50 && two.calls.notes().len() > 50;
    while !both() || placed < 20 {
        assert!(placed < 1000, "one does all the work");
        world.place_many(placed..placed + 2).await;
        placed += 2;
        tokio::time::sleep(ms(20)).await;
    }
    world.invoiced(BILLING).await;
    for app in apps {
        app.drain().await;
    }
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, u64::from(placed) * 20).await;
    desk.assert_right();
}

fn with_calls_of_its_own(desk: &Desk) -> Desk {
    Desk { calls: Probe::default(), ..desk.clone() }
}

/// One order in twenty fails: most of these once, and some until they are parked.
fn order(key: u32, number: u32, random: &mut StdRng) -> Placed {
    let word = match random.random_range(0..100) {
        0 => "thrice ",
        1..5 => "once ",
        _ => "",
    };
    Placed::new(&format!("k{key}"), &format!("{word}{number:04}"))
}

/// Apps start, drain and are gone without a word, in a seeded order, under load, while one order
/// in twenty fails.
pub async fn apps_that_come_and_go_lose_double_and_reorder_nothing<F: ConsumerFixture>(
    fixture: &F,
) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(1)));
    let mut random = StdRng::seed_from_u64(11);
    let consumer = || {
        let retry = Retry::in_lane([ms(5)]).then_park([ms(50), ms(50), ms(50)]);
        Consumer::new("billing").on(invoice).retry(retry)
    };
    let mut apps = vec![world.start_with(&desk, consumer()).await];
    let mut number = 0;
    for round in 0..5 {
        apps.push(world.start_with(&desk, consumer()).await);
        for _ in 0..random.random_range(10..30) {
            let orders: Vec<_> = (0..20).map(|key| order(key, number, &mut random)).collect();
            world.commit(orders).await;
            number += 1;
            tokio::time::sleep(ms(random.random_range(0..150))).await;
        }
        let app = apps.remove(random.random_range(0..apps.len()));
        if round != 2 {
            app.drain().await;
        }
    }
    world.invoiced(BILLING).await;
    world.nothing_parked().await;
    for app in apps {
        app.drain().await;
    }
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, u64::from(number) * 20).await;
}

/// Each gets everything that is published while it is there.
pub async fn a_broadcast_reaches_every_app<F: ConsumerFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let probes = [Probe::default(), Probe::default()];
    let mut apps = vec![];
    for probe in &probes {
        let probe = probe.clone();
        let note = move |order: Placed| {
            let probe = probe.clone();
            async move { probe.note(&order.note) }
        };
        let consumer = Consumer::new("cache").on(note).broadcast();
        apps.push(world.start_service(Service::new("shop").consumer(consumer)).await);
    }
    let mut number = 0;
    while probes.iter().any(|probe| probe.notes().is_empty()) {
        assert!(number < 1000, "a broadcast does not reach both");
        world.place("o", &[&format!("{number}")]).await;
        number += 1;
        tokio::time::sleep(ms(50)).await;
    }
    world.place("o", &["first", "second", "last"]).await;
    for probe in &probes {
        probe.reached("last").await;
        let notes = probe.notes();
        assert_eq!(notes[notes.len() - 3..], ["first", "second", "last"]);
    }
    for app in apps {
        app.drain().await;
    }
}

/// What one of them does, or fails to do, is nothing to the other.
pub async fn consumers_of_one_topic_each_get_everything<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let email = Desk { done: Probe::default(), calls: Probe::default(), ..Desk::new() };
    email.broken.off();
    let first = world.start(&desk).await;
    let consumer = Consumer::new("email").on(invoice);
    let second = Service::new("post").state(email.clone()).consumer(consumer);
    let second = world.start_service(second).await;
    world.place("o", &["1", "bad 2", "3"]).await;
    world.passed(BILLING, 3).await;
    world.passed("post/email", 3).await;
    first.drain().await;
    second.drain().await;
    assert_eq!(desk.done_of("o"), ["1"]);
    assert_eq!(email.done_of("o"), ["1", "bad 2", "3"]);
}
