use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "A" => "hello",
        "E" => "",
        "P" => "/usr/local/bin",
        "S" => "two words",
        "D" => "a.b.c",
        "Ä" => "umlaut",
        "1" => "one",
        _ => return None,
    };
    Some(value.to_owned())
}

#[track_caller]
fn check(word: &str, expected: &str) {
    let got = Expander::new('\\').expand(word, &lookup).map(|e| e.text);
    assert_eq!(got.as_deref(), Ok(expected), "{word}");
}

#[track_caller]
fn fails(word: &str) -> String {
    Expander::new('\\').expand(word, &lookup).unwrap_err().to_string()
}

#[test]
fn plain_words_quotes_and_escapes() {
    check("plain", "plain");
    check("'$A'", "$A");
    check("\"$A's\"", "hello's");
    check(r"\$A", "$A");
    check(r#""\$A \x \\ \"""#, r#"$A \x \ ""#);
    check(r"a\ b", "a b");
    check(r"a\", "a");
    check(r"'a\b'", r"a\b");
    check("\"it's\"'\"'", "it's\"");
    check("", "");
}

#[test]
fn variables() {
    check("$A", "hello");
    check("${A}x", "hellox");
    check("$Ax", "");
    check("$A-$E-$U", "hello--");
    check("a$", "a$");
    check("$.x", "$.x");
    check("$1x", "onex");
    check("$Ä", "umlaut");
    check("$$ $@", " ");
}

#[test]
fn defaults_and_alternatives() {
    check("${U-x} ${U:-x} ${E-x} ${E:-x} ${A:-x}", "x x  x hello");
    check("${U+x} ${U:+x} ${E+x} ${E:+x} ${A:+x}", "  x  x");
    check("${U:-$A}", "hello");
    check("${U:-${E:-deep}}", "deep");
    check("${U:-'a b'}", "a b");
    check(r"${U:-a\}b}", "a}b");
    check("${A?no} ${E?no}", "hello ");
    assert_eq!(fails("${U?}"), "U: is not allowed to be unset");
    assert_eq!(fails("${E:?}"), "E: is not allowed to be empty");
    assert_eq!(fails("${U:?set it}"), "U: set it");
}

#[test]
fn trims_and_replacements() {
    check("${P#*/}", "usr/local/bin");
    check("${P##*/}", "bin");
    check("${P%/*}", "/usr/local");
    check("${P%%/*}", "");
    check("${D%.?}", "a.b");
    check("${D#x}", "a.b.c");
    check("${D/./-}", "a-b.c");
    check("${D//./-}", "a-b-c");
    check(r"${P//\//_}", "_usr_local_bin");
    check("${D//?/x}", "xxxxx");
    check("${D/*/x}", "x");
    check("${D//*/x}", "x");
    check("${A/l*/p}", "hep");
    check("${U/a/b}", "");
    check(r"${A#\*}", "hello");
    assert!(fails(r"${A#\x}").contains("invalid escape"));
}

#[test]
fn what_is_no_substitution() {
    for (word, message) in [
        ("${", "not closed"),
        ("${A", "not closed"),
        ("${A:-x", "not closed"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${A@x}", "unsupported modifier `@`"),
        ("${A:x}", "unsupported modifier `:x`"),
        ("${A:#x}", "unsupported modifier `:#`"),
        ("${A/x}", "second `/`"),
        ("'x", "single quote"),
        ("\"x", "double quote"),
    ] {
        assert!(fails(word).contains(message), "{word}: {}", fails(word));
    }
    assert_eq!(
        fails(&"${U:-".repeat(1000)),
        "substitutions are nested too deeply"
    );
}

#[test]
fn words_are_split_after_expansion() {
    let words = |text| Expander::new('\\').expand(text, &lookup).unwrap().words;
    assert_eq!(words("$S x"), ["two", "words", "x"]);
    assert_eq!(words("\"$S\" x"), ["two words", "x"]);
    assert_eq!(words(r"a\ b '' c"), ["a b", "c"]);
    assert_eq!(words(" $E "), Vec::<String>::new());
}

#[test]
fn used_and_unset_variables_are_told() {
    let expansion = Expander::new('\\').expand("$A${U:-$V}${W%x}", &lookup).unwrap();
    assert_eq!(expansion.used.iter().collect::<Vec<_>>(), ["A"]);
    assert_eq!(expansion.unset.iter().collect::<Vec<_>>(), ["V", "W"]);
}

#[test]
fn raw_modes_change_nothing() {
    let raw = Expander {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        join_heredocs: true,
        ..Expander::new('\\')
    };
    for text in [
        r#"a "b\"$x" 'c' ${U:-d} ${U} $U \$ "#,
        "cat <<  EOF",
        "${U//a/b} ${U/a/b} ${U%%x}",
    ] {
        assert_eq!(raw.expand(text, &lookup).unwrap().text, text);
    }
    assert_eq!(
        raw.expand("cat <<  EOF x", &lookup).unwrap().words,
        ["cat", "<<  EOF", "x"]
    );
}

#[test]
fn bodies_of_heredocs_keep_their_quotes() {
    let body = Expander {
        ignore_quotes: true,
        ..Expander::new('\\')
    };
    assert_eq!(
        body.expand("it's \"$A\" \\$A", &lookup).unwrap().text,
        "it's \"hello\" $A"
    );
}

#[test]
fn the_escape_character_can_be_a_backtick() {
    let expansion = Expander::new('`').expand(r"`$A \x $A", &lookup).unwrap();
    assert_eq!(expansion.text, r"$A \x hello");
}

#[test]
fn expansion_has_limits() {
    let big = |name: &str| (name == "B").then(|| "x".repeat(MAX_WORD_BYTES / 2));
    let expander = Expander::new('\\');
    assert!(expander.expand("$B$B", &big).is_ok());
    for word in ["$B$B$B", "${B//x/xxx}", "${U:-$B$B$B}"] {
        assert_eq!(
            expander.expand(word, &big),
            Err(ExpandError::TooLong(MAX_WORD_BYTES)),
            "{word}"
        );
    }
}
