//! The writer's statements, prepared once and held: one method each.

use crate::{
    rows::{self, signed},
    run::{Guard, SAVEPOINT, Sql, Unsuccessful},
};
use rusqlite::{Connection, OptionalExtension, PrepFlags, Row, Statement};
use sillage_core::{Decision, Delivered, Epoch, Failure, Message, MessageId, Timestamp, Version};

/// A stream's number in the file and a version in it.
pub(crate) type Place = (i64, Version);

/// All that a commit asks and does, on the writer's connection.
pub(crate) struct Statements<'c> {
    connection: &'c Connection,
    guard: Guard,
    savepoint: [Statement<'c>; 3],
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    end: Statement<'c>,
    decision: Statement<'c>,
    known: Statement<'c>,
    stream_place: Statement<'c>,
    new_stream: Statement<'c>,
    document_version: Statement<'c>,
    document_below: Statement<'c>,
    lease_epoch: Statement<'c>,
    grow_stream: Statement<'c>,
    append: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    decide: Statement<'c>,
    forget: Statement<'c>,
    trim: Statement<'c>,
    trimmed: Statement<'c>,
    trim_stream: Statement<'c>,
    restore: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(crate) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let prepare =
            |sql| connection.prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT);
        let [save, release, take_back] = SAVEPOINT;
        Ok(Statements {
            connection,
            guard: Guard::install(connection)?,
            savepoint: [prepare(save)?, prepare(release)?, prepare(take_back)?],
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            end: prepare(include_str!("sql/end.sql"))?,
            decision: prepare(include_str!("sql/decision.sql"))?,
            known: prepare(include_str!("sql/known.sql"))?,
            stream_place: prepare(include_str!("sql/stream_place.sql"))?,
            new_stream: prepare(include_str!("sql/new_stream.sql"))?,
            document_version: prepare(include_str!("sql/document_version.sql"))?,
            document_below: prepare(include_str!("sql/document_below.sql"))?,
            lease_epoch: prepare(include_str!("sql/lease_epoch.sql"))?,
            grow_stream: prepare(include_str!("sql/grow_stream.sql"))?,
            append: prepare(include_str!("sql/append.sql"))?,
            put: prepare(include_str!("sql/put.sql"))?,
            delete: prepare(include_str!("sql/delete.sql"))?,
            decide: prepare(include_str!("sql/decide.sql"))?,
            forget: prepare(include_str!("sql/forget.sql"))?,
            trim: prepare(include_str!("sql/trim.sql"))?,
            trimmed: prepare(include_str!("sql/trimmed.sql"))?,
            trim_stream: prepare(include_str!("sql/trim_stream.sql"))?,
            restore: prepare(include_str!("sql/restore.sql"))?,
        })
    }

    /// Runs `work` in one SQL transaction that holds the file's write lock from its start; an
    /// error of `work` or of the commit leaves nothing behind.
    pub(crate) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !self.connection.is_autocommit() {
            // A panic broke off the last one.
            self.rollback.execute([])?;
        }
        self.begin.execute([])?;
        let done = work(self).and_then(|done| self.commit.execute([]).map(|_| done));
        // Some errors, as a full disk, have rolled back already.
        if done.is_err() && !self.connection.is_autocommit() {
            self.rollback.execute([])?;
        }
        done
    }

    /// Runs SQL of users in a savepoint; where one fails, nothing of it is left, and the answer is
    /// why.
    pub(crate) fn run<'s>(
        &mut self,
        mut all: impl Iterator<Item = &'s Sql>,
    ) -> rusqlite::Result<Option<Failure>> {
        let [save, release, take_back] = &mut self.savepoint;
        save.execute([])?;
        let failure = match all.try_for_each(|sql| sql.run(self.connection, &self.guard)) {
            Ok(()) => None,
            Err(Unsuccessful::Condemned(error)) => return Err(error),
            Err(Unsuccessful::Refused(failure)) => {
                take_back.execute([])?;
                Some(failure)
            }
        };
        release.execute([])?;
        Ok(failure)
    }

    /// Where the log ends before this transaction.
    pub(crate) fn end(&mut self) -> rusqlite::Result<u64> {
        self.end.query_row([], |row| rows::unsigned(row, 0))
    }

    pub(crate) fn decision(&mut self, of: &Delivered) -> rusqlite::Result<Option<Decision>> {
        let delivery = (&*of.consumer, &*of.source, &*of.id);
        self.decision.query_row(delivery, rows::decision).optional()
    }

    pub(crate) fn is_known(&mut self, source: &str, id: &MessageId) -> rusqlite::Result<bool> {
        self.known.exists((id.as_str(), source))
    }

    /// Where the stream stands.
    pub(crate) fn stream_place(&mut self, stream: &str) -> rusqlite::Result<Option<Place>> {
        let place = |row: &Row<'_>| Ok((row.get(0)?, Version(rows::unsigned(row, 1)?)));
        self.stream_place.query_row([stream], place).optional()
    }

    /// A stream with version 1; answers its number.
    pub(crate) fn new_stream(&mut self, stream: &str) -> rusqlite::Result<i64> {
        self.new_stream.insert([stream])
    }

    pub(crate) fn grow_stream(&mut self, id: i64, version: Version) -> rusqlite::Result<()> {
        self.grow_stream.execute((id, signed(version.0))).map(|_| ())
    }

    pub(crate) fn document_version(
        &mut self,
        collection: &str,
        id: &str,
    ) -> rusqlite::Result<Option<Version>> {
        let version = |row: &Row<'_>| rows::unsigned(row, 0).map(Version);
        self.document_version.query_row((collection, id), version).optional()
    }

    /// Whether the document is absent or its sort key is below `sort`.
    pub(crate) fn is_below(
        &mut self,
        collection: &str,
        id: &str,
        sort: &str,
    ) -> rusqlite::Result<bool> {
        let below = self.document_below.query_row((collection, id, sort), |row| row.get(0));
        Ok(below.optional()?.unwrap_or(true))
    }

    pub(crate) fn lease_epoch(&mut self, name: &str) -> rusqlite::Result<Option<Epoch>> {
        self.lease_epoch.query_row([name], |row| Ok(Epoch(rows::unsigned(row, 0)?))).optional()
    }

    /// Adds an entry to the log and answers its position.
    pub(crate) fn append(
        &mut self,
        place: Option<Place>,
        message: &Message,
    ) -> rusqlite::Result<u64> {
        bind(&mut self.append, place, message)?;
        self.append.raw_execute()?;
        let position = self.connection.last_insert_rowid();
        Ok(u64::try_from(position).unwrap_or(0))
    }

    pub(crate) fn put(
        &mut self,
        (collection, id): (&str, &str),
        sort: Option<&str>,
        body: &[u8],
    ) -> rusqlite::Result<()> {
        self.put.execute((collection, id, sort, body)).map(|_| ())
    }

    pub(crate) fn delete(&mut self, collection: &str, id: &str) -> rusqlite::Result<()> {
        self.delete.execute((collection, id)).map(|_| ())
    }

    pub(crate) fn decide(
        &mut self,
        of: &Delivered,
        decision: Decision,
        until: Option<(&str, u64)>,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        let row = (
            &*of.consumer,
            &*of.source,
            &*of.id,
            decision.as_str(),
            until.map(|(partition, _)| partition),
            until.map(|(_, offset)| signed(offset)),
            at.as_micros(),
        );
        self.decide.execute(row).map(|_| ())
    }

    pub(crate) fn forget(
        &mut self,
        consumer: &str,
        partition: &str,
        through: u64,
    ) -> rusqlite::Result<()> {
        self.forget.execute((consumer, partition, signed(through))).map(|_| ())
    }

    /// Removes entries without a stream.
    pub(crate) fn trim(&mut self, through: u64) -> rusqlite::Result<()> {
        self.trim.execute([signed(through)])?;
        self.trimmed.execute([signed(through)]).map(|_| ())
    }

    pub(crate) fn trim_stream(&mut self, stream: i64, through: u64) -> rusqlite::Result<()> {
        self.trim_stream.execute((stream, signed(through))).map(|_| ())
    }

    /// Puts an entry back where it was.
    pub(crate) fn restore(
        &mut self,
        position: u64,
        place: Place,
        message: &Message,
    ) -> rusqlite::Result<()> {
        bind(&mut self.restore, Some(place), message)?;
        self.restore.raw_bind_parameter(16, signed(position))?;
        self.restore.raw_execute().map(|_| ())
    }
}

