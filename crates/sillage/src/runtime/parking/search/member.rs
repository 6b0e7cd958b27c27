//! The model of a member: what `runtime/member` does with the deliveries of one key, as steps
//! between which anything else may happen.

use super::{Bug, Held, Plan, Steps, System, message, number, parked};
use crate::{
    names,
    runtime::parking::{Failed, Key},
};
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, Epoch, Failure, Text, Timestamp, Write,
};
use std::sync::Arc;

pub(super) const CONSUMER: &str = "shop/billing";
const PARTITION: &str = "log/0";
const LEASE: &str = "slot";

/// A process that may own the partition.
#[derive(Clone, Default, Hash)]
pub(super) struct Member {
    pub(super) life: Life,
    /// The epoch it was given; a zombie keeps its old one.
    pub(super) epoch: u64,
    /// It took over after a crash: deliveries run in a lane of their own, beside the key's.
    careful: bool,
    /// The parked key as it knows it.
    pub(super) held: Option<Held>,
    /// The number of the delivery at the front of the lane.
    pub(super) front: u8,
    delivery: Option<Doing>,
    /// What was begun under an assignment that has ended since.
    is_old: bool,
    retry: Option<Doing>,
    reload: Option<Reload>,
    /// It must read the parked keys again.
    is_stale: bool,
    /// How many acts of operators it has noticed.
    seen: u8,
    settled: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Life {
    #[default]
    Away,
    Loading,
    Running,
}

/// What a lane is busy with.
#[derive(Clone, Hash)]
enum Doing {
    /// The handler runs on the message of that id.
    Handling(Text),
    /// The commit is on its way, fenced by that epoch.
    Committing(Intent, Option<u64>),
    /// The store has answered, the member does not know yet.
    Answered(Intent, Answer),
}

/// What a commit is for.
#[derive(Clone, Hash)]
enum Intent {
    Handled(Text),
    Parked(Text, bool),
    Appended(Held, Text),
    Popped(Held, Text),
    Failed(Held, Text, bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Done,
    AlreadyHandled,
    Conflict,
    Fenced,
}

/// The parked keys are read again.
#[derive(Clone, Default, Hash)]
struct Reload {
    /// What was read, once it was.
    read: Option<Option<Held>>,
    /// The key was changed in memory since the question.
    is_older: bool,
}

impl Member {
    /// The first owner, before anything has happened.
    pub(super) fn owner() -> Self {
        Member { life: Life::Running, epoch: 1, front: 1, ..Member::default() }
    }

    pub(super) fn steps(place: usize, system: &System, plan: &Plan, steps: &mut Steps) {
        let member = &system.members[place];
        let mut step = |what, change: &dyn Fn(&mut Member, &mut System)| {
            let mut next = system.clone();
            let mut member = member.clone();
            change(&mut member, &mut next);
            next.members[place] = member;
            steps.push((["A", "B"][place], what, next));
        };
        match member.life {
            Life::Away if system.handovers > 0 => step("takes over", &|member, next| {
                next.handovers -= 1;
                next.store.epoch += 1;
                (member.life, member.epoch) = (Life::Loading, next.store.epoch);
            }),
            Life::Away => return,
            Life::Loading => step("loads", &|member, next| member.load(next, plan)),
            Life::Running => member.settles(plan, &mut step),
        }
        if member.epoch != system.store.epoch {
            step("learns that it lost the partition", &|member, _| member.lose());
        }
        member.reloads(system, &mut step);
        member.delivers(system, plan, &mut step);
        member.retries(system, plan, &mut step);
    }

    fn load(&mut self, system: &System, plan: &Plan) {
        let mark = system.store.get(names::WATERMARKS, PARTITION);
        self.settled = mark.map_or(0, |stored| stored.body[0]);
        self.front = self.settled + 1;
        self.held = read_key(system);
        self.careful = plan.careful;
        self.seen = system.acts;
        self.life = Life::Running;
    }

    /// As `let_go`: handlers that run are not stopped.
    fn lose(&mut self) {
        self.life = Life::Away;
        self.held = None;
        self.is_old = self.delivery.is_some();
    }

    fn hold(&mut self, held: Option<Held>) {
        self.held = held;
        if let Some(reload) = &mut self.reload {
            reload.is_older = true;
        }
    }

    fn settles(&self, plan: &Plan, step: &mut Step<'_>) {
        if self.front - 1 == self.settled {
            return;
        }
        step("settles", &|member, next| {
            let passed = member.front - 1;
            let (collection, id) = (names::WATERMARKS.into(), PARTITION.into());
            let body = vec![passed].into();
            let put = Write::Put { collection, id, sort: None, body };
            let (consumer, partition) = (CONSUMER.into(), PARTITION.into());
            let forget = Write::Forget { consumer, partition, through: passed.into() };
            let mut commit = Commit { conditions: vec![], writes: vec![put, forget] };
            commit.conditions.extend(fence(Some(member.epoch)));
            plan.bug.plant(&mut commit, "settle");
            match next.store.commit(commit) {
                Ok(()) => member.settled = passed,
                Err(_) => member.lose(),
            }
        });
    }

