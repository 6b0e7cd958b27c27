//! Archived streams: the form of their files, and what the log says of them.
//!
//! An archive is JSON lines: an entry a line, with its position, its version and its message as a
//! `CloudEvent`, and a last line that says what the file is and its digest. The digest is a chain of
//! `UUIDv5` (SHA-1) over the lines before: it tells a file that was damaged or cut, not one that was
//! forged.

use crate::names;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sillage_core::{
    Condition, Database, Error, ErrorKind, Position, Recorded, Result, Text, Timestamp, Version,
    Write, from_json, to_json,
};
use std::{
    io::{BufRead, Write as _},
    path::Path,
    sync::Arc,
};
use uuid::Uuid;

/// Up to where entries of streams may be in archives: a document of the retention's.
const ARCHIVED: &str = "archived";

/// What a file of archived entries is: its last line, and part of what the database keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Whose entries.
    pub stream: Text,
    /// The first version in it.
    pub first: Version,
    /// The last version in it.
    pub last: Version,
    /// The position of that.
    pub through: Position,
    /// How many.
    pub entries: u64,
    /// When it was written.
    pub time: Timestamp,
    /// Of the log it is from.
    pub incarnation: Uuid,
    /// Of all lines before this one.
    pub digest: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Line {
    position: Position,
    version: Version,
    message: Box<RawValue>,
}

/// An archive, and where it was written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// What it is.
    #[serde(flatten)]
    pub archive: Archive,
    /// The file, as it was called.
    pub file: String,
}

/// The archives of one stream, by their versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Archives {
    pub(crate) files: Vec<Archived>,
}

/// An entry as a line, without its end.
pub(crate) fn line(entry: &Recorded) -> Result<String> {
    let Some((_, version)) = entry.stream else {
        return Err(Error::invalid("an entry without a stream is in no archive"));
    };
    let message = RawValue::from_string(to_json(&entry.body)?)?;
    Ok(serde_json::to_string(&Line { position: entry.position, version, message })?)
}

/// The digest with one more line.
pub(crate) fn digest(before: Uuid, line: &str) -> Uuid {
    Uuid::new_v5(&before, line.as_bytes())
}

/// Writes a new file, and what it is as its last line; it is durable when this answers.
pub(crate) fn write(path: &Path, lines: &[String], archive: &Archive) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Full, format!("`{}` cannot be written", path.display()))
            .because(error)
    };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = std::io::BufWriter::new(file.map_err(failed)?);
    for line in lines {
        writeln!(file, "{line}").map_err(failed)?;
    }
    writeln!(file, "{}", serde_json::to_string(archive)?).map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    let folder = path.parent().map(std::fs::File::open).transpose().map_err(failed)?;
    folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(failed)
}

