//! A partition without a leader, as when the brokers that have it are gone: nothing of it can be had,
//! and the others go on. Against the client library's own imitation of a cluster, as a real one
//! of a single broker has no such partition.

use crate::support::{Member, key_of, numbers, publish, subscription, unique};
use rdkafka::mocking::MockCluster;
use sillage_core::{Offset, Partition, Start, Subscription};
use sillage_kafka::Kafka;

/// Takes what comes until so many deliveries were noted; what it was told meanwhile.
async fn told(member: &mut Member, count: usize) -> Vec<String> {
    let mut told = vec![];
    while member.got.len() < count {
        if let Err(error) = member.next().await {
            told.push(error.to_string());
        }
    }
    told
}

#[tokio::test]
async fn the_others_go_on_and_it_follows_when_it_has_one() {
    let mock = MockCluster::new(1).unwrap();
    let (topic, consumer) = (unique("topic"), unique("consumer"));
    mock.create_topic(&topic, 2, 1).unwrap();
    let kafka = Kafka::connect(&format!("kafka://{}", mock.bootstrap_servers())).await.unwrap();
    let [without, with] = [0, 1].map(|number| Partition { topic: topic.clone(), number });
    for partition in [&without, &with] {
        publish(&kafka, &topic, &key_of(partition), numbers(0..10)).await;
    }
    let join = || Member::join(&kafka, &consumer, &topic);
    // It is new: where that partition begins nobody knows.
    mock.partition_leader(&topic, 0, None).unwrap();
    let mut member = join().await;
    let heard = told(&mut member, 10).await;
    assert_eq!(member.owned, std::slice::from_ref(&with));
    assert!(
        heard.iter().any(|heard| heard.contains(&format!("nothing of {without}"))),
        "{heard:?}"
    );
    mock.partition_leader(&topic, 0, Some(1)).unwrap();
    told(&mut member, 20).await;
    let of = |partition: &Partition, member: &Member| -> Vec<u64> {
        let got = member.got.iter().filter(|(of, _)| of == partition);
        got.map(|(_, delivery)| delivery.offset.0).collect()
    };
    assert_eq!(of(&without, &member), (0..10).collect::<Vec<_>>());
    member.settle(&without, Offset(3)).await;
    member.settle(&with, Offset(5)).await;
    member.close().await;
    // It has been there before: it goes on there.
    mock.partition_leader(&topic, 0, None).unwrap();
    let mut member = join().await;
    told(&mut member, 4).await;
    assert_eq!(of(&with, &member), [6, 7, 8, 9]);
    mock.partition_leader(&topic, 0, Some(1)).unwrap();
    told(&mut member, 10).await;
    assert_eq!(of(&without, &member), [4, 5, 6, 7, 8, 9]);
    member.close().await;
}

#[tokio::test]
async fn a_broadcast_follows_as_well_and_health_says_so_until_then() {
    let mock = MockCluster::new(1).unwrap();
    let topic = unique("topic");
    mock.create_topic(&topic, 2, 1).unwrap();
    let kafka = Kafka::connect(&format!("kafka://{}", mock.bootstrap_servers())).await.unwrap();
    let [without, with] = [0, 1].map(|number| Partition { topic: topic.clone(), number });
    for partition in [&without, &with] {
        publish(&kafka, &topic, &key_of(partition), numbers(0..10)).await;
    }
    mock.partition_leader(&topic, 0, None).unwrap();
    let all = subscription(&unique("consumer"), &topic, Start::Earliest);
    let all = Subscription { broadcast: true, ..all };
    let mut member = Member::subscribe(&kafka, all).await;
    told(&mut member, 10).await;
    // Again and again.
    for _ in 0..3 {
        let heard = member.next().await.unwrap_err().to_string();
        assert!(heard.contains(&format!("nothing of {without}")), "{heard}");
    }
    mock.partition_leader(&topic, 0, Some(1)).unwrap();
    told(&mut member, 20).await;
    member.close().await;
}
