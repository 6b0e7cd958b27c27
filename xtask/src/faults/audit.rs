//! What is left of a shop: what `shop verify` finds, and what its files say to everybody.

use super::stage::Stage;
use anyhow::{Context, Result, bail};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The gateway's ledger, in a trial's folder.
pub(super) const LEDGER: &str = "ledger.jsonl";
/// The database, in a trial's folder.
pub(super) const DATABASE: &str = "shop.db";

/// How long to wait for the database.
const BUSY: Duration = Duration::from_secs(10);

/// What became of the orders of one trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    pub(super) completed: u64,
    pub(super) cancelled: u64,
    pub(super) lost: u64,
    pub(super) charged_twice: u64,
    /// Invariants that do not hold, each with what breaks it.
    pub(super) broken: Vec<String>,
}

impl Audit {
    /// Asks `shop verify`, which must find all orders that were placed with this seed.
    pub(super) async fn of(stage: &Stage, seed: u64, orders: u64) -> Result<Self> {
        let mut verify =
            format!("verify --data . --json --placed-with-seed {seed} --orders {orders}");
        if let Some(url) = &stage.database {
            let _ = write!(verify, " --database {url}");
        }
        for database in databases(&stage.folder)? {
            let _ = write!(verify, " --database sqlite:{}", database.display());
        }
        let output = stage.shop(&verify).output().await.context("`shop verify` did not start")?;
        let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
            bail!("`shop {verify}`: {}", String::from_utf8_lossy(&output.stderr).trim());
        };
        let mut broken = broken(&report).context("`shop verify` says something else")?;
        if broken.is_empty() != output.status.success() {
            bail!("`shop verify` ended by {}, with {} broken", output.status, broken.len());
        }
        broken.extend(dead_letters(&stage.folder)?);
        let count = |name: &str| report[name].as_u64().unwrap_or(0);
        Ok(Audit {
            completed: count("completed"),
            cancelled: count("cancelled"),
            lost: orders.saturating_sub(count("orders")),
            charged_twice: charged_twice(&stage.folder)?,
            broken,
        })
    }

    /// Whether everything holds.
    pub(super) fn holds(&self) -> bool {
        self.lost == 0 && self.charged_twice == 0 && self.broken.is_empty()
    }
}

fn broken(report: &Value) -> Option<Vec<String>> {
    let mut broken = Vec::new();
    for invariant in report["invariants"].as_array()? {
        let (name, detail) = (invariant["name"].as_str()?, invariant["detail"].as_str()?);
        if !invariant["holds"].as_bool()? {
            broken.push(format!("{name}: {detail}"));
        }
    }
    Some(broken)
}

/// No process and no message is at fault for good here, so there should be none.
fn dead_letters(folder: &Path) -> Result<Vec<String>> {
    let mut lines = vec![];
    for database in databases(folder)? {
        lines.extend(dead_letters_in(&connect(&folder.join(database))?)?);
    }
    Ok(lines)
}

fn dead_letters_in(database: &Connection) -> Result<Vec<String>> {
    let mut dead = database.prepare("SELECT consumer, key, failure FROM dead_letters")?;
    let line = |row: &rusqlite::Row<'_>| {
        let [consumer, key, failure] = [0, 1, 2]
            .map(|column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default));
        Ok(format!("dead letter of {}, key {}: {}", consumer?, key?, failure?))
    };
    Ok(dead.query_map([], line)?.collect::<Result<_, _>>()?)
}

/// How many orders have more than one charge in the ledger.
fn charged_twice(folder: &Path) -> Result<u64> {
    let ledger = fs::read_to_string(folder.join(LEDGER)).context(LEDGER)?;
    let mut charges = HashMap::<String, u64>::new();
    for line in ledger.lines() {
        let entry: Value = serde_json::from_str(line).context(LEDGER)?;
        if entry["kind"] == "charge" {
            *charges.entry(entry["order_id"].to_string()).or_default() += 1;
        }
    }
    Ok(charges.values().filter(|count| **count > 1).count() as u64)
}

/// How many facts of this name the logs have, without copies that services keep of others' facts.
pub(super) fn facts(folder: &Path, name: &str) -> Result<u64> {
    let own = "SELECT count(*) FROM log WHERE name = ?1 \
               AND coalesce(instr(headers, CAST('sillage-followed' AS BLOB)), 0) = 0";
    Ok(numbers(folder, own, &[name])?.into_iter().sum())
}

/// How many orders have ended.
pub(super) fn ended(folder: &Path) -> Result<u64> {
    Ok(facts(folder, "order.completed")? + facts(folder, "order.cancelled")?)
}

/// How many orders are placed and have not ended.
pub(super) fn open(folder: &Path) -> Result<u64> {
    Ok(facts(folder, "order.created")?.saturating_sub(ended(folder)?))
}

/// How far the log is.
pub(super) fn head(folder: &Path) -> Result<u64> {
    Ok(numbers(folder, "SELECT max(position) FROM log", &[])?.into_iter().sum())
}

/// How many processes died on a message that is not handled yet; the most of all messages.
pub(super) fn deaths(folder: &Path) -> Result<u64> {
    let deaths = "SELECT max(json_extract(CAST(body AS TEXT), '$.guard.deaths')) FROM documents \
                  WHERE collection = 'watermarks'";
    Ok(numbers(folder, deaths, &[])?.into_iter().max().unwrap_or(0))
}

/// The names of the databases in a folder: one, or one a service.
fn databases(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_database = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "db");
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = files.map(|file| Ok(PathBuf::from(file?.file_name())));
    let mut names: Vec<_> = names.collect::<Result<_>>()?;
    names.retain(is_database);
    names.sort();
    Ok(names)
}

/// The number that a query finds in each database.
fn numbers(folder: &Path, query: &str, parameters: &[&str]) -> Result<Vec<u64>> {
    let names = databases(folder)?;
    names.iter().map(|name| number(&folder.join(name), query, parameters)).collect()
}

/// The number that a query finds; 0 if it finds none, or before there are tables.
fn number(database: &Path, query: &str, parameters: &[&str]) -> Result<u64> {
    let database = connect(database)?;
    if !database.table_exists(None, "log")? {
        return Ok(0);
    }
    let parameters = rusqlite::params_from_iter(parameters);
    let number: Option<u32> = database.query_row(query, parameters, |row| row.get(0))?;
    Ok(number.unwrap_or(0).into())
}

/// Makes all leases run out, as time would: only while no process is there that holds one.
pub(super) fn let_leases_run_out(folder: &Path) -> Result<()> {
    let database = Connection::open(folder.join(DATABASE)).context(DATABASE)?;
    // The write-ahead log is left as the dead have left it: the shop has to read it.
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let run_out = "UPDATE leases SET until = 0; DELETE FROM documents WHERE collection = 'members'";
    Ok(database.execute_batch(run_out)?)
}

fn connect(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(file, flags);
    let database = database.with_context(|| file.display().to_string())?;
    // After a crash somebody has to read the write-ahead log first.
    database.busy_timeout(BUSY)?;
    Ok(database)
}
