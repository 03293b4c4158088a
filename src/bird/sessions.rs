//! What BIRD's replies say: its own state, and the sessions with the peers.
//!
//! Whatever is not understood is left out, since other versions word things otherwise; texts are bounded and fit to print. Must not
//! ask for anything.

use model::bgp::Bgp;
use model::excerpt::Excerpt;

use crate::bird::conf::{DYNAMIC, PROTOCOL};
use crate::bird::reply::{Line, Reply};

/// Longest text that is kept of a state, an error or a time, in bytes.
const TEXT_MAX: usize = 200;

/// Most protocols that are looked at: a link without a named router can have had many.
const PROTOCOLS_MAX: usize = 1024;

/// BIRD's own state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// How long after its start it last read its configuration, in milliseconds; none if it words times otherwise. It says moments
    /// by the clock, and each one is another one when the clock is set; the time between two stays.
    pub configured_after: Option<i64>,
    /// When it was started, in milliseconds by its clock since some moment; none if it words times otherwise.
    pub started: Option<i64>,
    /// It carries out a configuration that it has taken.
    pub reconfiguring: bool,
    /// It is about to end.
    pub ending: bool,
}

/// The session with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The peer's name in the NodeConfig.
    pub peer: String,
    /// Its state in the words of RFC 4271 (`Established`, `Active`, …); `Unknown` if BIRD does not have it.
    pub state: String,
    /// Since when, in RFC 3339; none if BIRD words times otherwise.
    pub since: Option<String>,
    /// Routes that the peer was told.
    pub sent: u64,
    /// Routes that were taken from the peer.
    pub accepted: u64,
    /// What ended the session or keeps it from beginning.
    pub last_error: Option<String>,
}

impl Session {
    /// Whether routes are exchanged.
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }

    fn unknown(peer: &str) -> Session {
        let state = "Unknown".into();
        Session { peer: peer.into(), state, since: None, sent: 0, accepted: 0, last_error: None }
    }
}

fn shown(text: &str) -> String {
    Excerpt::line(text, TEXT_MAX).into()
}

/// The state in a reply to `show status`.
pub fn status(reply: &Reply) -> Status {
    let mut status = Status::default();
    let mut configured = None;
    for line in reply.all() {
        let text = line.text.trim();
        if let Some(time) = text.strip_prefix("Last reboot on ") {
            status.started = moment(time);
        } else if let Some(time) = text.strip_prefix("Last reconfiguration on ") {
            configured = moment(time);
        } else if line.code == 13 {
            status.reconfiguring = text.starts_with("Reconfiguration in progress");
            status.ending = text.starts_with("Shutdown in progress");
        }
    }
    status.configured_after = configured.zip(status.started).and_then(|(later, earlier)| later.checked_sub(earlier));
    status
}

/// The sessions of the peers of `bgp`, in their order, in a reply to `show protocols all`; no reply is one without protocols.
pub fn sessions(bgp: &Bgp, reply: Option<&Reply>) -> Vec<Session> {
    let protocols = reply.map(protocols).unwrap_or_default();
    let of = |peer: &str| {
        let name = format!("{PROTOCOL}{peer}");
        let dynamic = format!("{name}{DYNAMIC}");
        let own = protocols.iter().filter(|(of, _)| *of == name || of.starts_with(&dynamic));
        // A link's other end is a session of its own; the peer itself only waits for it.
        let best =
            own.map(|(_, session)| session).max_by_key(|session| (session.is_established(), session.since.clone()));
        best.map_or_else(|| Session::unknown(peer), |session| Session { peer: peer.into(), ..session.clone() })
    };
    bgp.peers.iter().map(|peer| of(peer.name.as_str())).collect()
}

/// Each protocol by its name in BIRD.
fn protocols(reply: &Reply) -> Vec<(String, Session)> {
    let mut found: Vec<(String, Session)> = Vec::new();
    for line in reply.all() {
        match begin(line) {
            Some(named) if found.len() < PROTOCOLS_MAX => found.push(named),
            Some(_) => return found,
            None => {
                if let Some((_, session)) = found.last_mut() {
                    detail(session, line.text.trim());
                }
            }
        }
    }
    found
}

/// The line that a protocol begins with: name, kind, table, state, since, and what there is to say.
fn begin(line: &Line) -> Option<(String, Session)> {
    let mut words = line.text.split_whitespace();
    let name = words.next().filter(|name| name.starts_with(PROTOCOL) && !line.text.starts_with(' '))?;
    let (kind, _table, state, since) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let session = Session { state: shown(state), since: rfc3339(since), ..Session::unknown(name) };
    (kind == "BGP").then(|| (name.to_owned(), session))
}

