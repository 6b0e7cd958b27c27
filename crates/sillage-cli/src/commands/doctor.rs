//! `sillage doctor`.

use crate::{
    failure::{Exit, Refusal},
    output::{Column, Paint},
    session::Session,
    text::{count, printable},
};
use anyhow::Result;
use sillage::admin::Finding;

const COLUMNS: [Column<Finding>; 3] = [
    ("", |finding| if finding.ok { "✓" } else { "✗" }.to_owned()),
    ("WHAT", |finding| finding.what.clone()),
    ("FINDING", |finding| finding.finding.clone()),
];

pub(super) async fn run(session: &mut Session) -> Result<()> {
    let findings = session.admin().await?.doctor().await?;
    let out = &mut session.out;
    if out.is_table() && out.colour {
        for finding in &findings {
            let line = format!("{}  {}", printable(&finding.what), printable(&finding.finding));
            let line = if finding.ok {
                format!("✓ {line}")
            } else {
                out.paint(&format!("✗ {line}"), Paint::Bad)
            };
            out.line(line)?;
        }
    } else {
        out.rows(&findings, &COLUMNS)?;
    }
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    if wrong == 0 {
        return Ok(());
    }
    let what = format!("{wrong} of {} failed", count(findings.len(), "check"));
    Err(Refusal::new(Exit::CheckFailed, what, "each of them says how to mend it").into())
}
