//! What SQLite reports, as a kind to decide on and a sentence that says what, where and what to do.

use rusqlite::ErrorCode;
use sillage_core::{Class, CommitError, Error, ErrorKind, Failure};
use std::path::Path;

/// The error of a call on this file.
pub(crate) fn describe(path: &Path, error: &rusqlite::Error) -> Error {
    let file = path.display();
    let (kind, sentence) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Full,
            format!("the disk that holds `{file}` is full: free some space, nothing saved is lost"),
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Full,
            format!(
                "`{file}` cannot be written: check the rights on the file and its folder, and \
                 that its disk is not mounted read-only"
            ),
        ),
        Some(ErrorCode::PermissionDenied) => {
            (ErrorKind::Denied, format!("access to `{file}` is denied: check the rights on it"))
        }
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Invalid, format!("`{file}` is not an SQLite database: name another file"))
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            format!("`{file}` is damaged: stop all that uses it and restore it from a backup"),
        ),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => (
            ErrorKind::Unavailable,
            format!("`{file}` stayed locked by another process: end what holds it, or try again"),
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            format!(
                "`{file}` cannot be opened: check that this user may read and write the file and \
                 its folder"
            ),
        ),
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => {
            (ErrorKind::Unavailable, format!("`{file}` cannot be read or written: check its disk"))
        }
        _ if is_guilty(error) => {
            (ErrorKind::Invalid, format!("`{file}` cannot store this as it is"))
        }
        None if is_unreadable(error) => {
            (ErrorKind::Corrupt, format!("`{file}` holds a value that cannot be read"))
        }
        _ => (ErrorKind::Other, format!("SQLite reports an error on `{file}`")),
    };
    Error::new(kind, sentence).because(error.to_string())
}

/// What a commit is told: it can never be accepted, or could not be saved now.
pub(crate) fn refuse(path: &Path, error: &rusqlite::Error) -> CommitError {
    let described = describe(path, error);
    if is_guilty(error) { CommitError::Rejected(described) } else { CommitError::Failed(described) }
}

/// Whether the file as a whole is the cause, so that no commit would fare better by itself.
pub(crate) fn is_the_file(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::NotADatabase
        )
    )
}

/// What a user's SQL failed with. Without a word of theirs its class is transient.
pub(crate) fn of_user(class: Class, error: rusqlite::Error) -> Failure {
    if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied) {
        let why = "`sql` may not begin or end transactions, attach files, set pragmas or change \
                   Sillage's own tables";
        return Failure::permanent(Error::new(ErrorKind::Denied, why).because(error));
    }
    if class == Class::Transient && error.to_string().contains("no such table") {
        let why = "`sql` needs a table that is not there: make it, and this is tried again";
        return Failure::transient(Error::new(ErrorKind::NotFound, why).because(error));
    }
    let is_final = class == Class::Transient && is_guilty(&error);
    let class = if is_final { Class::Permanent } else { class };
    Failure { class, source: Box::new(error) }
}

/// Whether what was to be written is the cause.
fn is_guilty(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        )
}

fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn sqlite(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn every_sentence_names_the_file() {
        let expected = [
            (ffi::SQLITE_FULL, ErrorKind::Full),
            (ffi::SQLITE_READONLY, ErrorKind::Full),
            (ffi::SQLITE_NOTADB, ErrorKind::Invalid),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable),
            (ffi::SQLITE_IOERR, ErrorKind::Unavailable),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Unavailable),
            (ffi::SQLITE_PERM, ErrorKind::Denied),
            (ffi::SQLITE_CONSTRAINT, ErrorKind::Invalid),
            (ffi::SQLITE_ERROR, ErrorKind::Other),
        ];
        for (code, kind) in expected {
            let error = describe(Path::new("shop.db"), &sqlite(code));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("`shop.db`"), "{error}");
        }
    }

    #[test]
    fn only_what_was_written_is_rejected() {
        let path = Path::new("shop.db");
        for code in [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH] {
            assert!(matches!(refuse(path, &sqlite(code)), CommitError::Rejected(_)));
            assert!(!is_the_file(&sqlite(code)));
        }
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_READONLY] {
            assert!(matches!(refuse(path, &sqlite(code)), CommitError::Failed(_)));
            assert!(is_the_file(&sqlite(code)));
        }
    }
}
