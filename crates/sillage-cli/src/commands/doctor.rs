//! `sillage doctor`.

use crate::{
    failure::{Exit, Refusal, words},
    output::{Column, Paint},
    session::Session,
    text::{count, printable},
};
use anyhow::Result;
use sillage::{Broker, Clock as _, SystemClock, admin::Finding};
use std::{sync::Arc, time::Duration};

/// Who does not answer a connection within this is not there.
const LIMIT: Duration = Duration::from_secs(15);

const COLUMNS: [Column<Finding>; 3] = [
    ("", |finding| if finding.ok { "✓" } else { "✗" }.to_owned()),
    ("WHAT", |finding| finding.what.clone()),
    ("FINDING", |finding| finding.finding.clone()),
];

pub(super) async fn run(session: &mut Session) -> Result<()> {
    let findings = examine(session).await?;
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

/// Looks at the database and at the broker; that one of them is away does not hide the other.
async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let connected = connect(session).await?;
    if connected.is_none() {
        return Ok(session.admin().await?.doctor().await?);
    }
    let (broker, away) = match connected {
        Some(Ok(broker)) => (Some(broker), None),
        Some(Err(away)) => (None, Some(away)),
        None => (None, None),
    };
    let mut findings = match in_database(broker.clone(), session).await {
        Ok(findings) => findings,
        Err(finding) => {
            let mut findings = vec![finding];
            if let Some(broker) = broker {
                findings.push(ask(&*broker).await);
            }
            findings
        }
    };
    if let Some(away) = away {
        // It is named, though it could not be asked.
        findings.retain(|finding| finding.what != BROKER);
        findings.insert(0, away);
    }
    Ok(findings)
}

const BROKER: &str = "broker";

fn finding(ok: bool, what: &str, finding: String) -> Finding {
    Finding { ok, what: what.to_owned(), finding }
}

/// The broker that is named, or that it is away; a URL that is wrong in itself is an error.
async fn connect(session: &Session) -> Result<Option<Result<Arc<dyn Broker>, Finding>>> {
    let away = |why: String| {
        let mend = "see that it runs, and that its URL is right";
        Some(Err(finding(false, BROKER, format!("{why}; {mend}"))))
    };
    let connected = tokio::select! {
        connected = session.broker() => connected,
        () = SystemClock.sleep(LIMIT) => {
            return Ok(away(format!("no answer within {} s", LIMIT.as_secs())));
        }
    };
    match connected {
        Ok(broker) => Ok(broker.map(Ok)),
        Err(error) => match Refusal::of(&error) {
            Some(Refusal { exit: Exit::Usage, .. }) => Err(error),
            _ => Ok(away(words(&error))),
        },
    }
}

/// What the database knows; one finding where it cannot be asked, or none is named.
async fn in_database(
    broker: Option<Arc<dyn Broker>>,
    session: &Session,
) -> Result<Vec<Finding>, Finding> {
    if session.settings.database.value.is_none() {
        let only = "none is named, so only the broker was looked at: `--database URL`";
        return Err(finding(true, "database", only.to_owned()));
    }
    let found = async { Ok(session.admin().await?.broker(broker).doctor().await?) };
    found.await.map_err(|error: anyhow::Error| {
        let next = Refusal::of(&error).map(|refusal| refusal.next).unwrap_or_default();
        finding(false, "database", format!("{}; {next}", words(&error)))
    })
}

async fn ask(broker: &dyn Broker) -> Finding {
    let (name, asked) = (broker.capabilities().name, SystemClock.elapsed());
    // Of a topic, whether or not it is there: not every broker is asked when none is named.
    match broker.topics(&["sillage".into()]).await {
        Ok(_) => {
            let took = SystemClock.elapsed().saturating_sub(asked).as_millis();
            finding(true, BROKER, format!("{name} answers in {took} ms"))
        }
        Err(error) => {
            let mend = "see that it runs, and that its URL is right";
            finding(false, BROKER, format!("{name} does not answer: {error}; {mend}"))
        }
    }
}
