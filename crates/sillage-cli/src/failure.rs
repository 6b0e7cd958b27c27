//! How a command fails: its exit code, what happened, and what to do next.

use sillage::{CommitError, Error, ErrorKind};
use std::{error::Error as _, fmt, io, process::ExitCode};

/// What the exit code says; a script decides on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Conflict = 5,
    Unreachable = 6,
    PartlyFailed = 7,
    CheckFailed = 8,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command was not done, or not wholly.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    /// What the reader can do about it.
    pub(crate) next: String,
}

impl Refusal {
    pub(crate) fn new(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> Self {
        Refusal { exit, what: what.into(), next: next.into() }
    }

    pub(crate) fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Refusal::new(Exit::Usage, what, next)
    }

    /// Of any error; `None` where the reader of our output went away, which is no failure.
    pub(crate) fn of(error: &anyhow::Error) -> Option<Refusal> {
        let what = words(error);
        for cause in error.chain() {
            if let Some(refusal) = cause.downcast_ref::<Refusal>() {
                let (exit, next) = (refusal.exit, refusal.next.clone());
                return Some(Refusal { exit, what: refusal.what.clone(), next });
            }
            if let Some(error) = cause.downcast_ref::<Error>() {
                return Some(of_database(error, what));
            }
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                let gone = error.kind() == io::ErrorKind::BrokenPipe;
                return (!gone)
                    .then(|| Refusal::new(Exit::Failure, what, "mend that, then try again"));
            }
        }
        Some(Refusal::new(Exit::Failure, what, "`sillage doctor` looks for what may be wrong"))
    }
}

/// What happened and why. Some errors tell their cause themselves: nothing is said twice.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

fn of_database(error: &Error, what: String) -> Refusal {
    if error.source().and_then(|source| source.downcast_ref::<CommitError>()).is_some() {
        return Refusal::new(Exit::Conflict, what, "look at it again, then decide");
    }
    let (exit, next) = match error.kind() {
        ErrorKind::Unavailable => {
            (Exit::Unreachable, "check that it can be reached from here, then try again")
        }
        ErrorKind::NotFound => (Exit::NotFound, "the `list` commands show what there is"),
        ErrorKind::Denied => (Exit::Denied, "ask for the right to do this, or use another URL"),
        ErrorKind::Invalid | ErrorKind::Unsupported => {
            (Exit::Usage, "`--help` after the command shows what it takes")
        }
        ErrorKind::Trimmed => {
            (Exit::NotFound, "`sillage retention show` and `sillage streams list` say what is gone")
        }
        ErrorKind::NewerSchema => (Exit::Failure, "use the `sillage` of the newer version"),
        ErrorKind::Full => (Exit::Failure, "make room, or mend the rights on the file"),
        _ => (Exit::Failure, "`sillage doctor` looks for what may be wrong"),
    };
    Refusal::new(exit, what, next)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(error: impl Into<anyhow::Error>) -> Option<Exit> {
        Refusal::of(&error.into()).map(|refusal| refusal.exit)
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = Error::unavailable("no answer").because(Error::invalid("no such host"));
        let error = anyhow::Error::from(error).context("the broker");
        assert_eq!(words(&error), "the broker: no answer: no such host");
    }

    #[test]
    fn each_kind_of_error_has_its_exit_code() {
        let of = |kind| exit(Error::new(kind, "x"));
        assert_eq!(of(ErrorKind::Unavailable), Some(Exit::Unreachable));
        assert_eq!(of(ErrorKind::NotFound), Some(Exit::NotFound));
        assert_eq!(of(ErrorKind::Denied), Some(Exit::Denied));
        assert_eq!(of(ErrorKind::Invalid), Some(Exit::Usage));
        assert_eq!(of(ErrorKind::Corrupt), Some(Exit::Failure));
        let changed = Error::invalid("x").because(CommitError::Fenced);
        assert_eq!(exit(changed), Some(Exit::Conflict));
        assert_eq!(exit(Refusal::usage("x", "y")), Some(Exit::Usage));
        assert_eq!(exit(io::Error::from(io::ErrorKind::BrokenPipe)), None);
        assert_eq!(exit(io::Error::from(io::ErrorKind::NotFound)), Some(Exit::Failure));
    }
}
