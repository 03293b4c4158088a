//! The commands that docs/packages.md gives.

/// The commands of the block of this number below a heading.
pub(crate) fn block(heading: &str, number: usize) -> &'static str {
    let page = include_str!("../../docs/packages.md");
    let part = page.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there");
    let part = part.split("\n## ").next().expect("its end");
    let block = part.split("```sh\n").nth(number + 1).unwrap_or_else(|| panic!("{heading} has no block {number}"));
    block.split("```").next().expect("its end")
}
