//! Topics as they are made and found, and how far consumers are.

use super::{
    BrokerFixture,
    case::{Case, PARTITIONS},
    joined::Joined,
};
use sillage_core::{Progress, Text, TopicSpec, TopicStatus};

/// What is missing is made, and what is there is left.
pub async fn topics_are_made_once<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "made").await;
    let other: Text = format!("{}-other", case.name).into();
    let specs = [case.spec(&case.topic), case.spec(&other)];
    let made = case.broker.ensure(&specs).await.unwrap();
    assert!(!made.created.contains(&case.topic), "{made:?}");
    assert!(made.differs.is_empty(), "{made:?}");
    if !case.can.is_log {
        assert_eq!(made.created, [other]);
    }
    let again = fixture.open().await.ensure(&specs).await.unwrap();
    assert_eq!(again, sillage_core::TopologyDiff::default());
    assert_eq!(case.broker.ensure(&[]).await.unwrap(), sillage_core::TopologyDiff::default());
    let default = TopicSpec { name: format!("{}-default", case.name).into(), partitions: None };
    case.broker.ensure(std::slice::from_ref(&default)).await.unwrap();
    let found = topics(&case, &[default.name]).await;
    assert!(case.can.is_log || !found[0].partitions.is_empty(), "{found:?}");
}

/// Several processes start at the same time; each finds the topics there afterwards.
pub async fn topics_are_made_once_by_many<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "many").await;
    let specs: Vec<_> = (0..3).map(|n| case.spec(&format!("{}-{n}", case.name))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (broker, specs) = (fixture.open().await, specs.clone());
        tasks.spawn(async move {
            broker.ensure(&specs).await.unwrap();
            let names: Vec<_> = specs.into_iter().map(|spec| spec.name).collect();
            broker.topics(&names).await.unwrap().len()
        });
    }
    for found in tasks.join_all().await {
        assert!(case.can.is_log || found == specs.len(), "{found} of {}", specs.len());
    }
}

/// A topic that has another number of partitions keeps it, and somebody is told.
pub async fn other_partitions_are_told_and_left_alone<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "differs").await;
    if case.can.is_log {
        return;
    }
    let more = TopicSpec { partitions: Some(PARTITIONS + 1), ..case.spec(&case.topic) };
    let diff = case.broker.ensure(&[more]).await.unwrap();
    assert!(diff.created.is_empty(), "{diff:?}");
    assert!(diff.differs.iter().any(|sentence| sentence.contains(&*case.topic)), "{diff:?}");
    let found = topics(&case, std::slice::from_ref(&case.topic)).await;
    assert_eq!(found[0].partitions.len(), PARTITIONS as usize);
}

/// Those asked for that exist, or all; each partition once, with its ends where they are told.
pub async fn topics_tell_what_there_is<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "topics").await;
    let orders = case.orders(0..100);
    case.publish(&orders).await;
    let unknown: Text = format!("{}-unknown", case.name).into();
    let found = topics(&case, &[unknown.clone(), case.topic.clone()]).await;
    assert_eq!(names(&found), [&case.topic]);
    let numbers: Vec<_> = found[0].partitions.iter().map(|partition| partition.number).collect();
    let expected: Vec<_> = (0..u32::try_from(case.partitions()).unwrap()).collect();
    assert_eq!(numbers, expected);
    let ends = found[0].partitions.iter().filter_map(|p| Some(p.next?.0 - p.first?.0));
    let (told, count) = ends.fold((0, 0), |(told, count), more| (told + 1, count + more));
    assert!(told == 0 || (told == numbers.len() && count >= 100), "{found:?}");
    assert!(topics(&case, std::slice::from_ref(&unknown)).await.is_empty());
    let all = topics(&case, &[]).await;
    assert!(names(&all).contains(&&case.topic) && !names(&all).contains(&&unknown), "{all:?}");
}

