//! A commit: all or nothing, and each by itself within its batch.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{CommitError, Condition, Decision, Epoch, Expected, Position, Version, Write};
use uuid::Uuid;

/// All writes of an accepted commit are there, of every kind.
pub async fn a_commit_is_applied_whole<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let before = [
        put("c", "old", "x"),
        decide_until("k", "old", "p", 1),
        decide("k", "m", Decision::Parked),
    ];
    accept(&database, writes(before)).await;
    let forget = Write::Forget { consumer: "k".into(), partition: "p".into(), through: 1 };
    let all = [
        append("s", "1"),
        entry(message("2")),
        append("t", "3"),
        put("c", "new", "body"),
        sorted("c", "mark", text("7")),
        delete("c", "old"),
        decide("k", "m", Decision::Done),
        forget,
    ];
    let committed = accept(&database, writes(all)).await;

    let log = log(&other).await;
    assert_eq!(ids(&log), ["1", "2", "3"]);
    assert_eq!(log[0].stream, Some(("s".into(), Version(1))));
    assert_eq!(log[1].stream, None);
    assert_eq!(log[2].position, committed.position);
    let made = document(&other, "c", "new").await.unwrap();
    assert_eq!((made.version, &made.body[..], made.sort), (Version(1), &b"body"[..], None));
    let mark = document(&other, "c", "mark").await.unwrap();
    assert_eq!(mark.sort.as_deref(), Some("7"));
    assert_eq!(document(&other, "c", "old").await, None);
    assert_eq!(decision(&other, "k", "m").await, Some(Decision::Done));
    assert_eq!(decision(&other, "k", "old").await, None);
}

/// A refused commit leaves no entry, no document, no inbox row and no stream version, whatever
/// it was refused for, alone and between accepted ones; what it named can be committed later.
pub async fn a_refused_commit_leaves_nothing<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let epoch = database.lease("l", Uuid::from_u128(1), secs(3600)).await.unwrap().unwrap();
    let kept = [
        append("s", "kept"),
        put("c", "kept", "old"),
        sorted("c", "mark", text("5")),
        decide("k", "seen", Decision::Done),
    ];
    accept(&database, writes(kept)).await;

    let mut expected = vec!["kept".to_owned()];
    for (number, (condition, write)) in guilty(epoch).into_iter().enumerate() {
        let lost = || {
            let mut all = vec![
                append("s", &format!("lost {number}")),
                entry(message(&format!("lost too {number}"))),
                put("c", "kept", "new"),
                put("c", "lost", "x"),
                delete("c", "mark"),
                decide("k", "lost", Decision::Done),
            ];
            all.extend(write.clone());
            when(condition.clone(), all)
        };
        refuse(&database, lost()).await;
        let (before, after) = (format!("before {number}"), format!("after {number}"));
        let batch = vec![writes([append("s", &before)]), lost(), writes([append("s", &after)])];
        let answers = database.commit(batch).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{condition:?}: {answers:?}");
        assert!(answers[1].is_err(), "{condition:?}: {answers:?}");
        expected.extend([before, after]);
    }

    assert_eq!(ids(&log(&database).await), expected);
    let versions: Vec<_> =
        stream(&database, "s").await.iter().map(|e| e.stream.as_ref().unwrap().1.0).collect();
    assert_eq!(versions, (1..=expected.len() as u64).collect::<Vec<_>>());
    let kept = document(&database, "c", "kept").await.unwrap();
    assert_eq!((kept.version, &kept.body[..]), (Version(1), &b"old"[..]));
    assert_eq!(document(&database, "c", "lost").await, None);
    assert!(document(&database, "c", "mark").await.is_some());
    assert_eq!(decision(&database, "k", "lost").await, None);
    let conditions = [first("k", "lost"), document_is("c", "lost", None)];
    accept(&database, when(conditions, [append("s", "lost 0"), put("c", "lost", "x")])).await;
}

/// Every reason to refuse a commit: a condition that fails, or a write that cannot be.
fn guilty(epoch: Epoch) -> Vec<(Vec<Condition>, Vec<Write>)> {
    let conditions = [
        first("k", "seen"),
        Condition::Decided(delivered("k", "seen"), Decision::Parked),
        Condition::Decided(delivered("k", "lost"), Decision::Done),
        stream_is("s", Expected::NoStream),
        stream_is("s", exact(1_000)),
        document_is("c", "kept", None),
        document_is("c", "kept", Some(9)),
        document_is("c", "lost", Some(1)),
        below("c", "mark", "5"),
        lease_is("l", Epoch(epoch.0 + 1)),
        lease_is("never taken", Epoch(1)),
    ];
    let long = "x".repeat(12_000);
    let impossible = [
        vec![append("s", "kept")],
        vec![append("s", "new"), entry(message("new"))],
        vec![put("c", &long, "x")],
        vec![entry(message(&long))],
    ];
    let conditions = conditions.into_iter().map(|condition| (vec![condition], vec![]));
    conditions.chain(impossible.into_iter().map(|write| (vec![], write))).collect()
}

