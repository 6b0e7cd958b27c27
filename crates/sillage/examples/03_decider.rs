//! An aggregate as three pure functions, and two ways to ask it: from outside, and in a handler.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::{ExecuteError, prelude::*};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "account.deposited")]
struct Deposited {
    #[event(key)]
    account: String,
    cents: i64,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "account.withdrawn")]
struct Withdrawn {
    #[event(key)]
    account: String,
    cents: i64,
}

#[derive(Events, Clone, Debug)]
enum AccountEvent {
    Deposited(Deposited),
    Withdrawn(Withdrawn),
}

#[derive(Clone, Debug, Default)]
struct Account {
    cents: i64,
}

impl Decider for Account {
    const STREAM: &'static str = "account";
    type Command = AccountEvent;
    type Event = AccountEvent;
    type Refusal = String;

    fn initial() -> Self {
        Account::default()
    }

    fn decide(&self, wanted: AccountEvent) -> Result<Vec<AccountEvent>, String> {
        match &wanted {
            AccountEvent::Withdrawn(withdrawn) if withdrawn.cents > self.cents => {
                Err(format!("only {} cents are there", self.cents))
            }
            _ => Ok(vec![wanted]),
        }
    }

    fn evolve(self, event: &AccountEvent) -> Self {
        match event {
            AccountEvent::Deposited(e) => Account { cents: self.cents + e.cents },
            AccountEvent::Withdrawn(e) => Account { cents: self.cents - e.cents },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let app = App::new(database).service(Service::new("bank")).start().await?;
    let bank = app.service("bank");

    let account = || "a-1".to_owned();
    let deposit = Deposited { account: account(), cents: 500 };
    let done = bank.execute::<Account>("a-1", deposit.into()).await?;
    println!("version {}", done.version);
    let withdraw = Withdrawn { account: account(), cents: 700 };
    match bank.execute::<Account>("a-1", withdraw.into()).await {
        Err(ExecuteError::Refused(why)) => println!("refused: {why}"),
        other => println!("{other:?}"),
    }
    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
