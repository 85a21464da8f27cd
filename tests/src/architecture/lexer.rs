//! The words of a Rust source outside comments and literals, each with its line.

pub(super) fn words(source: &str) -> Vec<(usize, &str)> {
    let bytes = source.as_bytes();
    let mut words = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => end_of_line(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at + 1),
            b'\'' => end_of_quote(bytes, at),
            byte if is_word(byte) => {
                let end = at + bytes[at..].iter().take_while(|&&byte| is_word(byte)).count();
                match raw_string(bytes, at, end) {
                    Some(end) => end,
                    None => {
                        words.push((line, &source[at..end]));
                        end
                    }
                }
            }
            _ => at + 1,
        };
        line += bytes[at..end].iter().filter(|&&byte| byte == b'\n').count();
        at = end;
    }
    words
}

/// Bytes above ASCII count as parts of words, so that slices end on character boundaries.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// `at` is behind the opening quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character, or a lifetime, of which only the quote is passed over.
fn end_of_quote(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at + 1..];
    if rest.first() == Some(&b'\\') {
        let close = rest.iter().skip(2).position(|&byte| byte == b'\'');
        return close.map_or(bytes.len(), |length| at + 1 + 2 + length + 1);
    }
    // One character of up to four bytes, then a quote.
    match (1..=4).find(|&length| rest.get(length) == Some(&b'\'')) {
        Some(length) if length == 1 || rest[0] >= 0x80 => at + 1 + length + 1,
        _ => at + 1,
    }
}

/// `r"…"`, `br#"…"#`, `cr##"…"##`: the end, if the word between `at` and `end` begins one.
fn raw_string(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    if !matches!(&bytes[at..end], b"r" | b"br" | b"cr") {
        return None;
    }
    let hashes = bytes[end..].iter().take_while(|&&byte| byte == b'#').count();
    let open = end + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = &bytes[open + 1..];
    let length = body.windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}