/// All waits; with what is settled less; in the end nothing. What a member holds and has not
/// settled counts at the latest when it has left.
pub async fn progress_tells_what_is_settled<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "progress").await;
    let orders = case.orders(0..200);
    case.publish(&orders).await;
    let mut finished = 0;
    for part in [0, 7, usize::MAX] {
        let mut members = [case.join_idle().await];
        case.until_got(&mut members, &orders[orders.len() - 1..]).await;
        until_held(&case, &mut members, 200 - finished).await;
        if case.can.offsets {
            until_lag(&case, "billing", 200 - finished).await;
        }
        for partition in members[0].owned().cloned().collect::<Vec<_>>() {
            finished += members[0].finish_first(&partition, part);
        }
        members[0].settle().await;
        if case.can.offsets {
            until_lag(&case, "billing", 200 - finished).await;
        }
        assert_settled(&case, &members[0], part).await;
        members[0].close().await;
        until_lag(&case, "billing", 200 - finished).await;
    }
    assert_eq!(finished, 200);
    case.publish(&case.orders(200..240)).await;
    until_lag(&case, "billing", 40).await;
}

/// Lets a member receive until so many deliveries are unsettled.
async fn until_held<'a, F: BrokerFixture>(
    case: &Case<'a, F>,
    members: &mut [Joined<'a, F>; 1],
    count: usize,
) {
    let held = |members: &[Joined<'_, F>]| members[0].got.len() == count;
    case.until(members, &format!("it held {count} deliveries"), held).await;
}

/// The place told is at or behind what was settled, and none is told before something was.
async fn assert_settled<F: BrokerFixture>(case: &Case<'_, F>, member: &Joined<'_, F>, part: usize) {
    let told = progress(case, "billing").await;
    if part == 0 || !case.can.offsets {
        assert!(told.iter().all(|progress| progress.settled.is_none()), "{told:?}");
    } else if part == usize::MAX {
        for got in &member.got {
            let of_it = told.iter().find(|progress| progress.partition == got.partition);
            let settled = of_it.and_then(|progress| progress.settled);
            assert!(settled >= Some(got.delivery.offset), "{told:?}");
        }
    }
}

/// What one consumer settles moves no other's place; one that never was has settled nothing.
pub async fn progress_is_each_consumers_own<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "own").await;
    let orders = case.orders(0..100);
    let mut idle = [Joined::join(&case, case.subscription("email")).await];
    idle[0].settles = false;
    let mut members = [case.join().await];
    case.until_shared(&mut idle).await;
    case.until_shared(&mut members).await;
    case.publish(&orders).await;
    case.until_got(&mut members, &orders).await;
    case.until_got(&mut idle, &orders).await;
    members[0].close().await;
    idle[0].close().await;
    until_lag(&case, "billing", 0).await;
    until_lag(&case, "email", 100).await;
    for consumer in ["email", "never-there"] {
        let told = progress(&case, consumer).await;
        assert!(told.iter().all(|progress| progress.settled.is_none()), "{consumer}: {told:?}");
    }
}

async fn topics<F: BrokerFixture>(case: &Case<'_, F>, names: &[Text]) -> Vec<TopicStatus> {
    case.broker.topics(names).await.unwrap()
}

fn names(found: &[TopicStatus]) -> Vec<&Text> {
    found.iter().map(|topic| &topic.name).collect()
}

async fn progress<F: BrokerFixture>(case: &Case<'_, F>, consumer: &str) -> Vec<Progress> {
    let consumer = case.subscription(consumer).consumer;
    case.broker.progress(&consumer, std::slice::from_ref(&case.topic)).await.unwrap()
}

async fn until_lag<F: BrokerFixture>(case: &Case<'_, F>, consumer: &str, lag: usize) {
    let what = format!("{consumer} was {lag} behind");
    let lag_is = || async move {
        let told = progress(case, consumer).await;
        told.iter().map(|progress| progress.lag).sum::<u64>() == lag as u64
    };
    case.eventually(&what, lag_is).await;
}
