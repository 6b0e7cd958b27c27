//! Archived streams: out of the log and back, and what whoever needs them is told.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::Harness;
use serde::{Deserialize, Serialize};
use sillage::{ErrorKind, ExecuteError, Expected, Filter, Version, prelude::*};
use std::path::PathBuf;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "account.paid-in")]
struct PaidIn {
    #[event(key)]
    account: String,
    cents: u64,
}

#[derive(Events, Clone, Debug, PartialEq)]
enum AccountEvent {
    PaidIn(PaidIn),
}

#[derive(Clone, Default)]
struct Account {
    cents: u64,
}

impl Decider for Account {
    const STREAM: &'static str = "account";
    type Command = PaidIn;
    type Event = AccountEvent;
    type Refusal = u64;
    fn initial() -> Self {
        Account::default()
    }
    fn decide(&self, paid: PaidIn) -> Result<Vec<AccountEvent>, u64> {
        if paid.cents == 0 { Err(self.cents) } else { Ok(vec![paid.into()]) }
    }
    fn evolve(self, event: &AccountEvent) -> Self {
        let AccountEvent::PaidIn(paid) = event;
        Account { cents: self.cents + paid.cents }
    }
}

#[derive(Document, Serialize, Deserialize, Default, Debug, PartialEq)]
#[document(collection = "balances")]
struct Balance {
    #[document(id)]
    account: String,
    cents: u64,
}

fn balances(version: u32) -> Projection<Balance> {
    Projection::<Balance>::new("balances", version).on::<PaidIn>(|balance, paid| {
        balance.account.clone_from(&paid.account);
        balance.cents += paid.cents;
    })
}

fn bank() -> Service {
    Service::new("bank").projection(balances(1))
}

