//! What operators do with projections: see how they stand, rebuild, compare, switch, go back.

use super::{Admin, conflicts};
use crate::{
    archive::archived_through,
    names,
    projection::{
        Checkpoint, Choice, Digest, Generation, Generations, Refused, checkpoint, checkpoints,
        choose, stored, sweep,
    },
};
use serde::Serialize;
use serde_json::json;
use sillage_core::{
    Commit, Condition, Error, ErrorKind, Filter, Position, Result, Text, Timestamp, Version, Write,
};
use std::time::Duration;

/// How long a switch is tried against a log that grows.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// How a projection stands.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectionStatus {
    /// `service/name`.
    pub name: Text,
    /// What the documents that are read have seen.
    pub position: Position,
    /// Positions of the log behind that.
    pub lag: u64,
    /// Why it does not go on.
    pub paused: Option<String>,
    /// The generation that is read.
    pub live: GenerationStatus,
    /// The one that is being rebuilt beside it.
    pub shadow: Option<GenerationStatus>,
    /// The one that was read before, and can be gone back to.
    pub former: Option<GenerationStatus>,
    /// Why the rebuild was not switched to by itself.
    pub held: Option<String>,
}

/// How one generation of a projection stands.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationStatus {
    /// `service/name@tag`.
    pub name: Text,
    /// The version of the projection that folds it.
    pub version: u32,
    /// What its documents have seen.
    pub position: Position,
    /// Positions of the log behind that.
    pub lag: u64,
    /// Its documents, and their digest.
    pub digest: Digest,
    /// Entries that an operator passed over.
    pub skipped: u64,
    /// When it was begun.
    pub since: Timestamp,
    /// How long until it has read all there is, at the pace so far; `None`: it is there, or has
    /// not begun.
    pub eta_seconds: Option<f64>,
    /// It is switched to by itself.
    pub switches: bool,
    /// Why it does not go on.
    pub paused: Option<String>,
}

/// Two generations of a projection, compared where both had seen the same.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// `service/name`.
    pub name: Text,
    /// The two generations.
    pub generations: [Text; 2],
    /// Up to where both had seen the log; `None`: at no position yet.
    pub position: Option<Position>,
    /// Their digests there.
    pub digests: Option<[Digest; 2]>,
    /// Whether these are the same.
    pub equal: bool,
}

impl Admin {
    /// How all projections stand.
    pub async fn projections(&self) -> Result<Vec<ProjectionStatus>> {
        let head = self.database.head().await?.last;
        let mut found = vec![];
        for document in self.all(names::PROJECTIONS, "").await? {
            let generations: Generations = serde_json::from_slice(&document.body)?;
            found.push(self.standing(document.id, generations, head).await?);
        }
        Ok(found)
    }

    /// How one projection stands.
    pub async fn projection(&self, name: &str) -> Result<ProjectionStatus> {
        let head = self.database.head().await?.last;
        let (id, generations, _) = self.generations(name).await?;
        self.standing(id, generations, head).await
    }

    async fn standing(
        &self,
        id: Text,
        of: Generations,
        head: Position,
    ) -> Result<ProjectionStatus> {
        let live = self.generation(&id, &of.live, head).await?;
        let (mut shadow, mut former) = (None, None);
        if let Some(generation) = &of.shadow {
            shadow = Some(self.generation(&id, generation, head).await?);
        }
        if let Some(generation) = &of.former {
            former = Some(self.generation(&id, generation, head).await?);
        }
        Ok(ProjectionStatus {
            name: id,
            position: live.position,
            lag: live.lag,
            paused: of.paused.or_else(|| live.paused.clone()),
            live,
            shadow,
            former,
            held: of.held,
        })
    }

    async fn generation(
        &self,
        id: &str,
        of: &Generation,
        head: Position,
    ) -> Result<GenerationStatus> {
        let (at, _) = self.checkpoint(id, of).await?;
        let lag = head.0.saturating_sub(at.position.0);
        Ok(GenerationStatus {
            name: checkpoint(id, &of.tag),
            version: of.version,
            position: at.position,
            lag,
            digest: at.digest,
            skipped: at.skipped,
            since: of.since,
            eta_seconds: at.time.and_then(|time| eta(at.position.0, lag, time.since(of.since))),
            switches: of.switches,
            paused: at.paused,
        })
    }

