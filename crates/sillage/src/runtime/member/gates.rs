//! What a member's handlers depend on: nothing starts that a breaker or a rate limit forbids.

use super::{Member, Pending};
use crate::{
    observe,
    runtime::{
        breaker::{Call, Permit, State},
        dependency::{Dependency, Told, kept},
    },
};
use sillage_core::{Class, Failure, Text};
use std::{sync::Arc, time::Duration};

/// What allowed a handler to run, a gate each.
pub(super) type Permits = Vec<Permit>;

/// The dependencies of one consumer.
pub(super) struct Gates {
    all: Vec<Arc<Dependency>>,
    consumer: Text,
    /// When to ask again.
    pub(super) next: Option<Duration>,
}

impl Gates {
    pub(super) fn new(means: &super::Means) -> Self {
        let spec = &means.spec;
        let own = spec.rate.map(|rate| {
            // A limit of the consumer itself is nobody else's.
            Arc::new(Dependency::new(spec.name.clone(), None, Some(rate)))
        });
        let is_ours = |one: &&Arc<Dependency>| {
            spec.depends_on.contains(&one.name) || one.is_known_to(&spec.name)
        };
        let all: Vec<_> =
            own.into_iter().chain(means.dependencies.all().filter(is_ours).cloned()).collect();
        for one in &all {
            one.join(&spec.name);
        }
        Gates { all, consumer: spec.name.clone(), next: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether nothing may start for a while, so that nothing need come either.
    pub(super) fn are_shut(&self, now: Duration) -> bool {
        self.all.iter().any(|gate| gate.is_open(now))
    }

    fn knows(&self, name: &str) -> bool {
        self.all.iter().any(|gate| *gate.name == *name)
    }

    /// Whether a handler may start.
    fn admit(&mut self, now: Duration) -> bool {
        let waited = self.next.take();
        for gate in &self.all {
            if let Err(next) = gate.admits(now) {
                let has_rate = !matches!(gate.state(now), Some(State::Open(_) | State::HalfOpen));
                if has_rate && next != waited {
                    observe::rate_wait(&self.consumer, &gate.name);
                }
                self.next = next;
                return false;
            }
        }
        true
    }

    /// Starts one; `None`: another member was quicker.
    fn begin(&self, now: Duration) -> Option<Permits> {
        let mut permits = Vec::with_capacity(self.all.len());
        for gate in &self.all {
            let Some(permit) = gate.begin(now) else {
                self.give_back(&permits, now);
                return None;
            };
            permits.push(permit);
        }
        Some(permits)
    }

    /// Permits that tell nothing.
    fn give_back(&self, permits: &[Permit], now: Duration) {
        for (gate, permit) in self.all.iter().zip(permits) {
            gate.give_back(*permit, now);
        }
    }
}

impl Member {
    /// Whether gates let a handler start now.
    pub(super) fn admits(&mut self) -> bool {
        self.gates.is_empty() || self.gates.admit(self.now)
    }

    /// Asks all gates; `None`: not now.
    pub(super) fn permits(&self) -> Option<Permits> {
        if self.gates.is_empty() { Some(vec![]) } else { self.gates.begin(self.now) }
    }

    /// A handler has ended, in vain or not.
    pub(super) fn tell_gates(&mut self, permits: &[Permit], failure: Option<&Failure>) {
        let unavailable = match failure.map(|failure| &failure.class) {
            Some(Class::Unavailable(name)) => Some(name.clone()),
            _ => None,
        };
        if let Some(name) = &unavailable {
            self.learn(name);
        }
        let time = (self.means.clock.elapsed(), self.means.clock.now());
        for index in 0..self.gates.all.len() {
            let gate = self.gates.all[index].clone();
            let permit = permits.get(index).copied();
            let failed = unavailable.as_deref() == Some(&*gate.name);
            if permit.is_none() && !failed {
                continue;
            }
            let why = failure.filter(|_| failed).map(ToString::to_string);
            let call = if failed { Call::Unavailable } else { Call::Answered };
            let told = gate.end(permit, (call, why.as_deref()), time);
            self.keep(&gate.name, told);
        }
    }

    /// A handler was cut off: what it met is not known.
    pub(super) fn drop_permits(&self, permits: &[Permit]) {
        self.gates.give_back(permits, self.means.clock.elapsed());
    }

    /// A handler failed by a dependency that has a breaker: from now on it is asked before.
    fn learn(&mut self, name: &str) {
        let known = self.means.dependencies.get(name).filter(|_| !self.gates.knows(name));
        if let Some(dependency) = known.filter(|dependency| dependency.has_breaker()) {
            dependency.join(&self.means.spec.name);
            self.gates.all.push(dependency.clone());
        }
    }

    /// Whether a breaker decides when a delivery that failed by this dependency is tried again.
    pub(super) fn is_broken(&self, dependency: &str) -> bool {
        let now = self.means.clock.elapsed();
        self.gates.all.iter().any(|gate| *gate.name == *dependency && gate.problem(now).is_some())
    }

    /// Opening and closing are for operators to see, and for the next process to know.
    fn keep(&mut self, name: &Text, told: Option<Told>) {
        let Some(told) = told else { return };
        let service = self.means.shared.service.clone();
        match &told {
            Told::Opened(opened) => {
                observe::opened(&service, name);
                tracing::warn!(
                    %service, dependency = %name, why = opened.why, probe_at = %opened.probe_at,
                    "the breaker is open",
                );
            }
            Told::Closed => tracing::info!(%service, dependency = %name, "the breaker is closed"),
        }
        match kept(&service, name, &told) {
            Ok(commit) => self.commit(commit, Pending::Noticed),
            Err(error) => tracing::error!(%error, "a breaker's state cannot be kept"),
        }
        self.report_gates();
    }

    /// What health and metrics show.
    pub(super) fn report_gates(&self) {
        let now = self.means.clock.elapsed();
        for gate in &self.gates.all {
            if let Some(state) = gate.state(now) {
                observe::breaker(&self.means.shared.service, &gate.name, state);
            }
        }
        let problem = self.gates.all.iter().find_map(|gate| gate.problem(now));
        self.means.vital.problem("breaker", problem);
    }
}
