//! One error type for the ports: a kind to decide on, words for people, the cause.

use std::fmt;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; callers decide on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend cannot be reached or does not answer; trying again later may help.
    Unavailable,
    /// What was asked cannot be done as asked: a bad name, a value over a limit, a wrong URL.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// Credentials or rights are missing.
    Denied,
    /// There is no room: the disk is full or the file cannot be written.
    Full,
    /// Stored bytes are not what they should be.
    Corrupt,
    /// The store was written by a newer version of this software.
    NewerSchema,
    /// What was asked for was removed from the log: it is past its retention, or in an archive.
    Trimmed,
    /// This backend cannot do that; its capabilities say so.
    Unsupported,
    /// Anything else the backend reports.
    Other,
}

/// An error of a backend: kind, a sentence that says what, where and what to do, and the cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind, with a sentence that says what, where and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Shorthand for [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// A stream is read whose entry with this version is not in the log any more.
    pub fn trimmed_stream(stream: &str, version: crate::Version) -> Self {
        let what = format!("stream `{stream}`: version {version} is not in the log any more");
        Error::new(ErrorKind::Trimmed, what)
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Other)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::corrupt("stored JSON cannot be read").because(error)
    }
}
