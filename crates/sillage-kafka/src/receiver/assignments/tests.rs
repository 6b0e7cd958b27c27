use super::*;

fn partition(number: u32) -> Partition {
    Partition { topic: "t".into(), number }
}

fn settled(number: u32, watermark: u64) -> Settled {
    let partition = partition(number);
    Settled { partition, watermark: Some(Offset(watermark)), finished: vec![] }
}

/// Two partitions that flow from offset 10.
fn flowing() -> Assignments {
    let mut assignments = Assignments::default();
    for number in 0..2 {
        assignments.take(&partition(number), 10, Phase::Flowing);
    }
    assignments
}

#[test]
fn what_was_delivered_is_settled_and_nothing_else() {
    let mut assignments = flowing();
    assert_eq!(assignments.settle(&settled(0, 10)), None, "not delivered");
    for offset in [10, 11, 15] {
        assert!(assignments.deliver(0, offset));
    }
    assert!(!assignments.deliver(0, 11), "it was delivered");
    assert_eq!(assignments.settle(&settled(0, 9)), None, "before the assignment");
    assert_eq!(assignments.settle(&settled(0, 11)), Some(12));
    assert_eq!(assignments.settle(&settled(0, 10)), None, "a late call takes nothing back");
    assert_eq!(assignments.settle(&settled(0, 16)), None, "not delivered");
    assert_eq!(assignments.settle(&settled(0, 15)), Some(16));
    let nothing = Settled { watermark: None, ..settled(0, 0) };
    assert_eq!(assignments.settle(&nothing), None);
    assert_eq!(assignments.settle(&settled(7, 1)), None, "unknown");
}

#[test]
fn a_revocation_waits_until_all_is_drained() {
    let mut assignments = flowing();
    assignments.deliver(0, 10);
    let all = vec![partition(0), partition(1)];
    assert_eq!(assignments.revoke(all.clone()), all);
    assert!(!assignments.deliver(0, 11), "nothing more of it");
    assert_eq!(assignments.settle(&settled(0, 10)), Some(11), "while it is drained");
    assert_eq!(assignments.returned(), None);
    assert!(!assignments.release(&partition(0)));
    assert_eq!(assignments.returned(), None);
    assert!(!assignments.release(&partition(1)));
    assert_eq!(assignments.returned(), Some(all));
    assert_eq!(assignments.returned(), None, "once");
    assert_eq!(assignments.settle(&settled(0, 10)), None, "it is another's");
}

#[test]
fn a_partition_that_was_not_announced_is_given_back_at_once() {
    let mut assignments = Assignments::default();
    assignments.take(&partition(0), 0, Phase::Opening);
    assignments.take(&partition(1), 0, Phase::Stopped);
    let all = vec![partition(0), partition(1), partition(9)];
    assert!(assignments.revoke(all.clone()).is_empty());
    assert_eq!(assignments.returned(), Some(all));
}

#[test]
fn what_is_given_up_begins_again_at_what_is_settled() {
    let mut assignments = flowing();
    for offset in 10..20 {
        assignments.deliver(0, offset);
    }
    assignments.settle(&settled(0, 12));
    assignments.hold(&[partition(0)], true);
    assert!(assignments.release(&partition(0)));
    assert!(!assignments.release(&partition(0)), "twice is once");
    assert!(!assignments.deliver(0, 20), "the client is not back yet");
    assert_eq!(assignments.settle(&settled(0, 15)), None, "of the assignment before");
    assert!(assignments.placed(&partition(0)));
    assert!(!assignments.placed(&partition(0)));
    assert!(assignments.deliver(0, 13));
    assert_eq!(assignments.settle(&settled(0, 15)), None, "not delivered again");
    assert_eq!(assignments.pauses(false), (vec![], vec![]), "it is held no more");
}

#[test]
fn what_is_lost_is_told_once_and_settles_nothing() {
    let mut assignments = flowing();
    assignments.deliver(0, 10);
    assignments.revoke(vec![partition(1)]);
    assignments.release(&partition(1));
    assert_eq!(assignments.lose(), [partition(0)]);
    assert!(assignments.lose().is_empty());
    assert_eq!(assignments.settle(&settled(0, 10)), None);
    assert!(!assignments.deliver(0, 11));
    // The group asks for it all the same, and gets it at once.
    assert!(assignments.revoke(vec![partition(0)]).is_empty());
    assert_eq!(assignments.returned(), Some(vec![partition(0)]));
}

#[test]
fn a_start_is_announced_once_it_is_stored_and_placed() {
    let mut assignments = Assignments::default();
    assignments.take(&partition(0), 5, Phase::Opening);
    assert!(!assignments.deliver(0, 5), "not before the start is stored");
    assert_eq!(assignments.settle(&settled(0, 5)), None);
    assert!(!assignments.placed(&partition(0)));
    assignments.stored(&[partition(0)]);
    assert_eq!(assignments.in_phase(Phase::Placing), [partition(0)]);
    assert!(assignments.placed(&partition(0)));
    assert!(assignments.deliver(0, 5));
}

#[test]
fn pauses_are_the_members_and_those_of_a_full_queue() {
    let mut assignments = flowing();
    let (zero, one) = (vec![partition(0)], vec![partition(1)]);
    assignments.hold(&zero, true);
    assert_eq!(assignments.pauses(false), (zero.clone(), vec![]));
    assert_eq!(assignments.pauses(true), (one.clone(), vec![]));
    assert_eq!(assignments.pauses(true), (vec![], vec![]));
    assert_eq!(assignments.pauses(false), (vec![], one), "the member's own stays");
    assignments.hold(&zero, false);
    assert_eq!(assignments.pauses(false), (vec![], zero));
    // One that comes anew is told if the client has it paused still.
    assignments.hold(&[partition(0)], true);
    assignments.pauses(false);
    assignments.lose();
    assert!(assignments.take(&partition(0), 0, Phase::Flowing));
    assert!(!assignments.take(&partition(0), 0, Phase::Flowing));
}

#[test]
fn a_stopped_partition_can_be_drained_and_does_not_begin_again() {
    let mut assignments = flowing();
    assignments.deliver(0, 10);
    assignments.stop(&partition(0));
    assert!(!assignments.deliver(0, 11));
    assert_eq!(assignments.settle(&settled(0, 10)), Some(11));
    assert!(!assignments.release(&partition(0)));
    assert!(assignments.revoke(vec![partition(0)]).is_empty());
    assert_eq!(assignments.returned(), Some(vec![partition(0)]));
}

#[test]
fn all_are_held_once_the_member_or_a_full_queue_holds_each() {
    let mut assignments = flowing();
    assert!(!assignments.are_held(false));
    assert!(assignments.are_held(true));
    assignments.hold(&[partition(0)], true);
    assert!(!assignments.are_held(false));
    assignments.hold(&[partition(1)], true);
    assert!(assignments.are_held(false));
    assignments.take(&partition(2), 0, Phase::Opening);
    assert!(!assignments.are_held(true), "one begins");
    assert!(!Assignments::default().are_held(true), "there is nothing to hold");
}
