//! Many callers at once, restarts and callers that go away: one winner, nothing twice.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{Condition, Decision, Epoch, Expected};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

const MANY: usize = 64;

/// Of 64 commits at once that expect one version of a stream, one is accepted.
pub async fn one_winner_per_stream_version<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    for round in 0..8 {
        let expected = if round == 0 { Expected::NoStream } else { exact(round) };
        let commits = (0..MANY).map(|number| {
            when([stream_is("s", expected)], [append("s", &format!("{round} {number}"))])
        });
        let answers = at_once(&handles, commits).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| is_conflict(answer)).count(), MANY - 1);
        assert_eq!(stream(&handles[0], "s").await.len() as u64, round + 1);
    }
}

/// Of 64 commits at once that expect one version of a document, one is accepted.
pub async fn one_winner_per_document_version<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    for round in 0..8 {
        let expected = (round > 0).then_some(round);
        let commits = (0..MANY).map(|number| {
            when([document_is("c", "d", expected)], [put("c", "d", &number.to_string())])
        });
        let answers = at_once(&handles, commits).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| is_conflict(answer)).count(), MANY - 1);
        assert_eq!(version(&handles[1], "c", "d").await, round + 1);
    }
}

/// Of 64 at once that append one (source, id), to streams of their own, one is accepted.
pub async fn an_identity_is_appended_once_by_many<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let commits = (0..MANY).map(|number| writes([append(&format!("s-{number}"), "1")]));
    let answers = at_once(&handles, commits).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| is_already_handled(answer)).count(), MANY - 1);
    assert_eq!(ids(&log(&handles[0]).await), ["1"]);
}

/// Of 64 handlings of one delivery at once, the effects of one are committed.
pub async fn a_first_time_is_once_among_many<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let commits = (0..MANY).map(|number| {
        let effects = [append("s", &format!("effect {number}")), decide("k", "1", Decision::Done)];
        when([first("k", "1")], effects)
    });
    let answers = at_once(&handles, commits).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| is_already_handled(answer)).count(), MANY - 1);
    assert_eq!(log(&handles[0]).await.len(), 1);
}

/// Of 16 that take a lease at once, one gets it.
pub async fn a_lease_is_taken_once_by_many<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let mut tasks = JoinSet::new();
    for owner in 1..=16 {
        let handle = handles[usize::from(owner % 2 == 0)].clone();
        let owner = Uuid::from_u128(owner);
        tasks.spawn(async move { handle.lease("l", owner, secs(3600)).await.unwrap() });
    }
    let taken: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
}

/// Once a new owner has the lease, nothing more is committed under the old epoch, also by one
/// who commits all the time and does not know.
pub async fn nothing_of_an_old_epoch_comes_after_the_new_owner<F: DatabaseFixture>(fixture: &F) {
    let (old, new) = (fixture.open().await, fixture.open().await);
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for round in 0..10 {
        let lease = format!("lease {round}");
        let epoch = old.lease(&lease, a, secs(3600)).await.unwrap().unwrap();
        let zombie = tokio::spawn(commit_until_fenced(old.clone(), lease.clone(), epoch));
        while stream(&new, &lease).await.len() < 5 {
            tokio::task::yield_now().await;
        }
        new.lease(&lease, a, Duration::ZERO).await.unwrap();
        let taken = new.lease(&lease, b, secs(3600)).await.unwrap().unwrap();
        let before = new.head().await.unwrap().last;
        let owned = when([lease_is(&lease, taken)], [append(&lease, &format!("{round} new"))]);
        accept(&new, owned).await;
        zombie.await.unwrap();
        let late: Vec<_> =
            stream(&new, &lease).await.into_iter().skip_while(|e| e.position <= before).collect();
        assert_eq!(ids(&late), [format!("{round} new")]);
    }
}

async fn commit_until_fenced(database: Handle, lease: String, epoch: Epoch) {
    for number in 0.. {
        let append = append(&lease, &format!("{lease} {number}"));
        let answer = try_one(&database, when([lease_is(&lease, epoch)], [append])).await;
        if is_fenced(&answer) {
            return;
        }
        assert!(answer.is_ok(), "{answer:?}");
    }
}

/// What a commit wrote is seen by every read that starts after its answer, on every handle.
pub async fn writes_are_seen_by_every_read_that_starts_after_the_answer<F: DatabaseFixture>(
    fixture: &F,
) {
    let handles = [fixture.open().await, fixture.open().await];
    for number in 0..50usize {
        let (writer, reader) = (&handles[number % 2], &handles[(number / 2) % 2]);
        let id = number.to_string();
        let all = [append("s", &id), put("c", &id, "x"), decide("k", &id, Decision::Done)];
        let committed = accept(writer, writes(all)).await;
        assert_eq!(version(reader, "c", &id).await, 1);
        assert_eq!(decision(reader, "k", &id).await, Some(Decision::Done));
        assert_eq!(stream(reader, "s").await.len(), number + 1);
        assert!(reader.head().await.unwrap().stable >= committed.position);
        assert_eq!(log(reader).await.last().unwrap().id.as_str(), id);
    }
}

