//! Definitions of sagas across deployments: what runs must be what was declared under its version,
//! and nothing that still runs may be left without its definition.

use super::start::Building;
use crate::{names, process::Instance, saga::SagaShape, service::Service};
use serde::{Deserialize, Serialize};
use sillage_core::{Database, Error, Range, Result, Text, Write};
use std::collections::BTreeSet;

/// A version of a definition, as it is stored.
#[derive(Serialize, Deserialize)]
struct Declared {
    fingerprint: String,
    #[serde(flatten)]
    shape: SagaShape,
}

impl Building {
    /// Compares the definitions of a service with those that were stored, and stores new ones when
    /// the app signs in.
    pub(super) async fn definitions(&mut self, service: &Service) -> Result<()> {
        let Some((database, _)) = self.database.clone() else { return Ok(()) };
        for shape in &service.sagas {
            let saga = names::part(service.name, &shape.name);
            let id = names::definition(&saga, shape.version);
            let stored = database.get(names::DEFINITIONS, &[&id]).await?.pop().flatten();
            let fingerprint = shape.fingerprint();
            if let Some(stored) = stored {
                let declared: Declared = serde_json::from_slice(&stored.body)?;
                let renamed = || declared.shape.renamed(&service.renamed).fingerprint();
                if declared.fingerprint != fingerprint && renamed() != fingerprint {
                    return Err(changed(&saga, shape.version));
                }
            }
            let declared = Declared { fingerprint, shape: shape.clone() };
            let body = serde_json::to_vec(&declared)?.into();
            let collection = Text::from(names::DEFINITIONS);
            self.manifests.push(Write::Put { collection, id, sort: None, body });
        }
        abandoned(&*database, service).await?;
        left_behind(&*database, service).await
    }
}

/// What an instance that has not ended is at.
const OPEN: [(&str, &str, &str); 4] = [
    (names::SAGAS, "saga", "running"),
    (names::SAGAS, "saga", "compensating"),
    (names::SAGAS, "saga", "stuck"),
    (names::PROCESSES, "process manager", "running"),
];
/// So many are counted, for who starts the app.
const COUNTED: usize = 1000;

/// Instances of a saga or a process manager that the service has no more would never end: nobody
/// hears what they wait for, and their timers never fire.
async fn abandoned(database: &dyn Database, service: &Service) -> Result<()> {
    if service.consumers.is_empty() && service.projections.is_empty() {
        // Only a way in: another process runs its parts.
        return Ok(());
    }
    let runs = service.consumers.iter().filter(|consumer| consumer.instances);
    let here: BTreeSet<_> = runs.map(|of| names::part(service.name, of.name)).collect();
    for (collection, what, status) in OPEN {
        let all = format!("{status}/{}/", service.name);
        let (mut from, until) = (all.clone(), format!("{all}~"));
        loop {
            let range = Range::Sort { from: &from, until: &until };
            let Some(first) = database.list(collection, range, 1).await?.pop() else { break };
            let process = Instance::read(&first)?.process;
            let of_it = format!("{status}/{process}/~");
            if !here.contains(&process) {
                let range = Range::Sort { from: &from, until: &of_it };
                let count = database.list(collection, range, COUNTED).await?.len();
                let count =
                    if count == COUNTED { format!("{count} or more") } else { count.to_string() };
                return Err(left_over(&process, what, &format!("{count} are {status}")));
            }
            from = of_it;
        }
    }
    Ok(())
}

fn left_over(process: &str, what: &str, count: &str) -> Error {
    let end = match what {
        "saga" => {
            "until they have ended (`sillage saga list`), or cancel them (`sillage saga cancel`)"
        }
        _ => "until they have ended",
    };
    Error::invalid(format!(
        "of {what} `{process}` {count}, and nothing here knows it, so that they would never end: \
         start the app with it {end}"
    ))
}

fn changed(saga: &str, version: u32) -> Error {
    Error::invalid(format!(
        "saga `{saga}` version {version} is not what ran under that version before: give the changed \
         definition a new version, and the old one to `.keep(…)` or `.migrate(…)`, so that running \
         instances end"
    ))
}

/// Instances of an older version that is not declared any more would never end.
async fn left_behind(database: &dyn Database, service: &Service) -> Result<()> {
    for shape in &service.sagas {
        let saga = names::part(service.name, &shape.name);
        let of_it = service.sagas.iter().filter(|other| other.name == shape.name);
        let versions: Vec<_> = of_it.map(|other| other.version).collect();
        if versions.iter().max() != Some(&shape.version) {
            continue;
        }
        for status in ["running", "compensating", "stuck"] {
            let all = format!("{status}/{saga}/");
            let (mut from, until) = (all.clone(), format!("{all}~"));
            loop {
                let range = Range::Sort { from: &from, until: &until };
                let Some(first) = database.list(names::SAGAS, range, 1).await?.pop() else { break };
                let version = Instance::read(&first)?.version;
                if version < shape.version && !versions.contains(&version) {
                    return Err(Error::invalid(format!(
                        "instances of saga `{saga}` version {version} are still {status}, and \
                         nothing here knows it: give that version to `.keep(…)` or `.migrate(…)`"
                    )));
                }
                from = format!("{all}{version:06}/~");
            }
        }
    }
    Ok(())
}
