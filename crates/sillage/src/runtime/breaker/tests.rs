use super::*;
use proptest::prelude::*;

const POLICY: fn() -> Breaker = || Breaker::failures(0.5).open_for(at(30));

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn call(circuit: &mut Circuit, call: Call, now: Duration) {
    let permit = circuit.begin(now).expect("it may run");
    circuit.end(permit, call, now);
}

#[test]
fn it_opens_at_its_share_of_enough_calls() {
    let mut circuit = Circuit::new(POLICY());
    (0..9).for_each(|_| call(&mut circuit, Call::Unavailable, at(1)));
    assert_eq!(circuit.state(at(1)), State::Closed, "nine calls say nothing");
    call(&mut circuit, Call::Unavailable, at(1));
    assert_eq!(circuit.state(at(1)), State::Open(at(31)));
    assert_eq!(circuit.begin(at(30)), None);
}

#[test]
fn a_small_share_does_not_open_it() {
    let mut circuit = Circuit::new(POLICY());
    for round in 0..1_000 {
        let failed = round % 5 == 0;
        call(&mut circuit, if failed { Call::Unavailable } else { Call::Answered }, at(1));
    }
    assert_eq!(circuit.state(at(1)), State::Closed);
}

#[test]
fn what_is_over_its_period_does_not_count() {
    let mut circuit = Circuit::new(POLICY());
    (0..9).for_each(|_| call(&mut circuit, Call::Unavailable, at(0)));
    (0..9).for_each(|_| call(&mut circuit, Call::Unavailable, at(11)));
    assert_eq!(circuit.state(at(11)), State::Closed);
}

#[test]
fn it_comes_back_by_a_probe_and_then_more_at_once() {
    let mut circuit = Circuit::reopened(POLICY());
    let mut at_once = vec![];
    while circuit.state(at(1)) == State::HalfOpen {
        let permits: Vec<_> = std::iter::from_fn(|| circuit.begin(at(1))).collect();
        at_once.push(permits.len());
        for permit in permits {
            circuit.end(permit, Call::Answered, at(1));
        }
    }
    assert_eq!(at_once, [1, 2, 4, 8, 16, 32]);
    assert_eq!(circuit.state(at(1)), State::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_anew_and_a_dropped_one_is_repeated() {
    let mut circuit = Circuit::reopened(POLICY());
    call(&mut circuit, Call::Dropped, at(1));
    call(&mut circuit, Call::Unavailable, at(2));
    assert_eq!(circuit.state(at(31)), State::Open(at(32)));
    assert!(circuit.admits(at(32)));
}

/// Else one that fails now and then would stay half-open for ever.
#[test]
fn it_closes_over_failures_below_its_share() {
    let mut circuit = Circuit::reopened(POLICY());
    for round in 0..63 {
        assert_eq!(circuit.state(at(1)), State::HalfOpen);
        let failed = round % 8 == 7;
        call(&mut circuit, if failed { Call::Unavailable } else { Call::Answered }, at(1));
    }
    assert_eq!(circuit.state(at(1)), State::Closed);
}

#[test]
fn it_opens_anew_where_more_than_its_share_fail() {
    let mut circuit = Circuit::reopened(POLICY());
    (0..3).for_each(|_| call(&mut circuit, Call::Answered, at(1)));
    (0..2).for_each(|_| call(&mut circuit, Call::Unavailable, at(1)));
    assert_eq!(circuit.state(at(1)), State::HalfOpen, "two of four");
    call(&mut circuit, Call::Unavailable, at(1));
    assert_eq!(circuit.state(at(1)), State::Open(at(31)));
}

#[test]
fn a_call_from_before_tells_nothing_about_now() {
    let mut circuit = Circuit::new(POLICY());
    let early = circuit.begin(at(0)).unwrap();
    (0..10).for_each(|_| call(&mut circuit, Call::Unavailable, at(0)));
    let probe = circuit.begin(at(30)).unwrap();
    circuit.end(early, Call::Answered, at(30));
    assert!(!circuit.admits(at(30)), "the probe still runs");
    circuit.end(probe, Call::Answered, at(30));
    assert!(circuit.admits(at(30)));
}

proptest! {
    /// Whatever happens, calls in flight stay within what is allowed, and where the dependency
    /// answers again it ends closed.
    #[test]
    fn it_never_sticks(steps in prop::collection::vec((0u8..4, 0u64..20), 0..200)) {
        let mut circuit = Circuit::new(POLICY());
        let (mut now, mut flying) = (Duration::ZERO, vec![]);
        for (what, wait) in steps {
            now += at(wait);
            match what {
                0 => flying.extend(circuit.begin(now)),
                _ if flying.is_empty() => {}
                1 => drop(circuit.end(flying.remove(0), Call::Answered, now)),
                2 => drop(circuit.end(flying.remove(0), Call::Unavailable, now)),
                _ => drop(circuit.end(flying.remove(0), Call::Dropped, now)),
            }
            if circuit.state(now) == State::HalfOpen {
                prop_assert!(circuit.running <= circuit.limit && circuit.limit < RECOVERED);
                let current = flying.iter().filter(|permit| permit.0 == circuit.turn).count();
                prop_assert_eq!(circuit.running as usize, current);
            }
        }
        for permit in flying {
            circuit.end(permit, Call::Dropped, now);
        }
        now += at(31);
        for _ in 0..63 {
            call(&mut circuit, Call::Answered, now);
        }
        prop_assert_eq!(circuit.state(now), State::Closed);
    }
}
