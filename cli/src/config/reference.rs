//! Which keys there are: the reference in docs/configuration.md, which is also what users read.
//!
//! Its example values tell of which type a key is, so that the environment's texts can be read.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use toml::{Table, Value};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// The reference as a TOML file.
pub(super) static TEXT: LazyLock<&str> = LazyLock::new(|| {
    let begin = "\n```toml\n";
    DOCUMENT
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .map_or("", |(block, _)| block)
});

static TABLE: LazyLock<Table> = LazyLock::new(|| TEXT.parse().unwrap_or_default());

/// The reference's value under a dotted key.
pub(super) fn value(key: &str) -> Option<&'static Value> {
    let mut parts = key.split('.');
    let mut found = TABLE.get(parts.next()?)?;
    for part in parts {
        found = found.as_table()?.get(part)?;
    }
    Some(found)
}

/// The first key of `table` that is unknown, dotted, with the nearest one that is known.
pub(super) fn unknown(table: &Table) -> Option<(String, String)> {
    unknown_in(table, &[&TABLE], "")
}

fn unknown_in(table: &Table, known: &[&Table], path: &str) -> Option<(String, String)> {
    // An empty table in the reference takes keys of the user's own, as headers.
    if known.iter().all(|known| known.is_empty()) {
        return None;
    }
    for (key, value) in table {
        let full = format!("{path}{key}");
        let examples: Vec<&Value> = known.iter().filter_map(|known| known.get(key)).collect();
        if examples.is_empty() {
            let nearest = nearest(&full).unwrap_or_default();
            return Some((full, nearest));
        }
        let inner: Vec<&Table> = examples.iter().flat_map(|example| tables(example)).collect();
        if inner.is_empty() {
            continue;
        }
        let found = tables(value)
            .into_iter()
            .find_map(|table| unknown_in(table, &inner, &format!("{full}.")));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A table, or those of an array of tables.
fn tables(value: &Value) -> Vec<&Table> {
    match value {
        Value::Table(table) => vec![table],
        Value::Array(items) => items.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    }
}

/// The known key that differs least from `key`.
pub(super) fn nearest(key: &str) -> Option<String> {
    let mut keys = BTreeSet::new();
    collect(&TABLE, "", &mut keys);
    keys.into_iter().min_by_key(|known| distance(key, known))
}

fn collect(table: &Table, path: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let full = format!("{path}{key}");
        for inner in tables(value) {
            collect(inner, &format!("{full}."), keys);
        }
        keys.insert(full);
    }
}

/// How many letters must be inserted, removed or replaced; a missing section weighs little.
fn distance(from: &str, to: &str) -> usize {
    let to_letters: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to_letters.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..row.len() {
            let replaced = diagonal + usize::from(to_letters[column - 1] != letter);
            diagonal = row[column];
            row[column] = replaced.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    let whole = row.last().copied().unwrap_or_default();
    // `upload_idle_max` at the top means `limits.upload_idle_max`.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    if last(from) == last(to) {
        whole.min(1)
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that a table of [`registry::Config`] knows, as serde tells when it meets one that it doesn't.
    /// `policy[]` in the path is an array of tables.
    fn fields(path: &[&str]) -> Vec<String> {
        let unknown = Table::from_iter([("zz".to_owned(), Value::Boolean(true))]);
        let mut value = Value::Table(unknown);
        for part in path.iter().rev() {
            let key = part.trim_end_matches("[]");
            if key.len() < part.len() {
                value = Value::Array(vec![value]);
            }
            value = Value::Table(Table::from_iter([(key.to_owned(), value)]));
        }
        let error = value.try_into::<registry::Config>().unwrap_err().to_string();
        let (_, expected) = error
            .split_once("expected")
            .unwrap_or_else(|| panic!("{path:?}: {error}"));
        let expected = expected.lines().next().unwrap_or_default();
        expected
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    fn check(table: &Table, path: &[&str]) {
        let fields = fields(path);
        for field in &fields {
            assert!(
                table.contains_key(field),
                "docs/configuration.md lacks {path:?} {field}"
            );
        }
        for (key, value) in table {
            assert!(
                fields.contains(key),
                "docs/configuration.md has {path:?} {key}, the server not"
            );
            let array = format!("{key}[]");
            match value {
                Value::Table(table) if !table.is_empty() => check(table, &[path, &[key.as_str()]].concat()),
                Value::Array(items) => {
                    let tables = items.iter().filter_map(Value::as_table);
                    tables.for_each(|table| check(table, &[path, &[array.as_str()]].concat()));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_document_has_every_key_and_no_other() {
        let table: Table = TEXT.parse().unwrap();
        check(&table, &[]);
        let config: registry::Config = table.try_into().unwrap();
        config.validate().unwrap();
    }

    /// Each line of the reference whose comment calls it no example shows the default.
    #[test]
    fn the_document_tells_the_defaults() {
        let shown: registry::Config = TEXT.parse::<Table>().unwrap().try_into().unwrap();
        let shown = Table::try_from(shown).unwrap();
        let defaults = Table::try_from(registry::Config::default()).unwrap();
        let mut section = String::new();
        let mut example = false;
        for line in TEXT.lines() {
            let (line, comment) = line.split_once('#').unwrap_or((line, ""));
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.trim_matches(['[', ']']).to_owned();
                example = name.starts_with('[') || comment.contains("example");
            } else if let Some((key, _)) = line.split_once(" = ")
                && !example
                && !comment.contains("example")
            {
                let of = |table: &Table| {
                    let mut parts = section.split('.').filter(|part| !part.is_empty());
                    let inner = parts.try_fold(Value::Table(table.clone()), |table, part| {
                        table.get(part).cloned()
                    });
                    inner.and_then(|table| table.get(key).cloned())
                };
                assert_eq!(of(&shown), of(&defaults), "[{section}] {key}");
            }
        }
    }

    #[test]
    fn the_nearest_key_is_what_was_meant() {
        for (wrong, right) in [
            ("listne", "listen"),
            ("limits.upload_idle", "limits.upload_idle_max"),
            ("upload_idle_max", "limits.upload_idle_max"),
            ("log.fromat", "log.format"),
        ] {
            assert_eq!(nearest(wrong).as_deref(), Some(right));
        }
    }
}
