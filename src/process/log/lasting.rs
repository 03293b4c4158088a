//! Trouble that lasts, and is met again and again by whoever tries again.
//!
//! The log tells when it begins, when it becomes another one, and when it is over and how long it has lasted; not each time that it
//! is met. Must not know what the trouble is.

use std::fmt;
use std::time::Instant;

use crate::process::dates::span;
use crate::process::log::line::Line;

/// Trouble of one kind, which there is or is not.
#[derive(Debug, Default)]
pub struct Lasting(Option<Trouble>);

#[derive(Debug)]
struct Trouble {
    began: Instant,
    /// How often it was met.
    tries: u64,
    why: String,
}

impl Lasting {
    /// It is met, for the reason `why`. Writes `line` with the reason as `err` where that is news.
    pub fn met(&mut self, why: impl fmt::Display, line: impl FnOnce() -> Line) {
        if let Some(line) = self.news(why.to_string(), Instant::now(), line) {
            line.write_limited();
        }
    }

    /// There is none, or none any more: then writes `line`, with how long it has lasted.
    pub fn over(&mut self, line: impl FnOnce() -> Line) {
        if let Some(line) = self.end(Instant::now(), line) {
            line.write_limited();
        }
    }

    /// There is none, or none any more: then adds to `line` how long it has lasted.
    pub fn ended(&mut self, line: Line) -> Line {
        match self.0.take() {
            Some(trouble) => trouble.told(line, Instant::now()),
            None => line,
        }
    }

    fn news(&mut self, why: String, now: Instant, line: impl FnOnce() -> Line) -> Option<Line> {
        match &mut self.0 {
            Some(trouble) if trouble.why == why => {
                trouble.tries += 1;
                None
            }
            Some(trouble) => {
                trouble.tries += 1;
                trouble.why = why;
                Some(trouble.told(line().with("err", &trouble.why), now))
            }
            none => {
                let line = line().with("err", &why);
                *none = Some(Trouble { began: now, tries: 1, why });
                Some(line)
            }
        }
    }

    fn end(&mut self, now: Instant, line: impl FnOnce() -> Line) -> Option<Line> {
        self.0.take().map(|trouble| trouble.told(line(), now))
    }
}

impl Trouble {
    fn told(&self, line: Line, now: Instant) -> Line {
        line.with("after", span(now.duration_since(self.began))).number("tries", self.tries)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::process::log::line::tests::line;
    use crate::process::log::line::{Format, Level, Style};

    #[test]
    fn only_the_beginning_the_change_and_the_end_are_told() {
        let style = Style { format: Format::Text, journal: true };
        let text = |line: Option<Line>| line.map(|line| style.show(&line, UNIX_EPOCH)).unwrap_or_default();
        let (mut lasting, began) = (Lasting::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut met = |why: &str, seconds| {
            text(lasting.news(why.into(), after(seconds), || line(Level::Warn, "away").with("resource", "pods")))
        };
        assert_eq!(met("refused", 0), "<4>warn  away resource=pods err=refused\n");
        assert_eq!((met("refused", 5), met("refused", 10)), (String::new(), String::new()));
        assert_eq!(met("silent", 70), "<4>warn  away resource=pods err=silent after=1m10s tries=4\n");
        assert_eq!(met("silent", 80), "");
        let mut over = |seconds| text(lasting.end(after(seconds), || line(Level::Info, "back")));
        assert_eq!(over(192), "<6>info  back after=3m12s tries=5\n");
        assert_eq!(over(193), "", "there was none");
        assert_eq!(
            text(lasting.news("refused".into(), after(200), || line(Level::Warn, "away"))),
            "<4>warn  away err=refused\n"
        );
    }
}
