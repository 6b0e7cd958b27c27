//! Consumers get everything; members of one consumer share it.

use super::{
    BrokerFixture,
    case::{Case, Got, all_got, assert_got, without_redeliveries},
    joined::Joined,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::HashSet;

/// What one consumer settles is nothing to another.
pub async fn consumers_each_get_everything<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "consumers").await;
    let orders = case.orders(0..400);
    case.publish(&orders[..200]).await;
    let mut members = [
        Joined::join(&case, case.subscription("billing")).await,
        Joined::join(&case, case.subscription("email")).await,
    ];
    case.until_got(&mut members[..1], &orders[..200]).await;
    case.publish(&orders[200..]).await;
    for place in 0..2 {
        case.until_got(&mut members[place..=place], &orders).await;
        assert_got(&members[place].got, &orders);
        members[place].close().await;
    }
}

/// Both have a share, and while each settles what it is given nothing is given to both.
pub async fn members_share_the_work<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "share").await;
    let orders = case.orders(0..1000);
    let mut members = [case.join().await, case.join().await];
    case.until_shared(&mut members).await;
    let publisher = case.publish_meanwhile(&orders, 50);
    case.until_got(&mut members, &orders).await;
    publisher.await.unwrap();
    case.flush_keys(&mut members, 2000).await;
    let markers = case.orders(2000..2020);
    assert_got(&all_got(&members), orders.iter().chain(&markers));
    assert!(members.iter().all(|member| !member.got.is_empty()), "one has done all the work");
    for member in &mut members {
        member.close().await;
    }
}

/// It takes over partitions while messages flow: nothing is lost, and no key goes back.
pub async fn a_joining_member_gets_a_share<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "joining").await;
    let orders = case.orders(0..2000);
    let mut members = vec![case.join().await];
    case.publish(&orders[..500]).await;
    case.until_got(&mut members, &orders[..500]).await;
    members.push(case.join().await);
    let publisher = case.publish_meanwhile(&orders[500..1500], 10);
    case.until_shared(&mut members).await;
    publisher.await.unwrap();
    case.publish(&orders[1500..]).await;
    case.until_got(&mut members, &orders).await;
    assert_got(&without_redeliveries(&all_got(&members)), &orders);
    assert!(!members[1].got.is_empty(), "the second has done nothing");
    for member in &mut members {
        member.close().await;
    }
}

/// It leaves as it should: the other one goes on where it has settled, and nothing comes twice.
pub async fn a_leaving_members_share_goes_on<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "leaving").await;
    let orders = case.orders(0..900);
    let mut members = vec![case.join().await, case.join().await];
    case.until_shared(&mut members).await;
    case.publish(&orders[..300]).await;
    case.until_got(&mut members, &orders[..300]).await;
    members[0].close().await;
    let mut left = vec![members.remove(0)];
    case.publish(&orders[300..600]).await;
    case.until_shared(&mut members).await;
    case.publish(&orders[600..]).await;
    let got = left[0].got.iter().map(Got::id).collect::<Vec<_>>();
    let rest: Vec<_> = orders.iter().filter(|o| !got.contains(&o.id.as_str())).cloned().collect();
    case.until_got(&mut members, &rest).await;
    left.append(&mut members);
    assert_got(&all_got(&left), &orders);
    left[1].close().await;
}

/// Members join, leave and are gone without a word, in a seeded order, under load.
pub async fn members_that_come_and_go_keep_the_order<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "come-and-go").await;
    let mut random = StdRng::seed_from_u64(7);
    let orders = case.orders(0..1500);
    let mut members = vec![case.join().await];
    let mut past = vec![];
    for (round, some) in orders.chunks(300).enumerate() {
        let publisher = case.publish_meanwhile(some, 20);
        members.push(case.join().await);
        case.turns(&mut members, random.random_range(1..40)).await;
        if random.random_bool(0.7) {
            case.until_shared(&mut members).await;
        }
        let mut leaving = members.remove(random.random_range(0..members.len()));
        if round != 2 {
            leaving.close().await;
        }
        past.append(&mut leaving.got);
        publisher.await.unwrap();
    }
    let seen: HashSet<_> = past.iter().map(|got| got.delivery.message.id.clone()).collect();
    let rest: Vec<_> = orders.iter().filter(|order| !seen.contains(&order.id)).cloned().collect();
    case.until_got(&mut members, &rest).await;
    past.extend(all_got(&members));
    past.sort_by_key(|got| got.number);
    assert_got(&without_redeliveries(&past), &orders);
    members[0].close().await;
}
