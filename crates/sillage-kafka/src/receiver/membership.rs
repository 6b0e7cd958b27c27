//! Whether the group still knows a member that has nothing, or cannot commit: a state machine
//! without I/O.
//!
//! The client gets itself back into its group, and at times it does not: it waits for an answer that
//! does not come any more, as when Kafka names no broker for a while ([librdkafka 5511]), and says
//! nothing. Only the group can tell that from having nothing because others have everything.
//!
//! [librdkafka 5511]: https://github.com/confluentinc/librdkafka/issues/5511

use std::time::Duration;
use tokio::time::Instant;

/// For so many session time-outs it may be like this before the group is asked.
const PATIENCE: u32 = 3;
/// So many answers in a row have to be that the group does not know it: it may be joining.
const ANSWERS: u32 = 2;

pub(super) struct Membership {
    /// How long a group waits for a sign of life.
    session: Duration,
    /// The group is asked then; `None`: there is no reason to.
    ask_at: Option<Instant>,
    is_asked: bool,
    /// It was well since the question: the answer counts no more.
    is_outdated: bool,
    /// The last answers, all of which were that it is no member.
    unknown: u32,
}

impl Membership {
    pub(super) fn new(session: Duration) -> Membership {
        Membership { session, ask_at: None, is_asked: false, is_outdated: false, unknown: 0 }
    }

    /// Whether the group is to be asked now. All is well: it has something, and can commit.
    pub(super) fn is_to_be_asked(&mut self, is_well: bool, now: Instant) -> bool {
        if is_well {
            (self.ask_at, self.unknown) = (None, 0);
            self.is_outdated |= self.is_asked;
            return false;
        }
        let at = *self.ask_at.get_or_insert(now + self.session * PATIENCE);
        let is_time = at <= now && !self.is_asked;
        self.is_asked |= is_time;
        is_time
    }

    /// The group was asked, and knows the member, or not; or it did not answer. `true`: the client
    /// is not coming back any more.
    pub(super) fn answered(&mut self, is_known: Option<bool>, now: Instant) -> bool {
        self.is_asked = false;
        if std::mem::take(&mut self.is_outdated) {
            return false;
        }
        let wait = if is_known == Some(true) { PATIENCE } else { 1 };
        self.ask_at = Some(now + self.session * wait);
        self.unknown = if is_known == Some(false) { self.unknown + 1 } else { 0 };
        self.unknown >= ANSWERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(10);

    /// Has nothing for so many seconds, and is told this whenever it asks: how often it asked, and
    /// when it gave up.
    fn outside(
        membership: &mut Membership,
        (start, seconds): (Instant, u64),
        answer: impl Fn(u64) -> Option<bool>,
    ) -> (u32, Option<u64>) {
        let mut asked = 0;
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            if membership.is_to_be_asked(false, now) {
                asked += 1;
                assert!(!membership.is_to_be_asked(false, now), "asked once at a time");
                if membership.answered(answer(second), now) {
                    return (asked, Some(second));
                }
            }
        }
        (asked, None)
    }

    #[test]
    fn a_member_that_the_group_does_not_know_gives_up_at_the_second_answer() {
        let start = Instant::now();
        let mut membership = Membership::new(SESSION);
        assert_eq!(outside(&mut membership, (start, 100), |_| Some(false)), (2, Some(40)));
    }

    #[test]
    fn a_member_for_which_nothing_is_left_stays() {
        let start = Instant::now();
        let mut membership = Membership::new(SESSION);
        assert_eq!(outside(&mut membership, (start, 100), |_| Some(true)), (3, None));
    }

    #[test]
    fn while_kafka_does_not_answer_nothing_is_known() {
        let start = Instant::now();
        let mut membership = Membership::new(SESSION);
        let answer = |second| (second % 20 == 0).then_some(false);
        assert_eq!(outside(&mut membership, (start, 100), answer), (7, None));
    }

    #[test]
    fn one_answer_is_not_enough_and_having_something_begins_anew() {
        let start = Instant::now();
        let mut membership = Membership::new(SESSION);
        assert_eq!(outside(&mut membership, (start, 35), |_| Some(false)), (1, None));
        assert!(!membership.is_to_be_asked(true, start + SESSION * 4));
        let again = (start + SESSION * 5, 40);
        assert_eq!(outside(&mut membership, again, |_| Some(false)), (1, None));
    }

    #[test]
    fn an_answer_that_comes_too_late_says_nothing() {
        let start = Instant::now();
        let mut membership = Membership::new(SESSION);
        assert_eq!(outside(&mut membership, (start, 35), |_| Some(false)), (1, None));
        assert!(membership.is_to_be_asked(false, start + SESSION * 4));
        assert!(!membership.is_to_be_asked(true, start + SESSION * 4));
        // It has nothing again by now.
        assert!(!membership.is_to_be_asked(false, start + SESSION * 5));
        assert!(!membership.answered(Some(false), start + SESSION * 5));
        let again = (start + SESSION * 5, 35);
        assert_eq!(outside(&mut membership, again, |_| Some(false)), (1, None));
    }
}
