//! Readers: a checkpoint that moves by `through` passes every entry, skips none, and never
//! stands still.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{Filter, Message, Position, Recorded, Text, Write};
use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::task::JoinSet;

const WRITERS: usize = 8;
const COMMITS: usize = 40;

/// Readers that move their checkpoint to `through` see every entry once and in order, while
/// others write; a filtered one sees every entry that matches.
pub async fn every_reader_sees_every_entry_in_order<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let end = Arc::new(OnceLock::new());
    let (mut readers, mut filtered) = (JoinSet::new(), JoinSet::new());
    for (handle, max) in handles.iter().cycle().zip([1, 7, 1_000]) {
        let wanted = Filter { topics: vec!["wanted".into()], ..Filter::default() };
        readers.spawn(follow(handle.clone(), Filter::default(), max, end.clone()));
        filtered.spawn(follow(handle.clone(), wanted, max, end.clone()));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_many(handles[writer % 2].clone(), writer));
    }
    writers.join_all().await;
    end.set(handles[0].head().await.unwrap().stable).unwrap();

    let mut all = log(&handles[0]).await;
    assert_eq!(all.len(), WRITERS * COMMITS * 2);
    for writer in 0..WRITERS {
        let own = format!("{writer} ");
        let order: Vec<_> = ids(&all).into_iter().filter(|id| id.starts_with(&own)).collect();
        assert!(order.is_sorted(), "what one writer committed in turn is in that order");
    }
    for seen in readers.join_all().await {
        assert_eq!(ids(&seen), ids(&all));
        assert!(seen == all, "what is told is not what is read");
    }
    all.retain(|entry| entry.topic.as_deref() == Some("wanted"));
    for seen in filtered.join_all().await {
        assert_eq!(ids(&seen), ids(&all));
        assert!(seen == all, "what is told is not what is read");
    }
}

/// Commits of two entries each, the first with the topic `wanted`.
async fn write_many(database: Handle, writer: usize) {
    for number in 0..COMMITS {
        let (id, other) = (format!("{writer} {number:03} a"), format!("{writer} {number:03} b"));
        let wanted = Message { topic: Some("wanted".into()), ..message(&id) };
        let stream = format!("s-{}", writer % 3);
        accept(&database, writes([entry(wanted), append(&stream, &other)])).await;
        // Lets readers in between, also where a commit never waits.
        tokio::task::yield_now().await;
    }
}

/// Reads until the checkpoint has reached the end, which is set when all is written.
async fn follow(
    database: Handle,
    filter: Filter,
    max: usize,
    end: Arc<OnceLock<Position>>,
) -> Vec<Recorded> {
    const POLL: Duration = Duration::from_millis(5);
    let (mut seen, mut checkpoint, mut told) = (vec![], Position(0), None);
    while end.get().is_none_or(|end| checkpoint < *end) {
        let page = match told.take() {
            Some(page) => page,
            None => database.log(checkpoint, &filter, max).await.unwrap(),
        };
        assert!(page.entries.len() <= max);
        assert!(page.entries.iter().all(|e| checkpoint < e.position && e.position <= page.through));
        assert!(page.through >= checkpoint && page.trimmed_before == Position(0));
        checkpoint = page.through;
        if page.entries.len() < max {
            // A hint may be missed; then the poll finds it.
            let next = database.next(checkpoint, &filter, max);
            told = tokio::time::timeout(POLL, next).await.ok().flatten();
        }
        seen.extend(page.entries);
    }
    seen
}

