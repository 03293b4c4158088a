//! What BIRD says on its control socket, as a state machine over bytes: lines, and the replies that they make up.
//!
//! A line is `NNNN-text` when more follow, `NNNN text` when it is the last one, ` text` when it goes on under the code of the line
//! before it, and `+text` when nobody has asked. However the bytes are split, the replies are the same. Everything has a bound.
//! Must not read from anything, nor know what was asked.

use std::fmt;

use model::excerpt::Excerpt;

/// Longest line, in bytes.
pub const LINE_MAX: usize = 4096;

/// Longest reply, in bytes: far more than sixteen sessions with everything about them.
pub const REPLY_MAX: usize = 1 << 20;

/// Longest part of a line that is repeated in an error, in bytes.
const SHOWN_MAX: usize = 200;

/// One line of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its code, 0 to 9999.
    pub code: u16,
    /// What stands behind the code, as it was written but for bytes that are no UTF-8.
    pub text: String,
}

/// A whole reply. Never without a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its lines but for the last one.
    pub lines: Vec<Line>,
    /// The last line, whose code says how it went.
    pub last: Line,
}

impl Reply {
    /// Every line.
    pub fn all(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().chain([&self.last])
    }

    /// Whether it reports an error: of the daemon (8xxx) or of the command (9xxx).
    pub fn is_error(&self) -> bool {
        self.last.code >= 8000
    }
}

/// What is no reply of BIRD. The connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyError {
    /// A line is longer than [`LINE_MAX`].
    LineTooLong,
    /// A reply is longer than [`REPLY_MAX`].
    ReplyTooLong,
    /// A line begins with neither a code nor a sign.
    NotALine(Excerpt),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::LineTooLong => write!(f, "a line of more than {LINE_MAX} bytes"),
            ReplyError::ReplyTooLong => write!(f, "a reply of more than {REPLY_MAX} bytes"),
            ReplyError::NotALine(text) => write!(f, "a line that is not BIRD's: {text}"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// The machine. Of no use any more after an error.
#[derive(Debug, Default)]
pub struct Replies {
    /// The line that has begun.
    line: Vec<u8>,
    /// The lines of the reply that has begun.
    lines: Vec<Line>,
    /// Their bytes.
    size: usize,
}

impl Replies {
    /// Takes bytes from `input` up to the end of a reply, and returns that reply; none if the input ends before.
    ///
    /// # Errors
    /// Every variant of [`ReplyError`].
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        loop {
            let end = input.iter().position(|byte| *byte == b'\n');
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            if self.line.len() + part.len() > LINE_MAX {
                return Err(ReplyError::LineTooLong);
            }
            self.line.extend_from_slice(part);
            *input = rest.get(1..).unwrap_or_default();
            if end.is_none() {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.line);
            if let Some(last) = self.line_ends(&line)? {
                self.size = 0;
                return Ok(Some(Reply { lines: std::mem::take(&mut self.lines), last }));
            }
        }
    }

    /// The last line of a reply, if this is one.
    fn line_ends(&mut self, line: &[u8]) -> Result<Option<Line>, ReplyError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.size += line.len() + 1;
        if self.size > REPLY_MAX {
            return Err(ReplyError::ReplyTooLong);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let wrong = || ReplyError::NotALine(Excerpt::line(&text(line), SHOWN_MAX));
        match line {
            [b'+', ..] => Ok(None),
            [b' ', rest @ ..] => {
                let code = self.lines.last().ok_or_else(wrong)?.code;
                self.lines.push(Line { code, text: text(rest) });
                Ok(None)
            }
            [a, b, c, d, sign @ (b'-' | b' '), rest @ ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) => {
                let code = [a, b, c, d].iter().fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
                let line = Line { code, text: text(rest) };
                if *sign == b' ' {
                    return Ok(Some(line));
                }
                self.lines.push(line);
                Ok(None)
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAID: &[u8] = b"0001 BIRD 2.0.12 ready.\n\
        2002-Name       Proto\n1002-peer_tor1  BGP\n peer_tor2  BGP\n+unasked\n \n0000 \n\
        0002-Reading configuration from /etc/x\n8002 /etc/x:1:0 syntax error, unexpected END\n0003";

    fn replies(parts: &[&[u8]]) -> (Vec<Reply>, Option<ReplyError>) {
        let (mut machine, mut found) = (Replies::default(), Vec::new());
        for part in parts {
            let mut input = *part;
            loop {
                match machine.take(&mut input) {
                    Ok(Some(reply)) => found.push(reply),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
            assert!(input.is_empty(), "what does not end a reply is taken whole");
        }
        (found, None)
    }

    #[test]
    fn lines_become_replies() {
        let (found, error) = replies(&[SAID]);
        assert_eq!(error, None);
        let [greeting, protocols, refusal] = &found[..] else { panic!("{found:?}") };
        assert_eq!((greeting.last.code, greeting.last.text.as_str()), (1, "BIRD 2.0.12 ready."));
        let codes: Vec<u16> = protocols.all().map(|line| line.code).collect();
        assert_eq!(codes, [2002, 1002, 1002, 1002, 0]);
        assert_eq!(protocols.lines[2].text, "peer_tor2  BGP");
        assert!(refusal.is_error() && !protocols.is_error());
    }

    #[test]
    fn what_is_not_bird_is_an_error_and_has_no_end() {
        for (said, says) in [
            (&b"SSH-2.0-x\n"[..], "not BIRD's: SSH-2.0-x"),
            (b" text before a code\n", "not BIRD's"),
            (b"\n", "not BIRD's"),
            (b"0001\n", "not BIRD's"),
            (b"001 x\n", "not BIRD's"),
            (&[b'x'; LINE_MAX + 1], "more than 4096"),
            (&b"1000-x\n".repeat(REPLY_MAX / 7 + 1), "more than 1048576"),
        ] {
            let (found, error) = replies(&[said]);
            assert!(found.is_empty());
            assert!(error.expect("an error").to_string().contains(says), "{says}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_the_bytes_are_split_the_replies_are_the_same(cuts in prop::collection::vec(0..SAID.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, SAID.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &SAID[cut[0]..cut[1]]).collect();
            prop_assert_eq!(replies(&parts), replies(&[SAID]));
        }
    }
}
