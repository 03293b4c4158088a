//! Blocks of code in a document, for tests that do what the document says. Must not know what any document is about.

/// The first block of this language under the heading of this text, up to the next heading that is not below it.
pub fn block(page: &str, heading: &str, language: &str) -> String {
    let found = blocks(page, heading, language).into_iter().next();
    found.unwrap_or_else(|| panic!("the page has no {language} under {heading:?}"))
}

/// All of them, in order.
pub fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = page.lines().skip_while(|line| level(line) == 0 || line.trim_start_matches('#').trim() != heading);
    let depth = lines.next().map(level).unwrap_or_else(|| panic!("the page has no heading {heading:?}"));
    let mut found = Vec::new();
    // The language of the block that a line is in.
    let mut inside: Option<&str> = None;
    for line in lines {
        match (line.strip_prefix("```"), inside) {
            (Some(begun), None) => {
                inside = Some(begun);
                found.extend((begun == language).then(String::new));
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(begun)) if begun == language => {
                found.last_mut().expect("a block has begun").extend([line, "\n"]);
            }
            (None, Some(_)) => {}
            (None, None) if level(line) > 0 && level(line) <= depth => break,
            (None, None) => {}
        }
    }
    found
}
