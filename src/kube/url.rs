//! Text as a part of a URL.
//!
//! Must not know which URLs there are.

/// A text as part of a URL's query or path.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_url_is_escaped() {
        assert_eq!(encoded("a&b=c/é"), "a%26b%3Dc%2F%C3%A9");
        assert_eq!(encoded("host-1.example_2~"), "host-1.example_2~");
    }
}
