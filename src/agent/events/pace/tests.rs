//! The pace of Events under states that come and go, servers that refuse, and agents that are started anew.

use proptest::prelude::*;

use super::*;
use crate::agent::events::reason::{ALL, HOST_NOT_PREPARED, NODE_CONFIG_INVALID, POOL_EXHAUSTED, SERVING};

const MINUTE: u64 = MINUTE_MS;

fn pod(number: u8, why: &str) -> Ignored {
    let pod = PodName { namespace: "shop".into(), name: format!("web-{number}"), uid: None };
    Ignored { pod, why: why.into() }
}

fn holds(text: &str) -> Standing {
    Standing::Holds(text.into())
}

/// The texts that are told at this time to a server that takes everything.
fn told(pace: &mut Pace, now: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(letter) = pace.next(now) {
        all.push(letter.note.clone());
        pace.done(letter, Outcome::Taken, now);
    }
    all
}

#[test]
fn a_state_is_told_when_it_begins_and_when_its_text_changes_and_not_while_it_lasts() {
    let mut pace = Pace::default();
    pace.stands(NODE_CONFIG_INVALID, Standing::Unknown);
    assert!(told(&mut pace, 0).is_empty());
    pace.stands(NODE_CONFIG_INVALID, holds("a"));
    assert_eq!(told(&mut pace, 0), ["a"]);
    for now in 0..100 {
        pace.stands(NODE_CONFIG_INVALID, holds("a"));
        pace.stands(NODE_CONFIG_INVALID, Standing::Unknown);
        assert!(told(&mut pace, now * MINUTE).is_empty(), "nothing has changed");
    }
    pace.stands(NODE_CONFIG_INVALID, holds("b"));
    assert_eq!(told(&mut pace, 100 * MINUTE), ["b"]);
    pace.stands(NODE_CONFIG_INVALID, Standing::Over);
    assert!(told(&mut pace, 101 * MINUTE).is_empty(), "that it is over is nothing to see to");
}

// covers: FM-U10
#[test]
fn a_state_that_comes_and_goes_is_told_again_after_ten_minutes_if_it_holds_then() {
    let mut pace = Pace::default();
    for second in 0..600 {
        pace.stands(POOL_EXHAUSTED, if second % 2 == 0 { holds("full") } else { Standing::Over });
        assert_eq!(told(&mut pace, second * 1000).len(), usize::from(second == 0));
    }
    assert!(told(&mut pace, SERIES_MS).is_empty(), "it does not hold");
    pace.stands(POOL_EXHAUSTED, holds("full"));
    assert_eq!(told(&mut pace, SERIES_MS), ["full"]);
    // Texts that change all the time are four in ten minutes, and the newest is told when there is room.
    let mut all = Vec::new();
    for second in 0..660 {
        pace.stands(HOST_NOT_PREPARED, holds(&second.to_string()));
        all.extend(told(&mut pace, 2 * SERIES_MS + second * 1000));
    }
    assert_eq!(all, ["0", "1", "2", "3", "600", "601", "602", "603"]);
}

#[test]
fn an_agent_that_is_started_anew_tells_what_has_changed_since_the_last_one() {
    let mut pace = Pace::default();
    pace.stands(SERVING, holds("serving a (agent 1)"));
    pace.stands(NODE_CONFIG_INVALID, holds("wrong"));
    assert_eq!(told(&mut pace, 0).len(), 2);
    let kept = pace.kept();
    let mut next = Pace::after(&kept);
    assert_eq!(next.kept(), kept);
    next.stands(SERVING, holds("serving a (agent 1)"));
    next.stands(NODE_CONFIG_INVALID, Standing::Over);
    assert!(told(&mut next, MINUTE).is_empty());
    let mut next = Pace::after(&next.kept());
    next.stands(SERVING, holds("serving a (agent 2)"));
    next.stands(NODE_CONFIG_INVALID, holds("wrong"));
    assert_eq!(told(&mut next, 2 * MINUTE), ["serving a (agent 2)"], "the same mistake was told a moment ago");
    assert_eq!(told(&mut next, SERIES_MS), ["wrong"]);
    // The boot clock begins anew with the machine.
    let old = Kept { said: None, series: vec![(900, "x".into())] };
    let mut rebooted = Pace::after(&BTreeMap::from([(SERVING.name.into(), old)]));
    rebooted.stands(SERVING, holds("x"));
    assert_eq!(told(&mut rebooted, 5), ["x"]);
}

