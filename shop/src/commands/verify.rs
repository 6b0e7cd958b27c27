//! `shop verify`.

use super::{folder::Folder, out, place::Samples};
use crate::{
    audit::{Evidence, Orders, Report, Source},
    gateway::Gateway,
};
use std::{fmt::Write as _, path::PathBuf};

/// Audit a shop: its log, its stock, the gateway's ledger and the letters.
#[derive(clap::Args)]
pub(super) struct Verify {
    /// The database; in the data folder unless said. May be given for each of several.
    #[arg(long, env = "SILLAGE_DATABASE", value_name = "URL")]
    database: Vec<String>,
    /// The gateway's ledger; in the data folder unless said.
    #[arg(long, value_name = "FILE", conflicts_with = "gateway")]
    ledger: Option<PathBuf>,
    /// The running gateway, to ask it for its ledger.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// The folder with the letters; in the data folder unless said.
    #[arg(long, value_name = "DIR")]
    mail: Option<PathBuf>,
    /// The orders that `shop place` placed with these samples must all be there.
    #[arg(long, value_name = "SEED")]
    placed_with_seed: Option<u64>,
    /// How many orders `shop place` placed.
    #[arg(long, default_value_t = 100, requires = "placed_with_seed")]
    orders: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Verify {
    /// Whether everything holds.
    pub(super) async fn run(self) -> anyhow::Result<bool> {
        let mut databases = vec![];
        if self.database.is_empty() {
            databases.push(sillage::connect(&self.folder.database()).await?);
        }
        for url in &self.database {
            databases.push(sillage::connect(url).await?);
        }
        let ledger = match &self.gateway {
            Some(url) => Source::Gateway(Gateway::at(url)?),
            None => Source::File(self.ledger.unwrap_or_else(|| self.folder.ledger())),
        };
        let mail = self.mail.unwrap_or_else(|| self.folder.letters());
        let evidence = Evidence::gather(&databases, Orders::default(), &ledger, &mail).await?;
        let expected = self.placed_with_seed.map(|seed| expected(seed, self.orders));
        let report = Report::of(&evidence, &expected.unwrap_or_default());
        if self.json {
            out(serde_json::to_string(&report)?);
        } else {
            out(table(&report));
        }
        Ok(report.holds())
    }
}

fn expected(seed: u64, orders: u64) -> Vec<crate::ids::OrderId> {
    let samples = Samples { orders, seed, customers: 1, decline_percent: 0, shortage_percent: 0 };
    (0..orders).map(|n| samples.sampler().order_id(n)).collect()
}

/// What was found, for people; what is broken says so.
pub(super) fn table(report: &Report) -> String {
    let mut table = String::new();
    let amount = |minor: i64| crate::money::Money::cents(minor).to_string();
    for (name, value) in [
        ("orders", report.orders.to_string()),
        ("completed", report.completed.to_string()),
        ("cancelled", report.cancelled.to_string()),
        ("e-mails", report.emails.to_string()),
        ("charged", amount(report.charged)),
        ("refunded", amount(report.refunded)),
        ("shipped", format!("{} pieces", report.stock.shipped)),
    ] {
        let _ = writeln!(table, "  {name:<12}{value:>20}");
    }
    for invariant in &report.invariants {
        let mark = if invariant.holds { "✓" } else { "✗ BROKEN:" };
        let _ = writeln!(table, "  {mark} {} ({})", invariant.name, invariant.detail);
    }
    table.truncate(table.trim_end().len());
    table
}
