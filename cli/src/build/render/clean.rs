//! A command's output made safe to print: what a RUN writes must not move the cursor or retitle the terminal.

/// The text without escape sequences and control characters. Of a line that was overwritten with carriage returns
/// (a progress bar), the last state is left.
pub(crate) fn clean(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => skip_sequence(&mut rest),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips what follows an escape character (ECMA-48): a control sequence up to its final byte, a string up to its
/// terminator, or one character.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.find(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let mut escaped = false;
            for c in rest.by_ref() {
                if c == '\x07' || (escaped && c == '\\') {
                    return;
                }
                escaped = c == '\x1b';
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_left() {
        for (raw, cleaned) in [
            ("plain – ü", "plain – ü"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;http://x\x1b\\link", "link"),
            ("10%\r50%\r100%", "100%"),
            ("done\r", "done"),
            ("a\tb\x08\x00", "a    b"),
            ("cut \x1b[", "cut "),
        ] {
            assert_eq!(clean(raw), cleaned, "{raw:?}");
        }
    }
}