    fn reloads(&self, system: &System, step: &mut Step<'_>) {
        match &self.reload {
            None if self.is_stale || self.seen < system.acts => {
                step("asks for the keys", &|member, next| {
                    member.reload = Some(Reload::default());
                    member.is_stale = false;
                    member.seen = next.acts;
                });
            }
            None => {}
            Some(Reload { read: None, .. }) => step("reads the keys", &|member, next| {
                let read = Some(read_key(next));
                member.reload.iter_mut().for_each(|reload| reload.read.clone_from(&read));
            }),
            Some(Reload { read: Some(read), is_older }) => step("takes the keys", &|member, _| {
                member.reload = None;
                let read = read.clone().filter(|_| member.life != Life::Away);
                match (&member.held, &read) {
                    (None, Some(_)) => member.held.clone_from(&read),
                    (Some(held), Some(key)) if !is_older && held.0.version < key.0.version => {
                        member.held.clone_from(&read);
                    }
                    (Some(_), None) if !is_older => member.held = None,
                    _ => {}
                }
            }),
        }
    }

    /// The lane of the deliveries: handlers, and what goes behind a parked key.
    fn delivers(&self, system: &System, plan: &Plan, step: &mut Step<'_>) {
        match &self.delivery {
            None if self.life != Life::Running || self.front > plan.messages => {}
            None if self.retry.is_some() && !self.careful => {}
            None => step("begins with the next delivery", &|member, _| {
                let id: Text = format!("m{}", member.front).into();
                member.delivery = Some(match &member.held {
                    None => Doing::Handling(id),
                    Some(key) => {
                        let intent = Intent::Appended(key.clone(), id);
                        Doing::Committing(intent, Some(member.epoch))
                    }
                });
            }),
            Some(Doing::Handling(id)) => {
                if self.is_old && plan.bug != Bug::OldWork {
                    return step("drops what it lost", &|member, _| member.ends());
                }
                step("handles it", &|member, _| {
                    let intent = Intent::Handled(id.clone());
                    member.delivery = Some(Doing::Committing(intent, Some(member.epoch)));
                });
                for dead in [false, true].into_iter().filter(|_| system.failures > 0) {
                    step(if dead { "fails for good" } else { "fails" }, &|member, next| {
                        next.failures -= 1;
                        let intent = Intent::Parked(id.clone(), dead);
                        member.delivery = Some(Doing::Committing(intent, Some(member.epoch)));
                    });
                }
            }
            Some(Doing::Committing(intent, epoch)) => step(intent.verb(), &|member, next| {
                let answer = intent.apply(*epoch, next, plan);
                member.delivery = Some(Doing::Answered(intent.clone(), answer));
            }),
            Some(Doing::Answered(intent, answer)) => step("is answered", &|member, _| {
                member.delivered(intent, *answer);
            }),
        }
    }

    fn ends(&mut self) {
        self.delivery = None;
        self.is_old = false;
    }

    fn delivered(&mut self, intent: &Intent, answer: Answer) {
        let is_old = self.is_old;
        self.ends();
        match answer {
            Answer::Done => {
                if !matches!(intent, Intent::Handled(_)) {
                    self.hold(intent.commit(None).1);
                }
                self.front += u8::from(!is_old);
            }
            Answer::AlreadyHandled => self.front += u8::from(!is_old),
            Answer::Conflict => self.is_stale = true,
            Answer::Fenced if is_old => {}
            Answer::Fenced => self.lose(),
        }
    }

