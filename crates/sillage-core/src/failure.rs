//! Why a delivery was not handled, and what to do about it.

use crate::DecodeError;
use std::{borrow::Cow, fmt};

/// Any cause, boxed.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure it is: it decides what happens to the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Trying again may help: the retry ladder, then the dead letters.
    Transient,
    /// Trying again cannot help: straight to the dead letters.
    Permanent,
    /// The named dependency is down: the delivery waits in its lane, no attempt is spent.
    Unavailable(Cow<'static, str>),
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Class::Transient => f.write_str("transient"),
            Class::Permanent => f.write_str("permanent"),
            Class::Unavailable(dependency) => write!(f, "unavailable: {dependency}"),
        }
    }
}

/// Why a delivery was not handled.
///
/// Not itself an `Error`, so that `?` turns every error into one: transient, unless said.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// What happened.
    pub source: Source,
}

impl Failure {
    /// Trying again cannot help.
    pub fn permanent(why: impl Into<Source>) -> Self {
        Failure { class: Class::Permanent, source: why.into() }
    }

    /// Trying again may help.
    pub fn transient(why: impl Into<Source>) -> Self {
        Failure { class: Class::Transient, source: why.into() }
    }

    /// The named dependency is down.
    pub fn unavailable(dependency: &'static str, why: impl Into<Source>) -> Self {
        Failure { class: Class::Unavailable(dependency.into()), source: why.into() }
    }

    /// A payload that cannot be read: permanent, but for a newer version than known, which a
    /// deployment in progress may yet bring a reader for.
    pub fn decode(error: DecodeError) -> Self {
        let class = if error.is_newer_version() { Class::Transient } else { Class::Permanent };
        Failure { class, source: error.into() }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { class: Class::Transient, source: Box::new(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// Says what kind of failure an error is, where it crosses into a handler.
pub trait OrFail<T>: Sized {
    /// Trying again cannot help: the delivery goes straight to the dead letters.
    fn or_permanent(self) -> Result<T, Failure>;
    /// The dependency is down: no attempt is spent, nothing is parked.
    fn or_unavailable(self, dependency: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<Source>> OrFail<T> for Result<T, E> {
    fn or_permanent(self) -> Result<T, Failure> {
        self.map_err(Failure::permanent)
    }

    fn or_unavailable(self, dependency: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::unavailable(dependency, error))
    }
}
