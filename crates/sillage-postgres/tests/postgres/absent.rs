//! What is expected to be absent, while somebody else makes it.

use crate::support::{DIRECT, POOLED, Schema, append, run};
use bytes::Bytes;
use sillage_core::{Commit, CommitError, Condition, Database, Version, Write};

const COLLECTION: &str = "tombstones";

/// Appends an entry if a document is absent, and puts another.
pub(crate) fn unless(absent: &str, puts: &str) -> Commit {
    let condition =
        Condition::Document { collection: COLLECTION.into(), id: absent.into(), expected: None };
    let put = Write::Put {
        collection: COLLECTION.into(),
        id: puts.into(),
        sort: None,
        body: Bytes::from_static(b"{}"),
    };
    Commit { conditions: vec![condition], writes: vec![put, append(None, puts)] }
}

/// Two processes, each of which expects what the other makes to be absent: one of them is refused.
#[test]
fn of_two_that_exclude_each_other_one_is_refused() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let (one, other) = (schema.open().await, schema.open().await);
            let mut firsts = 0;
            for round in 0..300 {
                let (do_it, undo_it) = (format!("{round} do"), format!("{round} undo"));
                let one = one.commit(vec![unless(&undo_it, &do_it)]);
                let other = other.commit(vec![unless(&do_it, &undo_it)]);
                let (one, other) = tokio::join!(one, other);
                let first = one[0].is_ok();
                firsts += u32::from(first);
                let refused = if first { &other[0] } else { &one[0] };
                let accepted = if first { &one[0] } else { &other[0] };
                assert!(accepted.is_ok(), "round {round}: both are refused: {accepted:?}");
                assert!(
                    matches!(refused, Err(CommitError::Conflict { .. })),
                    "round {round}: both are accepted: {refused:?}"
                );
            }
            assert!(0 < firsts && firsts < 300, "they were never at it at once: {firsts}");
            let mut shell = schema.shell().await;
            let left = "SELECT count(*) FROM @@.documents WHERE version < 1";
            assert_eq!(schema.number(&mut shell, left).await, 0, "a place is still held");
        });
    }
}

/// What was expected to be absent can be made afterwards, and begins at its first version.
#[test]
fn what_was_expected_to_be_absent_is_absent() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let (before, writes) = (unless("later", "now"), database.durable_writes());
            assert!(database.commit(vec![before]).await[0].is_ok());
            assert_eq!(database.durable_writes(), writes + 1);
            assert_eq!(database.get(COLLECTION, &["later"]).await.unwrap(), [None]);
            assert!(database.commit(vec![unless("nothing", "later")]).await[0].is_ok());
            let later = database.get(COLLECTION, &["later"]).await.unwrap().remove(0);
            assert_eq!(later.map(|later| later.version), Some(Version(1)));
        });
    }
}
