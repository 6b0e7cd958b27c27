//! Everything that can be checked before the first message: names, needs, what the broker can do.

use super::{App, StartError};
use crate::{
    consumer::{Consumer, HORIZON},
    retention::SHORTEST,
    service::Service,
    tx::another,
};
use sillage_core::Transaction;
use std::collections::{HashMap, HashSet};

impl App {
    /// Everything that can be checked without a message; each mistake is a sentence.
    pub fn check(&self) -> Result<(), StartError> {
        let mut errors = vec![];
        let mut services = HashSet::new();
        for service in &self.services {
            if !services.insert(service.name) {
                errors.push(format!(
                    "two services are called `{}`: names are identity",
                    service.name
                ));
            }
            check_name("service", service.name, &mut errors);
            check_free("service", service.name, "broker", &mut errors);
            self.check_service(service, &mut errors);
            check_dependencies(service, &mut errors);
        }
        if self.keep_ended < HORIZON {
            errors.push(
                "`.keep_ended(…)` below 14 days: a broker may bring a command again when nobody \
                 remembers that it was undone"
                    .to_owned(),
            );
        }
        self.check_retention(&mut errors);
        if let Some(share) = self.failing.filter(|share| !(0.0..1.0).contains(share)) {
            errors.push(format!(
                "`.fail_handlers({share})`: the share of handlings that fail is from 0 to below 1"
            ));
        }
        if errors.is_empty() { Ok(()) } else { Err(StartError(errors)) }
    }

    /// Whether the database has the transactions that handlers take.
    pub(super) async fn check_transactions(&self) -> Result<(), StartError> {
        let Some(database) = &self.database else { return Ok(()) };
        let mut errors = vec![];
        for service in &self.services {
            for consumer in &service.consumers {
                for wanted in &consumer.needs.transactions {
                    let begun = database.begin().await.map(Transaction::as_any);
                    let why = match begun {
                        Ok(begun) if (wanted.fits)(&*begun) => continue,
                        Ok(_) => another(wanted.name),
                        Err(error) => error.to_string(),
                    };
                    errors.push(format!(
                        "service `{}`: consumer `{}` takes a transaction of its own, `Tx`: {why}",
                        service.name, consumer.name
                    ));
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(StartError(errors)) }
    }

    fn check_retention(&self, errors: &mut Vec<String>) {
        let Some(keep) = self.retention else { return };
        if self.database.is_none() {
            errors.push("a retention needs a database; this app has none".to_owned());
        }
        if keep < SHORTEST {
            errors.push(format!(
                "a retention of {} s is too short: for {} days a message may come again, and is \
                 known by its entry in the log",
                keep.as_secs(),
                SHORTEST.as_secs() / 86_400
            ));
        }
    }

    fn check_service(&self, service: &Service, errors: &mut Vec<String>) {
        let mut consumers = HashSet::new();
        for consumer in &service.consumers {
            if !consumers.insert(consumer.name) {
                errors.push(format!(
                    "service `{}` has two consumers called `{}`: names are identity",
                    service.name, consumer.name
                ));
            }
            check_name("consumer", consumer.name, errors);
            check_free("consumer", consumer.name, "follow", errors);
            self.check_consumer(service, consumer, errors);
        }
        let (mut projections, mut collections) = (HashSet::new(), HashMap::new());
        for projection in &service.projections {
            let name = projection.name();
            if !projections.insert(name) {
                errors.push(format!(
                    "service `{}` has two projections called `{name}`",
                    service.name
                ));
            }
            let collection = projection.collection();
            if !projection.writes_tables()
                && let Some(other) = collections.insert(collection, name)
                && other != name
            {
                errors.push(format!(
                    "service `{}`: projections `{other}` and `{name}` fold into one collection \
                     `{collection}`, where they would overwrite each other: give each a document of \
                     its own",
                    service.name
                ));
            }
            check_name("projection", name, errors);
            let of_it = projection.errors().into_iter();
            errors.extend(of_it.map(|error| format!("service `{}`: {error}", service.name)));
            if self.database.is_none() {
                errors.push(format!(
                    "service `{}`: projection `{name}` needs a database; this app has none",
                    service.name
                ));
            }
        }
    }

    fn check_consumer(&self, service: &Service, consumer: &Consumer, errors: &mut Vec<String>) {
        let prefix = format!("service `{}`", service.name);
        errors.extend(consumer.errors.iter().map(|error| format!("{prefix}: {error}")));
        for (id, name) in &consumer.needs.states {
            if !service.states.has(*id) {
                errors.push(format!(
                    "{prefix}: consumer `{}` takes `State<{name}>`, but no `.state(…)` of that \
                     type was given to the service",
                    consumer.name
                ));
            }
        }
        if consumer.topics.is_empty() {
            errors.push(format!(
                "{prefix}: consumer `{}` has no topic, so nothing would ever come: add a handler \
                 with `.on(…)`",
                consumer.name
            ));
        }
        if consumer.needs.database && self.database.is_none() {
            errors.push(format!(
                "{prefix}: consumer `{}` loads documents or aggregates, which needs a database; \
                 this app has none",
                consumer.name
            ));
        }
        if let Some(broker) = &self.broker {
            let capabilities = broker.capabilities();
            if !capabilities.ordered_by_key {
                errors.push(format!(
                    "{prefix}: consumer `{}` needs messages in order of their key, which {} does \
                     not give; the embedded log does",
                    consumer.name, capabilities.name
                ));
            }
        }
    }
}

/// A breaker or a rate that could not work, or that would never be asked.
fn check_dependencies(service: &Service, errors: &mut Vec<String>) {
    let prefix = format!("service `{}`", service.name);
    let broken = service.breakers.iter().map(|(name, breaker)| ("breaker", name, breaker.error()));
    let rates = service.rates.iter().map(|(name, rate)| ("rate limit", name, rate.error()));
    for (what, name, error) in broken.chain(rates) {
        errors.extend(error.map(|error| format!("{prefix}: {what} of `{name}`: {error}")));
    }
    let asked: HashSet<_> = service.consumers.iter().flat_map(|one| &one.depends_on).collect();
    for name in service.rates.keys().filter(|name| !asked.contains(name)) {
        errors.push(format!(
            "{prefix}: the rate limit of `{name}` would never be asked: say which consumers call it \
             with `.depends_on(\"{name}\")`"
        ));
    }
    for consumer in &service.consumers {
        for name in &consumer.depends_on {
            if !service.breakers.contains_key(name) && !service.rates.contains_key(name) {
                errors.push(format!(
                    "{prefix}: consumer `{}` depends on `{name}`, which has neither a breaker nor \
                     a rate limit: add `.breaker(\"{name}\", …)` to the service",
                    consumer.name
                ));
            }
        }
    }
}

/// A name that the runtime has taken for a part of its own.
fn check_free(what: &str, name: &str, taken: &str, errors: &mut Vec<String>) {
    if name == taken {
        errors.push(format!("{what} name `{name}` is taken: what runs by itself has it"));
    }
}

/// Names are stored, and are parts of ids with `/` between them.
fn check_name(what: &str, name: &str, errors: &mut Vec<String>) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || name.len() > 100 || !name.chars().all(allowed) {
        errors.push(format!(
            "{what} name `{name}`: use 1 to 100 of lower-case letters, digits, `-`, `_` and `.`"
        ));
    }
}
