//! `--chmod`.

use super::Chmod;

/// Reads an octal or a symbolic mode.
pub(super) fn parse(text: &str) -> Result<Chmod, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777 && !text.is_empty())
            .map(Chmod::Octal)
            .ok_or_else(|| format!("--chmod={text}: an octal mode is between 0 and 7777"));
    }
    if text.split(',').all(is_clause) {
        return Ok(Chmod::Symbolic(text.to_owned()));
    }
    Err(format!(
        "--chmod={text}: not a mode; write an octal number such as 755, or clauses such as u+x,go-w"
    ))
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`, as in POSIX.
fn is_clause(text: &str) -> bool {
    let actions = text.trim_start_matches(['u', 'g', 'o', 'a']);
    let Some(actions) = actions.strip_prefix(['+', '-', '=']) else {
        return false;
    };
    actions.split(['+', '-', '=']).all(|permissions| {
        matches!(permissions, "u" | "g" | "o") || permissions.chars().all(|c| "rwxXst".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse("0755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(parse("7777"), Ok(Chmod::Octal(0o7777)));
        for symbolic in [
            "u+x",
            "go-w",
            "a=rX",
            "+x",
            "u=g",
            "u+x,g=u,o=",
            "u+r-w",
            "u+s,+t",
        ] {
            assert_eq!(parse(symbolic), Ok(Chmod::Symbolic(symbolic.to_owned())));
        }
        for bad in ["", "8", "10000", "u", "u+q", "rwx", "u+x,", "u+gx", "-1x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
