//! The inbox: what a consumer decided about each delivery.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{Condition, Decision, Delivered, Text, Write};

/// A delivery is handled once: a second time is refused, later and within a batch.
pub async fn a_first_time_is_once<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let handle = |id: &str, effect: &str| {
        when([first("k", id)], [append("s", effect), decide("k", id, Decision::Done)])
    };
    accept(&database, handle("1", "1 once")).await;
    assert!(is_already_handled(&try_one(&database, handle("1", "1 twice")).await));
    let batch = vec![handle("2", "2 once"), handle("2", "2 twice"), handle("3", "3 once")];
    let answers = database.commit(batch).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(is_already_handled(&answers[1]), "{answers:?}");
    assert_eq!(ids(&log(&database).await), ["1 once", "2 once", "3 once"]);
    for decision in [Decision::Parked, Decision::Skipped, Decision::Replaced] {
        accept(&database, writes([decide("k", decision.as_str(), decision)])).await;
        let again = try_one(&database, handle(decision.as_str(), "effect")).await;
        assert!(is_already_handled(&again), "{decision:?} is a decision too");
    }
}

/// Consumer, source and id name a delivery together.
pub async fn a_delivery_is_named_by_consumer_source_and_id<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let names = [
        ("k", "s", "1"),
        ("other", "s", "1"),
        ("k", "other", "1"),
        ("k", "s", "2"),
        ("K", "s", "1"),
        ("ks", "", "1"),
        ("k", "s1", ""),
    ];
    for (consumer, source, id) in names {
        let delivery =
            Delivered { consumer: consumer.into(), source: source.into(), id: id.into() };
        let row =
            Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until: None };
        let handle = when([Condition::FirstTime(delivery)], [row]);
        accept(&database, handle.clone()).await;
        assert!(is_already_handled(&try_one(&database, handle).await));
    }
}

/// Decisions come in the order asked, `None` where nothing was decided, also when asked twice
/// and ten thousand at once.
pub async fn decisions_come_in_the_order_asked<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let decided = [Decision::Done, Decision::Parked, Decision::Skipped, Decision::Replaced];
    let rows: Vec<_> = decided.map(|decision| decide("k", decision.as_str(), decision)).into();
    accept(&database, writes(rows)).await;
    accept(&database, writes([decide("other", "else", Decision::Done)])).await;
    let asked = |ids: &[&str]| -> Vec<(Text, Text)> {
        ids.iter().map(|id| ("test".into(), Text::from(*id))).collect()
    };
    assert_eq!(database.decisions("k", &[]).await.unwrap(), []);
    let mut some = asked(&["replaced", "else", "done", "parked", "done", "skipped"]);
    some.push(("another source".into(), "done".into()));
    let [done, parked, skipped, replaced] = decided.map(Some);
    let expected = [replaced, None, done, parked, done, skipped, None];
    assert_eq!(database.decisions("k", &some).await.unwrap(), expected);
    let names: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let mut many = asked(&names.iter().map(String::as_str).collect::<Vec<_>>());
    many[7_777].1 = "parked".into();
    let found = database.decisions("k", &many).await.unwrap();
    assert_eq!((found.len(), found[7_777]), (10_000, parked));
    assert_eq!(found.iter().flatten().count(), 1);
}

/// A commit can require what was decided; anything else, or nothing, refuses it.
pub async fn a_decision_is_a_condition<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let retry = || {
        let parked = Condition::Decided(delivered("k", "1"), Decision::Parked);
        when([parked], [decide("k", "1", Decision::Done), put("c", "effect", "x")])
    };
    assert!(is_already_handled(&try_one(&database, retry()).await), "nothing is decided yet");
    accept(&database, writes([decide("k", "1", Decision::Skipped)])).await;
    assert!(is_already_handled(&try_one(&database, retry()).await));
    accept(&database, writes([decide("k", "1", Decision::Parked)])).await;
    let answers = database.commit(vec![retry(), retry()]).await;
    assert!(answers[0].is_ok() && is_already_handled(&answers[1]), "{answers:?}");
    assert_eq!(version(&database, "c", "effect").await, 1);
}

/// A decision replaces the one before it, with the place where it may be forgotten.
pub async fn a_decision_replaces_the_one_before_it<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let bound = decide_until("k", "bound", "p", 5);
    let all = [
        bound,
        decide("k", "bound", Decision::Replaced),
        decide("k", "kept", Decision::Parked),
        decide_until("k", "kept", "p", 5),
        decide_until("k", "moved", "p", 5),
        decide_until("k", "moved", "q", 6),
    ];
    accept(&database, writes(all)).await;
    assert_eq!(decision(&database, "k", "bound").await, Some(Decision::Replaced));
    assert_eq!(decision(&database, "k", "kept").await, Some(Decision::Done));
    let forget = Write::Forget { consumer: "k".into(), partition: "p".into(), through: 5 };
    accept(&database, writes([forget])).await;
    assert_eq!(decision(&database, "k", "bound").await, Some(Decision::Replaced), "kept now");
    assert_eq!(decision(&database, "k", "kept").await, None, "bound now");
    assert_eq!(decision(&database, "k", "moved").await, Some(Decision::Done), "in q now");
}

/// Forgetting takes the rows of this consumer and partition up to the offset; it leaves those
/// above, of others, and those that are kept. What is forgotten may be handled again.
pub async fn forget_takes_only_bound_rows_up_to_the_offset<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = [
        decide_until("k", "4", "p", 4),
        decide_until("k", "5", "p", 5),
        decide_until("k", "6", "p", 6),
        decide_until("k", "far", "p", i64::MAX.unsigned_abs()),
        decide_until("k", "other partition", "q", 1),
        decide_until("other", "5", "p", 5),
        decide("k", "kept", Decision::Parked),
    ];
    accept(&database, writes(all)).await;
    let forget =
        |through| writes([Write::Forget { consumer: "k".into(), partition: "p".into(), through }]);
    accept(&database, forget(3)).await;
    assert_eq!(decision(&database, "k", "4").await, Some(Decision::Done));
    accept(&database, forget(5)).await;
    let asked = ["4", "5", "6", "far", "other partition", "kept"];
    let mut left = vec![];
    for id in asked {
        if decision(&database, "k", id).await.is_some() {
            left.push(id);
        }
    }
    assert_eq!(left, asked[2..]);
    assert_eq!(decision(&database, "other", "5").await, Some(Decision::Done));
    accept(&database, forget(5)).await;
    accept(&database, when([first("k", "5")], [decide_until("k", "5", "p", 5)])).await;
    let refused = when([first("k", "6")], []);
    assert!(is_already_handled(&try_one(&database, refused).await));
}
