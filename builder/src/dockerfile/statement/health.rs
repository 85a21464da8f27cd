//! HEALTHCHECK.

use crate::dockerfile::{Arguments, Diagnostic, Instruction, Source, Word};

use super::flags::{Flags, Shape};

/// A health check; durations in nanoseconds, zero where none was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub test: HealthTest,
    pub interval_ns: i64,
    pub timeout_ns: i64,
    pub start_period_ns: i64,
    pub start_interval_ns: i64,
    pub retries: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HealthTest {
    /// Switches the base's check off.
    #[default]
    None,
    Exec(Vec<String>),
    Shell(String),
}

/// Shorter intervals are refused, as Docker does.
const MIN_DURATION_NS: i64 = 1_000_000;

const FLAGS: [(&str, Shape); 5] = [
    ("interval", Shape::Value),
    ("timeout", Shape::Value),
    ("start-period", Shape::Value),
    ("start-interval", Shape::Value),
    ("retries", Shape::Value),
];

pub(super) fn lower(source: &Source, instruction: &Instruction) -> Result<Health, Diagnostic> {
    let error = |message: &str| source.diagnose(instruction.span, message);
    let (kind, command) = match &instruction.arguments {
        Arguments::Check { kind, command } if !kind.raw.is_empty() => (kind, command.as_ref()),
        _ => return Err(error("HEALTHCHECK needs NONE or CMD after it")),
    };
    let test = match (kind.raw.to_ascii_uppercase().as_str(), command) {
        ("NONE", Arguments::Text(rest)) if rest.raw.is_empty() => {
            Flags::read(source, instruction, &[])?;
            return Ok(Health::default());
        }
        ("NONE", _) => return Err(error("HEALTHCHECK NONE takes no arguments")),
        ("CMD", Arguments::Json(words)) if !words.is_empty() => {
            HealthTest::Exec(words.iter().map(|word| word.raw.clone()).collect())
        }
        ("CMD", Arguments::Text(text)) if !text.raw.is_empty() => HealthTest::Shell(text.raw.clone()),
        ("CMD", _) => return Err(error("HEALTHCHECK CMD needs a command")),
        (other, _) => {
            return Err(source
                .diagnose(kind.span, format!("HEALTHCHECK knows no {other}"))
                .help("write HEALTHCHECK CMD … or HEALTHCHECK NONE"));
        }
    };
    let flags = Flags::read(source, instruction, &FLAGS)?;
    let duration = |name| {
        flags
            .value(name)
            .map_or(Ok(0), |word| duration(source, name, &word))
    };
    let retries = match flags.value("retries") {
        None => 0,
        Some(word) => word
            .raw
            .parse::<u32>()
            .ok()
            .filter(|retries| i32::try_from(*retries).is_ok())
            .ok_or_else(|| source.diagnose(word.span, "--retries must be a number, not negative"))?,
    };
    Ok(Health {
        test,
        interval_ns: duration("interval")?,
        timeout_ns: duration("timeout")?,
        start_period_ns: duration("start-period")?,
        start_interval_ns: duration("start-interval")?,
        retries,
    })
}

fn duration(source: &Source, name: &str, word: &Word) -> Result<i64, Diagnostic> {
    let error = |message| Err(source.diagnose(word.span, message));
    match parse_duration(&word.raw) {
        None => error(format!(
            "--{name} must be a duration such as 30s or 1m30s, not {:?}",
            word.raw
        )),
        Some(nanoseconds) if nanoseconds != 0 && nanoseconds < MIN_DURATION_NS => {
            error(format!("--{name} can't be shorter than 1ms"))
        }
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

/// Go's durations: `1h2m3.5s`, `300ms`, `-1s`, `0`. In nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    loop {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(scaled(number, unit_ns(unit)?)?)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn unit_ns(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

/// A decimal number times a unit.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<i128>().ok(),
    };
    // Nanoseconds need no more digits than these.
    let fraction = &fraction[..fraction.len().min(18)];
    let places = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let part = digits(fraction)?.checked_mul(unit)? / places;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations_are_go_s() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("30s", Some(30 * second)),
            ("1m30s", Some(90 * second)),
            ("1.5h", Some(5_400 * second)),
            ("300ms", Some(second * 3 / 10)),
            (".5s", Some(second / 2)),
            ("-1s", Some(-second)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1.2.3s", None),
            ("99999999999h", None),
            ("1é", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
