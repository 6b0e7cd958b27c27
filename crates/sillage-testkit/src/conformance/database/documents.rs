//! Documents: versions, conditions, and times on the database's clock.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{Range, Sort, Stored, Text, Timestamp, Version};
use std::time::Duration;

/// A document has version 1 when it is made, the next with each put, and 1 again after a delete.
pub async fn versions_of_documents_count_their_puts<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    assert_eq!(document(&database, "c", "d").await, None);
    accept(&database, writes([delete("c", "d")])).await;
    for version in 1..=3 {
        let body = version.to_string();
        accept(&database, writes([put("c", "d", &body), put("other", "d", "x")])).await;
        let stored =
            Stored { id: "d".into(), version: Version(version), sort: None, body: body.into() };
        assert_eq!(document(&database, "c", "d").await, Some(stored));
    }
    accept(&database, writes([delete("c", "d")])).await;
    assert_eq!(document(&database, "c", "d").await, None);
    assert_eq!(version(&database, "other", "d").await, 3);
    accept(&database, writes([put("c", "d", "anew")])).await;
    assert_eq!(version(&database, "c", "d").await, 1);
    let blind = |body| writes([put("c", "d", body)]);
    let after = |n, body| when([document_is("c", "d", Some(n))], [put("c", "d", body)]);
    for (batch, version) in [
        (vec![blind("2"), blind("3")], 3),
        (vec![after(3, "4"), after(4, "5")], 5),
        (vec![writes([put("c", "new", "1"), put("c", "new", "2")]), blind("6"), blind("7")], 7),
    ] {
        for answer in database.commit(batch).await {
            answer.unwrap();
        }
        let body = version.to_string().into();
        let stored = Stored { id: "d".into(), version: Version(version), sort: None, body };
        assert_eq!(document(&database, "c", "d").await, Some(stored));
    }
    assert_eq!(version(&database, "c", "new").await, 2);
}

/// A document is made only where it is absent, replaced and deleted only at the version that
/// was read, where a commit says so.
pub async fn documents_are_made_replaced_and_deleted_under_conditions<F: DatabaseFixture>(
    fixture: &F,
) {
    let database = fixture.open().await;
    let make = || when([document_is("c", "d", None)], [put("c", "d", "made")]);
    let replace = |n| when([document_is("c", "d", Some(n))], [put("c", "d", "replaced")]);
    let remove = |n| when([document_is("c", "d", Some(n))], [delete("c", "d")]);
    assert!(is_conflict(&try_one(&database, replace(1)).await));
    assert!(is_conflict(&try_one(&database, remove(1)).await));
    accept(&database, make()).await;
    assert!(is_conflict(&try_one(&database, make()).await));
    assert!(is_conflict(&try_one(&database, replace(2)).await));
    accept(&database, replace(1)).await;
    assert!(is_conflict(&try_one(&database, replace(1)).await));
    assert!(is_conflict(&try_one(&database, remove(1)).await));
    accept(&database, remove(2)).await;
    assert!(is_conflict(&try_one(&database, remove(2)).await));
    accept(&database, make()).await;
    let elsewhere = when([document_is("other", "d", None)], [put("other", "d", "made")]);
    accept(&database, elsewhere).await;
}

/// Documents come in the order asked, `None` for each that is absent, also when asked twice and
/// ten thousand at once.
pub async fn documents_come_in_the_order_asked<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = ["b", "a", "c", "o'\"%_\\ é"].map(|id| put("c", id, id));
    accept(&database, writes(all)).await;
    accept(&database, writes([put("other", "x", "x")])).await;
    let read = async |ids: &[&str]| -> Vec<Option<Text>> {
        let documents = database.get("c", ids).await.unwrap();
        documents.into_iter().map(|document| document.map(|document| document.id)).collect()
    };
    assert_eq!(read(&[]).await, []);
    let asked = ["c", "x", "a", "A", "c", "o'\"%_\\ é"];
    let expected = [Some("c"), None, Some("a"), None, Some("c"), Some("o'\"%_\\ é")];
    assert_eq!(read(&asked).await, expected.map(|id| id.map(Text::from)));
    let names: Vec<String> = (0..10_000).map(|number| format!("{number}")).collect();
    let mut asked: Vec<&str> = names.iter().map(String::as_str).collect();
    asked[7_777] = "b";
    let found = read(&asked).await;
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[7_777].as_deref(), Some("b"));
    assert_eq!(found.iter().flatten().count(), 1);
}

