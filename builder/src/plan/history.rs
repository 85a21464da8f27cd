//! The texts of history entries, as BuildKit writes them: Go's `%q`, `%v` and `%+v`.

use crate::dockerfile::statement::{Health, HealthTest};

/// `["/bin/sh" "-c" "x"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// `[a b]`.
pub(super) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A health check's test as it stands in the configuration.
pub(super) fn health_test(test: &HealthTest) -> Vec<String> {
    match test {
        HealthTest::None => vec!["NONE".to_owned()],
        HealthTest::Shell(script) => vec!["CMD-SHELL".to_owned(), script.clone()],
        HealthTest::Exec(words) => ["CMD".to_owned()].into_iter().chain(words.clone()).collect(),
    }
}

/// `{Test:[CMD x] Interval:5s …}`.
pub(super) fn health(check: &Health) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&health_test(&check.test)),
        duration(check.interval_ns),
        duration(check.timeout_ns),
        duration(check.start_period_ns),
        duration(check.start_interval_ns),
        check.retries
    )
}

/// Go's text of a duration, such as `1m30s` or `1.5ms`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let text = format!(
            "{}.{:0width$}",
            value / unit,
            value % unit,
            width = unit.ilog10() as usize
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    const SECOND: u64 = 1_000_000_000;
    if total == 0 {
        return "0s".to_owned();
    }
    if total < SECOND {
        let (unit, name) = match total {
            0..1_000 => return format!("{sign}{total}ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let (minutes, rest) = (total / SECOND / 60, total % (60 * SECOND));
    let seconds = format!("{}s", decimal(rest, SECOND));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_go_s() {
        let words = ["/bin/sh".to_owned(), "a\"b\\\n\u{1}é".to_owned()];
        assert_eq!(quoted_list(&words), r#"["/bin/sh" "a\"b\\\n\x01é"]"#);
        assert_eq!(list(&["/v".to_owned()]), "[/v]");
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn durations_are_go_s() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (5_000_000_000, "5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_050_000_000, "1.05s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }
}