fn paid(account: &str, cents: u64) -> PaidIn {
    PaidIn { account: account.into(), cents }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("sillage-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn pay_in(app: &Running, account: &str, times: u64) -> Position {
    let bank = app.service("bank");
    let mut last = Position(0);
    for cents in 1..=times {
        last = bank.execute::<Account>(account, paid(account, cents)).await.unwrap().position;
    }
    app.view::<Balance>("bank").get(account).at_least(last).within(secs(60)).await.unwrap();
    last
}

async fn of_stream(harness: &Harness, stream: &str) -> Vec<Recorded> {
    let filter = Filter { stream: Some(stream.into()), ..Filter::default() };
    harness.database().log(Position(0), &filter, 10_000).await.unwrap().entries
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_into_a_file_and_comes_back() {
    let (harness, folder) = (Harness::new(), Folder::new("archive"));
    let app = harness.start_service(bank()).await;
    pay_in(&app, "a", 1_200).await;
    let at = pay_in(&app, "b", 3).await;
    // A reader's place is stored now and then.
    harness.settle().await;
    let before = of_stream(&harness, "bank/account-a").await;
    let admin = harness.admin();
    let planned = admin.archive("bank/account-a", &folder.0, true).await.unwrap();
    assert_eq!(
        (planned.archive.entries, of_stream(&harness, "bank/account-a").await.len()),
        (1_200, 1_200)
    );
    let archived = admin.archive("bank/account-a", &folder.0, false).await.unwrap();
    assert_eq!(archived, admin.archived().await.unwrap()[0]);
    assert_eq!(of_stream(&harness, "bank/account-a").await, []);
    assert_eq!(of_stream(&harness, "bank/account-b").await.len(), 3);

    // Whoever needs it is told which file; nobody takes it for a new one.
    let bank = app.service("bank");
    let needed = bank.execute::<Account>("a", paid("a", 1)).await.err().unwrap();
    let ExecuteError::Database(needed) = needed else { panic!("{needed}") };
    assert_eq!(needed.kind(), ErrorKind::Trimmed);
    assert!(needed.to_string().contains(&archived.file), "{needed}");
    let event = AccountEvent::PaidIn(paid("a", 1));
    let new = append("account-a", Expected::NoStream, &[event]);
    assert!(bank.commit(new).await.is_err(), "it keeps its version");
    let refused = admin.rebuild("bank/balances", false, false).await.unwrap_err().to_string();
    assert!(refused.contains("`sillage streams list`"), "{refused}");
    let view = app.view::<Balance>("bank");
    assert_eq!(view.get("a").await.unwrap().unwrap().cents, 720_600);

    let file = PathBuf::from(&archived.file);
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.replace("\"cents\":7}", "\"cents\":8}")).unwrap();
    let damaged = admin.restore_stream(&file, false).await.unwrap_err();
    assert!(damaged.to_string().contains("damaged"), "{damaged}");
    std::fs::write(&file, whole).unwrap();
    admin.restore_stream(&file, false).await.unwrap();
    assert_eq!(of_stream(&harness, "bank/account-a").await, before, "as it was, where it was");
    assert!(admin.restore_stream(&file, false).await.is_err(), "once");
    assert_eq!(admin.archived().await.unwrap(), []);
    let executed = bank.execute::<Account>("a", paid("a", 5)).await.unwrap();
    assert_eq!(executed.version, Version(1_201));
    assert!(executed.position > at);
    let sum = view.get("a").at_least(executed.position).within(secs(60)).await.unwrap().unwrap();
    assert_eq!(sum.cents, 720_605, "no reader saw anything again");
    admin.rebuild("bank/balances", true, false).await.unwrap();
    harness
        .until(|| async { admin.projection("bank/balances").await.unwrap().former.is_some() })
        .await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_reader_needs_stays() {
    let (harness, folder) = (Harness::new(), Folder::new("needed"));
    let app = harness.start_service(bank()).await;
    pay_in(&app, "a", 3).await;
    harness.admin().pause_projection("bank/balances", "a test").await.unwrap();
    harness.settle().await;
    for cents in 1..=3 {
        app.service("bank").execute::<Account>("a", paid("a", cents)).await.unwrap();
    }
    let refused = harness.admin().archive("bank/account-a", &folder.0, false).await.unwrap_err();
    assert!(refused.to_string().contains("projection bank/balances@1 is at"), "{refused}");
    assert_eq!(of_stream(&harness, "bank/account-a").await.len(), 6);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
    app.drain().await;
}

/// What a stream got after its archive goes into another one; a crash between file and log is made
/// good by saying it again; a newer projection waits for the files.
#[tokio::test(start_paused = true)]
async fn archives_add_up_and_a_newer_projection_asks_for_them() {
    let (harness, folder) = (Harness::new(), Folder::new("twice"));
    let app = harness.start_service(bank()).await;
    pay_in(&app, "a", 2).await;
    harness.settle().await;
    let admin = harness.admin();
    let first = admin.archive("bank/account-a", &folder.0, false).await.unwrap();
    let event = AccountEvent::PaidIn(paid("a", 3));
    let more = append("account-a", Expected::Exact(Version(2)), &[event]);
    let at = app.service("bank").commit(more).await.unwrap().position;
    app.view::<Balance>("bank").get("a").at_least(at).within(secs(60)).await.unwrap();
    harness.settle().await;
    let second = admin.archive("bank/account-a", &folder.0, false).await.unwrap();
    assert_eq!((second.archive.first, second.archive.last), (Version(3), Version(3)));
    let none = admin.archive("bank/account-a", &folder.0, false).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");
    app.drain().await;

    let app = harness.start_service(Service::new("bank").projection(balances(2))).await;
    let newer = || async {
        let status = admin.projection("bank/balances").await.unwrap();
        status.shadow.and_then(|shadow| shadow.paused).unwrap_or_default()
    };
    harness.until(|| async { newer().await.contains("archived") }).await;
    for archived in [&second, &first] {
        admin.restore_stream(&PathBuf::from(&archived.file), false).await.unwrap();
    }
    admin.resume_projection("bank/balances", false).await.unwrap();
    let switched = || async { admin.projection("bank/balances").await.unwrap().former.is_some() };
    harness.until(switched).await;
    let sum = app.view::<Balance>("bank").get("a").await.unwrap().unwrap();
    assert_eq!(sum.cents, 6);
    app.drain().await;
}