#[test]
fn what_the_server_does_not_take_is_tried_a_few_times_and_lost() {
    let mut pace = Pace::default();
    pace.stands(HOST_NOT_PREPARED, holds("a"));
    let mut tries = Vec::new();
    for second in 0..3600 {
        if let Some(letter) = pace.next(second * 1000) {
            tries.push(second);
            pace.done(letter, Outcome::Later(0), second * 1000);
        }
    }
    assert_eq!(tries, [0, 15, 45, 105, 225], "and then no more");
    // The next text has tries of its own, and a server that asks to be left alone is, for a while.
    pace.stands(HOST_NOT_PREPARED, holds("b"));
    let letter = pace.next(3_600_000).expect("due");
    pace.done(letter, Outcome::Later(u64::MAX), 3_600_000);
    assert_eq!(pace.next(3_600_000 + PAUSE_MAX_MS - 1), None);
    let letter = pace.next(3_600_000 + PAUSE_MAX_MS).expect("due");
    // Who may not write an Event asks once for each.
    pace.done(letter, Outcome::Refused, 3_900_000);
    assert_eq!(pace.next(9_000_000), None);
}

#[test]
fn pods_never_take_the_room_of_the_node_and_are_told_once() {
    let mut pace = Pace::default();
    (0..100).for_each(|number| pace.ignored(pod(number, "a")));
    assert_eq!(told(&mut pace, 0).len(), REQUESTS_PODS);
    pace.stands(SERVING, holds("serving"));
    pace.stands(HOST_NOT_PREPARED, holds("not"));
    pace.stands(POOL_EXHAUSTED, holds("full"));
    assert_eq!(told(&mut pace, 1), ["not", "full"], "what stops pods comes first, and six requests are all");
    assert_eq!(told(&mut pace, MINUTE).first().map(String::as_str), Some("serving"));
    let later: usize = (2..60).map(|minute| told(&mut pace, minute * MINUTE).len()).sum();
    assert_eq!(later, WAITING_MAX - REQUESTS_PODS - 1, "the rest is lost");
    // A pod whose ADD is repeated.
    for second in 0..60 {
        pace.ignored(pod(200, "b"));
        assert_eq!(told(&mut pace, 60 * MINUTE + second * 1000).len(), usize::from(second == 0));
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Stands(usize, Standing),
    Ignored(u8, u8),
    Asked(Outcome),
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    let standing = prop_oneof![
        Just(Standing::Unknown),
        Just(Standing::Over),
        (0..6u8).prop_map(|text| Standing::Holds(text.to_string())),
    ];
    let outcome = prop_oneof![3 => Just(Outcome::Taken), 1 => Just(Outcome::Refused), 1 => (0..400_000u64).prop_map(Outcome::Later)];
    prop_oneof![
        4 => (0..6usize, standing).prop_map(|(reason, standing)| Happens::Stands(reason, standing)),
        2 => (0..40u8, 0..3u8).prop_map(|(pod, why)| Happens::Ignored(pod, why)),
        8 => outcome.prop_map(Happens::Asked),
        1 => Just(Happens::Restart),
    ]
}

proptest! {
    #[test]
    fn requests_and_series_are_bounded_whatever_happens(
        all in prop::collection::vec((prop_oneof![Just(0u64), 0..3_000u64, 0..400_000u64], happens()), 0..400)
    ) {
        let (mut pace, mut now) = (Pace::default(), 1_000_000);
        let (mut requests, mut taken) = (Vec::<u64>::new(), Vec::<(u64, Letter)>::new());
        for (wait, what) in all {
            now += wait;
            match what {
                Happens::Stands(reason, standing) => pace.stands(ALL[reason], standing),
                Happens::Ignored(number, why) => pace.ignored(pod(number, &why.to_string())),
                Happens::Restart => {
                    // Requests are counted by each agent for itself, and pods are not told of again: they are not attached again.
                    pace = Pace::after(&pace.kept());
                    requests.clear();
                    taken.retain(|(_, letter)| letter.regarding == Regarding::Node);
                }
                Happens::Asked(outcome) => {
                    let Some(letter) = pace.next(now) else { continue };
                    requests.push(now);
                    prop_assert!(requests.iter().filter(|at| now - **at < MINUTE_MS).count() <= REQUESTS_MAX);
                    if outcome == Outcome::Taken {
                        let recent = || taken.iter().filter(|(at, _)| now - at < SERIES_MS);
                        prop_assert!(recent().all(|(_, before)| *before != letter), "{letter:?} twice");
                        let alike = recent().filter(|(_, before)| before.reason == letter.reason).count();
                        let most = if letter.regarding == Regarding::Node { NODE_MAX } else { PODS_MAX };
                        prop_assert!(alike < most);
                        taken.push((now, letter.clone()));
                    }
                    pace.done(letter, outcome, now);
                }
            }
            prop_assert!(pace.waiting.len() <= WAITING_MAX && pace.requests.len() <= REQUESTS_MAX);
            prop_assert!(pace.of_pods.0.len() <= PODS_MAX && pace.node.values().all(|told| told.series.0.len() <= NODE_MAX));
        }
    }
}
