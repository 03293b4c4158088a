//! Blocks of code in a document, for tests that do what the document says. Must not know what any document is about.

/// The first block of this language under the heading of this text, up to the next heading that is not below it.
pub fn block(page: &str, heading: &str, language: &str) -> String {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = page.lines().skip_while(|line| level(line) == 0 || line.trim_start_matches('#').trim() != heading);
    let depth = lines.next().map(level).unwrap_or_else(|| panic!("the page has no heading {heading:?}"));
    let begin = format!("```{language}");
    let mut inside = false;
    let found = lines
        .by_ref()
        .take_while(|line| {
            let goes_on = inside || level(line) == 0 || level(line) > depth;
            inside ^= line.starts_with("```") && **line != begin;
            goes_on
        })
        .any(|line| line == begin);
    assert!(found, "the page has no {language} under {heading:?}");
    lines.take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect()
}
