//! The model of a member: what `runtime/member` does with the deliveries of one key, as steps
//! between which anything else may happen.

use super::{Bug, Held, Plan, Steps, System, intent::Answer, intent::Intent};
use sillage_core::Text;

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
    /// What is under way: the front, and the parked head.
    lanes: [Option<Doing>; 2],
    /// The number of the parked head that is tried again.
    head: u64,
    /// Commits are made, and answered, in their order.
    line: Vec<usize>,
    /// The front was begun under an assignment that has ended since.
    is_old: bool,
    reload: Option<Reload>,
    /// It must read the parked keys again.
    is_stale: bool,
    /// How many acts of operators it has noticed.
    seen: u8,
}

const FRONT: usize = 0;
const HEAD: usize = 1;

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
    /// The commit is in line, fenced by that epoch.
    Committing(Intent, Option<u64>),
    /// The store has answered, the member does not know yet.
    Answered(Intent, Answer),
}

/// The parked key was read again.
#[derive(Clone, Hash)]
struct Reload {
    read: Option<Held>,
    /// The key was changed in memory since the question.
    is_older: bool,
}

/// Adds a step: what it is, and what it changes.
type Step<'a> = dyn FnMut(&'static str, &dyn Fn(&mut Member, &mut System)) + 'a;

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
            Life::Away if system.handovers > 0 => {
                let settled = system.store.settled()..system.members[1 - place].front;
                for mark in settled {
                    step("takes over", &|member, next| {
                        member.take_over(next, mark);
                        // All that a zombie may still commit is refused: without it there is
                        // less to search.
                        if next.handovers == 0 && !plan.zombies {
                            next.members[1 - place] = Member::default();
                        }
                    });
                }
            }
            Life::Loading if !member.is_committing() => {
                step("loads", &|member, next| member.load(next, plan));
            }
            Life::Away | Life::Loading | Life::Running => {}
        }
        if member.life == Life::Running && member.epoch != system.store.epoch() {
            step("learns that it lost the partition", &|member, next| {
                member.lose(next);
            });
        }
        member.reloads(system, &mut step);
        member.delivers(system, plan, &mut step);
        member.retries(system, &mut step);
        for lane in [FRONT, HEAD] {
            member.commits(lane, plan, &mut step);
        }
    }

    /// The other has settled its watermark up to `mark` before.
    fn take_over(&mut self, system: &mut System, mark: u8) {
        system.handovers -= 1;
        (self.life, self.epoch) = (Life::Loading, system.store.hand_over(mark));
    }

    fn load(&mut self, system: &System, plan: &Plan) {
        self.front = system.store.settled() + 1;
        self.careful = plan.careful;
        self.seen = system.acts;
        self.life = Life::Running;
        self.hold(system.store.key());
    }

    /// As `let_go`: handlers that run are not stopped.
    fn lose(&mut self, system: &System) {
        if system.handovers == 0 {
            return *self = Member::default();
        }
        self.life = Life::Away;
        self.held = None;
        self.is_old = self.lanes[FRONT].is_some();
    }

    fn hold(&mut self, held: Option<Held>) {
        self.held = held.filter(|_| self.life == Life::Running);
        if let Some(reload) = &mut self.reload {
            reload.is_older = true;
        }
    }

    fn reloads(&self, system: &System, step: &mut Step<'_>) {
        match &self.reload {
            None if self.life == Life::Running && (self.is_stale || self.seen < system.acts) => {
                step("reads the keys", &|member, next| {
                    let read = next.store.key();
                    member.reload = Some(Reload { read, is_older: false });
                    member.is_stale = false;
                    member.seen = next.acts;
                });
            }
            None => {}
            Some(Reload { read, is_older }) => step("takes the keys", &|member, _| {
                member.reload = None;
                let read = read.clone().filter(|_| member.life == Life::Running);
                let key = |held: &Option<Held>| held.as_ref().map(|held| held.0.clone());
                let same = key(&member.held) == key(&read);
                if member.is_committing() || (*is_older && !same) {
                    member.is_stale = true;
                } else {
                    member.held = read;
                }
            }),
        }
    }

    fn is_committing(&self) -> bool {
        let changes = |doing: &Doing| match doing {
            Doing::Handling(_) => false,
            Doing::Committing(intent, _) | Doing::Answered(intent, _) => {
                !matches!(intent, Intent::Handled(_))
            }
        };
        self.lanes.iter().flatten().any(changes)
    }

    /// A lane that is free; a key's deliveries and its parked head share one.
    fn is_free(&self, lane: usize) -> bool {
        self.lanes[lane].is_none() && (self.careful || self.lanes[1 - lane].is_none())
    }

    fn delivers(&self, system: &System, plan: &Plan, step: &mut Step<'_>) {
        let more = self.life == Life::Running && self.front <= plan.messages;
        if more && self.is_free(FRONT) {
            step("begins with the next delivery", &|member, _| {
                let id: Text = format!("m{}", member.front).into();
                match member.held.clone() {
                    None => member.lanes[FRONT] = Some(Doing::Handling(id)),
                    Some(key) => member.submit(FRONT, Intent::Appended(key, id)),
                }
            });
        }
        let Some(Doing::Handling(id)) = &self.lanes[FRONT] else { return };
        if self.is_old && plan.bug != Bug::OldWork {
            return step("drops what it lost", &|member, _| {
                (member.lanes[FRONT], member.is_old) = (None, false);
            });
        }
        step("handles it", &|member, _| member.submit(FRONT, Intent::Handled(id.clone())));
        for dead in [false, true].into_iter().filter(|_| system.failures > 0) {
            step(if dead { "fails for good" } else { "fails" }, &|member, next| {
                next.failures -= 1;
                member.submit(FRONT, Intent::Parked(id.clone(), dead));
            });
        }
    }

    fn retries(&self, system: &System, step: &mut Step<'_>) {
        let due = self.held.as_ref().filter(|held| !held.0.state.dead);
        if let Some(held) = due.filter(|_| self.is_free(HEAD)) {
            step("reads the parked head", &|member, next| match next.store.head(held) {
                Some(id) => {
                    member.lanes[HEAD] = Some(Doing::Handling(id));
                    member.head = held.0.state.head;
                }
                None => member.is_stale = true,
            });
        }
        let Some(Doing::Handling(id)) = &self.lanes[HEAD] else { return };
        let Some(held) = self.held.as_ref().filter(|held| held.0.state.head == self.head) else {
            return step("finds its key changed", &|member, _| member.lanes[HEAD] = None);
        };
        step("handles the parked head", &|member, _| {
            member.submit(HEAD, Intent::Popped(held.clone(), id.clone()));
        });
        for dead in [false, true].into_iter().filter(|_| system.failures > 0) {
            step(if dead { "fails again for good" } else { "fails again" }, &|member, next| {
                next.failures -= 1;
                member.submit(HEAD, Intent::Failed(held.clone(), id.clone(), dead));
            });
        }
    }

    fn submit(&mut self, lane: usize, intent: Intent) {
        // As `key_fence`: of a partition that is not its own it knows no lease.
        let fenced = lane == FRONT || self.life != Life::Away;
        self.lanes[lane] = Some(Doing::Committing(intent, fenced.then_some(self.epoch)));
        self.line.push(lane);
    }

    fn commits(&self, lane: usize, plan: &Plan, step: &mut Step<'_>) {
        let is_first = self.line.first() == Some(&lane);
        match &self.lanes[lane] {
            Some(Doing::Committing(intent, epoch)) => {
                let before = self.line.iter().take_while(|other| **other != lane);
                let is_next =
                    |other: &usize| matches!(self.lanes[*other], Some(Doing::Answered(..)));
                if before.clone().all(is_next) {
                    step(intent.verb(), &|member, next| {
                        let answer = intent.apply(*epoch, next, plan);
                        member.lanes[lane] = Some(Doing::Answered(intent.clone(), answer));
                    });
                }
            }
            Some(Doing::Answered(intent, answer)) if is_first => {
                step("is answered", &|member, next| member.answered(lane, intent, *answer, next));
            }
            _ => {}
        }
    }

    fn answered(&mut self, lane: usize, intent: &Intent, answer: Answer, system: &System) {
        self.line.remove(0);
        self.lanes[lane] = None;
        if answer == Answer::Done && !matches!(intent, Intent::Handled(_)) {
            self.hold(intent.commit(None).1);
        }
        let is_old = lane == FRONT && std::mem::take(&mut self.is_old);
        match (lane, answer) {
            (HEAD, Answer::Done) => {}
            (HEAD, Answer::Fenced) => self.hold(None),
            (_, Answer::Conflict) | (HEAD, Answer::AlreadyHandled) => self.is_stale = true,
            (_, Answer::Fenced) if !is_old => self.lose(system),
            (_, Answer::Fenced) => {}
            (_, Answer::Done | Answer::AlreadyHandled) => self.front += u8::from(!is_old),
        }
    }
}
