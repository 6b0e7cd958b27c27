//! `sillage projection`.

use super::unique;
use crate::{
    args::duration,
    failure::{Exit, Refusal},
    output::Column,
    session::Session,
    text::{brief, printable},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{
    Text,
    admin::{Admin, Comparison, Differences, GenerationStatus, ProjectionStatus},
};
use std::{fmt::Write as _, time::Duration};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Projections {
    /// How far each has read, and what stops it
    List,
    /// How one stands, and what is beside it
    Show { name: String },
    /// Fold it again from the beginning, beside the documents that are read
    Rebuild(Rebuild),
    /// Compare what is read with what is beside it; exit code 8 where they differ
    Compare(Compare),
    /// Read what was rebuilt from now on
    Switch {
        name: String,
        /// Also where it is behind, or not the same
        #[arg(long)]
        force: bool,
    },
    /// Read again what was read before the switch
    Rollback {
        name: String,
        /// Also where it is behind
        #[arg(long)]
        force: bool,
    },
    /// Remove what is beside the documents that are read
    Discard { name: String },
    /// Stop it, in all processes, until it is resumed
    Pause {
        name: String,
        /// Why: it is shown wherever the projection is, and kept
        #[arg(long)]
        why: String,
    },
    /// Let it go on that was paused, or that met an entry it could not read
    Resume {
        name: String,
        /// Pass over that entry; go on without entries that were trimmed
        #[arg(long)]
        skip: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is done by the app, which has the code; it begins within a second where the \
    app runs. Reads find what they found before until it is switched to."
)]
pub(crate) struct Rebuild {
    name: String,
    /// Read it as soon as it has caught up and its documents are the same
    #[arg(long)]
    switch: bool,
    /// Also from a log that was trimmed: from the entries that are left
    #[arg(long)]
    lossy: bool,
    /// Wait until it has caught up, or is read where `--switch` is said
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    name: String,
    /// Show so many documents that differ
    #[arg(long, default_value = "5", value_name = "N")]
    examples: usize,
    /// How long to wait for a position that both have been at
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    within: Duration,
}

const COLUMNS: [Column<ProjectionStatus>; 6] = [
    ("PROJECTION", |status| status.name.to_string()),
    ("READ", |status| status.live.name.to_string()),
    ("POSITION", |status| status.position.to_string()),
    ("BEHIND", |status| status.lag.to_string()),
    ("BESIDE IT", |status| beside(status)),
    ("PAUSED", |status| status.paused.clone().unwrap_or_else(|| "-".to_owned())),
];

fn beside(status: &ProjectionStatus) -> String {
    match (&status.shadow, &status.former) {
        (Some(shadow), _) => format!("{}: {}", shadow.name, progress(shadow)),
        (None, Some(former)) => format!("{}: read before", former.name),
        (None, None) => "-".to_owned(),
    }
}

/// How far a rebuild is: `40 % (1234 to go, about 2m)`.
fn progress(of: &GenerationStatus) -> String {
    let end = of.position.0 + of.lag;
    let percent = (of.position.0 * 100).checked_div(end).unwrap_or(100);
    let mut text = format!("{percent} %");
    if of.lag > 0 {
        let _ = write!(text, ", {} to go", of.lag);
    }
    if let Some(seconds) = of.eta_seconds.filter(|seconds| *seconds >= 1.0) {
        let _ = write!(text, ", about {}", brief(Duration::from_secs_f64(seconds)));
    }
    text
}

impl Projections {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        match self {
            Projections::List => {
                let projections = admin.projections().await?;
                if projections.is_empty() {
                    session.out.note("no app with a projection has ever started here");
                }
                session.out.rows(&projections, &COLUMNS)
            }
            Projections::Show { name } => {
                let name = resolve(&admin, &name).await?;
                show(&admin, session, &name).await
            }
            Projections::Rebuild(rebuild) => rebuild.run(&admin, session).await,
            Projections::Compare(compare) => compare.run(&admin, session).await,
            Projections::Switch { name, force } => {
                let name = resolve(&admin, &name).await?;
                admin.switch(&name, force).await?;
                show(&admin, session, &name).await
            }
            Projections::Rollback { name, force } => {
                let name = resolve(&admin, &name).await?;
                admin.roll_back(&name, force).await?;
                show(&admin, session, &name).await
            }
            Projections::Discard { name } => {
                let name = resolve(&admin, &name).await?;
                let status = admin.projection(&name).await?;
                let what = status.shadow.or(status.former).map(|beside| beside.name);
                let what = what.unwrap_or_else(|| name.clone());
                session.confirm(&format!("Remove all documents of {what}?")).await?;
                admin.discard(&name).await?;
                show(&admin, session, &name).await
            }
            Projections::Pause { name, why } => {
                let name = resolve(&admin, &name).await?;
                admin.pause_projection(&name, &why).await?;
                show(&admin, session, &name).await
            }
            Projections::Resume { name, skip } => {
                let name = resolve(&admin, &name).await?;
                admin.resume_projection(&name, skip).await?;
                show(&admin, session, &name).await
            }
        }
    }
}

