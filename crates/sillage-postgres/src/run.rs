//! SQL of the user's own, run inside a commit.
//!
//! It is run once the commit's rows are locked and its conditions hold, before anything of it is
//! written, in a savepoint of the commit's own: what fails is taken back alone.

use crate::{error::code, log::Log};
use futures_util::FutureExt as _;
use sillage_core::{
    BoxFuture, Class, Commit, Effect, Effects, Error, ErrorKind, Failure, Statement, Write,
};
use sqlx::PgConnection;
use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

/// What an effect is for, in messages to people.
pub(crate) const NAME: &str = "PostgreSQL";

/// How long the SQL of one effect may take: other commits wait for it. The server ends a statement by then.
const LIMIT: Duration = Duration::from_secs(10);

/// How long that of all effects of a commit may take.
const TOGETHER: Duration = Duration::from_secs(20);

/// Once that of a batch has taken so long, what is left is run by itself: a batch has a limit of time.
pub(crate) const ENOUGH: Duration = Duration::from_secs(5);

const BEGIN: &str = "SAVEPOINT sillage; \
     SELECT set_config('sillage.timeout', current_setting('statement_timeout'), true); \
     SELECT set_config('statement_timeout', '10s', true)";
const END: &str = "RELEASE SAVEPOINT sillage; \
     SELECT set_config('statement_timeout', current_setting('sillage.timeout'), true)";

type Run = dyn for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Failure>> + Send + Sync;

/// What runs inside a commit.
pub(crate) struct Sql(Box<Run>);

/// SQL of one's own as an effect: run inside the commit, in the same transaction as the inbox, the
/// other effects and the state; all of it happens, or nothing.
///
/// ```
/// use sillage_postgres::{sql, sqlx::query};
///
/// # let (order_id, total) = ("o-1".to_owned(), 100_i64);
/// let effects = sql(move |tx| {
///     let insert = query("INSERT INTO orders (id, total) VALUES ($1, $2)");
///     let insert = insert.bind(order_id.clone()).bind(total);
///     Box::pin(async move {
///         insert.execute(tx).await?;
///         Ok(())
///     })
/// });
/// ```
///
/// **It may run more than once**, also where it succeeded: a batch that cannot be saved is rolled
/// back and tried again in halves. So it does nothing but SQL on the connection it is given; what it
/// computes elsewhere would be done again. Its changes are committed once.
///
/// **Others wait for it**: it runs on the one connection that commits, and may take 10 s at most, 20 s
/// with all others of its commit, which is a transient failure. For work that takes longer than a few milliseconds, or waits for anything
/// but the database, a handler takes its own transaction, `Tx<Pg>`.
///
/// *Failures.* One that is returned refuses this commit alone, as its class says. An error of
/// PostgreSQL that is returned with `?` is a permanent failure where a constraint is violated or a
/// value does not fit, and a transient one else; to try a violated constraint again, return
/// [`Failure::transient`] with words of your own. A panic is a permanent failure. A row that somebody
/// else holds, and a deadlock, make this commit wait, up to 30 s, while others go on; a lost connection
/// fails the whole batch, which is tried again.
///
/// It must not end the transaction (`COMMIT`, `ROLLBACK`), nor leave settings behind (`SET` without
/// `LOCAL`). Tables are found by the `search_path` of the URL's user; name their schema where there is
/// doubt.
pub fn sql<F>(run: F) -> Effects
where
    F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Failure>>
        + Send
        + Sync
        + 'static,
{
    Effects::one(Effect::Sql(Statement::new(NAME, Sql(Box::new(run)))))
}

/// How the SQL of a commit ended.
pub(crate) enum Ended {
    /// All of it was done, or there was none.
    Done,
    /// One failed; all was taken back.
    Refused(Failure),
    /// A row was held by somebody else; all was taken back.
    Held,
}

