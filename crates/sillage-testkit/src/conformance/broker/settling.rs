//! What is settled, and what comes again.

use super::{
    BrokerFixture,
    case::{Case, Got, KEYS, all_got, assert_got, without_redeliveries},
    joined::Joined,
};
use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use sillage_core::{Partition, Settled};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

/// A member settles all and leaves; the next one begins behind it.
pub async fn what_was_settled_does_not_come_again<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "settled").await;
    let orders = case.orders(0..600);
    for (round, some) in orders.chunks(200).enumerate() {
        case.publish(some).await;
        let mut members = [case.join().await];
        case.until_got(&mut members, some).await;
        case.flush_keys(&mut members, 1000 + KEYS * round as u64).await;
        let from = 1000 + KEYS * round as u64;
        let markers = case.orders(from..from + KEYS);
        assert_got(&members[0].got, some.iter().chain(&markers));
        members[0].close().await;
    }
}

/// A member leaves and has settled nothing: the next one is given everything.
pub async fn what_was_not_settled_comes_again<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "unsettled").await;
    let orders = case.orders(0..300);
    case.publish(&orders).await;
    let mut first = [case.join_idle().await];
    case.until_got(&mut first, &orders).await;
    first[0].close().await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &orders).await;
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// Deliveries are finished in any order, and told in any portions; some never are. After a
/// restart these come again, and nothing before the first of them in its partition does.
pub async fn the_settled_place_never_passes_what_is_unfinished<F: BrokerFixture>(fixture: &F) {
    for seed in 0..3 {
        let case = Case::new(fixture, &format!("unfinished-{seed}")).await;
        let mut random = StdRng::seed_from_u64(seed);
        let orders = case.orders(0..400);
        case.publish(&orders).await;
        let mut first = [case.join_idle().await];
        case.until_got(&mut first, &orders).await;
        let got = all_got(&first);
        let (unfinished, mut finished): (Vec<_>, Vec<_>) =
            got.iter().partition(|_| random.random_bool(0.02));
        finished.shuffle(&mut random);
        while let Some(some) = finished.len().checked_sub(random.random_range(1..60)) {
            for got in finished.drain(some..) {
                first[0].finish(&got.partition, got.delivery.offset);
            }
            first[0].settle().await;
        }
        for got in finished {
            first[0].finish(&got.partition, got.delivery.offset);
        }
        first[0].close().await;

        let mut members = [case.join().await];
        let expected: Vec<_> = unfinished.iter().map(|got| got.delivery.message.clone()).collect();
        case.until_got(&mut members, &expected).await;
        case.flush_keys(&mut members, 1000).await;
        assert_begins_at(&members[0].got, &got, &unfinished);
        members[0].close().await;
    }
}

/// What came again is behind the settled place of its partition, in order, and once.
fn assert_begins_at(again: &[Got], got: &[Got], unfinished: &[&Got]) {
    let mut settled = HashSet::new();
    let mut stuck = HashSet::new();
    let unfinished: HashSet<_> = unfinished.iter().map(|got| got.id()).collect();
    for got in got {
        if unfinished.contains(got.id()) {
            stuck.insert(&got.partition);
        } else if !stuck.contains(&got.partition) {
            settled.insert(got.id());
        }
    }
    let doubled: Vec<_> = again.iter().map(Got::id).filter(|id| settled.contains(id)).collect();
    assert!(doubled.is_empty(), "these were settled: {doubled:?}");
    let order: BTreeMap<_, _> = got.iter().enumerate().map(|(at, got)| (got.id(), at)).collect();
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for got in again.iter().filter(|got| order.contains_key(got.id())) {
        places.entry(&got.delivery.message.key).or_default().push(order[got.id()]);
    }
    for (key, places) in places {
        assert!(places.is_sorted_by(|a, b| a < b), "{key:?}: {places:?}");
    }
}

/// Its process is killed: what it has not settled is given to another, as late as its partitions
/// are free.
pub async fn a_member_that_is_gone_without_a_word_loses_nothing<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "gone").await;
    let orders = case.orders(0..400);
    case.publish(&orders[..200]).await;
    let mut first = vec![case.join_idle().await];
    case.until_got(&mut first, &orders[..200]).await;
    let owned: Vec<_> = first[0].owned().cloned().collect();
    for partition in &owned {
        first[0].finish_first(partition, 5);
    }
    first[0].settle().await;
    let settled = all_got(&first);
    drop(first);
    case.publish(&orders[200..]).await;
    let mut members = [case.join().await];
    let mut seen: BTreeMap<&Partition, usize> = BTreeMap::new();
    let mut unsettled = vec![];
    for got in &settled {
        let number = seen.entry(&got.partition).or_default();
        *number += 1;
        if *number > 5 {
            unsettled.push(got.delivery.message.clone());
        }
    }
    let expected: Vec<_> = unsettled.iter().chain(&orders[200..]).cloned().collect();
    case.until_got(&mut members, &expected).await;
    assert_got(&without_redeliveries(&members[0].got), &expected);
    members[0].close().await;
}

