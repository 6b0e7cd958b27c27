//! Snapshots, and decisions over several streams, on the reference database.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Harness, Probe};
use serde::{Deserialize, Serialize};
use sillage::{Commit, Database as _, ExecuteError, Version, Write, prelude::*};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "account.moved")]
struct Moved {
    #[event(key)]
    account: String,
    amount: i64,
}

#[derive(Events, Clone, Debug, PartialEq)]
enum AccountEvent {
    Moved(Moved),
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
struct Account<const V: u32> {
    balance: i64,
}

#[derive(Debug, PartialEq)]
struct Overdrawn(i64);

/// What is asked: an account, and what to add to it.
type Ask = (String, i64);

impl<const V: u32> Decider for Account<V> {
    const STREAM: &'static str = "account";
    type Command = Ask;
    type Event = AccountEvent;
    type Refusal = Overdrawn;
    fn initial() -> Self {
        Account::default()
    }
    fn decide(&self, (account, amount): Ask) -> Result<Vec<AccountEvent>, Overdrawn> {
        let after = self.balance + amount;
        if after < 0 { Err(Overdrawn(after)) } else { Ok(vec![Moved { account, amount }.into()]) }
    }
    fn evolve(self, event: &AccountEvent) -> Self {
        let AccountEvent::Moved(moved) = event;
        Account { balance: self.balance + moved.amount }
    }
    fn snapshots() -> Option<Snapshots<Self>> {
        Some(Snapshots::version(V).every(10))
    }
}

fn ask(account: &str, amount: i64) -> Ask {
    (account.to_owned(), amount)
}

/// How much can be taken out at most: what the state is.
async fn balance<const V: u32>(bank: &ServiceHandle, account: &str) -> i64 {
    let all = ask(account, -1_000_000);
    match bank.execute::<Account<V>>(account, all).await {
        Err(ExecuteError::Refused(Overdrawn(after))) => after + 1_000_000,
        other => panic!("{other:?}"),
    }
}

async fn tamper(harness: &Harness, body: &str) {
    let put = Write::Put {
        collection: "bank/snapshots".into(),
        id: "account-a".into(),
        sort: None,
        body: body.as_bytes().to_vec().into(),
    };
    let commit = Commit { conditions: vec![], writes: vec![put] };
    harness.memory.commit(vec![commit]).await.pop().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_a_short_cut_and_never_trusted_beyond_that() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("bank")).await;
    let bank = app.service("bank");
    for _ in 0..25 {
        bank.execute::<Account<1>>("a", ask("a", 1)).await.unwrap();
    }
    let stored = harness.memory.get("bank/snapshots", &["account-a"]).await.unwrap();
    let stored = stored[0].clone().unwrap();
    assert_eq!(stored.version, Version(2), "at 10 and at 20 events");
    let body = std::str::from_utf8(&stored.body).unwrap();
    assert_eq!(body, r#"{"version":1,"stream":20,"state":{"balance":20}}"#);
    assert_eq!(balance::<1>(&bank, "a").await, 25);
    // It is used: what it says is believed.
    tamper(&harness, r#"{"version":1,"stream":20,"state":{"balance":120}}"#).await;
    assert_eq!(balance::<1>(&bank, "a").await, 125);
    // At the very end of the stream too.
    tamper(&harness, r#"{"version":1,"stream":25,"state":{"balance":225}}"#).await;
    assert_eq!(balance::<1>(&bank, "a").await, 225);
    // Of an older state, ahead of the stream, not to be read: the stream is.
    assert_eq!(balance::<2>(&bank, "a").await, 25);
    for body in [
        r#"{"version":1,"stream":26,"state":{"balance":900}}"#,
        r#"{"version":1,"stream":0,"state":{"balance":900}}"#,
        r#"{"version":1,"stream":20,"state":{"balance":"much"}}"#,
        "garbage",
    ] {
        tamper(&harness, body).await;
        assert_eq!(balance::<1>(&bank, "a").await, 25, "{body}");
    }
    app.drain().await;
}

/// Two processes move money between the same accounts, in both directions at once: nothing is
/// made or lost, and no account is overdrawn.
#[tokio::test(start_paused = true)]
async fn decisions_over_several_streams_are_one_commit() {
    let harness = Harness::new();
    let apps = [
        harness.start_service(Service::new("bank")).await,
        harness.start_service(Service::new("bank")).await,
    ];
    for account in ["a", "b"] {
        let paid = apps[0].service("bank").execute::<Account<1>>(account, ask(account, 10)).await;
        assert_eq!(paid.unwrap().version, Version(1));
    }
    let calls = (0..40).map(|n: usize| {
        let (bank, amount) = (apps[n % 2].service("bank"), 3);
        let (from, to) = if n % 4 < 2 { ("a", "b") } else { ("b", "a") };
        tokio::spawn(async move {
            let both = bank.together::<Overdrawn>().decide::<Account<1>>(to, ask(to, amount));
            match both.decide::<Account<1>>(from, ask(from, -amount)).commit().await {
                Ok(_) => 1,
                Err(ExecuteError::Refused(_)) => 0,
                Err(other) => panic!("{other}"),
            }
        })
    });
    let mut moved = 0;
    for call in calls.collect::<Vec<_>>() {
        moved += call.await.unwrap();
    }
    let bank = apps[0].service("bank");
    let (a, b) = (balance::<1>(&bank, "a").await, balance::<1>(&bank, "b").await);
    assert_eq!(a + b, 20, "{a} and {b}");
    let entries = harness.memory.head().await.unwrap().last.0;
    assert_eq!(entries, 2 + 2 * moved, "a refused one left nothing behind");
    assert!(moved > 10, "{moved}");
    let twice = bank.together::<Overdrawn>().decide::<Account<1>>("a", ask("a", 1));
    let twice = twice.decide::<Account<1>>("a", ask("a", 1)).commit().await.unwrap_err();
    assert!(twice.to_string().contains("two decisions on `account-a`"), "{twice}");
    for app in apps {
        app.drain().await;
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "transfer.asked")]
struct Transfer {
    #[event(key)]
    from: String,
    to: String,
    amount: i64,
}

#[tokio::test(start_paused = true)]
async fn a_handler_decides_on_several_aggregates() {
    async fn transfer(
        asked: Transfer,
        accounts: Aggregates,
        State(log): State<Probe>,
    ) -> Result<Effects, Failure> {
        let from = accounts.load::<Account<1>>(&asked.from).await?;
        let to = accounts.load::<Account<1>>(&asked.to).await?;
        let Ok(taken) = from.decide(ask(&asked.from, -asked.amount)) else {
            log.note("refused");
            return Ok(Effects::none());
        };
        let given = to.decide(ask(&asked.to, asked.amount)).or_permanent()?;
        log.note("moved");
        Ok(taken.and(given))
    }
    let (harness, log) = (Harness::new(), Probe::default());
    let consumer = Consumer::new("transfers").on(transfer);
    let app =
        harness.start_service(Service::new("bank").state(log.clone()).consumer(consumer)).await;
    let bank = app.service("bank");
    bank.execute::<Account<1>>("a", ask("a", 10)).await.unwrap();
    for _ in 0..3 {
        let asked = Transfer { from: "a".into(), to: "b".into(), amount: 4 };
        bank.commit(publish(asked)).await.unwrap();
    }
    harness.passed("bank/transfers", 3).await;
    log.reached("refused").await;
    assert_eq!(balance::<1>(&bank, "a").await, 2);
    assert_eq!(balance::<1>(&bank, "b").await, 8);
    app.drain().await;
}
