//! `--chmod` applied to a mode.

use crate::plan::Chmod;

/// The new permissions (07777) of a file or directory.
pub(super) fn change(chmod: &Chmod, mode: u32, is_dir: bool) -> u32 {
    match chmod {
        Chmod::Octal(mode) => *mode,
        Chmod::Symbolic(text) => text
            .split(',')
            .fold(mode & 0o7777, |mode, clause| apply(clause, mode, is_dir)),
    }
}

/// One clause, `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`; the planner has checked it.
fn apply(clause: &str, mut mode: u32, is_dir: bool) -> u32 {
    let who_end = clause.find(['-', '+', '=']).unwrap_or(clause.len());
    let (who, mut actions) = clause.split_at(who_end);
    let who = if who.is_empty() || who.contains('a') {
        "ugo"
    } else {
        who
    };
    while let Some(operator) = actions.chars().next() {
        let end = actions[1..]
            .find(['-', '+', '='])
            .map_or(actions.len(), |at| at + 1);
        let (selected, special) = bits(who, &actions[1..end], mode, is_dir);
        mode = match operator {
            '+' => mode | selected | special,
            '-' => mode & !(selected | special),
            _ => {
                let cleared = shift(who, 0o7) | special_of(who);
                mode & !cleared | selected | special
            }
        };
        actions = &actions[end..];
    }
    mode
}

/// The permission bits and the set-id and sticky bits that a list of letters means for `who`.
fn bits(who: &str, letters: &str, mode: u32, is_dir: bool) -> (u32, u32) {
    let mut permissions = 0;
    let mut special = 0;
    for letter in letters.chars() {
        match letter {
            'r' => permissions |= 4,
            'w' => permissions |= 2,
            'x' => permissions |= 1,
            'X' if is_dir || mode & 0o111 != 0 => permissions |= 1,
            'u' => permissions |= mode >> 6 & 7,
            'g' => permissions |= mode >> 3 & 7,
            'o' => permissions |= mode & 7,
            's' => special |= special_of(who) & 0o6000,
            't' => special |= 0o1000,
            _ => {}
        }
    }
    (shift(who, permissions), special)
}

fn shift(who: &str, permissions: u32) -> u32 {
    who.chars()
        .map(|who| match who {
            'u' => permissions << 6,
            'g' => permissions << 3,
            _ => permissions,
        })
        .fold(0, |all, bits| all | bits)
}

fn special_of(who: &str) -> u32 {
    who.chars()
        .map(|who| match who {
            'u' => 0o4000,
            'g' => 0o2000,
            _ => 0o1000,
        })
        .fold(0, |all, bits| all | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_what_they_name() {
        for (text, mode, is_dir, expected) in [
            ("u+x", 0o644, false, 0o744),
            ("go-w,+x", 0o666, false, 0o755),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, false, 0o555),
            ("a=rX", 0o600, true, 0o555),
            ("u=rwx,g=u,o=", 0o604, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("u-s", 0o4755, false, 0o755),
            ("u+r-w", 0o200, false, 0o400),
        ] {
            let changed = change(&Chmod::Symbolic(text.to_owned()), mode, is_dir);
            assert_eq!(changed, expected, "{text} on {mode:o}: {changed:o}");
        }
        assert_eq!(change(&Chmod::Octal(0o4711), 0o644, true), 0o4711);
    }
}