    /// The lane of the parked key: its head is tried again.
    fn retries(&self, system: &System, plan: &Plan, step: &mut Step<'_>) {
        let owned = (self.life != Life::Away).then_some(self.epoch);
        match &self.retry {
            None if self.delivery.is_some() && !self.careful => {}
            None => {
                let Some(held) = self.held.as_ref().filter(|held| !held.0.state.dead) else {
                    return;
                };
                step("reads the parked head", &|member, next| match read_head(next, &held.0) {
                    Some(id) => member.retry = Some(Doing::Handling(id)),
                    None => member.is_stale = true,
                });
            }
            Some(Doing::Handling(id)) => {
                let Some(held) = &self.held else {
                    return step("finds its key gone", &|member, _| member.retry = None);
                };
                step("handles the parked head", &|member, _| {
                    let intent = Intent::Popped(held.clone(), id.clone());
                    member.retry = Some(Doing::Committing(intent, owned));
                });
                for dead in [false, true].into_iter().filter(|_| system.failures > 0) {
                    let what = if dead { "fails again for good" } else { "fails again" };
                    step(what, &|member, next| {
                        next.failures -= 1;
                        let intent = Intent::Failed(held.clone(), id.clone(), dead);
                        member.retry = Some(Doing::Committing(intent, owned));
                    });
                }
            }
            Some(Doing::Committing(intent, epoch)) => step(intent.verb(), &|member, next| {
                let answer = intent.apply(*epoch, next, plan);
                member.retry = Some(Doing::Answered(intent.clone(), answer));
            }),
            Some(Doing::Answered(intent, answer)) => {
                step("is answered about the head", &|member, _| {
                    member.retry = None;
                    match answer {
                        Answer::Done => member.hold(intent.commit(None).1),
                        Answer::Fenced => member.hold(None),
                        Answer::AlreadyHandled | Answer::Conflict => member.is_stale = true,
                    }
                });
            }
        }
    }
}

pub(super) type Step<'a> = dyn FnMut(&'static str, &dyn Fn(&mut Member, &mut System)) + 'a;

impl Intent {
    fn verb(&self) -> &'static str {
        match self {
            Intent::Handled(_) => "commits the effect",
            Intent::Parked(..) => "commits the parking",
            Intent::Appended(..) => "commits the append",
            Intent::Popped(..) => "commits the effect of the head",
            Intent::Failed(..) => "commits the failure of the head",
        }
    }

    /// The commit, and the parked key after it.
    fn commit(&self, epoch: Option<u64>) -> (Commit, Option<Held>) {
        let (mut commit, next) = match self {
            Intent::Handled(id) => (handled(id), None),
            Intent::Parked(id, dead) => {
                let failure = Failure::transient(&**id);
                let failed = failed(&failure, 1, *dead);
                let (consumer, partition) = (CONSUMER.into(), PARTITION.into());
                let made =
                    Key::park(&consumer, &partition, &message(id), &parked(id), &failed).unwrap();
                (made.1, Some(made.0))
            }
            Intent::Appended(key, id) => {
                let (next, commit) = key.0.append(&parked(id)).unwrap();
                (commit, Some(next))
            }
            Intent::Popped(key, id) => {
                let done = Decision::Done;
                let (next, mut commit) =
                    key.0.pop(&parked(id), done, Timestamp::default()).unwrap();
                commit.writes.insert(0, effect(id));
                (commit, next)
            }
            Intent::Failed(key, id, dead) => {
                let failure = Failure::transient(&**id);
                let failed = failed(&failure, key.0.state.attempts + 1, *dead);
                let (next, commit) = key.0.failed(&failed).unwrap();
                (commit, Some(next))
            }
        };
        commit.conditions.extend(fence(epoch));
        (commit, next.map(Held))
    }

    fn apply(&self, epoch: Option<u64>, system: &mut System, plan: &Plan) -> Answer {
        let (mut commit, _) = self.commit(epoch);
        plan.bug.plant(&mut commit, self.verb());
        match system.store.commit(commit) {
            Ok(()) => Answer::Done,
            Err(CommitError::AlreadyHandled) => Answer::AlreadyHandled,
            Err(CommitError::Conflict { .. }) => Answer::Conflict,
            Err(CommitError::Fenced) => Answer::Fenced,
            Err(other) => panic!("{other}"),
        }
    }
}

/// As `Member::handling`.
fn handled(id: &str) -> Commit {
    let (consumer, source, id): (_, _, Text) = (CONSUMER.into(), "shop".into(), id.into());
    let delivery = Delivered { consumer, source, id: id.clone() };
    let until = Some((PARTITION.into(), number(&id).into()));
    let decide = Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until };
    Commit { conditions: vec![Condition::FirstTime(delivery)], writes: vec![effect(&id), decide] }
}

fn effect(id: &str) -> Write {
    Write::Append { stream: None, message: Arc::new(message(id)) }
}

fn fence(epoch: Option<u64>) -> Option<Condition> {
    epoch.map(|epoch| Condition::Lease { name: LEASE.into(), epoch: Epoch(epoch) })
}

fn failed(failure: &Failure, attempts: u32, dead: bool) -> Failed<'_> {
    static NAME: std::sync::OnceLock<Text> = std::sync::OnceLock::new();
    let now = Timestamp::default();
    let name = NAME.get_or_init(|| "order.created".into());
    Failed { name, failure, attempts, now, next_try: (!dead).then_some(now) }
}

/// The parked key, as it is stored.
pub(super) fn read_key(system: &System) -> Option<Held> {
    let stored = system.store.list(names::PARKED_KEYS);
    stored.first().map(|stored| Held(Key::read(stored).unwrap()))
}

/// The id of the head of a parked key, where it is still there.
pub(super) fn read_head(system: &System, key: &Key) -> Option<Text> {
    let stored = system.store.get(names::PARKED, &names::parked(&key.id, key.state.head))?;
    let parked: super::super::Parked = serde_json::from_slice(&stored.body).unwrap();
    Some(parked.id)
}