/// Runs the SQL of a commit. An error says that nothing of the batch can be saved.
pub(crate) async fn run(
    log: &Log,
    connection: &mut PgConnection,
    commit: &Commit,
) -> sqlx::Result<Ended> {
    let mut all = commit.writes.iter().filter_map(sql_of).peekable();
    if all.peek().is_none() {
        return Ok(Ended::Done);
    }
    simple(connection, BEGIN).await?;
    let end = log.clock.elapsed() + TOGETHER;
    for sql in all {
        let limit = LIMIT.min(end.saturating_sub(log.clock.elapsed()));
        if let Some(ended) = one(log, connection, (sql, limit)).await? {
            take_back(connection).await?;
            return Ok(ended);
        }
    }
    match simple(connection, END).await {
        Ok(()) => Ok(Ended::Done),
        // After an error that it did not return.
        Err(error) if code(&error).as_deref() == Some("25P02") => {
            take_back(connection).await?;
            let why = "`sql` passed over an error of PostgreSQL, after which nothing can be committed: \
                       return it, or put a savepoint around what may fail";
            Ok(Ended::Refused(Failure::permanent(why)))
        }
        Err(error) => Err(error),
    }
}

/// Whether there is any.
pub(crate) fn has_sql(commit: &Commit) -> bool {
    commit.writes.iter().any(|write| sql_of(write).is_some())
}

/// SQL for other databases was refused before.
fn sql_of(write: &Write) -> Option<&Sql> {
    match write {
        Write::Run(statement) => statement.run_by(NAME).ok(),
        _ => None,
    }
}

/// `None`: it succeeded.
async fn one(
    log: &Log,
    connection: &mut PgConnection,
    (sql, limit): (&Sql, Duration),
) -> sqlx::Result<Option<Ended>> {
    let run = AssertUnwindSafe(async { (sql.0)(connection).await }).catch_unwind();
    let failure = tokio::select! {
        biased;
        done = run => match done {
            Ok(Ok(())) => return Ok(None),
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::permanent(format!("`sql` panicked: {}", said(&*panic))),
        },
        () = log.clock.sleep(limit) => {
            let (one, all) = (LIMIT.as_secs(), TOGETHER.as_secs());
            let why = format!("`sql` took longer than {one} s, or all of its commit longer than {all} s");
            Failure::transient(why)
        }
    };
    let Failure { class, source } = failure;
    Ok(Some(match source.downcast::<sqlx::Error>() {
        Err(source) => Ended::Refused(Failure { class, source }),
        Ok(error) => match cause(&error) {
            Cause::Server => return Err(*error),
            Cause::Held => Ended::Held,
            Cause::Guilty if class == Class::Transient => Ended::Refused(Failure::permanent(error)),
            _ if class == Class::Transient && code(&error).as_deref() == Some("42P01") => {
                let why = "`sql` needs a table that is not there: make it, and this is tried again";
                let error = Error::new(ErrorKind::NotFound, why).because(*error);
                Ended::Refused(Failure::transient(error))
            }
            _ => Ended::Refused(Failure { class, source: error }),
        },
    }))
}

async fn take_back(connection: &mut PgConnection) -> sqlx::Result<()> {
    simple(connection, "ROLLBACK TO SAVEPOINT sillage; RELEASE SAVEPOINT sillage").await
}

pub(crate) async fn simple(connection: &mut PgConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What an error of a user's SQL says.
enum Cause {
    /// The server, or the way to it.
    Server,
    /// Somebody holds a row.
    Held,
    /// What was to be written.
    Guilty,
    /// The statement itself, or anything else.
    Other,
}

fn cause(error: &sqlx::Error) -> Cause {
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Cause::Server,
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Cause::Guilty,
            _ => Cause::Other,
        };
    };
    match &*code {
        "40001" | "40P01" | "55P03" => Cause::Held,
        "53100" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Cause::Server,
        _ => match &code[..2.min(code.len())] {
            "08" | "58" => Cause::Server,
            "22" | "23" | "54" => Cause::Guilty,
            _ => Cause::Other,
        },
    }
}

/// Whether users' SQL in a commit, which was tried by itself, is why it was refused at its end: a
/// constraint that is deferred.
pub(crate) fn is_cause(commit: &Commit, error: &sqlx::Error) -> bool {
    let violates = code(error).is_some_and(|code| code.starts_with("23"));
    violates && has_sql(commit)
}