/// Reads a file and checks all of it: the digest, and that its entries are what it says.
pub(crate) fn read(path: &Path) -> Result<(Archive, Vec<Recorded>)> {
    let wrong = |what: &str| Error::corrupt(format!("archive `{}`: {what}", path.display()));
    let unreadable = |error: std::io::Error| {
        let what = format!("archive `{}` cannot be read", path.display());
        Error::new(ErrorKind::NotFound, what).because(error)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut lines: Vec<String> = std::io::BufReader::new(file)
        .lines()
        .collect::<std::io::Result<_>>()
        .map_err(unreadable)?;
    let last = lines.pop().ok_or_else(|| wrong("it is empty"))?;
    let archive: Archive = serde_json::from_str(&last).map_err(|error| {
        wrong("its last line does not say what it is: it was cut").because(error)
    })?;
    if lines.iter().fold(Uuid::nil(), |before, line| digest(before, line)) != archive.digest {
        return Err(wrong("its digest is another: it was damaged"));
    }
    let entry = |text: &String| {
        let line: Line = serde_json::from_str(text)?;
        let place = Some((archive.stream.clone(), line.version));
        let message = from_json(line.message.get().as_bytes())?;
        Ok(Recorded::new(line.position, place, Arc::new(message)))
    };
    let entries: Vec<Recorded> = lines.iter().map(entry).collect::<Result<_>>()?;
    let version = |entry: Option<&Recorded>| entry?.stream.as_ref().map(|(_, version)| *version);
    let is_whole = entries.len() as u64 == archive.entries
        && version(entries.first()) == Some(archive.first)
        && version(entries.last()) == Some(archive.last);
    if is_whole { Ok((archive, entries)) } else { Err(wrong("it has other entries than it says")) }
}

/// What is archived of a stream, with the condition that this is still so.
pub(crate) async fn archives(
    database: &dyn Database,
    stream: &str,
) -> Result<(Archives, Condition)> {
    let stored = database.get(names::ARCHIVES, &[stream]).await?.pop().flatten();
    let expected = stored.as_ref().map(|stored| stored.version);
    let found = stored.map(|stored| serde_json::from_slice(&stored.body)).transpose()?;
    let (collection, id) = (names::ARCHIVES.into(), stream.into());
    Ok((found.unwrap_or_default(), Condition::Document { collection, id, expected }))
}

impl Archives {
    /// As the document of its stream, which goes with the last of them.
    pub(crate) fn put(&self, stream: &str) -> Result<Write> {
        let (collection, id) = (names::ARCHIVES.into(), stream.into());
        if self.files.is_empty() {
            return Ok(Write::Delete { collection, id });
        }
        let body = serde_json::to_vec(self)?.into();
        Ok(Write::Put { collection, id, sort: None, body })
    }
}

/// Up to where entries of streams may be in archives.
pub(crate) async fn archived_through(database: &dyn Database) -> Result<Position> {
    let stored = database.get(names::RETENTION, &[ARCHIVED]).await?.pop().flatten();
    Ok(stored.map(|stored| serde_json::from_slice(&stored.body)).transpose()?.unwrap_or_default())
}

pub(crate) fn put_archived_through(through: Position) -> Result<Write> {
    let (collection, id) = (names::RETENTION.into(), ARCHIVED.into());
    let body = serde_json::to_vec(&through)?.into();
    Ok(Write::Put { collection, id, sort: None, body })
}

/// An error of reading a stream, with the file to restore where its entries are in an archive.
pub(crate) async fn explained(database: &dyn Database, stream: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::Trimmed {
        return error;
    }
    match archives(database, stream).await {
        Ok((Archives { files }, _)) if !files.is_empty() => {
            let names: Vec<_> =
                files.iter().map(|archived| format!("`{}`", archived.file)).collect();
            let what = format!(
                "stream `{stream}` is archived: `sillage streams restore` of {} brings it back",
                names.join(", then ")
            );
            Error::new(ErrorKind::Trimmed, what)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_core::{Message, MessageId};

    fn entries() -> Vec<Recorded> {
        (1..=3)
            .map(|n| {
                let message = Message {
                    id: MessageId::new(n.to_string()),
                    source: "shop".into(),
                    name: "order.paid".into(),
                    version: 1,
                    topic: None,
                    key: None,
                    time: Timestamp::from_micros(1_700_000_000_000_000),
                    correlation_id: "1".into(),
                    causation_id: None,
                    operation_id: None,
                    traceparent: None,
                    headers: vec![],
                    payload: format!("{{\"n\": {n}}}").into(),
                };
                let place = Some(("shop/order-1".into(), Version(n)));
                Recorded::new(Position(n * 10), place, Arc::new(message))
            })
            .collect()
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_damage_is_told() {
        let folder = std::env::temp_dir().join(format!("archive-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.jsonl");
        let lines: Vec<_> = entries().iter().map(|entry| line(entry).unwrap()).collect();
        let archive = Archive {
            stream: "shop/order-1".into(),
            first: Version(1),
            last: Version(3),
            through: Position(30),
            entries: 3,
            time: Timestamp::default(),
            incarnation: Uuid::nil(),
            digest: lines.iter().fold(Uuid::nil(), |before, line| digest(before, line)),
        };
        write(&path, &lines, &archive).unwrap();
        assert!(write(&path, &lines, &archive).is_err(), "nothing is overwritten");
        assert_eq!(read(&path).unwrap(), (archive, entries()));
        let text = std::fs::read_to_string(&path).unwrap();
        let cut = text.rsplit_once("\n{").unwrap().0;
        for (damaged, told) in [
            (text.replace("{\"n\": 2}", "{\"n\": 3}"), "damaged"),
            (text.replacen('\n', "\n\n", 1), "damaged"),
            (cut.to_owned(), "cut"),
            (String::new(), "empty"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(told), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
