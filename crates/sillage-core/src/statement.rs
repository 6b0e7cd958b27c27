//! SQL of the user's own within a commit: what only the database that it was written for can run.

use crate::{Commit, Error, ErrorKind, Result, Write};
use std::{any::Any, fmt, ptr, sync::Arc};

/// SQL of the user's own, opaque to all but the database that it is for. Cheap to clone.
///
/// A backend makes it of a closure, in a function called `sql`, and takes it out again when it runs
/// a commit. Two are equal where one is a clone of the other.
#[derive(Clone)]
pub struct Statement {
    database: &'static str,
    run: Arc<dyn Any + Send + Sync>,
}

impl Statement {
    /// What this kind of database runs.
    pub fn new<T: Send + Sync + 'static>(database: &'static str, run: T) -> Self {
        Statement { database, run: Arc::new(run) }
    }

    /// What this kind of database runs.
    ///
    /// # Errors
    /// `Unsupported`: it is for another kind.
    pub fn run_by<T: 'static>(&self, database: &str) -> Result<&T> {
        self.run.downcast_ref().ok_or_else(|| self.refused_by(database))
    }

    /// What a database says that runs no SQL, or none of this kind.
    pub fn refused_by(&self, database: &str) -> Error {
        let written = self.database;
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "this `sql` effect is for {written}, and the database is {database}: return the \
                 `sql` of the database that the app was given, or effects without SQL"
            ),
        )
    }
}

impl Commit {
    /// Whether all SQL in it is what this kind of database runs.
    ///
    /// # Errors
    /// `Unsupported`: some is for another kind.
    pub fn runs_on<T: 'static>(&self, database: &str) -> Result<()> {
        self.writes.iter().try_for_each(|write| match write {
            Write::Run(statement) => statement.run_by::<T>(database).map(|_| ()),
            _ => Ok(()),
        })
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sql for {}", self.database)
    }
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.run), Arc::as_ptr(&other.run))
    }
}
