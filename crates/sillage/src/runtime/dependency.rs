//! What handlers depend on outside, as one process sees it: breaker and rate limit of each, shared
//! by the consumers of a service.

use super::{
    breaker::{Breaker, Call, Circuit, Permit, State},
    rate::{Bucket, Rate},
};
use crate::names;
use serde::{Deserialize, Serialize};
use sillage_core::{Commit, Result, Text, Timestamp, Write};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// A dependency, or a consumer itself where that has a limit of its own.
pub(crate) struct Dependency {
    pub(crate) name: Text,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

struct Inner {
    circuit: Option<Circuit>,
    bucket: Option<Bucket>,
    /// Who depends on it, as far as is known.
    consumers: BTreeSet<Text>,
    why: Option<String>,
}

/// What is kept of a breaker that is open, so that a process that starts meanwhile begins with a
/// probe, and operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) dependency: Text,
    pub(crate) since: Timestamp,
    /// When it is probed.
    pub(crate) probe_at: Timestamp,
    /// What the last call met.
    pub(crate) why: String,
    pub(crate) consumers: BTreeSet<Text>,
}

/// What a change of a breaker has to be told as.
pub(crate) enum Told {
    Opened(Opened),
    Closed,
}

impl Dependency {
    pub(crate) fn new(name: Text, breaker: Option<Breaker>, rate: Option<Rate>) -> Self {
        let inner = Inner {
            circuit: breaker.map(Circuit::new),
            bucket: rate.map(Bucket::new),
            consumers: BTreeSet::new(),
            why: None,
        };
        Dependency { name, inner: Mutex::new(inner), changed: watch::Sender::new(()) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process before this one left the breaker open.
    pub(crate) fn reopen(&self, policy: Breaker, opened: &Opened) {
        let mut inner = self.inner();
        inner.circuit = Some(Circuit::reopened(policy));
        inner.consumers.extend(opened.consumers.iter().cloned());
        inner.why = Some(opened.why.clone());
    }

    pub(crate) fn has_breaker(&self) -> bool {
        self.inner().circuit.is_some()
    }

    /// A consumer depends on it.
    pub(crate) fn join(&self, consumer: &Text) {
        self.inner().consumers.insert(consumer.clone());
    }

    pub(crate) fn is_known_to(&self, consumer: &Text) -> bool {
        self.inner().consumers.contains(consumer)
    }

    /// Whether a call may begin, and if not, when to ask again; `None`: when it changes.
    pub(crate) fn admits(&self, now: Duration) -> Result<(), Option<Duration>> {
        let mut inner = self.inner();
        if let Some(circuit) = &mut inner.circuit
            && !circuit.admits(now)
        {
            return Err(match circuit.state(now) {
                State::Open(until) => Some(until),
                State::HalfOpen | State::Closed => None,
            });
        }
        match inner.bucket.as_ref().map(Bucket::next).filter(|next| *next > now) {
            Some(next) => Err(Some(next)),
            None => Ok(()),
        }
    }

    /// Begins a call. `None`: another was quicker.
    pub(crate) fn begin(&self, now: Duration) -> Option<Permit> {
        let mut inner = self.inner();
        let waits = inner.bucket.as_ref().is_some_and(|bucket| bucket.next() > now);
        if waits || inner.circuit.as_mut().is_some_and(|circuit| !circuit.admits(now)) {
            return None;
        }
        if let Some(bucket) = &mut inner.bucket {
            bucket.begin(now);
        }
        // Without a breaker nobody asks what became of it.
        inner.circuit.as_mut().map_or(Some(Permit::default()), |circuit| circuit.begin(now))
    }

    /// A call has ended; `why` it was unavailable. One without a permit began before it was known
    /// that it depends on this.
    pub(crate) fn end(
        &self,
        permit: Option<Permit>,
        (call, why): (Call, Option<&str>),
        (now, time): (Duration, Timestamp),
    ) -> Option<Told> {
        let mut inner = self.inner();
        let circuit = inner.circuit.as_mut()?;
        let before = circuit.state(now);
        let late = permit.is_none() && before == State::Closed;
        let permit = if late { circuit.begin(now) } else { permit }?;
        let has_changed = circuit.end(permit, call, now);
        let after = circuit.state(now);
        if let Some(why) = why {
            inner.why = Some(why.to_owned());
        }
        let told = match after {
            State::Open(until) if has_changed => Some(Told::Opened(Opened {
                dependency: self.name.clone(),
                since: time,
                probe_at: time + until.saturating_sub(now),
                why: inner.why.clone().unwrap_or_default(),
                consumers: inner.consumers.clone(),
            })),
            State::Closed if before != State::Closed => {
                inner.why = None;
                Some(Told::Closed)
            }
            _ => None,
        };
        drop(inner);
        if has_changed {
            self.changed.send_replace(());
        }
        told
    }

    /// A call that told nothing is over.
    pub(crate) fn give_back(&self, permit: Permit, now: Duration) {
        let freed = self.inner().circuit.as_mut().map(|c| c.end(permit, Call::Dropped, now));
        if freed == Some(true) {
            self.changed.send_replace(());
        }
    }

    /// How its breaker stands; `None`: it has none.
    pub(crate) fn state(&self, now: Duration) -> Option<State> {
        self.inner().circuit.as_mut().map(|circuit| circuit.state(now))
    }

    /// Nothing may begin now, for as long as the breaker is open.
    pub(crate) fn is_open(&self, now: Duration) -> bool {
        matches!(self.state(now), Some(State::Open(_)))
    }

    /// Why not everything runs, as a sentence.
    pub(crate) fn problem(&self, now: Duration) -> Option<String> {
        let mut inner = self.inner();
        let state = inner.circuit.as_mut()?.state(now);
        let why = inner.why.as_deref().unwrap_or("it was open when this process started");
        let name = &self.name;
        match state {
            State::Closed => None,
            State::Open(until) => Some(format!(
                "`{name}` is unavailable ({why}): nothing is handled, and it is tried again in {} s",
                until.saturating_sub(now).as_secs() + 1
            )),
            State::HalfOpen => Some(format!("`{name}` was unavailable ({why}): it is being tried")),
        }
    }
}

/// Those of one service, by name.
#[derive(Default)]
pub(crate) struct Dependencies {
    all: BTreeMap<Text, Arc<Dependency>>,
    changed: watch::Sender<()>,
}

impl Dependencies {
    pub(crate) fn new(all: impl IntoIterator<Item = Dependency>) -> Self {
        let changed = watch::Sender::new(());
        let shared = |one: Dependency| Dependency { changed: changed.clone(), ..one };
        let named = |one: Dependency| (one.name.clone(), Arc::new(shared(one)));
        let all = all.into_iter().map(named).collect();
        Dependencies { all, changed }
    }

    /// Hears when calls may begin again.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Dependency>> {
        self.all.get(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Dependency>> {
        self.all.values()
    }
}

/// The commit that keeps what a breaker has to tell.
pub(crate) fn kept(service: &str, name: &Text, told: &Told) -> Result<Commit> {
    let (collection, id) = (names::BREAKERS.into(), names::part(service, name));
    let write = match told {
        Told::Opened(opened) => {
            let body = serde_json::to_vec(opened)?.into();
            Write::Put { collection, id, sort: None, body }
        }
        Told::Closed => Write::Delete { collection, id },
    };
    Ok(Commit { conditions: vec![], writes: vec![write] })
}
