//! Which of some names was probably meant by one that is none of them.
//!
//! Must not know what the names are for.

use alloc::string::String;
use alloc::vec::Vec;

/// Which of `known` was probably meant by `name`, whatever its case and its hyphens.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).collect::<String>().to_lowercase();
    let written = plain(name);
    let far = |known: &&'a str| (distance(&written, &plain(known)), *known);
    let (distance, found) = known.iter().map(far).min()?;
    // Of a short name, two wrong letters are another word.
    (distance * 3 <= found.len().min(6)).then_some(found)
}

/// How many letters are to be put in, left out, changed or exchanged with the next, to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let [one, other] = [one, other].map(|text| text.chars().collect::<Vec<char>>());
    let mut rows: [Vec<usize>; 2] = [Vec::new(), (0..=other.len()).collect()];
    for (i, c) in one.iter().enumerate() {
        let [older, last] = &rows;
        let mut row = vec![i + 1];
        for (j, d) in other.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let swapped = i > 0 && j > 0 && one.get(i - 1) == Some(d) && other.get(j - 1) == Some(c);
            let by_swap = if swapped { cell(older, j - 1) + 1 } else { usize::MAX };
            let by_change = cell(last, j) + usize::from(c != d);
            row.push(by_swap.min(by_change).min(cell(last, j + 1) + 1).min(cell(&row, j) + 1));
        }
        let [_, last] = rows;
        rows = [last, row];
    }
    let [_, last] = rows;
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_known_again() {
        let known = ["cidr6", "cidr4", "defaults", "mtu", "gateway4", "proxyNeighbours", "extraPrefixes", "bgp"];
        for (written, meant) in [
            ("cidr4", Some("cidr4")),
            ("CIDR4", Some("cidr4")),
            ("cird4", Some("cidr4")),
            ("cidr_4", Some("cidr4")),
            ("MTU", Some("mtu")),
            ("mtuu", Some("mtu")),
            ("default", Some("defaults")),
            ("gateway", Some("gateway4")),
            ("proxyNeighbors", Some("proxyNeighbours")),
            ("proxy-neighbours", Some("proxyNeighbours")),
            ("extraPrefix", Some("extraPrefixes")),
            ("nodeSelector", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn the_distance_is_that_of_single_slips() {
        for (one, other, far) in [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("abc", "acb", 1), ("abc", "xyz", 3)] {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
    }
}
