//! SQL of the user's own, run inside a commit.
//!
//! It is run by the one thread that writes, in the batch's transaction and a savepoint of the
//! commit's own: what fails is taken back alone, the other commits of the batch stand.

use crate::error::{is_the_file, of_user};
use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};
use sillage_core::{Effect, Effects, Failure, Statement};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What an effect is for, in messages to people.
pub(crate) const NAME: &str = "SQLite";

/// The savepoint around a user's SQL, and what is done with it.
pub(crate) const SAVEPOINT: [&str; 3] =
    ["SAVEPOINT sillage", "RELEASE sillage", "ROLLBACK TO sillage"];

/// Tables that only commits may change.
const OWN: [&str; 6] = ["documents", "inbox", "leases", "log", "meta", "streams"];

type Run = dyn Fn(&Connection) -> Result<(), Failure> + Send + Sync;

/// What runs inside a commit.
pub(crate) struct Sql(Box<Run>);

/// SQL of one's own as an effect: run inside the commit, on the file of the database, together with
/// the inbox, the other effects and the state; all of it happens, or nothing.
///
/// ```
/// use sillage_sqlite::sql;
///
/// # let (order_id, total) = ("o-1".to_owned(), 100);
/// let effects = sql(move |tx| {
///     tx.execute("INSERT INTO orders (id, total) VALUES (?1, ?2)", (&order_id, total))?;
///     Ok(())
/// });
/// ```
///
/// **It may run more than once**, also where it succeeded: a batch that cannot be saved is rolled
/// back and tried again in halves. So it does nothing but SQL on the connection it is given; what it
/// computes elsewhere would be done again. Its changes are committed once.
///
/// **Everybody waits for it**: it runs on the one thread that writes. It should take less than a
/// millisecond, and never wait for anything.
///
/// *Failures.* One that is returned refuses this commit alone, as its class says. An error of SQLite
/// that is returned with `?` is a permanent failure where a constraint is violated or a value does
/// not fit, and a transient one else; to try a violated constraint again, return
/// [`Failure::transient`] with words of your own. A panic is a permanent failure. A full disk or a
/// damaged file fails the whole batch, which is tried again.
///
/// It cannot begin or end transactions, open other files, set pragmas (but `defer_foreign_keys`), or
/// change Sillage's own tables: `documents`, `inbox`, `leases`, `log`, `meta`, `streams`. All else is
/// allowed, tables may be made as well. Foreign keys are not enforced.
pub fn sql<F>(run: F) -> Effects
where
    F: Fn(&Connection) -> Result<(), Failure> + Send + Sync + 'static,
{
    Effects::one(Effect::Sql(Statement::new(NAME, Sql(Box::new(run)))))
}

/// How a user's SQL ended where it did not succeed.
pub(crate) enum Unsuccessful {
    /// It is to be taken back, its commit is refused.
    Refused(Failure),
    /// The file is the cause, or the transaction is gone: nothing of the batch can be saved.
    Condemned(rusqlite::Error),
}

impl Sql {
    pub(crate) fn run(&self, connection: &Connection, guard: &Guard) -> Result<(), Unsuccessful> {
        guard.0.store(true, Ordering::Relaxed);
        let done = catch_unwind(AssertUnwindSafe(|| (self.0)(connection)));
        guard.0.store(false, Ordering::Relaxed);
        let failure = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::permanent(format!("`sql` panicked: {}", said(&*panic))),
        };
        let Failure { class, source } = failure;
        Err(match source.downcast::<rusqlite::Error>() {
            Ok(error) if is_the_file(&error) => Unsuccessful::Condemned(*error),
            Ok(error) => Unsuccessful::Refused(of_user(class, *error)),
            Err(source) => Unsuccessful::Refused(Failure { class, source }),
        })
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Says whether SQL that is prepared now is a user's.
#[derive(Default)]
pub(crate) struct Guard(Arc<AtomicBool>);

impl Guard {
    /// From now on users' SQL on this connection may not do what would break commits.
    pub(crate) fn install(connection: &Connection) -> rusqlite::Result<Guard> {
        let guard = Guard::default();
        let is_user = guard.0.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if is_user.load(Ordering::Relaxed) && !is_allowed(&context) {
                Authorization::Deny
            } else {
                Authorization::Allow
            }
        }))?;
        Ok(guard)
    }
}

fn is_allowed(context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::Transaction { .. } | AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            false
        }
        AuthAction::Savepoint { savepoint_name, .. } => {
            !savepoint_name.eq_ignore_ascii_case("sillage")
        }
        AuthAction::Pragma { pragma_name, pragma_value } => {
            pragma_value.is_none() || pragma_name.eq_ignore_ascii_case("defer_foreign_keys")
        }
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::CreateTempTrigger { table_name, .. } => {
            !OWN.iter().any(|own| own.eq_ignore_ascii_case(table_name))
        }
        _ => true,
    }
}
