//! `sillage streams`.

use crate::{output::Column, session::Session, text::printable};
use anyhow::Result;
use sillage::{Archive, Archived};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Streams {
    /// Streams that are archived, and their files
    List,
    /// Write a stream to a file, check that, and take its entries out of the log
    Archive(ArchiveArgs),
    /// Put the entries of an archive back where they were
    Restore {
        file: PathBuf,
        /// Only check the file, and that it is this database's
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The stream keeps its version, and may grow; to read it is an error that names the \
    file. Every reader of the log must have passed it. A rebuild of a projection wants it back."
)]
pub(crate) struct ArchiveArgs {
    /// The whole name, with its service: `order/order-o-1041`
    stream: String,
    /// The folder of the file
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
}

const COLUMNS: [Column<Archived>; 5] = [
    ("STREAM", |archived| printable(&archived.archive.stream).into_owned()),
    ("VERSIONS", |archived| versions(&archived.archive)),
    ("UP TO", |archived| archived.archive.through.to_string()),
    ("ARCHIVED", |archived| archived.archive.time.to_string()),
    ("FILE", |archived| printable(&archived.file).into_owned()),
];

fn versions(archive: &Archive) -> String {
    format!("{}-{}", archive.first, archive.last)
}

impl Streams {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        match self {
            Streams::List => session.out.rows(&admin.archived().await?, &COLUMNS),
            Streams::Archive(ArchiveArgs { stream, to, dry_run }) => {
                let planned = admin.archive(&stream, &to, true).await?;
                if dry_run {
                    session.out.note("a dry run: nothing was written or removed");
                    return session.out.one(&planned, |one| said("would archive", one));
                }
                let entries = planned.archive.entries;
                session
                    .confirm(&format!("Take {entries} entries of {stream} out of the log?"))
                    .await?;
                let archived = admin.archive(&stream, &to, false).await?;
                session.out.one(&archived, |one| said("archived", one))
            }
            Streams::Restore { file, dry_run } => {
                let archive = admin.restore_stream(&file, dry_run).await?;
                let verb = if dry_run { "would restore" } else { "restored" };
                let archived = Archived { archive, file: file.display().to_string() };
                session.out.one(&archived, |one| said(verb, one))
            }
        }
    }
}

fn said(verb: &str, archived: &Archived) -> String {
    let Archived { archive, file } = archived;
    format!(
        "{verb} {} entries of {}, versions {}: {}",
        archive.entries,
        printable(&archive.stream),
        versions(archive),
        printable(file)
    )
}