/// An entry's place in its stream and its message, as the first fifteen parameters.
fn bind(
    statement: &mut Statement<'_>,
    place: Option<Place>,
    message: &Message,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, &*message.source)?;
    statement.raw_bind_parameter(2, message.id.as_str())?;
    statement.raw_bind_parameter(3, &*message.name)?;
    statement.raw_bind_parameter(4, message.version)?;
    statement.raw_bind_parameter(5, message.topic.as_deref())?;
    statement.raw_bind_parameter(6, message.key.as_ref().map(sillage_core::Key::as_bytes))?;
    statement.raw_bind_parameter(7, place.map(|(stream, _)| stream))?;
    statement.raw_bind_parameter(8, place.map(|(_, version)| signed(version.0)))?;
    statement.raw_bind_parameter(9, message.time.as_micros())?;
    statement.raw_bind_parameter(10, &*message.correlation_id)?;
    statement.raw_bind_parameter(11, message.causation_id.as_ref().map(MessageId::as_str))?;
    statement.raw_bind_parameter(12, message.operation_id.as_deref())?;
    statement.raw_bind_parameter(13, message.traceparent.as_deref())?;
    statement.raw_bind_parameter(14, rows::header_bytes(&message.headers))?;
    statement.raw_bind_parameter(15, &*message.payload)
}