async fn resolve(admin: &Admin, given: &str) -> Result<Text> {
    let projections = admin.projections().await?;
    let names = projections.iter().map(|projection| &projection.name);
    Ok(unique("projection", given, names, "sillage projection list")?)
}

async fn show(admin: &Admin, session: &mut Session, name: &str) -> Result<()> {
    session.out.one(&admin.projection(name).await?, describe)
}

fn describe(status: &ProjectionStatus) -> String {
    let mut text = printable(&status.name).into_owned();
    if let Some(why) = &status.paused {
        let _ = write!(text, "\n  paused: {}", printable(why));
    }
    line(&mut text, "read", &status.live, &format!("{} behind", status.lag));
    if let Some(shadow) = &status.shadow {
        line(&mut text, "rebuilt", shadow, &progress(shadow));
        if shadow.switches && status.held.is_none() {
            text.push_str("\n           it is read once it has caught up");
        }
    }
    if let Some(former) = &status.former {
        line(&mut text, "before", former, &format!("{} behind", former.lag));
    }
    if let Some(why) = &status.held {
        let _ = write!(text, "\n  not switched to by itself: {}", printable(why));
    }
    text
}

fn line(text: &mut String, word: &str, of: &GenerationStatus, far: &str) {
    let _ = write!(
        text,
        "\n  {word:8} {}  position {}, {far}  {} documents  digest {}",
        printable(&of.name),
        of.position,
        of.digest.documents,
        of.digest.hash
    );
    if of.skipped > 0 {
        let _ = write!(text, "  {} entries passed over", of.skipped);
    }
    if let Some(why) = &of.paused {
        let _ = write!(text, "\n           paused: {}", printable(why));
    }
}

impl Rebuild {
    async fn run(self, admin: &Admin, session: &mut Session) -> Result<()> {
        let name = resolve(admin, &self.name).await?;
        admin.rebuild(&name, self.switch, self.lossy).await?;
        if self.wait {
            self.caught_up(admin, session, &name).await?;
        }
        show(admin, session, &name).await
    }

    async fn caught_up(&self, admin: &Admin, session: &Session, name: &str) -> Result<()> {
        loop {
            let status = admin.projection(name).await?;
            let Some(shadow) = &status.shadow else { break };
            if let Some(why) = status.held.or_else(|| shadow.paused.clone()) {
                let next = format!("`sillage projection show {name}`");
                return Err(Refusal::new(Exit::CheckFailed, why, next).into());
            }
            if !self.switch && shadow.position >= status.position {
                break;
            }
            session.out.status(&progress(shadow));
            session.sleep(Duration::from_millis(500)).await;
        }
        session.out.status("");
        Ok(())
    }
}

#[derive(Serialize)]
struct Compared {
    #[serde(flatten)]
    comparison: Comparison,
    differences: Option<Differences>,
}

impl Compare {
    async fn run(self, admin: &Admin, session: &mut Session) -> Result<()> {
        let name = resolve(admin, &self.name).await?;
        let comparison = admin.compare(&name, self.within).await?;
        let differences = if comparison.equal {
            None
        } else {
            Some(admin.differences(&name, self.examples).await?)
        };
        let compared = Compared { comparison, differences };
        session.out.one(&compared, Compared::describe)?;
        match (compared.comparison.equal, compared.comparison.position) {
            (true, _) => Ok(()),
            (false, Some(position)) => Err(Refusal::new(
                Exit::CheckFailed,
                format!("{name}: they differ at position {position}"),
                "`projection switch --force` reads what was rebuilt, `projection discard` removes it",
            )
            .into()),
            (false, None) => Err(Refusal::new(
                Exit::CheckFailed,
                format!("{name}: they were at no position both within the time"),
                "wait until it has caught up, or give it longer with `--within`",
            )
            .into()),
        }
    }
}

impl Compared {
    fn describe(&self) -> String {
        let [live, other] = self.comparison.generations.each_ref().map(|name| printable(name));
        let mut text = match (&self.comparison.position, &self.comparison.digests) {
            (Some(position), Some([one, two])) if self.comparison.equal => format!(
                "{live} and {other} are the same at position {position}: {} documents, digest {}",
                one.documents, two.hash
            ),
            (Some(position), Some([one, two])) => format!(
                "{live} and {other} differ at position {position}: {} documents and {}",
                one.documents, two.documents
            ),
            _ => format!("{live} and {other} were at no position both"),
        };
        let Some(differences) = &self.differences else { return text };
        let _ = write!(text, "\n{} documents differ as they are now", differences.count);
        for one in &differences.examples {
            let _ = write!(text, "\n  {}", printable(&one.id));
            for (word, value) in [("read", &one.live), ("beside", &one.other)] {
                let value = value.as_ref().map_or("not there".to_owned(), ToString::to_string);
                let _ = write!(text, "\n    {word:6} {}", printable(&value));
            }
        }
        text
    }
}
