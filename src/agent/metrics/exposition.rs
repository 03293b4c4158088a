//! The text in which Prometheus reads metrics, version 0.0.4: families in order, each with its help, its type and its samples.
//!
//! Holds at most [`SERIES_MAX`] samples, whatever is given to it. Must not know what is measured.

use std::fmt::{self, Display, Write as _};

use crate::process::meter::Shown;

/// Most samples of one page, as the documentation promises: a cluster of a thousand nodes has as many times this.
pub const SERIES_MAX: usize = 400;

/// What kind of number a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It grows, and begins anew with the agent.
    Counter,
    /// It is as it is now.
    Gauge,
    /// Times, in ranges.
    Histogram,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A family of metrics, as it is promised.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What kind it is of.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence without a full stop.
    pub help: &'static str,
}

/// A number as it is shown.
pub trait Number {
    /// With as many digits as it has.
    fn show(&self, text: &mut String);
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Number for $number {
            fn show(&self, text: &mut String) {
                // Writing to a string cannot fail.
                let _ = write!(text, "{self}");
            }
        })*
    };
}

numbers!(u64, usize, i64, f64);

impl Number for bool {
    fn show(&self, text: &mut String) {
        text.push(if *self { '1' } else { '0' });
    }
}

/// The page in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    series: usize,
    /// The family whose head is written.
    open: Option<&'static str>,
}

impl Page {
    /// Adds a sample of `family` with these values of its labels. All samples of a family follow each other.
    pub fn sample(&mut self, family: &'static Family, values: &[&dyn Display], number: impl Number) {
        self.begin(family);
        self.line(family.name, "", &mut family.labels.iter().copied().zip(values.iter().copied()), &number);
    }

    /// Adds a histogram of `family` with these values of its labels.
    pub fn histogram(&mut self, family: &'static Family, values: &[&dyn Display], shown: &Shown) {
        if self.series + shown.ranges.len() + 3 > SERIES_MAX {
            return;
        }
        self.begin(family);
        let labels = || family.labels.iter().copied().zip(values.iter().copied());
        for (end, count) in &shown.ranges {
            self.line(family.name, "_bucket", &mut labels().chain([("le", end as &dyn Display)]), count);
        }
        self.line(family.name, "_bucket", &mut labels().chain([("le", &"+Inf" as &dyn Display)]), &shown.count);
        self.line(family.name, "_sum", &mut labels(), &shown.sum);
        self.line(family.name, "_count", &mut labels(), &shown.count);
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn begin(&mut self, family: &'static Family) {
        if self.open == Some(family.name) || self.series >= SERIES_MAX {
            return;
        }
        self.open = Some(family.name);
        let _ = writeln!(self.text, "# HELP {} {}", family.name, family.help);
        let _ = writeln!(self.text, "# TYPE {} {}", family.name, family.kind.name());
    }

    fn line<'a>(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &mut dyn Iterator<Item = (&'a str, &'a dyn Display)>,
        number: &dyn Number,
    ) {
        if self.series >= SERIES_MAX {
            return;
        }
        self.series += 1;
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (label, value) in labels {
            let _ = write!(self.text, "{before}{label}=\"");
            let _ = write!(Escaped(&mut self.text), "{value}");
            self.text.push('"');
            before = ',';
        }
        self.text.push_str(if before == ',' { "} " } else { " " });
        number.show(&mut self.text);
        self.text.push('\n');
    }
}

/// A label's value in the making.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::meter::Histogram;

    const CALLS: Family = Family { name: "x_calls_total", kind: Kind::Counter, labels: &["op"], help: "Calls" };
    const UP: Family = Family { name: "x_up", kind: Kind::Gauge, labels: &[], help: "Whether it is up" };
    const TIMES: Family =
        Family { name: "x_duration_seconds", kind: Kind::Histogram, labels: &["op"], help: "How long" };

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.sample(&CALLS, &[&"ADD"], 7_u64);
        page.sample(&CALLS, &[&"a\"b\\c\nd"], u64::MAX);
        page.sample(&UP, &[], true);
        let histogram = Histogram::new(&[500, 1_000_000]);
        histogram.took(Duration::from_millis(250));
        page.histogram(&TIMES, &[&"ADD"], &histogram.shown());
        assert_eq!(
            page.into_text(),
            "# HELP x_calls_total Calls\n\
             # TYPE x_calls_total counter\n\
             x_calls_total{op=\"ADD\"} 7\n\
             x_calls_total{op=\"a\\\"b\\\\c\\nd\"} 18446744073709551615\n\
             # HELP x_up Whether it is up\n\
             # TYPE x_up gauge\n\
             x_up 1\n\
             # HELP x_duration_seconds How long\n\
             # TYPE x_duration_seconds histogram\n\
             x_duration_seconds_bucket{op=\"ADD\",le=\"0.0005\"} 0\n\
             x_duration_seconds_bucket{op=\"ADD\",le=\"1\"} 1\n\
             x_duration_seconds_bucket{op=\"ADD\",le=\"+Inf\"} 1\n\
             x_duration_seconds_sum{op=\"ADD\"} 0.25\n\
             x_duration_seconds_count{op=\"ADD\"} 1\n"
        );
    }

    #[test]
    fn a_page_ends_where_it_was_promised_to_and_no_histogram_is_cut() {
        let mut page = Page::default();
        let shown = Histogram::new(&[500, 1_000_000]).shown();
        (0..SERIES_MAX - 4).for_each(|n| page.sample(&CALLS, &[&n], 0_u64));
        page.histogram(&TIMES, &[&"ADD"], &shown);
        (0..9).for_each(|n| page.sample(&CALLS, &[&n], 0_u64));
        page.sample(&UP, &[], true);
        let text = page.into_text();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), SERIES_MAX);
        assert!(!text.contains("x_duration_seconds") && !text.contains("x_up"), "no head without a sample");
    }
}
