//! What the operators of `${name:-word}` do, once both sides are expanded.

use super::expand::ExpandError;
use super::substitute::Glob;

/// `${name:-word}` and its like.
pub(super) fn apply(
    name: &str,
    value: Option<String>,
    operator: char,
    empty_counts_as_unset: bool,
    word: String,
) -> Result<String, ExpandError> {
    let missing = match &value {
        None => true,
        Some(value) => empty_counts_as_unset && value.is_empty(),
    };
    let unset = value.is_none();
    let value = value.unwrap_or_default();
    match operator {
        '-' => Ok(if missing { word } else { value }),
        '+' => Ok(if missing { String::new() } else { word }),
        '?' if missing => Err(ExpandError::Required {
            name: name.to_owned(),
            message: match word.is_empty() {
                false => word,
                true if unset => "is not allowed to be unset".to_owned(),
                true => "is not allowed to be empty".to_owned(),
            },
        }),
        '?' => Ok(value),
        trim => {
            let longest = word.strip_prefix(trim);
            let pattern = longest.unwrap_or(&word);
            let glob = Glob::parse(pattern).map_err(|source| ExpandError::Pattern {
                pattern: pattern.to_owned(),
                source,
            })?;
            Ok(if trim == '#' {
                glob.trim_start(&value, longest.is_some())
            } else {
                glob.trim_end(&value, longest.is_some())
            })
        }
    }
}
