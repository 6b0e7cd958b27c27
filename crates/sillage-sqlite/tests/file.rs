//! What is particular to a file: it outlives the process, is shared, damaged, locked or refused.

#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use bytes::Bytes;
use rusqlite::Connection;
use sillage_core::{
    BoxFuture, Clock, Commit, CommitError, Committed, Condition, Database, Decision, Delivered,
    Error, ErrorKind, Expected, Filter, Header, Key, Message, MessageId, Position, Range, Sort,
    Text, Timestamp, Version, Write, to_json,
};
use sillage_sqlite::Sqlite;
use sillage_testkit::ManualClock;
use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

struct Folder {
    clock: Arc<ManualClock>,
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Folder { clock: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shop.db")
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(self.file(), self.clock.clone()).unwrap()
    }

    fn refusal(&self) -> Error {
        Sqlite::open(self.file(), self.clock.clone()).unwrap_err()
    }

    /// As somebody with a shell would see the file.
    fn shell(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}

fn message(id: &str) -> Message {
    Message {
        id: MessageId::new(id),
        source: "shop/order".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some("order".into()),
        key: Some(Key::of("o-1")),
        time: Timestamp::from_micros(1_700_000_000_000_001),
        correlation_id: "flow".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![Header { name: "tenant".into(), value: Bytes::from_static(&[0, 255]) }],
        payload: Bytes::from_static(br#"{"total":1}"#),
    }
}

fn append(id: &str) -> Commit {
    appended(message(id))
}

fn appended(message: Message) -> Commit {
    let write = Write::Append { stream: Some("order-1".into()), message: message.into() };
    Commit { conditions: vec![], writes: vec![write] }
}

fn put(collection: &str, id: &str, sort: Option<Sort>, body: impl Into<Bytes>) -> Commit {
    let (collection, id): (Text, Text) = (collection.into(), id.into());
    let write = Write::Put { collection, id, sort, body: body.into() };
    Commit { conditions: vec![], writes: vec![write] }
}

async fn one(database: &Sqlite, commit: Commit) -> Result<Committed, CommitError> {
    database.commit(vec![commit]).await.remove(0)
}

async fn ids(database: &Sqlite) -> Vec<String> {
    let page = database.log(Position(0), &Filter::default(), 1_000).await.unwrap();
    page.entries.iter().map(|entry| entry.id.to_string()).collect()
}

#[tokio::test]
async fn a_file_that_is_opened_again_has_everything() {
    let folder = Folder::new();
    let delivery = Delivered { consumer: "shop/k".into(), source: "test".into(), id: "1".into() };
    let database = folder.open();
    let mut commit = append("1");
    let decide =
        Write::Decide { delivery: delivery.clone(), decision: Decision::Parked, until: None };
    commit.writes.extend([decide, put("c", "d", None, "body").writes.remove(0)]);
    one(&database, commit).await.unwrap();
    let epoch = database.lease("l", Uuid::nil(), Duration::from_secs(60)).await.unwrap();
    let head = database.head().await.unwrap();
    drop(database);
    let files = fs::read_dir(folder.folder.path()).unwrap().count();
    assert_eq!(files, 1, "the file is complete by itself");
    let database = folder.open();
    assert_eq!(database.head().await.unwrap(), head, "also the incarnation");
    let entries = database.stream("order-1", Version(0), 10).await.unwrap();
    assert_eq!(*entries[0].body, message("1"));
    assert_eq!(database.get("c", &["d"]).await.unwrap()[0].as_ref().unwrap().body, "body");
    let decided = Commit {
        conditions: vec![Condition::Decided(delivery, Decision::Parked)],
        writes: append("2").writes,
    };
    assert_eq!(one(&database, decided).await.unwrap().position, Position(2));
    assert_eq!(database.lease("l", Uuid::max(), Duration::from_secs(1)).await.unwrap(), None);
    let again = database.lease("l", Uuid::nil(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(again, epoch);
}

#[tokio::test]
async fn two_on_one_file_see_each_other_and_take_turns() {
    let folder = Folder::new();
    let handles = [Arc::new(folder.open()), Arc::new(folder.open())];
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let handle = handles[number % 2].clone();
        writers.spawn(async move { one(&handle, append(&number.to_string())).await.is_ok() });
    }
    assert!(writers.join_all().await.into_iter().all(|accepted| accepted));
    assert_eq!(ids(&handles[0]).await, ids(&handles[1]).await);
    assert_eq!(handles[0].head().await.unwrap().last, Position(100));
    let stream = handles[1].stream("order-1", Version(0), 1_000).await.unwrap();
    assert!(stream.iter().zip(1..).all(|(entry, n)| entry.stream.as_ref().unwrap().1.0 == n));
}

/// A clock that stands, counts how often somebody slept, and lets them.
#[derive(Default)]
struct Waiting {
    clock: ManualClock,
    slept: watch::Sender<u64>,
}

impl Clock for Waiting {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        self.slept.send_modify(|slept| *slept += 1);
        Box::pin(tokio::task::yield_now())
    }
}

#[tokio::test]
async fn changed_tells_of_growth_elsewhere_and_here_of_what_is_waited_for() {
    let folder = Folder::new();
    let clock = Arc::new(Waiting::default());
    let database = Sqlite::open(folder.file(), clock.clone()).unwrap();
    let other = Sqlite::open(folder.file(), clock.clone()).unwrap();
    let wanted = Filter { names: vec!["wanted".into()], ..Filter::default() };
    let mut wait = database.changed(Position(0), &wanted);
    other.lease("l", Uuid::nil(), Duration::from_secs(60)).await.unwrap();
    one(&other, put("timers", "t", Some(Sort::After(Duration::ZERO)), "{}")).await.unwrap();
    one(&database, append("1")).await.unwrap();
    let mut slept = clock.slept.subscribe();
    let looked_again = slept.wait_for(|slept| *slept >= 3);
    tokio::select! {
        () = &mut wait => panic!("neither documents nor others' entries are a reason to look"),
        looked = looked_again => assert!(looked.is_ok()),
    }
    one(&database, appended(Message { name: "wanted".into(), ..message("2") })).await.unwrap();
    wait.await;
    // What another handle appends is not known here: whoever waits looks.
    let wait = database.changed(Position(2), &wanted);
    one(&other, append("3")).await.unwrap();
    wait.await;
}

#[tokio::test]
async fn who_follows_the_log_is_given_what_this_handle_appends() {
    let folder = Folder::new();
    let (database, other) = (folder.open(), folder.open());
    let any = Filter::default();
    let next = database.next(Position(0), &any, 9);
    one(&database, append("1")).await.unwrap();
    let given = next.await.expect("it is in memory");
    let read = database.log(Position(0), &any, 9).await.unwrap();
    assert_eq!((given.entries, given.through), (read.entries, read.through));
    one(&other, append("2")).await.unwrap();
    one(&database, append("3")).await.unwrap();
    let next = database.next(Position(1), &any, 9).await;
    assert!(next.is_none(), "the second of them is not known here: {next:?}");
}

#[tokio::test]
async fn a_batch_is_halved_until_only_the_guilty_fail() {
    let folder = Folder::new();
    let database = folder.open();
    // A trigger of somebody's stands for whatever SQLite alone can find wrong.
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON documents WHEN new.id LIKE 'bad%'
                   BEGIN SELECT raise(ABORT, 'not this one'); END";
    folder.shell().execute_batch(trigger).unwrap();
    let mut batch: Vec<_> = (0..64).map(|number| append(&number.to_string())).collect();
    for (place, write) in [(5, "bad 1"), (6, "bad 2"), (63, "bad 3")] {
        batch[place].writes.extend(put("c", write, None, "{}").writes);
    }
    let answers = database.commit(batch).await;
    let mut expected = Vec::new();
    for (number, answer) in answers.iter().enumerate() {
        if [5, 6, 63].contains(&number) {
            let Err(CommitError::Rejected(why)) = answer else { panic!("{answer:?}") };
            assert_eq!(why.kind(), ErrorKind::Invalid);
            assert!(why.to_string().contains("not this one"), "{why}");
        } else {
            expected.push(number.to_string());
            let position = answer.as_ref().unwrap().position;
            assert_eq!(position, Position(expected.len() as u64));
        }
    }
    assert_eq!(ids(&database).await, expected, "in order, and nothing of the guilty");
}

#[tokio::test]
async fn later_halves_see_what_earlier_ones_wrote() {
    let folder = Folder::new();
    let database = folder.open();
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON documents WHEN new.id = 'bad'
                   BEGIN SELECT raise(ABORT, 'not this one'); END";
    folder.shell().execute_batch(trigger).unwrap();
    let exact = |number: u64| Commit {
        conditions: vec![Condition::Stream {
            stream: "order-1".into(),
            expected: Expected::Exact(Version(number)),
        }],
        writes: append(&number.to_string()).writes,
    };
    let mut batch: Vec<_> = (0..16).map(exact).collect();
    batch.insert(3, put("c", "bad", None, "{}"));
    let answers = database.commit(batch).await;
    let refused: Vec<_> = (0..17).filter(|place| answers[*place].is_err()).collect();
    assert_eq!(refused, [3]);
}

#[tokio::test]
async fn a_locked_file_fails_nothing_once_it_is_free() {
    let folder = Folder::new();
    let database = folder.open();
    let shell = folder.shell();
    shell.execute_batch("BEGIN IMMEDIATE; INSERT INTO meta VALUES ('note', 1)").unwrap();
    let commit = one(&database, append("1"));
    let free = async {
        // The read shows that readers do not wait; then the commit may go on.
        assert_eq!(ids(&database).await, Vec::<String>::new());
        shell.execute_batch("COMMIT").unwrap();
    };
    let (committed, ()) = tokio::join!(commit, free);
    committed.unwrap();
}

/// Its clock, or who takes the log, may panic.
struct Panicking(AtomicBool);

impl Clock for Panicking {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, Ordering::Relaxed), "no room for a line");
        Timestamp::default()
    }
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_panic_of_somebody_else_ends_no_writing() {
    let (folder, clock) = (Folder::new(), Arc::new(Panicking(false.into())));
    let database = Sqlite::open(folder.file(), clock.clone()).unwrap();
    clock.0.store(true, Ordering::Relaxed);
    let unknown = one(&database, append("a")).await;
    assert!(matches!(unknown, Err(CommitError::Failed(_))), "{unknown:?}");
    one(&database, append("a")).await.unwrap();
    one(&database, append("b")).await.unwrap();
    assert_eq!(ids(&database).await, ["a", "b"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = Folder::new();
    drop(folder.open());
    let shell = folder.shell();
    shell.execute("UPDATE meta SET value = 1000 WHERE key = 'schema'", []).unwrap();
    let error = folder.refusal();
    assert_eq!(error.kind(), ErrorKind::NewerSchema);
    let words = error.to_string();
    assert!(["1000", "up to 2", "upgrade", "shop.db"].iter().all(|word| words.contains(word)));
    let version: i64 = shell
        .query_row("SELECT value FROM meta WHERE key = 'schema'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 1000);
}

#[test]
fn what_cannot_be_a_database_is_refused_by_name() {
    let folder = Folder::new();
    fs::write(folder.file(), "Dear diary, ".repeat(1_000)).unwrap();
    let error = folder.refusal();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("is not an SQLite database"), "{error}");
    let clock = folder.clock.clone();
    let missing = folder.folder.path().join("no/such/shop.db");
    let error = Sqlite::open(&missing, clock.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("create it"), "{error}");
    let error = Sqlite::open(folder.folder.path(), clock).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("is a folder"), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused() {
    let folder = Folder::new();
    drop(folder.open());
    let mut rights = fs::metadata(folder.file()).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(folder.file(), rights).unwrap();
    // The superuser may write it all the same.
    if let Err(error) = Sqlite::open(folder.file(), folder.clock.clone()) {
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("cannot be written: check the rights"), "{error}");
    }
}

#[tokio::test]
async fn sql_transactions_are_refused_by_name() {
    let folder = Folder::new();
    let error = folder.open().begin().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("return the effect"), "{error}");
}

#[tokio::test]
async fn a_filtered_read_looks_at_a_bounded_part_of_the_log() {
    let folder = Folder::new();
    let database = folder.open();
    let all: Vec<_> = (0..10_050)
        .map(|number| {
            let mut message = message(&number.to_string());
            if number == 10_040 {
                message.topic = Some("rare".into());
            }
            Write::Append { stream: None, message: message.into() }
        })
        .collect();
    one(&database, Commit { conditions: vec![], writes: all }).await.unwrap();
    let rare = Filter { topics: vec!["rare".into()], ..Filter::default() };
    let page = database.log(Position(0), &rare, 10).await.unwrap();
    assert_eq!((page.entries.len(), page.through), (0, Position(10_000)));
    let page = database.log(page.through, &rare, 10).await.unwrap();
    assert_eq!((page.entries[0].position, page.through), (Position(10_041), Position(10_050)));
}

#[tokio::test]
async fn views_show_documents_to_people() {
    let folder = Folder::new();
    let database = folder.open();
    let parked = |key: &str, dead: bool| {
        let body = format!(
            r#"{{"consumer":"payment/payment","topic":"order","key":"{key}","partition":"log/3",
            "head":7,"tail":9,"dead":{dead},"attempts":3,"failure":"gateway down",
            "class":"transient","first_failed_at":"2026-01-01T00:00:00.000000Z","redrives":1}}"#
        );
        put("parked_keys", &format!("payment/payment/order/{key}"), None, body)
    };
    let timer = format!(r#"{{"token":"t-1","message":{}}}"#, to_json(&message("m")).unwrap());
    let due = Some(Sort::Text("2026-01-01T00:15:00.000000Z".into()));
    let saga = r#"{"process":"order/checkout","version":2,"key":"o-1","status":"stuck",
        "correlation_id":"flow","started":"2026-01-01T00:00:00.000000Z",
        "updated":"2026-01-01T00:15:00.000000Z","memory":{"version":2,"why":"not in time",
        "state":{},"history":[{"step":"reserve"},{"step":"ship","progress":"stuck",
        "because":"saga.deadline"}],"data":{"total":5}}}"#;
    let batch = vec![
        parked("a", false),
        parked("b", true),
        put("parked_keys", "not JSON", None, &b"\xff"[..]),
        put("timers", "order/due", due, timer),
        put("checkpoints", "shop/relay", None, r#"{"position":42}"#),
        put("sagas", "order/checkout/o-1", None, saga),
        put("sagas", "broken", None, "no JSON"),
        append("1"),
    ];
    assert!(database.commit(batch).await.iter().all(Result::is_ok));
    let shell = folder.shell();
    let lines = |sql: &str| -> Vec<String> {
        let mut statement = shell.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let sql = "SELECT concat_ws(' ', consumer, topic, key, attempts, failure, tail) FROM ";
    assert_eq!(lines(&format!("{sql} dead_letters")), ["payment/payment order b 3 gateway down 9"]);
    assert_eq!(lines(&format!("{sql} parked_keys")).len(), 3);
    assert_eq!(
        lines("SELECT concat_ws(' ', due, id, token, name, key, correlation_id) FROM timers"),
        ["2026-01-01T00:15:00.000000Z order/due t-1 order.created o-1 flow"]
    );
    assert_eq!(lines("SELECT reader || ' ' || position FROM checkpoints"), ["shop/relay 42"]);
    let sql = "SELECT concat_ws(' ', id, saga, definition, key, why, step, progress, because, started, \
               updated, correlation_id, memory) FROM sagas WHERE status = 'stuck'";
    let stuck = "order/checkout/o-1 order/checkout 2 o-1 not in time ship stuck saga.deadline \
                 2026-01-01T00:00:00.000000Z 2026-01-01T00:15:00.000000Z flow {\"total\":5}";
    assert_eq!(lines(sql), [stuck]);
    assert_eq!(lines("SELECT id FROM sagas ORDER BY id"), ["broken", "order/checkout/o-1"]);
    assert_eq!(
        lines("SELECT concat_ws(' ', position, stream, stream_version, name) FROM entries"),
        ["1 order-1 1 order.created"]
    );
    let all = Range::Ids { prefix: "payment/", after: "" };
    assert_eq!(database.list("parked_keys", all, 10).await.unwrap().len(), 2);
}
