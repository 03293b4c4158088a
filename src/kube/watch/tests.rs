//! The machine, line by line: each way in which watches have gone wrong in production has its test.

use super::*;

/// Keeps the value of `spec.v`.
#[derive(Debug)]
struct Things;

impl Kind for Things {
    type Object = i64;

    fn path(&self) -> String {
        "/apis/x/v1/things?fieldSelector=metadata.name%3Dn".into()
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<i64>, String> {
        let value: serde_json::Value = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        if value["spec"]["v"] == "absent" {
            return Ok(None);
        }
        let v = value["spec"]["v"].as_i64();
        v.map(Some).ok_or_else(|| format!("{} has no number v", value["spec"]))
    }
}

const NOW: u64 = 1_000_000;

fn object(name: &str, uid: &str, version: &str, v: i64) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}"}},"spec":{{"v":{v}}}}}"#)
}

fn list(version: &str, items: &[String]) -> Reply {
    let body = format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#, items.join(","));
    Reply::Status { code: 200, retry_after: None, body: body.into_bytes() }
}

fn event(kind: &str, object: &str) -> Vec<u8> {
    format!(r#"{{"type":"{kind}","object":{object}}}"#).into_bytes()
}

fn status(code: u16, body: &str) -> Reply {
    Reply::Status { code, retry_after: None, body: body.as_bytes().to_vec() }
}

/// The machine gets this answer to a LIST.
fn answered(machine: &mut Machine<Things>, reply: &Reply, now: u64, chance: u64) {
    let outcome = match reply {
        Reply::Status { code: 200, body, .. } => machine.read(body.as_slice()).map_err(Reply::Broken),
        other => Err(other.clone()),
    };
    machine.listed(outcome, now, chance);
}

/// A machine that has listed `a` at version 10 and is about to watch.
fn synced() -> Machine<Things> {
    let mut machine = Machine::new(Things);
    assert!(matches!(machine.next(NOW, 0), Order::List(_)));
    answered(&mut machine, &list("10", &[object("a", "u1", "5", 1)]), NOW, 0);
    machine.notices();
    machine
}

fn watching(machine: &mut Machine<Things>) {
    assert!(matches!(machine.next(NOW, 0), Order::Watch(_)));
}

fn values(machine: &Machine<Things>) -> Vec<(String, i64)> {
    machine.objects().iter().map(|(name, v)| (name.name.clone(), **v)).collect()
}

fn one(name: &str, v: i64) -> Vec<(String, i64)> {
    vec![(name.to_owned(), v)]
}

/// The path of the next request, after whatever pause.
fn asks(machine: &mut Machine<Things>) -> String {
    let mut now = NOW;
    loop {
        match machine.next(now, 0) {
            Order::Pause(until) => {
                assert!(until > now);
                now = until;
            }
            Order::List(path) => return format!("LIST {path}"),
            Order::Watch(path) => return format!("WATCH {path}"),
        }
    }
}

#[test]
fn the_first_list_asks_for_the_newest_and_the_watch_goes_on_from_there() {
    let mut machine = Machine::new(Things);
    assert_eq!(machine.next(NOW, 0), Order::List("/apis/x/v1/things?fieldSelector=metadata.name%3Dn".into()));
    assert!(!machine.is_synced());
    answered(&mut machine, &list("10", &[object("a", "u1", "5", 1)]), NOW, 0);
    assert!(machine.is_synced());
    assert_eq!(machine.notices(), [WatchNotice::Synced { objects: 1 }]);
    let Order::Watch(path) = machine.next(NOW, 42) else { panic!("not a watch") };
    assert!(path.ends_with("&watch=1&allowWatchBookmarks=true&timeoutSeconds=342&resourceVersion=10"), "{path}");
}

#[test]
fn events_change_the_objects_and_move_the_version() {
    let mut machine = synced();
    watching(&mut machine);
    assert_eq!(machine.line(&event("ADDED", &object("b", "u2", "11", 2)), NOW, 0), Flow::Continue);
    machine.line(&event("MODIFIED", &object("a", "u1", "12", 7)), NOW, 0);
    assert_eq!(values(&machine), [("a".to_owned(), 7), ("b".to_owned(), 2)]);
    machine.line(&event("DELETED", &object("b", "u2", "13", 2)), NOW, 0);
    assert_eq!(values(&machine), one("a", 7));
    machine.ended(&End::Closed, NOW + 300_000, 0);
    assert!(asks(&mut machine).ends_with("resourceVersion=13"));
}

/// Names with values, and whether all are there.
type Told = (Vec<(String, Option<i64>)>, bool);

/// What has become of the objects since the last call: each name with its new value or none, and whether all are there.
fn told(machine: &mut Machine<Things>) -> Option<Told> {
    let changes = machine.changes()?;
    let each = changes.each.iter().map(|change| (change.name.name.clone(), change.after.as_deref().copied()));
    Some((each.collect(), changes.complete))
}

#[test]
fn each_change_is_told_once_and_by_itself() {
    let one = |name: &str, v: Option<i64>| Some((vec![(name.to_owned(), v)], false));
    let mut machine = synced();
    assert_eq!(told(&mut machine), Some((vec![("a".into(), Some(1))], true)), "the first list is all there is");
    assert_eq!(told(&mut machine), None);
    watching(&mut machine);
    machine.line(&event("ADDED", &object("b", "u2", "11", 2)), NOW, 0);
    assert_eq!(told(&mut machine), one("b", Some(2)));
    machine.line(&event("MODIFIED", &object("b", "u2", "12", 2)), NOW, 0);
    assert_eq!(told(&mut machine), None, "nothing that counts has changed");
    machine.line(&event("MODIFIED", &object("b", "u2", "13", 3)), NOW, 0);
    assert_eq!(told(&mut machine), one("b", Some(3)));
    machine.line(&event("MODIFIED", r#"{"metadata":{"name":"b","uid":"u2"},"spec":{}}"#), NOW, 0);
    assert_eq!(told(&mut machine), one("b", None), "what cannot be used is absent");
    machine.line(&event("DELETED", &object("b", "u2", "14", 3)), NOW, 0);
    assert_eq!(told(&mut machine), None, "and is not gone twice");
    machine.line(&event("DELETED", &object("a", "u1", "15", 1)), NOW, 0);
    assert_eq!(told(&mut machine), one("a", None));

    let mut empty = Machine::new(Things);
    empty.next(NOW, 0);
    answered(&mut empty, &list("1", &[]), NOW, 0);
    assert_eq!(told(&mut empty), Some((Vec::new(), true)), "that there are none is news, too");
}

#[test]
fn a_later_list_tells_what_is_another_than_before_and_nothing_else() {
    let mut machine = Machine::new(Things);
    machine.next(NOW, 0);
    let stays = object("stays", "u1", "1", 1);
    let before =
        [stays.clone(), object("edited", "u2", "2", 2), object("gone", "u3", "3", 3), object("anew", "u4", "4", 4)];
    answered(&mut machine, &list("10", &before), NOW, 0);
    machine.changes();
    let after = [stays, object("edited", "u2", "12", 7), object("new", "u5", "13", 5), object("anew", "u9", "14", 4)];
    for expected in
        [Some((vec![("gone".into(), None), ("edited".into(), Some(7)), ("new".into(), Some(5))], false)), None]
    {
        machine.elsewhere();
        assert!(matches!(machine.next(NOW, 0), Order::List(_)));
        answered(&mut machine, &list("20", &after), NOW, 0);
        assert_eq!(told(&mut machine), expected);
    }
    // A server that is away changes nothing.
    machine.elsewhere();
    machine.next(NOW, 0);
    machine.listed(Err(Reply::Broken("away".into())), NOW, 0);
    assert_eq!(told(&mut machine), None);
}

#[test]
fn an_object_that_does_not_count_is_absent_and_nobody_hears_why() {
    let absent = |name: &str, version: &str| object(name, "u1", version, 0).replace(":0}", r#":"absent"}"#);
    let mut machine = Machine::new(Things);
    machine.next(NOW, 0);
    answered(&mut machine, &list("10", &[absent("a", "1"), object("b", "u2", "2", 2)]), NOW, 0);
    assert_eq!(told(&mut machine), Some((vec![("b".into(), Some(2))], true)));
    machine.notices();
    watching(&mut machine);
    machine.line(&event("MODIFIED", &absent("a", "11")), NOW, 0);
    machine.line(&event("DELETED", &absent("a", "12")), NOW, 0);
    assert_eq!(told(&mut machine), None);
    machine.line(&event("MODIFIED", &absent("b", "13")), NOW, 0);
    assert_eq!(told(&mut machine), Some((vec![("b".into(), None)], false)));
    assert_eq!(machine.notices(), []);
}

#[test]
fn a_change_copies_no_set_that_nobody_keeps() {
    let mut machine = synced();
    watching(&mut machine);
    let place = Arc::as_ptr(machine.objects());
    machine.line(&event("ADDED", &object("b", "u2", "11", 2)), NOW, 0);
    machine.line(&event("DELETED", &object("a", "u1", "12", 1)), NOW, 0);
    assert_eq!((Arc::as_ptr(machine.objects()), values(&machine)), (place, one("b", 2)));
}

#[test]
fn a_watch_that_goes_on_after_a_failure_says_that_the_server_is_heard_again() {
    let mut machine = synced();
    watching(&mut machine);
    machine.not_watching(&status(429, "slow down"), NOW, 0);
    assert!(matches!(machine.notices()[..], [WatchNotice::Failed { code: Some(429), .. }]));
    assert!(asks(&mut machine).starts_with("WATCH"), "no list tells it");
    for _ in 0..2 {
        machine.line(&event("BOOKMARK", &object("a", "u1", "11", 1)), NOW, 0);
    }
    assert_eq!(machine.notices(), [WatchNotice::Synced { objects: 1 }], "once");
}

#[test]
fn an_unchanged_object_makes_no_new_set() {
    let mut machine = synced();
    watching(&mut machine);
    let before = machine.objects().clone();
    machine.line(&event("MODIFIED", &object("a", "u1", "12", 1)), NOW, 0);
    assert!(Arc::ptr_eq(&before, machine.objects()), "a status write of our own must not look like an edit");
}

// Bug 6: a quiet resource without bookmarks gets 410 at each reconnect.
#[test]
fn a_bookmark_moves_the_version_of_a_quiet_resource() {
    let mut machine = synced();
    watching(&mut machine);
    machine.line(&event("BOOKMARK", r#"{"kind":"Thing","metadata":{"resourceVersion":"900"}}"#), NOW, 0);
    assert_eq!(values(&machine), one("a", 1));
    machine.ended(&End::Closed, NOW + 300_000, 0);
    assert!(asks(&mut machine).ends_with("resourceVersion=900"));
}

// Bugs 1 and 2: a half-open connection. The idle limit of the stream ends it; what follows is an ordinary watch.
#[test]
fn a_silent_stream_is_watched_again_from_where_it_was() {
    let mut machine = synced();
    watching(&mut machine);
    machine.ended(&End::Silent, NOW + 150_000, 0);
    assert!(asks(&mut machine).starts_with("WATCH"));
    assert_eq!(values(&machine), one("a", 1));
    assert!(matches!(machine.notices().as_slice(), [WatchNotice::Failed { verb: "watch", .. }]));
}

// Bug 5 again: the server takes a watch from a version that it has not reached, and does not say a word in it, not even a bookmark.
// covers: FM-D03
#[test]
fn a_server_that_is_silent_from_the_beginning_of_two_watches_is_asked_for_a_list() {
    let mut machine = synced();
    for watch in 1..=2 {
        assert!(asks(&mut machine).starts_with("WATCH"), "{watch}");
        machine.ended(&End::Silent, NOW + 150_000, 0);
    }
    assert!(asks(&mut machine).starts_with("LIST"));
    answered(&mut machine, &status(504, r#"{"message":"Too large resource version: 10, current: 3"}"#), NOW, 0);
    assert!(asks(&mut machine).starts_with("LIST"));
    answered(&mut machine, &list("3", &[object("a", "u9", "2", 8)]), NOW, 0);
    assert_eq!(values(&machine), one("a", 8));
    // From then on two are needed again, and one word in between is enough to trust the version.
    let bookmark = event("BOOKMARK", r#"{"kind":"Thing","metadata":{"resourceVersion":"4"}}"#);
    for watch in 3..=6 {
        assert!(asks(&mut machine).starts_with("WATCH"), "{watch}");
        if watch % 2 == 0 {
            machine.line(&bookmark, NOW, 0);
        }
        machine.ended(&End::Silent, NOW + 150_000, 0);
    }
    assert!(asks(&mut machine).starts_with("WATCH"));
}

// Bug 3: the stream lives, updates are lost, nobody errs.
#[test]
fn a_list_now_and_then_heals_what_the_stream_lost() {
    let mut machine = synced();
    let mut now = NOW;
    let mut lists = 0;
    for _ in 0..12 {
        match machine.next(now, 7) {
            Order::Watch(_) => {
                now += 300_000;
                machine.ended(&End::Closed, now, 7);
            }
            Order::List(_) => {
                lists += 1;
                answered(&mut machine, &list("20", &[object("a", "u1", "19", 3)]), now, 7);
            }
            Order::Pause(until) => now = until,
        }
    }
    assert!((1..=4).contains(&lists), "{lists}");
    assert_eq!(values(&machine), one("a", 3));
}

// Bug 4: LIST with our version, "Too large resource version", for ever.
#[test]
fn a_server_that_lags_is_asked_for_whatever_it_has() {
    for (code, body) in [
        (
            504,
            r#"{"code":504,"reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]}}"#,
        ),
        (504, r#"{"code":504,"message":"Timeout: Too large resource version: 10, current: 5"}"#),
        (410, r#"{"code":410,"reason":"Expired","message":"too old"}"#),
        (410, "<html>gone</html>"),
    ] {
        let mut machine = synced();
        watching(&mut machine);
        machine.line(
            &event("ERROR", r#"{"code":410,"reason":"Expired","message":"too old resource version"}"#),
            NOW,
            0,
        );
        assert!(asks(&mut machine).ends_with("resourceVersion=10"), "not older than what was seen");
        answered(&mut machine, &status(code, body), NOW, 0);
        let Order::List(path) = machine.next(NOW + PAUSE_MIN, 0) else { panic!("not at once: {body}") };
        assert!(!path.contains("resourceVersion"), "{path}");
        answered(&mut machine, &status(code, body), NOW, 0);
        assert!(matches!(machine.next(NOW, 0), Order::Pause(_)), "the second refusal pauses");
        assert_eq!(values(&machine), one("a", 1), "and nothing is lost");
    }
}

// Bug 5: etcd was restored, versions go backwards, a watch from the future is silent.
// covers: FM-D03
#[test]
fn versions_may_go_backwards() {
    let mut machine = synced();
    watching(&mut machine);
    machine.ended(&End::Closed, NOW + 2 * RELIST, 0);
    assert!(asks(&mut machine).starts_with("LIST"));
    answered(&mut machine, &status(504, r#"{"message":"Too large resource version: 10, current: 3"}"#), NOW, 0);
    assert!(asks(&mut machine).starts_with("LIST"));
    answered(&mut machine, &list("3", &[object("a", "u9", "2", 8)]), NOW, 0);
    assert_eq!(values(&machine), one("a", 8));
    assert!(asks(&mut machine).ends_with("resourceVersion=3"));
}

// Bug 7: 410 as a status and as an event; errors with no code, an unknown one, no object at all.
// covers: FM-D02
#[test]
fn every_error_event_leads_to_a_list_and_only_429_to_the_same_watch() {
    for (object, expected) in [
        (r#"{"kind":"Status","code":410,"reason":"Expired"}"#, "LIST"),
        (r#"{"kind":"Status","code":500}"#, "LIST"),
        (r#"{"kind":"Status","code":799}"#, "LIST"),
        (r#"{"kind":"Status"}"#, "LIST"),
        ("{}", "LIST"),
        ("null", "LIST"),
        ("[1]", "LIST"),
        (r#"{"kind":"Status","code":429,"message":"slow down"}"#, "WATCH"),
    ] {
        let mut machine = synced();
        watching(&mut machine);
        assert_eq!(machine.line(&event("ERROR", object), NOW, 0), Flow::Stop, "{object}");
        assert!(matches!(machine.next(NOW, 0), Order::Pause(_)), "{object}: no hot loop");
        assert!(asks(&mut machine).starts_with(expected), "{object}");
        assert_eq!(values(&machine), one("a", 1));
    }
    let mut machine = synced();
    watching(&mut machine);
    machine.not_watching(&status(410, "{}"), NOW, 0);
    assert!(asks(&mut machine).starts_with("LIST"), "410 as a status: the same version would loop for ever");
}

// Bug 8: 429 and 503 with JSON, text and HTML; Retry-After of every size.
// covers: FM-D07
#[test]
fn a_busy_server_is_left_alone_as_long_as_it_asks_but_not_for_ever() {
    for (retry_after, at_least, at_most) in [
        (None, PAUSE_MIN, 2 * PAUSE_MIN),
        (Some(0), PAUSE_MIN, 2 * PAUSE_MIN),
        (Some(5000), 5000, 5000),
        (Some(u64::MAX), 60_000, 60_000),
    ] {
        for body in
            [r#"{"kind":"Status","message":"too many"}"#, "Too many requests, please try again later.", "<html>"]
        {
            let mut machine = synced();
            watching(&mut machine);
            machine.not_watching(&Reply::Status { code: 429, retry_after, body: body.into() }, NOW, 0);
            let Order::Pause(until) = machine.next(NOW, 0) else { panic!("no pause") };
            assert!((at_least..=at_most).contains(&(until - NOW)), "{}", until - NOW);
            assert!(asks(&mut machine).starts_with("WATCH"));
        }
    }
    let mut machine = synced();
    watching(&mut machine);
    machine.not_watching(&Reply::Refused("connection refused".into()), NOW, 0);
    assert!(asks(&mut machine).starts_with("WATCH"), "a restarting server keeps its versions");
    let mut machine = synced();
    watching(&mut machine);
    machine.not_watching(&status(503, "unavailable"), NOW, 0);
    assert!(asks(&mut machine).starts_with("LIST"));
}

// Bug 9: a watch that ends at once, a hundred times.
// covers: FM-D02
#[test]
fn a_watch_that_ends_at_once_makes_no_hot_loop() {
    for with_event in [false, true] {
        let mut machine = synced();
        let mut now = NOW;
        let mut requests = 0;
        while now < NOW + 60_000 {
            match machine.next(now, 0) {
                Order::Pause(until) => now = until,
                Order::List(_) => {
                    requests += 1;
                    answered(&mut machine, &list("10", &[object("a", "u1", "5", 1)]), now, 0);
                }
                Order::Watch(_) => {
                    requests += 1;
                    if with_event {
                        machine.line(&event("MODIFIED", &object("a", "u1", "11", 1)), now, 0);
                    }
                    machine.ended(&End::Closed, now, 0);
                }
            }
        }
        assert!(requests < 40, "{requests} requests in a minute");
    }
}

// Bug 10: what is not a whole event. (Cut lines never get here; the stream counts them as an unexpected end.)
#[test]
fn a_line_that_is_no_event_leads_to_a_list() {
    for line in
        [&b"{"[..], b"null", b"hello", b"{\"type\":\"ADDED\"}", b"{\"type\":\"ADDED\",\"object\":7}", b"\xff\xfe"]
    {
        let mut machine = synced();
        watching(&mut machine);
        assert_eq!(machine.line(line, NOW, 0), Flow::Stop, "{line:?}");
        assert!(asks(&mut machine).starts_with("LIST"));
        assert_eq!(values(&machine), one("a", 1));
    }
}

// Bug 11: deleted while disconnected.
#[test]
fn what_the_next_list_lacks_is_gone() {
    let mut machine = synced();
    watching(&mut machine);
    machine.line(&event("ERROR", r#"{"code":410}"#), NOW, 0);
    asks(&mut machine);
    answered(&mut machine, &list("30", &[]), NOW, 0);
    assert_eq!(values(&machine), []);
}

// Bug 12: deleted and made again while disconnected, or so fast that the delete comes late.
// covers: FM-D04
#[test]
fn a_late_delete_does_not_take_the_new_object_of_that_name() {
    let mut machine = synced();
    watching(&mut machine);
    machine.line(&event("ADDED", &object("a", "u2", "20", 2)), NOW, 0);
    machine.line(&event("DELETED", &object("a", "u1", "19", 1)), NOW, 0);
    assert_eq!(values(&machine), one("a", 2));
}

// Bug 13: DELETED carries the previous object, or one with an old version; leaving a selector looks like it.
#[test]
fn deleted_is_about_the_name_whatever_the_object_says() {
    let mut machine = synced();
    watching(&mut machine);
    let broken = r#"{"metadata":{"name":"a","uid":"u1","resourceVersion":"12"},"spec":{"v":"not a number"}}"#;
    machine.line(&event("DELETED", broken), NOW, 0);
    assert_eq!(values(&machine), []);
}

// Bug 14: duplicates and replays after a reconnect.
#[test]
fn replayed_events_end_in_the_same_objects() {
    let mut machine = synced();
    watching(&mut machine);
    for _ in 0..2 {
        machine.line(&event("ADDED", &object("a", "u1", "11", 4)), NOW, 0);
        machine.line(&event("ADDED", &object("b", "u2", "12", 5)), NOW, 0);
        machine.line(&event("DELETED", &object("b", "u2", "13", 5)), NOW, 0);
    }
    assert_eq!(values(&machine), one("a", 4));
}

// Bug 15: 401 until the token is read anew, 403 until RBAC arrives, 404 before the CRD exists.
#[test]
fn refusals_pause_and_keep_what_is_known() {
    for code in [401, 403, 404, 500] {
        let mut machine = synced();
        watching(&mut machine);
        let body = format!(r#"{{"kind":"Status","code":{code},"message":"things is forbidden: cannot watch"}}"#);
        machine.not_watching(&status(code, &body), NOW, 0);
        let notices = machine.notices();
        assert_eq!(
            notices,
            [WatchNotice::Failed {
                verb: "watch",
                code: Some(code),
                message: "things is forbidden: cannot watch".into()
            }]
        );
        assert!(asks(&mut machine).starts_with("LIST"));
        answered(&mut machine, &status(code, &body), NOW, 0);
        assert_eq!(values(&machine), one("a", 1));
        asks(&mut machine);
        answered(&mut machine, &list("40", &[object("a", "u1", "39", 6)]), NOW, 0);
        assert!(matches!(
            machine.notices().as_slice(),
            [WatchNotice::Failed { .. }, WatchNotice::Synced { objects: 1 }]
        ));
    }
}

// Bug 16: unknown fields, and one object that cannot be read.
#[test]
fn one_bad_object_does_not_block_the_others() {
    let bad = r#"{"metadata":{"name":"bad","uid":"u3","resourceVersion":"8"},"spec":{"v":"x"},"later":{"a":[1]}}"#;
    let mut machine = Machine::new(Things);
    machine.next(NOW, 0);
    answered(&mut machine, &list("10", &[bad.to_owned(), object("a", "u1", "5", 1), "17".to_owned()]), NOW, 0);
    assert_eq!(values(&machine), one("a", 1));
    assert!(matches!(machine.notices().as_slice(), [WatchNotice::Unusable { name, .. }, _] if name.name == "bad"));
    watching(&mut machine);
    assert_eq!(machine.line(&event("MODIFIED", bad), NOW, 0), Flow::Continue);
    machine.line(&event("ADDED", &object("b", "u2", "11", 2)), NOW, 0);
    assert_eq!(machine.objects().len(), 2);
    let once_good = object("bad", "u3", "12", 9);
    machine.line(&event("MODIFIED", &once_good), NOW, 0);
    machine.line(&event("MODIFIED", bad), NOW, 0);
    assert_eq!(machine.objects().len(), 2, "an object that became unreadable is not served in its old form");
}

// Bug 17: all nodes reconnect together.
// covers: FM-D07
#[test]
fn pauses_grow_have_jitter_and_shrink_again() {
    let pauses = |chance: u64| {
        let mut machine = Machine::new(Things);
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            machine.next(now, chance);
            answered(&mut machine, &status(500, ""), now, chance);
            let Order::Pause(until) = machine.next(now, chance) else { panic!("no pause") };
            pauses.push(until - now);
            now = until;
        }
        pauses
    };
    assert_eq!(pauses(0), [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    assert!(pauses(u64::MAX).iter().zip(pauses(0)).all(|(with, without)| (without..2 * without).contains(with)));
    assert_ne!(pauses(12_345), pauses(54_321));
    let mut machine = Machine::new(Things);
    for _ in 0..8 {
        answered(&mut machine, &status(500, ""), NOW, 0);
    }
    answered(&mut machine, &status(500, ""), NOW + CALM + 1, 0);
    assert_eq!(machine.next(NOW + CALM + 1, 0), Order::Pause(NOW + CALM + 1 + PAUSE_MIN));
}

// Bug 18: a list that is cut in the middle.
#[test]
fn half_a_list_changes_nothing() {
    let mut machine = synced();
    watching(&mut machine);
    machine.line(&event("ERROR", r#"{"code":410}"#), NOW, 0);
    asks(&mut machine);
    let Reply::Status { body, .. } = list("30", &[object("z", "u8", "29", 1)]) else { panic!("a status") };
    answered(
        &mut machine,
        &Reply::Status { code: 200, retry_after: None, body: body[..body.len() - 3].to_vec() },
        NOW,
        0,
    );
    assert_eq!(values(&machine), one("a", 1));
    assert!(asks(&mut machine).starts_with("LIST"));
}

/// Gives one byte at a time.
struct Drops<'a>(&'a [u8]);

impl io::Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

#[test]
fn a_list_reads_the_same_however_it_is_cut_and_in_whatever_order_it_comes() {
    let items = [object("a", "u1", "5", 1), object("b", "u2", "6", 2)].join(",");
    let (metadata, items) = (r#""metadata":{"resourceVersion":"10"}"#, format!(r#""items":[{items}]"#));
    let kind = r#""kind":"ThingList","more":{"items":[7]}"#;
    for body in [format!("{{{kind},{metadata},{items}}}"), format!("{{{items},{kind},{metadata}}}\n")] {
        let mut machine = Machine::new(Things);
        machine.next(NOW, 0);
        let listing = machine.read(Drops(body.as_bytes())).expect("a list");
        machine.listed(Ok(listing), NOW, 0);
        assert_eq!(values(&machine), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert!(asks(&mut machine).ends_with("resourceVersion=10"));
        for cut in 0..body.trim_end().len() {
            assert!(machine.read(&body.as_bytes()[..cut]).is_err(), "{cut} bytes");
        }
        assert!(machine.read(format!("{body}{{}}").as_bytes()).is_err(), "something behind it");
    }
    assert!(synced().read(&br#"{"items":[]}"#[..]).is_err(), "nobody could watch from there");
}

#[test]
fn a_list_without_items_is_empty() {
    for body in [r#"{"metadata":{"resourceVersion":"1"},"items":null}"#, r#"{"metadata":{"resourceVersion":"1"}}"#] {
        let mut machine = Machine::new(Things);
        machine.next(NOW, 0);
        answered(&mut machine, &status(200, body), NOW, 0);
        assert!(machine.is_synced());
        assert_eq!(values(&machine), []);
    }
}

/// Random histories with random disconnections end in the objects of the server.
// covers: FM-D04
#[test]
fn any_history_ends_in_what_the_server_has() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..300 {
        let mut server: BTreeMap<String, (String, i64)> = BTreeMap::new();
        let mut log: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut version = 1;
        let mut machine = Machine::new(Things);
        let (mut now, mut sent) = (NOW, 0);
        for _ in 0..80 {
            version += 1;
            let name = format!("o{}", random() % 4);
            let line = match (server.contains_key(&name), random() % 3) {
                (true, 0) => {
                    let (uid, v) = server.remove(&name).expect("present");
                    event("DELETED", &object(&name, &uid, &version.to_string(), v))
                }
                (known, _) => {
                    let uid = if known { server[&name].0.clone() } else { format!("u{version}") };
                    server.insert(name.clone(), (uid.clone(), version));
                    event(if known { "MODIFIED" } else { "ADDED" }, &object(&name, &uid, &version.to_string(), version))
                }
            };
            log.push((version as u64, line));
            now += random() % 2000;
            match machine.next(now, random()) {
                Order::Pause(_) => {}
                Order::List(_) => {
                    let items: Vec<String> =
                        server.iter().map(|(name, (uid, v))| object(name, uid, &v.to_string(), *v)).collect();
                    answered(&mut machine, &list(&version.to_string(), &items), now, random());
                    sent = version as u64;
                }
                Order::Watch(_) => {
                    let seen = sent;
                    for (v, line) in log.iter().filter(|(v, _)| *v > seen) {
                        if random() % 20 == 0 {
                            break;
                        }
                        machine.line(line, now, random());
                        sent = *v;
                    }
                    match random() % 4 {
                        0 => drop(machine.line(&event("ERROR", r#"{"code":410}"#), now, random())),
                        _ => machine.ended(&End::Closed, now + random() % 3000, random()),
                    }
                }
            }
        }
        // The network heals.
        loop {
            match machine.next(now, 0) {
                Order::Pause(until) => now = until,
                Order::List(_) => {
                    let items: Vec<String> =
                        server.iter().map(|(name, (uid, v))| object(name, uid, &v.to_string(), *v)).collect();
                    answered(&mut machine, &list(&version.to_string(), &items), now, 0);
                    break;
                }
                Order::Watch(_) => {
                    for (_, line) in log.iter().filter(|(v, _)| *v > sent) {
                        machine.line(line, now, 0);
                    }
                    break;
                }
            }
        }
        let expected: Vec<(String, i64)> = server.iter().map(|(name, (_, v))| (name.clone(), *v)).collect();
        assert_eq!(values(&machine), expected);
    }
}

#[test]
fn an_object_that_stays_unusable_makes_no_new_set() {
    let mut machine = synced();
    watching(&mut machine);
    let before = machine.objects().clone();
    for version in ["11", "12"] {
        let unusable = format!(r#"{{"metadata":{{"name":"b","uid":"u2","resourceVersion":"{version}"}},"spec":{{}}}}"#);
        machine.line(&event("MODIFIED", &unusable), NOW, 0);
    }
    assert!(Arc::ptr_eq(&before, machine.objects()), "nothing changed, so nobody has to look");
    assert_eq!(machine.notices().len(), 2);
}

#[test]
fn a_resource_version_is_opaque_and_may_hold_anything() {
    let mut machine = Machine::new(Things);
    machine.next(NOW, 0);
    answered(&mut machine, &list("a b&watch=0#é/", &[]), NOW, 0);
    let asked = asks(&mut machine);
    assert!(asked.ends_with("&resourceVersion=a%20b%26watch%3D0%23%C3%A9%2F"), "{asked}");
    machine.not_watching(&Reply::Broken("cut".into()), NOW, 0);
    assert!(asks(&mut machine).ends_with("&resourceVersion=a%20b%26watch%3D0%23%C3%A9%2F"));
}

#[test]
fn what_a_server_says_at_length_is_not_repeated_at_length() {
    let long = "m".repeat(1 << 20);
    let mut machine = synced();
    watching(&mut machine);
    machine.line(&event("ADDED", &format!(r#"{{"metadata":{{"name":"b"}},"spec":"{long}"}}"#)), NOW, 0);
    machine.line(&event("ERROR", &format!(r#"{{"code":500,"message":"{long}"}}"#)), NOW, 0);
    asks(&mut machine);
    answered(&mut machine, &status(200, &format!(r#"{{"metadata":"{long}"}}"#)), NOW, 0);
    asks(&mut machine);
    answered(&mut machine, &status(403, &format!(r#"{{"message":"{long}"}}"#)), NOW, 0);
    let notices = machine.notices();
    assert_eq!(notices.len(), 4);
    for notice in notices {
        assert!(format!("{notice:?}").len() < 1000, "{notice:?}");
    }
}

#[test]
fn an_event_of_an_unknown_kind_is_not_taken_for_read() {
    let mut machine = synced();
    watching(&mut machine);
    assert_eq!(machine.line(&event("RENAMED", &object("a", "u1", "12", 7)), NOW, 0), Flow::Continue);
    assert_eq!(values(&machine), one("a", 1));
    machine.ended(&End::Closed, NOW + 300_000, 0);
    assert!(asks(&mut machine).ends_with("resourceVersion=10"), "a flock that knows the kind must see it again");
}

#[test]
fn another_server_is_asked_for_what_it_has_whatever_the_last_one_had() {
    let mut machine = synced();
    machine.elsewhere();
    assert_eq!(asks(&mut machine), "LIST /apis/x/v1/things?fieldSelector=metadata.name%3Dn");
    assert_eq!(values(&machine), one("a", 1), "until then what is known stays");
}

#[test]
fn a_watch_that_ends_at_once_without_an_event_is_followed_by_a_list() {
    let mut machine = synced();
    watching(&mut machine);
    machine.ended(&End::Closed, NOW + 1, 0);
    assert!(matches!(machine.next(NOW + 1, 0), Order::Pause(_)));
    assert!(asks(&mut machine).starts_with("LIST"), "the server may not like the version");
}