/// A partition that nobody asked back is released: it is assigned anew, and goes on behind the
/// last settled delivery without a gap.
pub async fn what_is_given_up_comes_again_from_the_settled_place<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "given-up").await;
    let orders = case.orders(0..400);
    case.publish(&orders[..300]).await;
    let mut members = [case.join_idle().await];
    case.until_got(&mut members, &orders[..300]).await;
    let before = all_got(&members);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for got in &before {
        *counts.entry(got.partition.clone()).or_default() += 1;
    }
    let (partition, count) = counts.into_iter().max_by_key(|(_, count)| *count).unwrap();
    let finished = members[0].finish_first(&partition, count / 2);
    members[0].settle().await;
    members[0].give_up(std::slice::from_ref(&partition)).await;
    case.publish(&orders[300..]).await;
    let mut expected: Vec<_> = before.iter().filter(|got| got.partition == partition).collect();
    expected.drain(..finished);
    let expected: Vec<_> = expected.iter().map(|got| got.id().to_owned()).collect();
    let again = |members: &[Joined<'_, F>]| -> Vec<String> {
        let got = members[0].got.iter().filter(|got| got.assignment == 2);
        got.map(|got| got.id().to_owned()).collect()
    };
    let back = |members: &[Joined<'_, F>]| again(members).len() >= expected.len();
    case.until(&mut members, "what was given up had come again", back).await;
    case.until_got(&mut members, &orders).await;
    assert_eq!(again(&members)[..expected.len()], expected);
    let others: Vec<_> =
        all_got(&members).into_iter().filter(|got| got.partition != partition).collect();
    assert_eq!(
        others.len(),
        without_redeliveries(&others).len(),
        "only what was given up comes again"
    );
    members[0].close().await;
}

/// Partitions are given up again and again while messages come: behind each new `Assigned` the
/// deliveries go on exactly at the settled place.
pub async fn no_old_batch_comes_behind_a_new_assignment<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "old-batch").await;
    let mut random = StdRng::seed_from_u64(3);
    let orders = case.orders(0..2400);
    let mut members = [case.join_idle().await];
    case.until_shared(&mut members).await;
    let mut settled: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
    for round in 0..24 {
        if round % 6 == 0 {
            case.until_shared(&mut members).await;
        }
        members[0].turn(Duration::from_millis(random.random_range(0..30))).await;
        case.publish(&orders[100 * round..100 * (round + 1)]).await;
        let before = members[0].got.len();
        // Not all of what has been read is taken.
        while members[0].got.len() == before {
            members[0].ask(50).await;
        }
        let last = members[0].got.last().map(|got| got.partition.clone());
        let others = members[0].owned().filter(|partition| Some(*partition) != last.as_ref());
        let others: Vec<_> = others.cloned().collect();
        let Some(partition) = others.choose(&mut random).cloned() else { continue };
        let count = members[0].finish_first(&partition, random.random_range(0..40));
        members[0].settle().await;
        let places = settled.entry(partition.clone()).or_insert_with(|| vec![0]);
        let place = places[places.len() - 1] + count;
        places.push(place);
        let settler = members[0].settler.clone();
        let is_fenced = settler.fence(&partition).is_some();
        members[0].give_up(std::slice::from_ref(&partition)).await;
        if is_fenced && round % 6 == 5 {
            // Nobody receives before it is this member's again: what was on its way waits.
            let owned = || async { settler.fence(&partition).is_some() };
            case.eventually("the partition was owned again", owned).await;
        }
    }
    case.until_got(&mut members, &orders).await;
    case.until_shared(&mut members).await;
    case.flush_keys(&mut members, 10_000).await;
    assert_goes_on_at(&members[0].got, &settled);
    let all = all_got(&members);
    let distinct: BTreeSet<_> = all.iter().map(Got::id).collect();
    assert_eq!(distinct.len(), orders.len() + case.orders(0..KEYS).len());
    members[0].close().await;
}

/// Each assignment of a partition begins at its place in the partition, and goes on from there.
fn assert_goes_on_at(got: &[Got], places: &BTreeMap<Partition, Vec<usize>>) {
    let mut whole: BTreeMap<&Partition, Vec<&str>> = BTreeMap::new();
    let mut at: BTreeMap<(&Partition, usize), usize> = BTreeMap::new();
    for got in got {
        let whole = whole.entry(&got.partition).or_default();
        let begin = places.get(&got.partition).map_or(0, |places| places[got.assignment - 1]);
        let at = at.entry((&got.partition, got.assignment)).or_insert(begin);
        match whole.get(*at) {
            Some(expected) => assert_eq!(*expected, got.id(), "assignment {}", got.assignment),
            None => whole.push(got.id()),
        }
        *at += 1;
    }
}

/// Calls without anything in them, and closing twice.
pub async fn nothing_settled_is_harmless<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "nothing").await;
    let orders = case.orders(0..100);
    let mut members = [case.join().await];
    case.until_shared(&mut members).await;
    members[0].settler.settle(&[]).await.unwrap();
    let none = |partition: &Partition| Settled {
        partition: partition.clone(),
        watermark: None,
        finished: vec![],
    };
    let nothing: Vec<_> = members[0].owned().map(none).collect();
    members[0].settler.settle(&nothing).await.unwrap();
    members[0].settler.release(&[]).await.unwrap();
    members[0].settler.pause(&[]).unwrap();
    members[0].settler.resume(&[]).unwrap();
    case.publish(&orders).await;
    case.until_got(&mut members, &orders).await;
    members[0].close().await;
    members[0].settler.close().await.unwrap();
    let mut next = [case.join().await];
    case.flush_keys(&mut next, 1000).await;
    assert_got(&next[0].got, &case.orders(1000..1000 + KEYS));
    next[0].close().await;
}
