//! The three places that settings come from, each as a table that is known to be right by itself.

use std::path::Path;

use anyhow::Context as _;
use toml::{Table, Value};

use super::reference;
use crate::args::ServeArgs;
use crate::failure::Usage;

const PREFIX: &str = "LAYERYARD_";

pub(super) fn file(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))
        .map_err(|error| error.context(Usage("configuration".into())))?;
    let named = |problem: String| Usage(format!("configuration file {}: {problem}", path.display()));
    let table: Table = text.parse().map_err(|error| named(format!("{error}")))?;
    if let Some((key, nearest)) = reference::unknown(&table) {
        return Err(named(format!("there is no key {key:?}; did you mean {nearest:?}?")).into());
    }
    // From the text, because the parser's message then shows the line.
    toml::from_str::<registry::Config>(&text).map_err(|error| named(format!("{error}")))?;
    Ok(table)
}

/// `LAYERYARD_KEY` and `LAYERYARD_SECTION__KEY`.
pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> anyhow::Result<Table> {
    let mut table = Table::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let key = rest.replace("__", ".").to_ascii_lowercase();
        let known = reference::value(&key).filter(|value| !value.is_table());
        if known.is_none() && !rest.contains("__") {
            // Another program's, or made by an orchestrator.
            continue;
        }
        let source = format!("environment variable {name}");
        let meant = |key: &str| format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase());
        set(&mut table, &key, &text, &source, meant)?;
    }
    Ok(table)
}

pub(super) fn flags(args: &ServeArgs) -> anyhow::Result<Table> {
    let mut table = Table::new();
    for pair in &args.set {
        let source = format!("--set {pair}");
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| Usage(format!("{source}: expected KEY=VALUE, such as log.level=debug")))?;
        set(&mut table, key.trim(), text, &source, str::to_owned)?;
    }
    let mut put = |key: &str, text: &str, flag: &str| set(&mut table, key, text, flag, str::to_owned);
    if !args.listen.is_empty() {
        put("listen", &args.listen.join(","), "--listen")?;
    }
    if let Some(format) = args.log_format {
        put("log.format", format.name(), "--log-format")?;
    }
    if let Some(level) = &args.log_level {
        put("log.level", level, "--log-level")?;
    }
    if let Some(data_dir) = &args.data_dir {
        let text = data_dir
            .to_str()
            .ok_or_else(|| Usage(format!("--data-dir {}: not UTF-8", data_dir.display())))?;
        put("data_dir", text, "--data-dir")?;
    }
    Ok(table)
}

/// Puts one value into `table`; `meant` writes a key as this source does.
fn set(
    table: &mut Table,
    key: &str,
    text: &str,
    source: &str,
    meant: impl Fn(&str) -> String,
) -> anyhow::Result<()> {
    let Some(example) = reference::value(key) else {
        let nearest = reference::nearest(key).map(|key| meant(&key)).unwrap_or_default();
        return Err(Usage(format!("{source}: there is no such key; did you mean {nearest}?")).into());
    };
    let value = read(text, example).map_err(|problem| Usage(format!("{source}: {problem}")))?;
    let one = nested(key, value);
    one.clone()
        .try_into::<registry::Config>()
        .map_err(|error| Usage(format!("{source}: {error}")))?;
    super::overlay(table, one);
    Ok(())
}

fn nested(key: &str, value: Value) -> Table {
    match key.split_once('.') {
        Some((section, rest)) => Table::from_iter([(section.to_owned(), Value::Table(nested(rest, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

/// A text as a value of the example's type. Lists of texts are separated by commas; anything else is written as in TOML.
fn read(text: &str, example: &Value) -> Result<Value, String> {
    match example {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Array(items) if items.iter().all(Value::is_str) && literal(text).is_none() => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| Value::String(item.to_owned())).collect(),
            ))
        }
        _ => literal(text).ok_or_else(|| format!("{text:?} is no {}", example.type_str())),
    }
}

fn literal(text: &str) -> Option<Value> {
    let document: Table = format!("value = {text}").parse().ok()?;
    document.get("value").cloned()
}