fn detail(session: &mut Session, text: &str) {
    let Some((key, value)) = text.split_once(':') else { return };
    let value = value.trim();
    match key {
        "BGP state" => session.state = shown(value),
        "Last error" if !value.is_empty() => session.last_error = Some(shown(value)),
        // `0 imported, 3 exported, 0 preferred`, for each family.
        "Routes" => {
            for count in value.split(',') {
                let mut words = count.split_whitespace();
                let number = words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
                match words.next() {
                    Some("imported") => session.accepted = session.accepted.saturating_add(number),
                    Some("exported") => session.sent = session.sent.saturating_add(number),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Milliseconds since some moment, of `2026-11-26T13:20:14.515+0000` or `2026-11-26 13:20:14.515`. The offset is left out.
fn moment(text: &str) -> Option<i64> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| part.len() <= 4);
    let mut next = || numbers.next()?.parse::<i64>().ok();
    let (year, month, day, hour, minute, second, milli) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    // Days of the Gregorian calendar, in years that begin with March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + milli)
}

/// The time as the API has it: `2026-11-26T13:20:14.515+0000` gets the colon that RFC 3339 wants in an offset.
fn rfc3339(text: &str) -> Option<String> {
    let (time, offset) = text.split_at_checked(text.len().checked_sub(5)?)?;
    let (hours, minutes) = offset.split_at_checked(3)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_offset = hours.starts_with(['+', '-']) && digits(hours.get(1..)?) && digits(minutes);
    let is_time = (19..=29).contains(&time.len())
        && time.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            19 => byte == b'.',
            _ => byte.is_ascii_digit(),
        })
        && time.len() != 20;
    (is_offset && is_time).then(|| format!("{time}{hours}:{minutes}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bird::reply::Replies;

    fn reply(text: &str) -> Reply {
        Replies::default().take(&mut text.as_bytes()).expect("a reply").expect("whole")
    }

    fn bgp(peers: &str) -> Bgp {
        let head = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\n";
        let text = format!("{head}spec: {{cidr4: 10.0.0.0/24, bgp: {{asn: 1, peers: [{peers}]}}}}\n");
        model::nodeconfig::parse(text).expect("valid").bgp.expect("a block")
    }

    #[test]
    fn the_state_of_the_daemon_is_read() {
        let up = status(&reply(
            "1000-BIRD 2.0.12\n1011-Router ID is 192.0.2.11\n Hostname is vm\n Current server time is x\n \
             Last reboot on 2026-11-26T13:20:14.515+0000\n Last reconfiguration on 2026-11-26T13:20:19.247+0000\n\
             0024-Graceful restart recovery in progress\n   Waiting for 2 channels to recover\n0013 Daemon is up and running\n",
        ));
        assert_eq!(up.configured_after, Some(4732));
        assert!(!up.reconfiguring && !up.ending);
        assert!(status(&reply("0013 Reconfiguration in progress\n")).reconfiguring);
        assert!(status(&reply("0013 Shutdown in progress\n")).ending);
        assert_eq!(status(&reply("0000 \n")), Status::default());
    }

    #[test]
    fn the_sessions_of_the_peers_are_read_in_their_order() {
        let text = [
            "2002-Name       Proto      Table      State  Since         Info",
            "1002-peer_tor1  BGP        ---        up     2026-11-26T13:19:44.001+0000  Established   ",
            "1006-  BGP state:          Established",
            "     Neighbor address: 2001:db8:a25::1",
            "   Channel ipv4",
            "     Routes:         0 imported, 1 exported, 0 preferred",
            "   Channel ipv6",
            "     Routes:         4 imported, 2 exported, 4 preferred",
            " ",
            "1002-peer_tor3  BGP        ---        start  2026-11-26T13:20:14.515+0000  Passive       ",
            "1006-  BGP state:          Passive",
            "     Neighbor range:   fe80::/10",
            " ",
            "1002-peer_far   BGP        ---        start  2026-11-26T13:19:43.000+0100  Active        Socket: No route to host",
            "1006-  BGP state:          Active",
            "     Last error:       Socket: No route to host",
            " ",
            "1002-peer_tor3_U1 BGP        ---        up     2026-11-26T13:20:15.919+0000  Established   ",
            "1006-  BGP state:          Established",
            "     Routes:         0 imported, 7 exported, 0 preferred",
            " ",
            "1002-kernel1    Kernel     master4    up     13:19:43.593  ",
            "0000 ",
        ];
        let text: String = text.iter().map(|line| format!("{line}\n")).collect();
        let peers = "{name: far, address: 192.0.2.9, asn: 1}, {name: tor1, address: 192.0.2.1, asn: 1}, \
            {name: tor3, interface: eth2, asn: 1}, {name: new, address: 192.0.2.8, asn: 1}";
        let found = sessions(&bgp(peers), Some(&reply(&text)));
        let [far, tor1, tor3, new] = &found[..] else { panic!("{found:?}") };
        assert_eq!((far.state.as_str(), far.since.as_deref()), ("Active", Some("2026-11-26T13:19:43.000+01:00")));
        assert_eq!(far.last_error.as_deref(), Some("Socket: No route to host"));
        assert_eq!((tor1.state.as_str(), tor1.sent, tor1.accepted, &tor1.last_error), ("Established", 3, 4, &None));
        assert_eq!((tor3.peer.as_str(), tor3.state.as_str(), tor3.sent), ("tor3", "Established", 7));
        assert_eq!(new, &Session::unknown("new"));
    }

    #[test]
    fn the_time_between_two_moments_does_not_depend_on_how_they_are_worded() {
        let between = |one: &str, other: &str| Some(moment(other)? - moment(one)?);
        assert_eq!(between("2026-02-28T23:59:59.999+0100", "2026-03-01T00:00:00.001+0100"), Some(2));
        assert_eq!(between("2028-02-28 23:59:59.999", "2028-03-01 00:00:00.000"), Some(86_400_001));
        assert_eq!(between("2026-12-31 00:00:00.000", "2027-01-01 00:00:00.000"), Some(86_400_000));
        for other in ["13:19:43.593", "2026-11-26T13:19:43", "", "x", "99999-99-99T99:99:99.999", "-----:::"] {
            assert_eq!(moment(other), None, "{other}");
        }
    }

    #[test]
    fn times_of_other_forms_are_left_out() {
        assert_eq!(rfc3339("2026-11-26T13:19:43+0000").as_deref(), Some("2026-11-26T13:19:43+00:00"));
        for other in
            ["13:19:43.593", "2026-11-26", "", "2026-11-26T13:19:43.593", "2026-11-26T13:19:43.+0000", "éééééé"]
        {
            assert_eq!(rfc3339(other), None, "{other}");
        }
    }
}
