//! The model of a member: what `runtime/member` does with the deliveries of one key, as steps
//! between which anything else may happen.

use super::{
    Bug, Held, Plan, Step, System,
    intent::{Answer, Intent},
};
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
    /// The lane whose commit was submitted first: commits are made, and answered, in order.
    first: usize,
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

impl Doing {
    fn is_in_line(&self) -> bool {
        !matches!(self, Doing::Handling(_))
    }

    fn is_of_key(&self) -> bool {
        match self {
            Doing::Handling(_) => false,
            Doing::Committing(intent, _) | Doing::Answered(intent, _) => intent.is_of_key(),
        }
    }
}

/// The parked key was read again.
#[derive(Clone, Hash)]
struct Reload {
    read: Option<Held>,
    /// The key was changed in memory since the question.
    is_older: bool,
}

/// Adds a step: what it is, and what it changes.
type Add<'a> = dyn FnMut(&'static str, &dyn Fn(&mut Member, &mut System)) + 'a;

impl Member {
    /// The first owner, before anything has happened.
    pub(super) fn owner() -> Self {
        Member { life: Life::Running, epoch: 1, front: 1, ..Member::default() }
    }

    pub(super) fn steps(place: usize, system: &System, plan: &Plan<'_>, steps: &mut Vec<Step>) {
        let member = &system.members[place];
        let mut step = |what, change: &dyn Fn(&mut Member, &mut System)| {
            let mut next = system.clone();
            let mut member = member.clone();
            change(&mut member, &mut next);
            next.members[place] = member;
            steps.push(Step { who: ["A", "B"][place], what, next });
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
        member.reloads(system, plan, &mut step);
        member.delivers(system, plan, &mut step);
        member.retries(system, plan, &mut step);
        for lane in [FRONT, HEAD] {
            member.commits(lane, plan, &mut step);
        }
    }

    /// The other has settled its watermark up to `mark` before.
    fn take_over(&mut self, system: &mut System, mark: u8) {
        system.handovers -= 1;
        (self.life, self.epoch) = (Life::Loading, system.store.hand_over(mark));
    }

    fn load(&mut self, system: &System, plan: &Plan<'_>) {
        self.front = system.store.settled() + 1;
        self.careful = plan.careful;
        self.seen = system.acts;
        self.life = Life::Running;
        self.hold(system.store.key().cloned());
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

    fn reloads(&self, system: &System, plan: &Plan<'_>, step: &mut Add<'_>) {
        match &self.reload {
            None if self.life == Life::Running && (self.is_stale || self.seen < system.acts) => {
                step("reads the keys", &|member, next| {
                    let read = next.store.key().cloned();
                    member.reload = Some(Reload { read, is_older: false });
                    member.is_stale = false;
                    member.seen = next.acts;
                });
            }
            None => {}
            Some(Reload { read, is_older }) => step("takes the keys", &|member, _| {
                member.reload = None;
                let read = read.clone().filter(|_| member.life == Life::Running);
                let is_unsure = member.is_committing() || (*is_older && member.held != read);
                if is_unsure && plan.bug != Bug::TakesWhatIsOlder {
                    member.is_stale = true;
                } else {
                    member.held = read;
                }
            }),
        }
    }

    fn is_committing(&self) -> bool {
        self.lanes.iter().flatten().any(Doing::is_of_key)
    }

    /// A lane that is free; a key's deliveries and its parked head share one.
    fn is_free(&self, lane: usize) -> bool {
        self.lanes[lane].is_none() && (self.careful || self.lanes[1 - lane].is_none())
    }

    fn delivers(&self, system: &System, plan: &Plan<'_>, step: &mut Add<'_>) {
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

    fn retries(&self, system: &System, plan: &Plan<'_>, step: &mut Add<'_>) {
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
        let is_head = |held: &&Held| held.0.state.head == self.head || plan.bug == Bug::MovedHead;
        let Some(held) = self.held.as_ref().filter(is_head) else {
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
        if !self.lanes[1 - lane].as_ref().is_some_and(Doing::is_in_line) {
            self.first = lane;
        }
    }

    fn commits(&self, lane: usize, plan: &Plan<'_>, step: &mut Add<'_>) {
        let is_first = self.first == lane;
        let other_is_made = matches!(self.lanes[1 - lane], Some(Doing::Answered(..)));
        match &self.lanes[lane] {
            Some(Doing::Committing(intent, epoch)) if is_first || other_is_made => {
                step(intent.verb(), &|member, next| {
                    let answer = intent.apply(*epoch, next, plan);
                    member.lanes[lane] = Some(Doing::Answered(intent.clone(), answer));
                });
            }
            Some(Doing::Answered(_, answer)) if is_first => {
                step("is answered", &|member, next| member.answered(lane, answer, next));
            }
            _ => {}
        }
    }

    fn answered(&mut self, lane: usize, answer: &Answer, system: &System) {
        let is_of_key = self.lanes[lane].take().is_some_and(|doing| doing.is_of_key());
        let other_is_next = self.lanes[1 - lane].as_ref().is_some_and(Doing::is_in_line);
        self.first = if other_is_next { 1 - lane } else { FRONT };
        let is_old = lane == FRONT && std::mem::take(&mut self.is_old);
        if let Answer::Done(next) = answer
            && is_of_key
        {
            self.hold(next.clone());
        }
        match (lane, answer) {
            (HEAD, Answer::Fenced) => self.hold(None),
            (_, Answer::Conflict) | (HEAD, Answer::AlreadyHandled) => self.is_stale = true,
            (_, Answer::Fenced) if !is_old => self.lose(system),
            (FRONT, Answer::Done(_) | Answer::AlreadyHandled) if !is_old => self.front += 1,
            _ => {}
        }
    }
}
