//! The checks of the fuzzer on stable Rust: every file of `fuzz/seeds` as it is, and many variants of each.
//!
//! The fuzzer learns what to try from the branches that it reaches, and runs for minutes or hours (`make fuzz`). This is for every
//! day: what was once found stays fixed, and a check that no longer fits the code is noticed at once.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::share::share;
use targets::{ALL, Check};

/// Variants of each seed. A large seed takes longer, so it gets fewer.
const VARIANTS: u32 = 2000;
const VARIANT_BYTES: usize = 1 << 20;

/// What parsers trip over.
const NASTY: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"=",
    b";",
    b"/",
    b"%",
    b"#",
    b"&a ",
    b"*a",
    b"!!",
    b"---\n",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"4294967296",
    b"18446744073709551616",
    b"1e999",
    b"::ffff:10.0.0.1",
    b"/129",
    b"..",
    b"../",
];

struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, &'static [u8]),
    Cut(Index, Index),
    Repeat(Index, Index),
    Truncate(Index),
}

impl Edit {
    fn apply(&self, data: &mut Vec<u8>) {
        let places = data.len() + 1;
        let place = |index: &Index| index.index(places);
        let range = |one: &Index, other: &Index| place(one).min(place(other))..place(one).max(place(other));
        match self {
            Edit::Flip(at, bits) => {
                if let Some(byte) = data.get_mut(place(at)) {
                    *byte ^= bits;
                }
            }
            Edit::Insert(at, bytes) => {
                let at = place(at);
                data.splice(at..at, bytes.iter().copied());
            }
            Edit::Cut(one, other) => {
                let range = range(one, other);
                data.drain(range.start..range.end.min(range.start + 64));
            }
            Edit::Repeat(one, other) => {
                let range = range(one, other);
                let piece = data[range.start..range.end.min(range.start + 256)].to_vec();
                data.splice(range.start..range.start, piece);
            }
            Edit::Truncate(at) => {
                let at = place(at);
                data.truncate(at);
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        4 => (any::<Index>(), prop::sample::select(NASTY)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::Cut(one, other)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::Repeat(one, other)),
        1 => any::<Index>().prop_map(Edit::Truncate),
    ]
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&dir).expect("a directory of seeds").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect()
}

/// Each seed of the target, then variants of a share of them. A failure names the seed, and prints the smallest input that fails.
#[track_caller]
fn hold(target: &str) {
    let check: Check = ALL.iter().find(|(name, _)| *name == target).expect("a target").1;
    let seeds = seeds(target);
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    check(b"");
    for (path, seed) in &seeds {
        println!("seed {}", path.display());
        check(seed);
    }
    for (path, seed) in share(&format!("variants of seeds of {target}"), seeds) {
        println!("variants of {}", path.display());
        let cases = VARIANTS.min((VARIANT_BYTES / (seed.len() + 1)).try_into().unwrap_or(u32::MAX)).max(16);
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let variant = prop::collection::vec(edit(), 1..6).prop_map(move |edits| {
            let mut data = seed.clone();
            edits.iter().for_each(|edit| edit.apply(&mut data));
            Input(data)
        });
        // The same variants each time: a test that fails by chance tells nobody anything. The fuzzer looks further.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let outcome = TestRunner::new_with_rng(config, rng).run(&variant, |Input(data)| {
            catch_unwind(AssertUnwindSafe(|| check(&data))).map_err(|_| TestCaseError::fail("the check does not hold"))
        });
        if let Err(error) = outcome {
            panic!("a variant of {}: {error}", path.display());
        }
    }
}

#[test]
fn every_directory_of_seeds_has_its_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("text");
    let found: BTreeSet<String> =
        fs::read_dir(dir).expect("seeds").map(|entry| name(entry.expect("readable"))).collect();
    assert_eq!(found, ALL.iter().map(|(name, _)| (*name).to_owned()).collect());
}

macro_rules! held {
    ($($test:ident: $target:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            hold($target);
        })*

        #[test]
        fn every_target_is_tried_here() {
            let tried = BTreeSet::from([$($target),*]);
            assert_eq!(tried, ALL.iter().map(|(name, _)| *name).collect());
        }
    };
}

held! {
    any_annotations_give_an_intent_or_an_error_that_names_the_key: "annotations",
    any_cni_args_give_a_pod_or_none_or_an_error: "args",
    any_talk_on_the_control_socket_of_bird_gives_replies_however_it_is_split: "bird",
    any_environment_gives_a_safe_call_or_an_error: "environment",
    any_allocations_file_is_taken_over_or_refused_whole: "import",
    any_kubeconfig_gives_an_access_or_an_error_without_secrets: "kubeconfig",
    any_configuration_is_read_or_refused_without_its_values: "netconf",
    any_datagram_of_the_kernel_gives_facts: "netlink",
    any_node_config_is_read_alike_in_yaml_and_json_and_from_the_api: "nodeconfig",
    any_note_is_carried_out_only_under_its_own_name: "note",
    any_file_of_policies_gives_a_table_that_the_kernel_takes: "policies",
    any_result_is_printed_harmlessly_or_not_at_all: "prev_result",
    any_frame_gives_a_request_or_an_answer_that_comes_back_as_it_was: "rpc",
    any_announcement_of_the_packet_filter_names_tables_or_nothing: "ruleset_events",
    any_lease_log_opens_and_is_read_again_as_it_was_written: "state",
    any_configuration_of_a_runtime_is_read_or_named_by_its_line: "toml",
    any_api_server_leaves_the_watch_in_order: "watch",
}
