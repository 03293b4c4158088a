//! The language of manual pages, mdoc: sections, paragraphs, lists, and words that it would take for its own.
//!
//! Must not hold a word about flock.

use std::time::{Duration, SystemTime};

use flock::process::dates::timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A page that is being written.
pub struct Page(String);

impl Page {
    /// A page with its head and the section NAME.
    pub fn new(name: &str, section: u8, date: &str, about: &str) -> Page {
        let os = concat!("flock ", env!("CARGO_PKG_VERSION"));
        let mut page = Page(format!(".Dd {date}\n.Dt {} {section}\n.Os {os}\n", name.to_uppercase()));
        page.section("NAME");
        page.line(&format!(".Nm {name}"));
        page.line(&format!(".Nd {about}"));
        page
    }

    pub fn section(&mut self, title: &str) {
        self.line(&format!(".Sh {title}"));
    }

    pub fn subsection(&mut self, title: &str) {
        self.line(&format!(".Ss {}", argument(title)));
    }

    /// A paragraph behind another one.
    pub fn paragraph(&mut self, text: &str) {
        self.line(".Pp");
        self.prose(text);
    }

    /// Words, in which those between backticks are typed as they stand.
    pub fn prose(&mut self, text: &str) {
        self.0 += &prose(text);
    }

    /// Lines as they stand.
    pub fn lines(&mut self, text: &str) {
        self.line(".Bd -literal -offset indent");
        for text in text.lines() {
            self.line(&protected(&literal(text)));
        }
        self.line(".Ed");
    }

    /// Names, each a line of macros, and what they mean.
    pub fn list(&mut self, items: impl IntoIterator<Item = (String, String)>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        self.line(".Bl -tag -width Ds");
        for (name, what) in items {
            self.line(&format!(".It {name}"));
            self.prose(&what);
        }
        self.line(".El");
    }

    /// Further pages.
    pub fn see_also(&mut self, pages: &[(&str, u8)]) {
        self.section("SEE ALSO");
        let last = pages.len().saturating_sub(1);
        for (at, (name, section)) in pages.iter().enumerate() {
            self.line(&format!(".Xr {name} {section}{}", if at < last { " ," } else { "" }));
        }
    }

    /// A line of macros.
    pub fn line(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// A point of time, in seconds since 1970, as pages bear it.
pub fn date(time: u64) -> String {
    let day = timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(time));
    let number = |range| day.get(range).and_then(|text: &str| text.parse::<usize>().ok()).unwrap_or_default();
    let month = MONTHS.get(number(5..7).saturating_sub(1)).copied().unwrap_or_default();
    format!("{month} {}, {}", number(8..10), number(0..4))
}

/// The path of a file, as the name in a list.
pub fn path(text: &str) -> String {
    format!("Pa {}", argument(text))
}

/// Something that is typed, as the name in a list.
pub fn typed(text: &str) -> String {
    format!("Ic {}", argument(text))
}

/// Something that stands for what is typed, as the name in a list.
pub fn variable(text: &str) -> String {
    format!("Ar {}", argument(text))
}

/// One argument of a macro, in which no word is a macro itself.
pub fn argument(text: &str) -> String {
    format!("\"\\&{}\"", literal(text).replace('"', "\\(dq"))
}

/// A full sentence of it.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with('.') { "" } else { "." };
    first + letters.as_str() + end
}

/// Words that may be copied: each character is what it looks like.
fn literal(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '\'' => out += "\\(aq",
            '`' => out += "\\(ga",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            _ => out.push(letter),
        }
    }
    out
}

/// A line that begins with no macro.
fn protected(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.into() }
}

/// One line for each sentence, as the language wants it.
fn prose(text: &str) -> String {
    let mut lines = vec![String::new()];
    // What stands between backticks is every second part.
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            if let Some(line) = lines.last_mut() {
                *line += &format!("\\fB{}\\fP", literal(part));
            }
            continue;
        }
        let mut rest = part;
        while let Some((sentence, next)) =
            rest.split_once(". ").filter(|(_, next)| !next.starts_with(char::is_lowercase))
        {
            if let Some(line) = lines.last_mut() {
                *line += &format!("{}.", words(sentence));
            }
            lines.push(String::new());
            rest = next;
        }
        if let Some(line) = lines.last_mut() {
            *line += &words(rest);
        }
    }
    lines
        .iter()
        .map(|line| protected(line.trim_start()))
        .filter(|line| !line.is_empty())
        .map(|line| line + "\n")
        .collect()
}

/// Words of prose: flags, paths and the like may be copied, and hyphens between words are hyphens.
fn words(text: &str) -> String {
    let copied = |word: &str| {
        word.contains(['/', '\\', '\'', '^', '~', '`', '_']) || word.trim_start_matches(['(', '"']).starts_with('-')
    };
    text.split(' ').map(|word| if copied(word) { literal(word) } else { word.into() }).collect::<Vec<_>>().join(" ")
}