/// What was acknowledged is there when all handles were dropped and the database is opened anew.
pub async fn what_is_committed_is_there_after_a_restart<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let owner = Uuid::from_u128(1);
    let epoch = database.lease("l", owner, secs(3600)).await.unwrap().unwrap();
    let all = [append("s", "1"), sorted("c", "d", text("5")), decide("k", "1", Decision::Parked)];
    let committed = accept(&database, writes(all)).await;
    let before = (log(&database).await, document(&database, "c", "d").await);
    let head = database.head().await.unwrap();
    drop(database);

    let database = fixture.open().await;
    assert_eq!((log(&database).await, document(&database, "c", "d").await), before);
    assert_eq!(database.head().await.unwrap(), head);
    assert_eq!(decision(&database, "k", "1").await, Some(Decision::Parked));
    assert_eq!(database.lease("l", Uuid::from_u128(2), secs(1)).await.unwrap(), None);
    assert_eq!(database.lease("l", owner, secs(3600)).await.unwrap(), Some(epoch));
    let next = accept(&database, when([stream_is("s", exact(1))], [append("s", "2")])).await;
    assert!(next.position > committed.position);
}

/// Trying a commit again, as after an unknown outcome, never doubles it.
pub async fn a_commit_that_is_tried_again_is_not_doubled<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let handling = || {
        let effects = [append("s", "1"), put("c", "d", "x"), decide("k", "0", Decision::Done)];
        when([first("k", "0")], effects)
    };
    let plain = || writes([append("s", "2"), put("c", "e", "x")]);
    accept(&handles[0], handling()).await;
    accept(&handles[0], plain()).await;
    for handle in &handles {
        assert!(is_already_handled(&try_one(handle, handling()).await));
        assert!(is_already_handled(&try_one(handle, plain()).await));
    }
    assert_eq!(ids(&log(&handles[0]).await), ["1", "2"]);
    assert_eq!(version(&handles[0], "c", "d").await, 1);
    assert_eq!(version(&handles[0], "c", "e").await, 1);
}

/// A commit whose answer was lost is known by its messages when it is tried again, alone or in a
/// batch, also where its own writes, or later ones, are in the way of its conditions. Else its
/// caller would decide again, and the fact would be there twice.
pub async fn a_retry_is_known_by_its_messages<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    let before = [append("s", "0"), put("c", "d", "x"), decide("k", "0", Decision::Parked)];
    accept(&handles[0], writes(before)).await;
    let parked = Condition::Decided(delivered("k", "0"), Decision::Parked);
    let commits = [
        when([stream_is("s", exact(1))], [append("s", "1"), append("s", "2")]),
        when([stream_is("t", Expected::NoStream)], [append("t", "3")]),
        when([document_is("c", "d", Some(1))], [put("c", "d", "y"), entry(message("4"))]),
        when([document_is("c", "e", None)], [put("c", "e", "y"), append("t", "5")]),
        when([below("c", "m", "7")], [sorted("c", "m", text("7")), entry(message("6"))]),
        when([parked], [decide("k", "0", Decision::Done), append("s", "7")]),
    ];
    // To the callers these have failed: the answers do not reach them.
    for commit in &commits {
        accept(&handles[0], commit.clone()).await;
    }
    accept(&handles[1], writes([append("s", "8"), append("t", "9"), put("c", "d", "z")])).await;
    for handle in &handles {
        for commit in &commits {
            let answer = try_one(handle, commit.clone()).await;
            assert!(is_already_handled(&answer), "{commit:?}: {answer:?}");
        }
        let answers = handle.commit(commits.to_vec()).await;
        assert!(answers.iter().all(is_already_handled), "{answers:?}");
    }
    assert_eq!(ids(&log(&handles[0]).await).concat(), "0123456789");
    assert_eq!(ids(&stream(&handles[0], "s").await), ["0", "1", "2", "7", "8"]);
    assert_eq!(version(&handles[0], "c", "d").await, 3);
    assert_eq!(version(&handles[0], "c", "e").await, 1);
}

/// A caller that stops waiting leaves its commit done or not done, never half done; it may try
/// it again at once.
pub async fn a_caller_that_goes_away_leaves_a_whole_commit_or_none<F: DatabaseFixture>(
    fixture: &F,
) {
    let database = fixture.open().await;
    let names: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    let handling = |id: &str| {
        let effects = [append("s", id), put("c", id, "x"), decide("k", id, Decision::Done)];
        when([first("k", id)], effects)
    };
    for (number, id) in names.iter().enumerate() {
        let patience = async {
            for _ in 0..number % 8 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = database.commit(vec![handling(id)]) => {}
            () = patience => {}
        }
        let answer = try_one(&database, handling(id)).await;
        assert!(answer.is_ok() || is_already_handled(&answer), "{answer:?}");
    }
    assert_eq!(ids(&log(&database).await), names);
    for id in &names {
        assert_eq!(version(&database, "c", id).await, 1);
        assert_eq!(decision(&database, "k", id).await, Some(Decision::Done));
    }
}
