//! Leases: one owner at a time, on the database's time, and an epoch that fences the last one.

use super::super::{DatabaseFixture, values::*};
use sillage_core::Epoch;
use std::time::Duration;
use uuid::Uuid;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);
const HOUR: Duration = secs(3600);

async fn take(database: &Handle, owner: Uuid, ttl: Duration) -> Option<Epoch> {
    database.lease("l", owner, ttl).await.unwrap()
}

/// A lease that has an owner is not given to another; leases are by name.
pub async fn a_lease_has_one_owner<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    assert!(take(&database, A, HOUR).await.is_some());
    assert_eq!(take(&database, B, HOUR).await, None);
    assert_eq!(take(&other, B, HOUR).await, None);
    assert!(other.lease("another", B, HOUR).await.unwrap().is_some());
    assert_eq!(database.lease("another", A, HOUR).await.unwrap(), None);
}

/// Renewing keeps the epoch and moves the end of the lease.
pub async fn renewing_keeps_the_epoch_and_moves_the_end<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let epoch = take(&database, A, secs(4)).await;
    fixture.pass(secs(2)).await;
    assert_eq!(take(&database, A, secs(4)).await, epoch);
    fixture.pass(secs(3)).await;
    assert_eq!(take(&other, B, HOUR).await, None, "renewed until later than this");
    assert_eq!(take(&other, A, secs(1)).await, epoch, "it can be made shorter");
    fixture.pass(secs(2)).await;
    assert!(take(&other, B, HOUR).await > epoch);
}

/// A lease whose time is over may be taken by another, with a higher epoch; by the same owner,
/// with the same: nobody else had it.
pub async fn an_expired_lease_moves_with_a_higher_epoch<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let first = take(&database, A, secs(2)).await.unwrap();
    fixture.pass(secs(3)).await;
    assert_eq!(take(&database, A, secs(2)).await, Some(first));
    fixture.pass(secs(3)).await;
    let second = take(&other, B, secs(2)).await.unwrap();
    assert!(second > first);
    assert_eq!(take(&database, A, secs(2)).await, None);
    fixture.pass(secs(3)).await;
    assert!(take(&database, A, secs(2)).await.unwrap() > second);
}

/// A lease that was given back may be taken by another at once, with a higher epoch; by the
/// same owner, with the same.
pub async fn a_released_lease_moves_at_once_with_a_higher_epoch<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let first = take(&database, A, HOUR).await.unwrap();
    take(&database, A, Duration::ZERO).await;
    assert_eq!(take(&database, A, HOUR).await, Some(first));
    take(&database, A, Duration::ZERO).await;
    let second = take(&other, B, HOUR).await.unwrap();
    assert!(second > first);
    take(&other, B, Duration::ZERO).await;
    assert!(take(&database, A, HOUR).await.unwrap() > second);
}

/// Only its owner gives a lease back; giving back what nobody has does nothing.
pub async fn a_lease_is_released_by_its_owner_only<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    take(&database, B, Duration::ZERO).await;
    let epoch = take(&database, A, HOUR).await;
    assert!(epoch.is_some());
    take(&other, B, Duration::ZERO).await;
    assert_eq!(take(&other, B, HOUR).await, None);
    assert_eq!(take(&database, A, HOUR).await, epoch);
}

/// A commit under a lease passes while the epoch is the lease's, renewed or not, and is fenced
/// once another has it, for good.
pub async fn a_commit_under_an_old_epoch_is_fenced<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let under = |epoch, id: &str| when([lease_is("l", epoch)], [append("s", id)]);
    assert!(is_fenced(&try_one(&database, under(Epoch(1), "never taken")).await));
    let old = take(&database, A, secs(2)).await.unwrap();
    accept(&database, under(old, "1")).await;
    take(&database, A, secs(2)).await.unwrap();
    accept(&other, under(old, "2")).await;
    fixture.pass(secs(3)).await;
    let new = take(&other, B, HOUR).await.unwrap();
    for handle in [&database, &other] {
        let batch = vec![under(old, "stale"), writes([put("c", "d", "x")])];
        let answers = handle.commit(batch).await;
        assert!(is_fenced(&answers[0]) && answers[1].is_ok(), "{answers:?}");
    }
    accept(&database, under(new, "3")).await;
    take(&other, B, Duration::ZERO).await;
    take(&database, A, HOUR).await.unwrap();
    assert!(is_fenced(&try_one(&database, under(old, "of long ago")).await));
    assert!(is_fenced(&try_one(&database, under(new, "of the one before")).await));
    assert_eq!(ids(&log(&database).await), ["1", "2", "3"]);
}