/// Of a batch, those that can be applied are; the others are refused, each for its own reason.
pub async fn commits_of_a_batch_stand_alone<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let answers = database
        .commit(vec![
            writes([append("s", "1")]),
            when([stream_is("s", Expected::NoStream)], [append("s", "2")]),
            when([first("k", "1")], [append("s", "3"), decide("k", "1", Decision::Done)]),
            when([first("k", "1")], [append("s", "4")]),
            when([below("c", "none", "1")], [append("t", "5")]),
            when([lease_is("none", Epoch(1))], [append("t", "6")]),
        ])
        .await;
    assert!(answers[0].is_ok() && answers[2].is_ok() && answers[4].is_ok(), "{answers:?}");
    assert!(is_conflict(&answers[1]), "{answers:?}");
    assert!(is_already_handled(&answers[3]), "{answers:?}");
    assert!(is_fenced(&answers[5]), "{answers:?}");
    assert_eq!(ids(&log(&database).await), ["1", "3", "5"]);
}

/// A commit sees what accepted ones before it in the batch wrote, and nothing of refused ones:
/// `Exact(n)` and `Exact(n + 1)` both pass.
pub async fn later_commits_see_earlier_ones_of_their_batch<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let step = |expected, id| when([stream_is("s", expected)], [append("s", id)]);
    let replace = |expected, body| when([document_is("c", "d", expected)], [put("c", "d", body)]);
    let answers = database
        .commit(vec![
            step(Expected::NoStream, "1"),
            step(exact(1), "2"),
            step(exact(1), "refused"),
            step(exact(2), "3"),
            replace(None, "1"),
            replace(None, "refused"),
            replace(Some(1), "2"),
            when([document_is("c", "d", Some(2))], [delete("c", "d")]),
            replace(None, "3"),
        ])
        .await;
    let accepted: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, true, false, true, true, false, true, true, true], "{answers:?}");
    assert_eq!(ids(&stream(&database, "s").await), ["1", "2", "3"]);
    let last = document(&database, "c", "d").await.unwrap();
    assert_eq!((last.version, &last.body[..]), (Version(1), &b"3"[..]));
}

/// Conditions see the state before the commit's own writes.
pub async fn conditions_see_the_state_before_the_own_writes<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let conditions = [
        first("k", "1"),
        stream_is("s", Expected::NoStream),
        document_is("c", "d", None),
        below("c", "d", "1"),
    ];
    let all = [
        decide("k", "1", Decision::Done),
        append("s", "1"),
        append("s", "2"),
        sorted("c", "d", text("9")),
    ];
    accept(&database, when(conditions, all)).await;
    let conditions = [
        Condition::Decided(delivered("k", "1"), Decision::Done),
        stream_is("s", exact(2)),
        document_is("c", "d", Some(1)),
    ];
    let all = [decide("k", "1", Decision::Parked), append("s", "3"), delete("c", "d")];
    accept(&database, when(conditions, all)).await;
}

/// Where several conditions fail, a lease answers first, then what says that the commit was done
/// before, then the first of the others, in the commit's order.
pub async fn conditions_answer_by_rank_then_in_their_order<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let kept = [append("s", "1"), decide("k", "1", Decision::Done), sorted("c", "mark", text("5"))];
    accept(&database, writes(kept)).await;
    let passes = || stream_is("s", exact(1));
    let fenced = || lease_is("none", Epoch(1));
    let handled = || first("k", "1");
    let conflict = || stream_is("s", Expected::NoStream);
    let other = || Condition::Decided(delivered("k", "1"), Decision::Parked);
    let not_below = || below("c", "mark", "5");
    let answer = async |conditions: [Condition; 3], id: &str| {
        try_one(&database, when(conditions, [append("s", id)])).await
    };
    for id in ["1", "new"] {
        assert!(is_fenced(&answer([handled(), conflict(), fenced()], id).await));
        assert!(is_fenced(&answer([passes(), fenced(), other()], id).await));
        assert!(is_already_handled(&answer([conflict(), not_below(), handled()], id).await));
    }
    for last in [passes(), conflict(), not_below(), other(), document_is("c", "mark", None)] {
        let answer = answer([passes(), last.clone(), passes()], "1").await;
        assert!(is_already_handled(&answer), "{last:?}: {answer:?}");
    }
    assert!(is_conflict(&answer([passes(), conflict(), not_below()], "new").await));
    assert!(is_conflict(&answer([conflict(), other(), passes()], "new").await));
    assert!(is_fenced(&answer([not_below(), conflict(), other()], "new").await));
    assert!(is_already_handled(&answer([other(), conflict(), passes()], "new").await));
    assert_eq!(ids(&log(&database).await), ["1"]);
}

