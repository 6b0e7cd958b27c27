//! What PostgreSQL reports, as a kind to decide on and a sentence that says what, where and what to
//! do.

use sillage_core::{CommitError, Error, ErrorKind};

/// What a failed statement says about what to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The server as a whole, or the way to it: no commit would fare better by itself.
    Server,
    /// Somebody was quicker or in the way: the same may succeed now.
    Race,
    /// A row that somebody holds.
    Held,
    /// What was to be written.
    Guilty,
    /// Anything else.
    Other,
}

/// Why a statement failed.
pub(crate) fn cause(error: &sqlx::Error) -> Cause {
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Cause::Guilty,
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Cause::Other,
            _ => Cause::Server,
        };
    };
    match &*code {
        "55P03" => Cause::Held,
        // Our own division by zero, where a batch is not as it was thought to be.
        "23505" | "40001" | "40P01" | "22012" => Cause::Race,
        // Where the statement timed out, or somebody cancelled it.
        "57014" => Cause::Other,
        _ => match &code[..2.min(code.len())] {
            "08" | "25" | "28" | "3D" | "3F" | "42" | "53" | "57" | "58" | "XX" => Cause::Server,
            "22" | "23" | "54" => Cause::Guilty,
            _ => Cause::Other,
        },
    }
}

pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(Into::into)
}

/// The error of a call on the database at this place.
pub(crate) fn describe(place: &str, error: sqlx::Error) -> Error {
    let code = code(&error).unwrap_or_default();
    let (kind, sentence) = match &*code {
        "28P01" | "28000" => (
            ErrorKind::Denied,
            format!("PostgreSQL at {place} refuses user or password: check the URL"),
        ),
        "42501" => (
            ErrorKind::Denied,
            format!(
                "this user lacks rights at {place}: grant it CREATE on the database for the first \
                 start, and all rights on what is in the schema"
            ),
        ),
        "3D000" => (
            ErrorKind::NotFound,
            format!("there is no such database at {place}: create it, or check the URL"),
        ),
        "42P01" | "3F000" | "42703" | "42883" => (
            ErrorKind::Corrupt,
            format!("something of Sillage's is missing at {place}: restore it from a backup"),
        ),
        "53100" => (
            ErrorKind::Full,
            format!("the disk of PostgreSQL at {place} is full: free some space, nothing is lost"),
        ),
        "53300" => (
            ErrorKind::Unavailable,
            format!(
                "PostgreSQL at {place} has no connection left: raise `max_connections`, or put \
                 `connections=…` in the URL"
            ),
        ),
        "25006" => (
            ErrorKind::Unavailable,
            format!("PostgreSQL at {place} takes no writes: is it a standby, or read-only?"),
        ),
        "55P03" => (
            ErrorKind::Unavailable,
            format!("a row at {place} is held by another transaction: end it, or try again"),
        ),
        "57014" => (
            ErrorKind::Unavailable,
            format!("PostgreSQL at {place} took too long, or an operator cancelled a statement"),
        ),
        "" => described(place, &error),
        _ => match cause(&error) {
            Cause::Server | Cause::Race | Cause::Held => (
                ErrorKind::Unavailable,
                format!("PostgreSQL at {place} cannot do this now: try again"),
            ),
            Cause::Guilty => {
                (ErrorKind::Invalid, format!("PostgreSQL at {place} cannot store this as it is"))
            }
            Cause::Other => {
                (ErrorKind::Other, format!("PostgreSQL at {place} reports an error ({code})"))
            }
        },
    };
    Error::new(kind, sentence).because(error)
}

/// What the client reports by itself.
fn described(place: &str, error: &sqlx::Error) -> (ErrorKind, String) {
    match error {
        sqlx::Error::Configuration(_) => {
            (ErrorKind::Invalid, format!("the URL of PostgreSQL at {place} is wrong"))
        }
        sqlx::Error::Tls(_) => (
            ErrorKind::Denied,
            format!("no secure connection to PostgreSQL at {place}: check `sslmode` and its files"),
        ),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            (ErrorKind::Corrupt, format!("{place} holds a value that cannot be read"))
        }
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Unavailable,
            format!("no connection to PostgreSQL at {place} was free in time, or it is down"),
        ),
        _ => (
            ErrorKind::Unavailable,
            format!("PostgreSQL at {place} does not answer: is it running, is the way to it open?"),
        ),
    }
}

/// What a commit is told: it can never be accepted, or could not be saved now.
pub(crate) fn refuse(place: &str, error: sqlx::Error) -> CommitError {
    match cause(&error) {
        Cause::Guilty => CommitError::Rejected(describe(place, error)),
        _ => CommitError::Failed(describe(place, error)),
    }
}