/// A filter takes what is in every list that is not empty, and nothing else.
pub async fn a_filter_takes_only_what_matches<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let add = |id: &str, stream: Option<&str>, topic: Option<&str>, name: &str, flow: &str| {
        let message = Message {
            topic: topic.map(Text::from),
            name: name.into(),
            correlation_id: flow.into(),
            ..message(id)
        };
        Write::Append { stream: stream.map(Text::from), message: Arc::new(message) }
    };
    let all = [
        add("1", Some("order-1"), Some("order"), "order.created", "f"),
        add("2", Some("order-1"), Some("order"), "order.paid", "f"),
        add("3", Some("order-10"), Some("order"), "order.created", "g"),
        add("4", None, Some("payment"), "payment.completed", "f"),
        add("5", None, Some("order.commands"), "order.create", "g"),
        add("6", Some("order-1"), None, "order.noted", "g"),
        add("7", None, None, "order.created", "F"),
    ];
    accept(&database, writes(all)).await;
    let texts = |all: &[&str]| all.iter().map(|text| Text::from(*text)).collect::<Vec<_>>();
    let filter =
        |topics: &[&str], names: &[&str], stream: Option<&str>, flow: Option<&str>| Filter {
            topics: texts(topics),
            names: texts(names),
            stream: stream.map(Text::from),
            correlation_id: flow.map(Text::from),
        };
    let cases = [
        (filter(&[], &[], None, None), "1 2 3 4 5 6 7"),
        (filter(&["order"], &[], None, None), "1 2 3"),
        (filter(&["payment", "order", "order"], &[], None, None), "1 2 3 4"),
        (filter(&["none"], &[], None, None), ""),
        (filter(&[], &["order.created"], None, None), "1 3 7"),
        (filter(&[], &["order.create", "order.paid"], None, None), "2 5"),
        (filter(&[], &[], Some("order-1"), None), "1 2 6"),
        (filter(&[], &[], None, Some("f")), "1 2 4"),
        (filter(&["order"], &["order.created"], None, None), "1 3"),
        (filter(&["order"], &[], Some("order-1"), Some("f")), "1 2"),
        (filter(&["order", "payment"], &["order.created"], Some("order-10"), Some("g")), "3"),
        (filter(&["payment"], &[], Some("order-1"), None), ""),
    ];
    for (filter, expected) in cases {
        let page = database.log(Position(0), &filter, ALL).await.unwrap();
        assert_eq!(ids(&page.entries).join(" "), expected, "{filter:?}");
    }
}

/// Pages of any size, one after the other, hold all that matches and nothing twice.
pub async fn pages_of_a_filter_leave_nothing_out<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let name = |number: usize| if number % 3 == 1 { "wanted" } else { "other" };
    let add =
        |number| entry(Message { name: name(number).into(), ..message(&format!("{number:03}")) });
    accept(&database, writes((0..100).map(add).collect::<Vec<_>>())).await;
    let filter = Filter { names: vec!["wanted".into()], ..Filter::default() };
    let expected = database.log(Position(0), &filter, ALL).await.unwrap().entries;
    assert_eq!(expected.len(), 33);
    let head = database.head().await.unwrap().stable;
    for max in [1, 2, 3, 10, 11, 32, 33, 34, 1_000] {
        let (mut seen, mut checkpoint) = (vec![], Position(0));
        while checkpoint < head {
            let page = database.log(checkpoint, &filter, max).await.unwrap();
            assert!(page.entries.len() <= max);
            assert!(page.through > checkpoint, "a reader below the head moves on");
            checkpoint = page.through;
            seen.extend(page.entries);
        }
        assert_eq!(ids(&seen), ids(&expected), "with pages of {max}");
    }
}

/// A match far along the log is found, and the checkpoint rises with each page on the way there.
pub async fn a_rare_match_far_along_the_log_is_found<F: DatabaseFixture>(fixture: &F) {
    const COMMITS: usize = 30;
    let database = fixture.open().await;
    let thousand = |commit: usize| {
        let ids = (0..1_000).map(|number| format!("{commit} {number}"));
        writes(ids.map(|id| entry(message(&id))).collect::<Vec<_>>())
    };
    let answers = database.commit((0..COMMITS).map(thousand).collect()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let rare = Message { topic: Some("rare".into()), ..message("rare") };
    let end = accept(&database, writes([entry(rare), append("s", "last")])).await.position;

    let filter = Filter { topics: vec!["rare".into()], ..Filter::default() };
    let (mut seen, mut checkpoint) = (vec![], Position(0));
    while checkpoint < end {
        let page = database.log(checkpoint, &filter, 10).await.unwrap();
        assert!(page.through > checkpoint && page.through <= end);
        checkpoint = page.through;
        seen.extend(page.entries);
    }
    assert_eq!(ids(&seen), ["rare"]);
    let mut checkpoint = Position(0);
    let mut count = 0;
    while checkpoint < end {
        let page = page(&database, checkpoint, 7_000).await;
        checkpoint = page.through;
        count += page.entries.len();
    }
    assert_eq!(count, COMMITS * 1_000 + 2);
}

/// The checkpoint of a reader that finds nothing moves to the head all the same.
pub async fn through_moves_where_nothing_matched<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let none = Filter { topics: vec!["none".into()], ..Filter::default() };
    let page = database.log(Position(0), &none, 10).await.unwrap();
    assert_eq!((page.entries.len(), page.through), (0, Position(0)), "an empty log");
    let all = (0..30).map(|number| append("s", &number.to_string())).collect::<Vec<_>>();
    let head = accept(&database, writes(all)).await.position;
    let page = database.log(Position(0), &none, 10).await.unwrap();
    assert_eq!((page.entries.len(), page.through), (0, head));
    let page = database.log(head, &none, 10).await.unwrap();
    assert_eq!((page.entries.len(), page.through), (0, head));
}