/// Writes are made in their order, and each counts.
pub async fn writes_are_applied_in_their_order<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = [
        append("s", "1"),
        put("c", "twice", "1"),
        put("c", "twice", "2"),
        put("c", "gone", "x"),
        delete("c", "gone"),
        put("c", "again", "1"),
        put("c", "again", "2"),
        delete("c", "again"),
        put("c", "again", "3"),
        delete("c", "late"),
        put("c", "late", "x"),
        append("t", "2"),
        append("s", "3"),
        decide("k", "1", Decision::Parked),
        decide("k", "1", Decision::Skipped),
    ];
    accept(&database, writes(all)).await;
    let twice = document(&database, "c", "twice").await.unwrap();
    assert_eq!((twice.version, &twice.body[..]), (Version(2), &b"2"[..]));
    assert_eq!(document(&database, "c", "gone").await, None);
    let again = document(&database, "c", "again").await.unwrap();
    assert_eq!((again.version, &again.body[..]), (Version(1), &b"3"[..]));
    assert_eq!(version(&database, "c", "late").await, 1);
    assert_eq!(ids(&log(&database).await), ["1", "2", "3"]);
    assert_eq!(ids(&stream(&database, "s").await), ["1", "3"]);
    assert_eq!(decision(&database, "k", "1").await, Some(Decision::Skipped));
}

/// A conflict says what was expected and what is there.
pub async fn conflicts_name_both_versions<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = [append("s", "1"), append("s", "2"), put("c", "d", "1"), put("c", "d", "2")];
    accept(&database, writes(all)).await;
    let cases = [
        (stream_is("s", Expected::NoStream), None, Some(2)),
        (stream_is("s", exact(1)), Some(1), Some(2)),
        (stream_is("none", exact(3)), Some(3), None),
        (document_is("c", "d", None), None, Some(2)),
        (document_is("c", "d", Some(3)), Some(3), Some(2)),
        (document_is("c", "none", Some(1)), Some(1), None),
    ];
    for (condition, wanted, found) in cases {
        match refuse(&database, when([condition.clone()], [])).await {
            CommitError::Conflict { expected, actual } => {
                let versions = (wanted.map(Version), found.map(Version));
                assert_eq!((expected, actual), versions, "{condition:?}");
            }
            other => panic!("{condition:?}: {other:?}"),
        }
    }
}

/// `Any` is always right; version 0 is "not there yet".
pub async fn any_version_and_version_zero_are_understood<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    accept(&database, when([stream_is("s", Expected::Any)], [append("s", "1")])).await;
    accept(&database, when([stream_is("s", Expected::Any)], [append("s", "2")])).await;
    accept(&database, when([stream_is("t", exact(0))], [append("t", "3")])).await;
    let again = when([stream_is("t", exact(0))], [append("t", "4")]);
    assert!(is_conflict(&try_one(&database, again).await));
}

/// The position of a commit is that of its last entry; of one without entries, the head.
pub async fn a_committed_position_is_that_of_the_last_entry<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    assert_eq!(accept(&database, writes([])).await.position, Position(0));
    let batch = vec![
        writes([append("s", "1"), entry(message("2"))]),
        writes([append("s", "3"), put("c", "d", "x")]),
    ];
    let answers = database.commit(batch).await;
    let log = log(&database).await;
    assert_eq!(answers[0].as_ref().unwrap().position, log[1].position);
    assert_eq!(answers[1].as_ref().unwrap().position, log[2].position);
    let committed = accept(&database, writes([put("c", "d", "y")])).await;
    assert_eq!(committed.position, log[2].position);
}

/// A batch has one answer for each commit, at its place; an empty batch has none.
pub async fn every_commit_has_an_answer_in_its_place<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    assert!(database.commit(vec![]).await.is_empty());
    let commit = |number: usize| {
        let repeats = if number % 3 == 2 { number - 1 } else { number };
        writes([append("s", &repeats.to_string())])
    };
    let answers = database.commit((0..1_000).map(commit).collect()).await;
    assert_eq!(answers.len(), 1_000);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(is_already_handled(answer), number % 3 == 2, "{number}: {answer:?}");
    }
    assert_eq!(stream(&database, "s").await.len(), answers.iter().flatten().count());
}
