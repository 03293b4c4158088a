//! The stories that try each member of a long list (each point of a kill, each fault, each step): which members a run tries.
//!
//! All of them, unless the environment names a share: `FLOCK_TEST_SHARE=1/8 FLOCK_TEST_SEED=7` tries an eighth, which the seed
//! chooses. The choice follows from the seed, the story and the member's own text alone, so a failure is repeated by the same two
//! variables. A story that fails prints them, and the member that it was at.

use std::fmt::Debug;
use std::thread;

use super::dice::Dice;

/// Names the part of a run: `1/8`, or `1` or nothing for all.
pub const SHARE: &str = "FLOCK_TEST_SHARE";

/// Names the seed, a whole number.
pub const SEED: &str = "FLOCK_TEST_SEED";

/// One of how many members a run tries, and the seed that chooses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    of: usize,
    seed: u64,
}

impl Share {
    fn of_environment() -> Share {
        let read = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Share::from_texts(read(SHARE).as_deref(), read(SEED).as_deref())
    }

    fn from_texts(share: Option<&str>, seed: Option<&str>) -> Share {
        let of = share.map_or(1, |text| {
            let of = text.strip_prefix("1/").unwrap_or(text).parse().ok().filter(|of| *of > 0);
            let whole = text.starts_with("1/") || text == "1";
            of.filter(|_| whole)
                .unwrap_or_else(|| panic!("{SHARE}={text}: it is 1/N, such as 1/8, or 1 for everything"))
        });
        let seed =
            seed.map_or(0, |text| text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: it is a whole number")));
        Share { of, seed }
    }

    /// Which of these members to try, at least one, in their own order.
    fn choice(self, story: &str, members: &[String]) -> Vec<usize> {
        let mut drawn: Vec<(u64, usize)> = members.iter().map(|member| self.draw(story, member)).zip(0..).collect();
        drawn.sort_unstable();
        let mut chosen: Vec<usize> =
            drawn.into_iter().take(members.len().div_ceil(self.of)).map(|(_, index)| index).collect();
        chosen.sort_unstable();
        chosen
    }

    /// A number that is the same whatever else is on the list: two traces of the same operation differ now and then.
    fn draw(self, story: &str, member: &str) -> u64 {
        let bytes = story.bytes().chain([0]).chain(member.bytes());
        bytes.fold(self.seed, |state, byte| Dice::new(state, u64::from(byte)).next())
    }
}

/// The members of `story` that this run tries. Goes on with the next one as an iterator does, and prints where it was when the
/// test fails meanwhile.
pub fn share<T: Debug>(story: &str, members: impl IntoIterator<Item = T>) -> Trying<T> {
    let share = Share::of_environment();
    let members: Vec<T> = members.into_iter().collect();
    let texts: Vec<String> = members.iter().map(|member| format!("{member:?}")).collect();
    let chosen = share.choice(story, &texts);
    let all = members.len();
    let members: Vec<T> = members.into_iter().enumerate().filter(|(n, _)| chosen.contains(n)).map(|(_, m)| m).collect();
    Trying { story: story.to_owned(), share, all, members: members.into_iter(), now: None }
}

/// How often this run does what the whole does `times` times: at least once.
pub fn share_of(times: usize) -> usize {
    times.div_ceil(Share::of_environment().of)
}

/// What [`share`] returns.
pub struct Trying<T> {
    story: String,
    share: Share,
    all: usize,
    members: std::vec::IntoIter<T>,
    now: Option<String>,
}

impl<T: Debug> Iterator for Trying<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let next = self.members.next();
        self.now = next.as_ref().map(|member| format!("{member:?}"));
        next
    }
}

impl<T> Drop for Trying<T> {
    fn drop(&mut self) {
        if let Some(now) = self.now.as_ref().filter(|_| thread::panicking()) {
            let Trying { story, share: Share { of, seed }, all, .. } = self;
            eprintln!("{story}: failed at {now}, one of {all}; {SHARE}=1/{of} {SEED}={seed} tries the same ones again");
        }
    }
}

#[cfg(test)]
mod tests {
    #[allow(unused_imports, reason = "programs without the harness leave the tests out")]
    use super::*;

    #[test]
    fn a_seed_tries_the_same_members_again_and_all_seeds_together_try_all() {
        let members: Vec<String> = (0..100).map(|n| format!("point {n}")).collect();
        let choice = |of, seed| Share { of, seed }.choice("story", &members);
        assert_eq!(choice(1, 7), (0..100).collect::<Vec<_>>());
        assert_eq!(choice(8, 7), choice(8, 7));
        assert_eq!(choice(8, 7).len(), 13);
        assert_ne!(choice(8, 7), choice(8, 8));
        assert_ne!(Share { of: 8, seed: 7 }.choice("another", &members), choice(8, 7));
        let mut tried: Vec<usize> = (0..100).flat_map(|seed| choice(8, seed)).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), 100);
        // One member more or less on the list changes one of those that are tried, at most.
        let fewer = Share { of: 8, seed: 7 }.choice("story", &members[..99]);
        assert!(fewer.iter().filter(|n| !choice(8, 7).contains(n)).count() <= 1);
        assert_eq!(Share { of: 8, seed: 7 }.choice("story", &members[..1]), [0]);
    }

    #[test]
    fn what_is_no_share_or_no_seed_is_refused_by_name() {
        assert_eq!(Share::from_texts(None, None), Share { of: 1, seed: 0 });
        assert_eq!(Share::from_texts(Some("1/8"), Some("7")), Share { of: 8, seed: 7 });
        assert_eq!(Share::from_texts(Some("1"), None).of, 1);
        for (share, seed) in [("8", "1"), ("2/8", "1"), ("1/0", "1"), ("", "1"), ("1/8", "x"), ("1/8", "-1")] {
            let refused = std::panic::catch_unwind(|| Share::from_texts(Some(share), Some(seed)));
            let text = refused.expect_err(share).downcast::<String>().expect("a text");
            assert!(text.contains("FLOCK_TEST_S"), "{text}");
        }
    }
}
