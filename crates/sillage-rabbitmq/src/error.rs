//! From what the client and the server say to this project's errors: a kind, and a sentence.

use lapin::{ErrorKind as Said, protocol::AMQPError};
use sillage_core::{Error, ErrorKind};

/// Reply codes of AMQP 0-9-1 that mean something to us.
pub(crate) const ACCESS_REFUSED: u16 = 403;
pub(crate) const NOT_FOUND: u16 = 404;
pub(crate) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;
const INTERNAL_ERROR: u16 = 541;

/// What the server said, where it said something.
pub(crate) fn said(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        Said::ProtocolError(said) => Some(said),
        _ => None,
    }
}

/// The code with which the server refused.
pub(crate) fn code(error: &lapin::Error) -> Option<u16> {
    said(error).map(AMQPError::get_id)
}

/// The server's words.
pub(crate) fn words(error: &lapin::Error) -> &str {
    said(error).map_or("", |said| said.get_message().as_str())
}

/// An error with this sentence, of the kind that the server's answer means.
pub(crate) fn describe(what: impl Into<String>, error: lapin::Error) -> Error {
    let kind = match code(&error) {
        // Of a virtual host: it does not exist, or is not this user's.
        Some(NOT_ALLOWED) if words(&error).contains("not found") => ErrorKind::NotFound,
        Some(ACCESS_REFUSED | NOT_ALLOWED) => ErrorKind::Denied,
        Some(NOT_FOUND) => ErrorKind::NotFound,
        Some(PRECONDITION_FAILED) => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, what).because(error)
}

/// Why a queue brings nothing any more, with what to do about it.
pub(crate) fn interrupted(queue: &str, error: Option<lapin::Error>) -> Error {
    let Some(error) = error else { return deleted(queue) };
    let text = words(&error);
    match code(&error) {
        Some(NOT_FOUND) => deleted(queue),
        Some(PRECONDITION_FAILED) if text.contains("timeout") => describe(
            format!(
                "queue `{queue}` is opened again: a delivery stayed unfinished for longer than \
                 the server's `consumer_timeout`"
            ),
            error,
        ),
        Some(INTERNAL_ERROR) => describe(
            format!(
                "queue `{queue}` cannot be read: the server finds no leader for it. If that does \
                 not pass, its node was killed right after the queue was made: delete the queue \
                 and restart the consumer"
            ),
            error,
        ),
        _ => describe(format!("queue `{queue}` cannot be read"), error),
    }
}

fn deleted(queue: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "queue `{queue}` does not exist any more: it was deleted, with all that was in it, \
             and nothing published since then reaches the consumer. A restart of the consumer \
             makes it again"
        ),
    )
}
