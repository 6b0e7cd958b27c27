//! Each finished delivery is settled by itself; what an assignment did not settle comes again.

use crate::support::with;
use sillage_core::{Offset, Settled};

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_settled_in_any_order() {
    with(async |corner| {
        let topic = corner.topic("order", 1).await;
        let mut hand = corner.join("billing", &topic).await;
        hand.settles = false;
        hand.open_all().await;
        corner.publish(&corner.messages(&topic, 1, 0..9)).await;
        hand.until_got(9).await;
        let offset = |number: usize| hand.got[number].1.offset;
        for finished in [vec![8, 3], vec![0], vec![4, 1], vec![4, 1]] {
            let finished = finished.into_iter().map(offset).collect();
            let partition = hand.all[0].clone();
            let settled = Settled { partition, watermark: None, finished };
            hand.settler.settle(&[settled]).await.unwrap();
        }
        hand.release(&hand.all.clone()).await;
        hand.got.clear();
        hand.open_all().await;
        hand.until_got(4).await;
        let left = [2, 5, 6, 7].map(|number| format!("{}-{number}", corner.name));
        assert_eq!(hand.ids(), left);
        hand.close().await;
        corner.until_waiting(&format!("{}/billing/{topic}/0", corner.name), 4).await;
    })
    .await;
}

/// What a partition's last assignment delivered is not what the next one delivers, though the
/// server counts from 1 again.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_assignment_settles_nothing() {
    with(async |corner| {
        let topic = corner.topic("order", 1).await;
        let mut hand = corner.join("billing", &topic).await;
        hand.settles = false;
        hand.open_all().await;
        corner.publish(&corner.messages(&topic, 1, 0..5)).await;
        hand.until_got(5).await;
        let old: Vec<Offset> = hand.got.drain(..).map(|(_, delivery)| delivery.offset).collect();
        hand.release(&hand.all.clone()).await;
        hand.open_all().await;
        hand.until_got(5).await;
        assert!(hand.got[0].1.offset > old[4], "{old:?}");
        let partition = hand.all[0].clone();
        let settled = Settled { partition, watermark: old.last().copied(), finished: old };
        hand.settler.settle(&[settled]).await.unwrap();
        hand.release(&hand.all.clone()).await;
        corner.until_waiting(&format!("{}/billing/{topic}/0", corner.name), 5).await;
        hand.close().await;
    })
    .await;
}
