//! Streams that nobody needs at hand: into a file and out of the log, and back.

use super::Admin;
use crate::{
    archive::{
        Archive, Archived, Archives, archived_through, archives, digest, explained, line,
        put_archived_through, read, write,
    },
    names,
    retention::{joins, readers},
};
use serde_json::json;
use sillage_core::{
    Commit, CommitError, Condition, Error, ErrorKind, Expected, Filter, Position, Recorded, Result,
    Text, Version, Write,
};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Entries of one commit.
const STEP: usize = 500;
/// The most entries of one archive: they are in memory while it is written.
const MOST: usize = 1_000_000;

impl Admin {
    /// What is archived, by stream and version.
    pub async fn archived(&self) -> Result<Vec<Archived>> {
        let mut found = vec![];
        for stored in self.all(names::ARCHIVES, "").await? {
            found.extend(serde_json::from_slice::<Archives>(&stored.body)?.files);
        }
        Ok(found)
    }

    /// Writes a stream to a new file in `folder`, reads it back, and only then takes the entries out
    /// of the log. The stream keeps its version: it can grow, and is not new again. To read it is an
    /// error that names the file.
    ///
    /// Refused where a reader of the log has not passed all of it. `dry_run`: only says what it
    /// would do. Again, after a crash: goes on.
    pub async fn archive(&self, stream: &str, folder: &Path, dry_run: bool) -> Result<Archived> {
        let (mut known, unchanged) = archives(&*self.database, stream).await?;
        if !dry_run && let Some(last) = known.files.last() {
            self.remove(stream, last.archive.through).await?;
        }
        let after = known.files.last().map_or(Version(0), |last| last.archive.last);
        let entries = self.entries(stream, after).await?;
        let (Some(last), Some(first)) = (entries.last(), entries.first()) else {
            let what = format!("stream `{stream}` has no entries, or none that are not archived");
            return Err(Error::new(ErrorKind::NotFound, what));
        };
        let (readers, mut conditions) = readers(&*self.database).await?;
        if let Some(behind) = readers.first().filter(|reader| reader.position < last.position) {
            return Err(Error::invalid(format!(
                "stream `{stream}` reaches to position {}, and {} is at {}: wait for it, or see \
                 `sillage retention readers`",
                last.position, behind.name, behind.position
            )));
        }
        let lines = entries.iter().map(line).collect::<Result<Vec<_>>>()?;
        let archive = Archive {
            stream: stream.into(),
            first: version(first),
            last: version(last),
            through: last.position,
            entries: entries.len() as u64,
            time: self.clock.now(),
            incarnation: self.database.head().await?.incarnation,
            digest: lines.iter().fold(Uuid::nil(), |before, line| digest(before, line)),
        };
        let path = folder.join(file_name(&archive));
        let archived = Archived { file: path.display().to_string(), archive };
        if dry_run {
            return Ok(archived);
        }
        write(&path, &lines, &archived.archive)?;
        if read(&path)? != (archived.archive.clone(), entries) {
            let what = format!("`{}` was not read as it was written", path.display());
            return Err(Error::corrupt(what));
        }
        known.files.push(archived.clone());
        conditions.push(unchanged);
        let expected = Expected::Exact(archived.archive.last);
        conditions.push(Condition::Stream { stream: stream.into(), expected });
        let through = archived_through(&*self.database).await?.max(archived.archive.through);
        let writes = vec![known.put(stream)?, put_archived_through(through)?, joins()];
        let what = json!({ "stream": stream, "archive": archived });
        let noted = self.act("archive", what, Commit { conditions, writes }).await;
        if let Err(error) = noted {
            // The log is as it was: so is the folder.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.remove(stream, archived.archive.through).await?;
        Ok(archived)
    }

    async fn entries(&self, stream: &str, mut after: Version) -> Result<Vec<Recorded>> {
        let mut entries = vec![];
        loop {
            let read = self.database.stream(stream, after, STEP).await;
            let page = match read {
                Ok(page) => page,
                Err(error) => return Err(explained(&*self.database, stream, error).await),
            };
            let Some(last) = page.last() else { return Ok(entries) };
            after = version(last);
            entries.extend(page);
            if entries.len() > MOST {
                let what = format!("stream `{stream}` has more than {MOST} entries");
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
    }

    /// Takes entries that are in an archive out of the log, the first ones first.
    async fn remove(&self, stream: &str, through: Position) -> Result<()> {
        let filter = Filter { stream: Some(stream.into()), ..Filter::default() };
        loop {
            let page = self.database.log(Position(0), &filter, STEP).await?;
            let last = page.entries.iter().map(|entry| entry.position);
            let Some(last) = last.filter(|position| *position <= through).max() else {
                return Ok(());
            };
            let trim = Write::Trim { stream: Some(stream.into()), through: last };
            self.commit(Commit { conditions: vec![], writes: vec![trim] }).await?;
        }
    }

    /// Puts the entries of an archive back where they were, and checks the file before. Readers do
    /// not see them again. Again, after a crash: goes on.
    pub async fn restore_stream(&self, file: &Path, dry_run: bool) -> Result<Archive> {
        let (archive, entries) = read(file)?;
        let (known, unchanged) = archives(&*self.database, &archive.stream).await?;
        let mut left = known.clone();
        left.files.retain(|archived| archived.archive.digest != archive.digest);
        if left.files.len() == known.files.len() {
            let what = format!(
                "stream `{}` has no archive like `{}` in this database: it is from another one, or \
                 is restored already",
                archive.stream,
                file.display()
            );
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        if dry_run {
            return Ok(archive);
        }
        // The last ones first: until all are there, to read the stream is an error.
        let (first, later) = entries.split_at(entries.len().min(STEP));
        for chunk in later.rchunks(STEP) {
            self.put_back(chunk, Commit::default()).await?;
        }
        let everywhere = self.archived().await?.into_iter();
        let others = everywhere.filter(|archived| archived.archive.digest != archive.digest);
        let through = others.map(|archived| archived.archive.through).max().unwrap_or_default();
        let mut commit = Commit { conditions: vec![unchanged], writes: vec![] };
        commit.writes.push(left.put(&archive.stream)?);
        commit.writes.push(put_archived_through(through)?);
        for entry in first {
            commit.writes.push(Write::Restore(entry.clone()));
        }
        let what = json!({ "stream": archive.stream, "archive": archive });
        self.act("restore-stream", what, commit).await?;
        Ok(archive)
    }

    /// What is there already is left.
    async fn put_back(&self, entries: &[Recorded], mut commit: Commit) -> Result<()> {
        commit.writes.extend(entries.iter().cloned().map(Write::Restore));
        match self.database.commit(vec![commit]).await.pop() {
            Some(Ok(_) | Err(CommitError::AlreadyHandled)) => Ok(()),
            Some(Err(error)) => Err(super::refused(error)),
            None => Err(super::unanswered()),
        }
    }
}

fn version(entry: &Recorded) -> Version {
    entry.stream.as_ref().map_or(Version(0), |(_, version)| *version)
}

/// Of its stream and versions, with nothing in it that means something to a file system.
fn file_name(archive: &Archive) -> PathBuf {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: Text = archive.stream.chars().map(allowed).take(100).collect::<String>().into();
    let (first, last, digest) = (archive.first, archive.last, archive.digest.simple());
    format!("{name}.{first}-{last}.{digest:.8}.jsonl").into()
}
