//! STOPSIGNAL.

const NAMES: [&str; 32] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR",
];
const MORE_NAMES: [&str; 4] = ["POLL", "SYS", "RTMIN", "RTMAX"];
/// Real-time signals run from RTMIN = 34 to RTMAX = 64.
const REAL_TIME_SIGNALS: u32 = 30;

/// Whether Docker knows a signal: a number, or a name with or without `SIG`.
pub(super) fn is_known(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return number > 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => offset
            .parse::<u32>()
            .is_ok_and(|offset| offset <= REAL_TIME_SIGNALS),
        None => NAMES.contains(&name) || MORE_NAMES.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn signals_by_name_and_number() {
        for good in ["9", "KILL", "SIGKILL", "sigterm", "SIGRTMIN+3", "RTMAX-1"] {
            assert!(is_known(good), "{good}");
        }
        for bad in ["", "0", "-1", "SIGFOO", "SIGRTMIN+99", "KILL "] {
            assert!(!is_known(bad), "{bad}");
        }
    }
}
