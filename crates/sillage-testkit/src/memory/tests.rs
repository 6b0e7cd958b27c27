use super::*;
use crate::{ManualClock, conformance::values::message};
use sillage_core::{Condition, Expected, Write};
use std::pin::pin;
use tokio::time::timeout;

fn memory() -> Memory {
    Memory::new(Arc::new(ManualClock::default()))
}

fn put(id: &str) -> Commit {
    let write = Write::Put {
        collection: "things".into(),
        id: id.into(),
        sort: None,
        body: bytes::Bytes::new(),
    };
    Commit { conditions: vec![], writes: vec![write] }
}

async fn ids(memory: &Memory) -> Vec<Text> {
    let all = Range::Ids { prefix: "", after: "" };
    let documents = memory.list("things", all, 10).await.unwrap();
    documents.into_iter().map(|document| document.id).collect()
}

#[tokio::test]
async fn a_failed_commit_is_not_applied_and_later_ones_are() {
    let memory = memory();
    memory.fail_next(2);
    let answers = memory.commit(vec![put("a"), put("b"), put("c")]).await;
    assert!(matches!(answers[0], Err(CommitError::Failed(_))));
    assert!(matches!(answers[1], Err(CommitError::Failed(_))));
    assert!(answers[2].is_ok());
    assert_eq!(ids(&memory).await, ["c".into()]);
}

#[tokio::test]
async fn an_unknown_outcome_is_applied_and_answers_failed() {
    let memory = memory();
    memory.fail_after_apply(1);
    let answers = memory.commit(vec![put("a"), put("b")]).await;
    assert!(matches!(answers[0], Err(CommitError::Failed(_))));
    assert!(answers[1].is_ok());
    assert_eq!(ids(&memory).await, ["a".into(), "b".into()]);
}

/// Else `execute` would decide again, and the fact would be there twice.
#[tokio::test]
async fn an_unknown_outcome_that_is_tried_again_is_already_handled() {
    let memory = memory();
    let append = |expected, id: &str| {
        let stream: Text = "order-1".into();
        let condition = Condition::Stream { stream: stream.clone(), expected };
        let message = Arc::new(message(id));
        let write = Write::Append { stream: Some(stream), message };
        vec![Commit { conditions: vec![condition], writes: vec![write] }]
    };
    assert!(memory.commit(append(Expected::NoStream, "created")).await[0].is_ok());
    memory.fail_after_apply(1);
    let paid = append(Expected::Exact(Version(1)), "paid");
    assert!(matches!(memory.commit(paid.clone()).await[..], [Err(CommitError::Failed(_))]));
    assert!(matches!(memory.commit(paid).await[..], [Err(CommitError::AlreadyHandled)]));
    assert_eq!(memory.stream("order-1", Version(0), 9).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_database_does_nothing_until_it_is_thawed() {
    let (memory, moment) = (memory(), Duration::from_secs(1));
    memory.freeze();
    assert!(timeout(moment, memory.commit(vec![put("given up")])).await.is_err());
    assert!(timeout(moment, memory.head()).await.is_err());
    let mut waiting = pin!(memory.commit(vec![put("waits")]));
    assert!(timeout(moment, &mut waiting).await.is_err());
    memory.clone().thaw();
    assert!(waiting.await[0].is_ok());
    assert_eq!(ids(&memory).await, ["waits".into()]);
}

#[tokio::test]
async fn sql_transactions_are_refused_by_name() {
    let error = memory().begin().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