    async fn checkpoint(&self, id: &str, of: &Generation) -> Result<(Checkpoint, Option<Version>)> {
        let [found, _] = checkpoints(&*self.database, id, [of, of]).await?;
        Ok(found)
    }

    pub(super) async fn generations(&self, name: &str) -> Result<(Text, Generations, Version)> {
        if let Some((generations, version)) = stored(&*self.database, name).await? {
            return Ok((name.into(), generations, version));
        }
        let known = self.all(names::PROJECTIONS, "").await?;
        let known: Vec<_> = known.iter().map(|known| &*known.id).collect();
        let sentence = format!("no projection `{name}`; there are: {}", known.join(", "));
        Err(Error::new(ErrorKind::NotFound, sentence))
    }

    /// Folds a projection again from the beginning of the log, beside the documents that are read.
    ///
    /// `switches`: it is read as soon as it has caught up and its documents are the same. Refused
    /// where there is another generation already, and where the log was trimmed, unless `lossy`.
    pub async fn rebuild(&self, name: &str, switches: bool, lossy: bool) -> Result<()> {
        let (id, mut of, since) = self.generations(name).await?;
        if let Some(other) = of.shadow.as_ref().or(of.former.as_ref()) {
            let name = checkpoint(&id, &other.tag);
            return Err(Error::invalid(format!(
                "`{name}` is there beside the one that is read: switch to it, or discard it first"
            )));
        }
        if of.tables {
            return Err(Error::invalid(format!(
                "projection `{id}` writes tables of your own, which a rebuild beside it would write \
                 twice: deploy version {} of it, whose SQL writes new tables",
                of.newest + 1
            )));
        }
        let page = self.database.log(Position(0), &Filter::default(), 1).await?;
        let archived = archived_through(&*self.database).await?;
        let gone = page.trimmed_before.max(archived);
        if gone > Position(0) && !lossy {
            let how = if archived > Position(0) {
                "were trimmed from the log or archived with their streams (`sillage streams list`)"
            } else {
                "were trimmed from the log"
            };
            return Err(Error::invalid(format!(
                "projection `{id}` cannot be rebuilt from all it has seen: entries up to position \
                 {gone} {how}; `--lossy` rebuilds it from those that are left"
            )));
        }
        of.begin(of.live.version, switches, self.clock.now());
        let mut commit = replacing(&of, &id, since)?;
        if let Some(shadow) = of.shadow.as_ref().filter(|_| lossy) {
            let checkpoint = Checkpoint { lost: gone, ..Checkpoint::default() };
            commit.writes.push(put(&checkpoint, &id, shadow)?);
        }
        self.act("projection.rebuild", json!({ "projection": id }), commit).await.map(drop)
    }

    /// Compares the documents that are read with those beside them, by digests at a position that
    /// both have been at; waits for one for `within`.
    pub async fn compare(&self, name: &str, within: Duration) -> Result<Comparison> {
        let end = self.clock.elapsed() + within;
        loop {
            let (id, of, _) = self.generations(name).await?;
            let Some(other) = of.shadow.as_ref().or(of.former.as_ref()) else {
                return Err(nothing(&id));
            };
            let [live, beside] = checkpoints(&*self.database, &id, [&of.live, other]).await?;
            let common = live.0.common(&beside.0);
            let caught_up = beside.0.position >= live.0.position;
            if common.is_none() && self.clock.elapsed() < end && (caught_up || of.former.is_none())
            {
                self.clock.sleep(PAUSE).await;
                continue;
            }
            return Ok(Comparison {
                generations: [checkpoint(&id, &of.live.tag), checkpoint(&id, &other.tag)],
                name: id,
                position: common.map(|(position, ..)| position),
                digests: common.map(|(_, live, other)| [live, other]),
                equal: common.is_some_and(|(_, live, other)| live == other),
            });
        }
    }

    /// Reads what was rebuilt from now on; what was read stays, and can be gone back to.
    ///
    /// Refused where it is behind, or of the same version and not the same, unless `force`.
    pub async fn switch(&self, name: &str, force: bool) -> Result<()> {
        self.choose(name, Choice::Switch, force).await
    }

    /// Reads what was read before the switch again; what was read since stays beside it.
    ///
    /// Refused where it is behind, as no process folds it any more, unless `force`.
    pub async fn roll_back(&self, name: &str, force: bool) -> Result<()> {
        self.choose(name, Choice::RollBack, force).await
    }