/// `through` is at or after the page's last entry, before the next one that matches, and at the
/// stable position where there is none; a page of at most none moves past nothing.
pub async fn through_is_right_at_the_bounds_of_a_page<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let topic = |number: usize| if matches!(number, 2 | 3 | 6) { "wanted" } else { "other" };
    let add = |number| {
        entry(Message { topic: Some(topic(number).into()), ..message(&number.to_string()) })
    };
    accept(&database, writes((0..9).map(add).collect::<Vec<_>>())).await;
    let head = database.head().await.unwrap().stable;
    for filter in [Filter::default(), Filter { topics: vec!["wanted".into()], ..Filter::default() }]
    {
        let all = database.log(Position(0), &filter, ALL).await.unwrap().entries;
        let starts = [Position(0), all[0].position, all[1].position, all.last().unwrap().position];
        for (after, max) in starts.into_iter().flat_map(|after| (0..=10).map(move |n| (after, n))) {
            let page = database.log(after, &filter, max).await.unwrap();
            let rest: Vec<_> = all.iter().filter(|entry| entry.position > after).cloned().collect();
            let (expected, left) = rest.split_at(max.min(rest.len()));
            assert_eq!(page.entries, expected, "after {after}, at most {max}");
            let last = expected.last().map_or(after, |entry| entry.position);
            assert!(last <= page.through && page.through <= head, "after {after}, at most {max}");
            match left.first() {
                Some(next) => assert!(page.through < next.position, "after {after}, at most {max}"),
                None if expected.len() < max => assert_eq!(page.through, head),
                None => {}
            }
        }
    }
}

/// A reader that waits is woken by a commit on another handle that appends what it waits for,
/// whatever came before it, and is moved on behind many entries of others.
pub async fn changed_completes_after_another_handle_has_committed<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let of = |name: &str| Filter { names: vec![name.into()], ..Filter::default() };
    let named = |id: &str| writes([entry(Message { name: id.into(), ..message(id) })]);
    let stream = Filter { stream: Some("s".into()), ..Filter::default() };
    let cases = [
        (Filter::default(), vec![writes([append("s", "1")])]),
        (Filter::default(), vec![writes([entry(message("2"))])]),
        (stream, vec![named("3"), writes([append("s", "4")])]),
        (of("6"), vec![named("5"), named("6")]),
        (of("none"), (0..1100).map(|n| writes([entry(message(&format!("many-{n}")))])).collect()),
    ];
    for (filter, commits) in cases {
        let head = database.head().await.unwrap().stable;
        let woken = Cell::new(false);
        let wait = async {
            database.changed(head, &filter).await;
            woken.set(true);
        };
        let act = async {
            for answer in other.commit(commits).await {
                answer.unwrap();
            }
            // A backend that looks again after some time does so on its own clock.
            while !woken.get() {
                fixture.pass(Duration::from_millis(20)).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(wait, act);
    }
}

/// A reader that is behind need not wait.
pub async fn changed_completes_at_once_when_the_log_is_ahead<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let before = database.head().await.unwrap().stable;
    accept(&database, writes([append("s", "1")])).await;
    let any = Filter::default();
    database.changed(before, &any).await;
    other.changed(before, &any).await;
}

/// A read that was begun and is not polled any more holds up nobody: callers select between a
/// read and other things, and come back to it or not.
pub async fn a_read_nobody_polls_holds_up_nobody<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    accept(&database, writes([append("s", "1")])).await;
    let filter = Filter::default();
    let mut begun: Vec<_> = (0..64).map(|_| database.log(Position(0), &filter, 1)).collect();
    for read in &mut begun {
        tokio::select! {
            biased;
            _ = read => {}
            () = std::future::ready(()) => {}
        }
    }
    let limit = Duration::from_secs(30);
    let other = tokio::time::timeout(limit, database.get("c", &["x"])).await;
    other.expect("reads that nobody polls hold up this one").unwrap();
    drop(begun);
}