/// A document with a time is due when the database's clock has reached it; the earliest first.
pub async fn documents_are_due_when_their_time_has_come<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let due = async |max| listed(&database, "timers", Range::Due, max).await;
    assert_eq!(due(ALL).await, []);
    let now = database.now().await.unwrap();
    let at = |time: Timestamp| text(&time.to_string());
    let all = [
        sorted("timers", "z past", at(now - secs(3600))),
        sorted("timers", "a now", at(now)),
        sorted("timers", "b at once", Sort::After(Duration::ZERO)),
        sorted("timers", "c soon", Sort::After(secs(2))),
        sorted("timers", "d later", Sort::After(secs(3600))),
        sorted("timers", "e later", at(now + secs(3600))),
        sorted("timers", "f far", at(Timestamp::from_micros(i64::MAX))),
        sorted("timers", "g never", Sort::After(secs(10_000 * 365 * 24 * 3600))),
        put("timers", "h without", "x"),
        sorted("others", "h", at(now - secs(1))),
    ];
    accept(&database, writes(all)).await;
    let expected: [Text; 3] = ["z past".into(), "a now".into(), "b at once".into()];
    assert_eq!(due(ALL).await, expected);
    assert_eq!(due(2).await, expected[..2]);
    fixture.pass(secs(3)).await;
    let expected: [Text; 4] =
        ["z past".into(), "a now".into(), "b at once".into(), "c soon".into()];
    assert_eq!(due(ALL).await, expected);
    let moved = sorted("timers", "z past", Sort::After(secs(3600)));
    accept(&database, writes([delete("timers", "a now"), moved])).await;
    assert_eq!(due(ALL).await, expected[2..]);
}

/// A delay counts from the commit, on the database's clock, and is kept as a time is written.
pub async fn a_delay_counts_from_the_commit_on_database_time<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    for handle in handles.iter().cycle().take(4) {
        for delay in [Duration::ZERO, Duration::from_micros(1), secs(5400), secs(400 * 24 * 3600)] {
            let before = handle.now().await.unwrap() + delay;
            accept(handle, writes([sorted("timers", "t", Sort::After(delay))])).await;
            let after = handle.now().await.unwrap() + delay;
            let stored = document(handle, "timers", "t").await.unwrap().sort.unwrap();
            let time: Timestamp = stored.parse().unwrap();
            assert!(before <= time && time <= after, "{before} <= {time} <= {after}");
            assert_eq!(*stored, *time.to_string());
        }
        fixture.pass(secs(2)).await;
    }
}

/// A sort key with the condition `Below` only rises: equal and lower ones are fenced, also
/// within a batch, compared as text.
pub async fn what_must_be_below_only_rises<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let raise = |to: &str| when([below("marks", "m", to)], [sorted("marks", "m", text(to))]);
    let mark = async || document(&database, "marks", "m").await.unwrap().sort.unwrap();
    accept(&database, raise("05")).await;
    assert!(is_fenced(&try_one(&database, raise("05")).await));
    assert!(is_fenced(&try_one(&database, raise("04")).await));
    accept(&database, raise("10")).await;
    assert!(is_fenced(&try_one(&database, raise("1")).await), "text, not numbers");
    let answers = database.commit(vec![raise("11"), raise("13"), raise("12"), raise("14")]).await;
    let accepted: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!((accepted, &*mark().await), (vec![true, true, false, true], "14"));
    assert!(is_fenced(&answers[2]));
    accept(&database, writes([put("marks", "m", "has no sort key")])).await;
    assert!(is_fenced(&try_one(&database, raise("99")).await), "nothing is below no sort key");
    accept(&database, writes([delete("marks", "m")])).await;
    accept(&database, raise("01")).await;
    accept(&database, when([below("others", "m", "00")], [])).await;
}

/// The database's clock goes on, the same on every handle, and never back.
pub async fn database_time_goes_on<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let mut last = handles[0].now().await.unwrap();
    for handle in handles.iter().cycle().take(4) {
        fixture.pass(secs(1)).await;
        let now = handle.now().await.unwrap();
        assert!(now.since(last) >= secs(1), "{last} … {now}");
        last = now;
    }
}