    /// A log that grows moves the checkpoints under the comparison, so it is tried again.
    async fn choose(&self, name: &str, choice: Choice, force: bool) -> Result<()> {
        let (id, ..) = self.generations(name).await?;
        let (verb, next) = match choice {
            Choice::Switch => ("projection.switch", "wait for it, or say `--force`"),
            Choice::RollBack => (
                "projection.rollback",
                "run a process with the code of its version, or say `--force`",
            ),
        };
        let end = self.clock.elapsed() + PATIENCE;
        loop {
            let late = self.clock.elapsed() >= end;
            match choose(&*self.database, &id, choice, force).await? {
                Err(Refused::Nothing) => return Err(nothing(&id)),
                Err(refused @ Refused::Differs { .. }) => {
                    return Err(Error::invalid(format!(
                        "{id}: {refused}; `projection compare` shows which, `--force` switches"
                    )));
                }
                Err(refused) if late => {
                    return Err(Error::invalid(format!("{id}: {refused}: {next}")));
                }
                Err(_) => {}
                Ok(commit) => match self.act(verb, json!({ "projection": id }), commit).await {
                    Err(error) if conflicts(&error) && !late => {}
                    answer => return answer.map(drop),
                },
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Removes the generation beside the one that is read, with its documents.
    pub async fn discard(&self, name: &str) -> Result<()> {
        let (id, mut of, since) = self.generations(name).await?;
        let any = of.discard();
        if !any && of.dropped.is_empty() {
            return Err(nothing(&id));
        }
        if any {
            let commit = replacing(&of, &id, since)?;
            self.act("projection.discard", json!({ "projection": id }), commit).await?;
        }
        sweep(&*self.database, &id).await
    }

    /// Pauses a projection in all its processes, until it is resumed.
    pub async fn pause_projection(&self, name: &str, why: &str) -> Result<()> {
        let (id, mut of, since) = self.generations(name).await?;
        of.paused = Some(why.to_owned());
        let what = json!({ "projection": id, "why": why });
        self.act("projection.pause", what, replacing(&of, &id, since)?).await.map(drop)
    }

    /// Lets a projection go on that an operator paused, or that met an entry it could not read.
    ///
    /// `skip`: it passes over that entry, and goes on without entries that were trimmed.
    pub async fn resume_projection(&self, name: &str, skip: bool) -> Result<()> {
        let (id, mut of, since) = self.generations(name).await?;
        of.paused = None;
        of.held = None;
        let mut commit = replacing(&of, &id, since)?;
        let mut skipped = vec![];
        for generation in of.all() {
            let (mut at, version) = self.checkpoint(&id, generation).await?;
            if at.paused.take().is_none() {
                continue;
            }
            let (unreadable, gone) = (at.unreadable.take(), at.gone.take());
            at.resumed += 1;
            if skip {
                at.skipped += u64::from(unreadable.is_some());
                at.position = unreadable.unwrap_or(at.position);
                at.lost = gone.unwrap_or(at.lost);
                skipped.extend(unreadable.or(gone));
            }
            commit.conditions.push(Condition::Document {
                collection: names::CHECKPOINTS.into(),
                id: checkpoint(&id, &generation.tag),
                expected: version,
            });
            commit.writes.push(put(&at, &id, generation)?);
        }
        let what = json!({ "projection": id, "skipped": skipped });
        self.act("projection.resume", what, commit).await.map(drop)
    }
}

/// At the pace so far; `None`: there is nothing left, or no pace.
#[allow(clippy::cast_precision_loss)] // an estimate
fn eta(read: u64, left: u64, took: Duration) -> Option<f64> {
    let pace = read as f64 / took.as_secs_f64();
    (left > 0 && pace.is_normal()).then(|| left as f64 / pace)
}

pub(super) fn nothing(id: &str) -> Error {
    let sentence = format!("projection `{id}` has no generation beside the one that is read");
    Error::new(ErrorKind::NotFound, sentence)
}

fn replacing(of: &Generations, id: &Text, since: Version) -> Result<Commit> {
    let (condition, write) = of.replace(id, Some(since))?;
    Ok(Commit { conditions: vec![condition], writes: vec![write] })
}

fn put(at: &Checkpoint, id: &str, of: &Generation) -> Result<Write> {
    let body = serde_json::to_vec(at)?.into();
    let (collection, id) = (names::CHECKPOINTS.into(), checkpoint(id, &of.tag));
    Ok(Write::Put { collection, id, sort: None, body })
}
