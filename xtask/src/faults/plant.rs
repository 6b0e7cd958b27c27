//! Planted bugs: what a wrong system would leave behind is made by hand, and has to be found.
//!
//! While no process runs, a file is changed as a bug would have changed it; then the trial goes on as
//! any other. A harness that finds nothing then could find nothing ever. What ran before was drained:
//! the leases of a killed process would make it wait, and find nothing more.

use super::audit::{Audit, DATABASE, LEDGER, ended, facts};
use super::stage::{Layout, Stage};
use super::trial::placed;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Everything that is found is found by then.
const LIMIT: Duration = Duration::from_secs(90);
/// For so long it has to stay found: what is only late would be there by then.
const STAYS: Duration = Duration::from_secs(5);
/// Orders of one plant: one would do.
const ORDERS: u64 = 10;
const SEED: u64 = 1;

/// A bug that can be planted.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// What was handled is forgotten: inbox, watermark, payments; and the gateway is asked with
    /// another key. Any one of the four alone would keep it from charging twice.
    NoInbox,
    /// A committed `payment.completed` is gone before it was read
    LostFact,
    /// An acknowledged order is gone
    LostOrder,
    /// The last charge is gone from the gateway's ledger
    LostMoney,
}

impl Bug {
    /// The invariant that it breaks, as the audit calls it.
    fn breaks(self) -> &'static str {
        match self {
            Bug::NoInbox => "no order is charged or refunded twice",
            Bug::LostFact => "every order ends completed or cancelled, once",
            Bug::LostOrder => "no order is lost",
            Bug::LostMoney => "charged − refunded = completed orders",
        }
    }

    /// What runs before the bug, and the fact of which there is one an order then: so it strikes
    /// after that fact, and before whoever goes on with the order has read it.
    fn stage(self) -> (Layout, &'static str) {
        match self {
            Bug::LostOrder => (&[Some("inventory")], "order.created"),
            _ => (&[Some("inventory,payment")], "payment.completed"),
        }
    }

    /// How many orders end in spite of it.
    fn ends(self) -> u64 {
        match self {
            Bug::LostFact | Bug::LostOrder => ORDERS - 1,
            Bug::NoInbox | Bug::LostMoney => ORDERS,
        }
    }

    fn strike(self, folder: &Path) -> Result<()> {
        let ledger = folder.join(LEDGER);
        let database = Connection::open(folder.join(DATABASE)).context(DATABASE)?;
        let lines = || fs::read_to_string(&ledger).context(LEDGER);
        let changed = match self {
            Bug::NoInbox => {
                fs::write(&ledger, with_other_keys(&lines()?)?)?;
                forget_payments(&database)?
            }
            Bug::LostFact => lose_last(&database, "payment.completed")?,
            Bug::LostOrder => lose_last(&database, "order.created")?,
            Bug::LostMoney => {
                fs::write(&ledger, without_last_charge(&lines()?)?)?;
                1
            }
        };
        ensure!(changed > 0, "{self:?}: there was nothing to spoil");
        Ok(())
    }

    /// Plants it; what the audit says then, or why it is not found.
    pub(super) async fn run(self, shop: &Path, folder: &Path) -> Result<String> {
        let (layout, fact) = self.stage();
        let mut stage = Stage::open(shop, folder, layout)?;
        // By then the shelves are full: nothing is short.
        stage.until("the shop listens", LIMIT, async |stage| stage.listens()).await?;
        let place = format!(
            "place --database sqlite:{DATABASE} --seed {SEED} --orders {ORDERS} --customers 3 \
             --decline-percent 0 --shortage-percent 0"
        );
        placed(stage.spawn("place", &place)?).await?;
        let there = async |stage: &Stage| Ok(facts(&stage.folder, fact)? >= ORDERS);
        stage.until(format_args!("{ORDERS} × {fact}"), LIMIT, there).await?;
        stage.drain().await?;
        self.strike(folder)?;
        stage.note(format_args!("{self:?} strikes"))?;
        stage.start_all(&[None, None])?;
        let mut since = None;
        let found = async |stage: &Stage| {
            let broken = ended(&stage.folder)? >= self.ends() && self.found(stage).await?.is_some();
            since = if broken { since.or(Some(Instant::now())) } else { None };
            Ok(since.is_some_and(|since: Instant| since.elapsed() >= STAYS))
        };
        stage.until(format_args!("{:?} is broken", self.breaks()), LIMIT, found).await?;
        stage.drain().await?;
        self.found(&stage).await?.context("after the end it is not found any more")
    }

    async fn found(self, stage: &Stage) -> Result<Option<String>> {
        let audit = Audit::of(stage, SEED, ORDERS).await?;
        Ok(audit.broken.into_iter().find(|broken| broken.starts_with(self.breaks())))
    }
}

fn lose_last(database: &Connection, name: &str) -> Result<usize> {
    let lose = "DELETE FROM log WHERE position = (SELECT max(position) FROM log WHERE name = ?1)";
    Ok(database.execute(lose, [name])?)
}

fn forget_payments(database: &Connection) -> Result<usize> {
    database.execute("DELETE FROM inbox WHERE consumer = 'payment/payment'", [])?;
    let forget = "DELETE FROM documents WHERE collection = 'payment/payments' \
                  OR collection = 'watermarks' AND id LIKE 'payment/payment/%'";
    Ok(database.execute(forget, [])?)
}

fn with_other_keys(ledger: &str) -> Result<String> {
    let other = |line: &str| {
        let mut entry: Value = serde_json::from_str(line).context(LEDGER)?;
        entry["key"] = format!("{:032x}", rand::random::<u128>()).into();
        Ok(format!("{entry}\n"))
    };
    ledger.lines().map(other).collect()
}

fn without_last_charge(ledger: &str) -> Result<String> {
    let mut lines: Vec<&str> = ledger.lines().collect();
    let last = lines.iter().rposition(|line| line.contains(r#""kind":"charge""#));
    lines.remove(last.context("the ledger has no charge")?);
    Ok(lines.iter().flat_map(|line| [line, "\n"]).collect())
}
