use super::*;

fn one(text: &str) -> Instruction {
    let mut file = parse("Dockerfile", text).unwrap();
    assert_eq!(file.instructions.len(), 1, "{text}");
    file.instructions.remove(0)
}

fn raws(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.raw.as_str()).collect()
}

#[track_caller]
fn words_of(text: &str) -> Vec<String> {
    match one(text).arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.into_iter().map(|w| w.raw).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn text_of(text: &str) -> String {
    match one(text).arguments {
        Arguments::Text(word) => word.raw,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn error(text: &str) -> String {
    parse("Dockerfile", text).unwrap_err().to_string()
}

#[test]
fn shell_and_exec_forms() {
    assert_eq!(text_of("RUN  echo [a] "), "echo [a]");
    assert_eq!(words_of(r#"CMD ["a", "b c"]"#), ["a", "b c"]);
    assert_eq!(text_of(r#"CMD ["a", 'b']"#), r#"["a", 'b']"#);
    assert_eq!(text_of(r#"CMD ["a"] x"#), r#"["a"] x"#);
    assert_eq!(words_of("ENTRYPOINT []"), Vec::<String>::new());
    assert_eq!(text_of("CMD"), "");
    assert!(error(r#"RUN ["a", 1]"#).contains("the JSON array holds 1"));
}

#[test]
fn flags_and_words() {
    let copy = one("copy --from=0 --link --chown='a b' x \"y z\" /d");
    assert_eq!(copy.keyword, Some(Keyword::Copy));
    let flags: Vec<_> = copy
        .flags
        .iter()
        .map(|flag| (flag.name.as_str(), flag.value.as_deref()))
        .collect();
    assert_eq!(
        flags,
        [("from", Some("0")), ("link", None), ("chown", Some("a b"))]
    );
    let Arguments::Words(words) = &copy.arguments else {
        panic!("{:?}", copy.arguments)
    };
    assert_eq!(raws(words), ["x", "\"y", "z\"", "/d"]);
    assert_eq!(words_of("ARG a=\"b c\" d"), ["a=\"b c\"", "d"]);
}

#[test]
fn pairs_new_and_old() {
    let pairs = |text| match one(text).arguments {
        Arguments::Pairs(pairs) => pairs
            .into_iter()
            .map(|pair| (pair.name.raw, pair.value.raw, pair.legacy))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pairs("ENV a=b c=\"d e\" f=g\\ h"),
        [
            ("a".into(), "b".into(), false),
            ("c".into(), "\"d e\"".into(), false),
            ("f".into(), "g\\ h".into(), false)
        ]
    );
    assert_eq!(pairs("LABEL a  b=c  d"), [("a".into(), "b=c  d".into(), true)]);
    assert_eq!(pairs("ENV"), []);
    assert!(error("ENV a").contains("ENV needs a value after the name"));
    assert!(error("ENV a=b c").contains("\"c\" is not of the form name=value"));
}

#[test]
fn health_checks_and_triggers() {
    let check = one("HEALTHCHECK --interval=5s CMD [\"a\"]");
    let Arguments::Check { kind, command } = check.arguments else {
        panic!()
    };
    assert_eq!(kind.raw, "CMD");
    assert!(matches!(*command, Arguments::Json(words) if words.len() == 1));

    let onbuild = one("ONBUILD  run --mount=type=cache,target=/x a b");
    let Arguments::Trigger(trigger) = onbuild.arguments else {
        panic!()
    };
    assert_eq!(trigger.keyword, Some(Keyword::Run));
    assert_eq!(trigger.flags.len(), 1);
    assert_eq!(trigger.text, "run --mount=type=cache,target=/x a b");
}

#[test]
fn heredocs_are_cut_out() {
    let file = parse(
        "Dockerfile",
        "RUN <<A cat - <<-'B'\none\n\tA\nA\n\ttwo\n\tB\nUSER x\nONBUILD COPY <<C /c\nthree\nC\n",
    )
    .unwrap();
    let [run, user, onbuild] = file.instructions.as_slice() else {
        panic!("{:?}", file.instructions)
    };
    let bodies: Vec<_> = run
        .heredocs
        .iter()
        .map(|h| (h.body.as_str(), h.content()))
        .collect();
    assert_eq!(
        bodies,
        [
            ("one\n\tA\n", "one\n\tA\n".to_owned()),
            ("\ttwo\n", "two\n".to_owned())
        ]
    );
    assert_eq!(user.keyword, Some(Keyword::User));
    assert_eq!(user.span.line, 7);
    assert_eq!(onbuild.heredocs[0].body, "three\n");
    assert_eq!(
        parse("f", "RUN [\"cat\", \"<<A\"]\nUSER x")
            .unwrap()
            .instructions
            .len(),
        2
    );
    assert!(error("FROM x\nRUN <<E\nabc").contains("Dockerfile:2: the heredoc E is not ended by a line E"));
}

#[test]
fn unknown_instructions_are_kept() {
    let file = parse("f", "FROM x\nRUNN a --b\n").unwrap();
    assert_eq!(file.instructions[1].keyword, None);
    assert_eq!(file.instructions[1].title(), "RUNN");
}

#[test]
fn an_empty_file_has_no_instructions() {
    assert!(error("").contains("Dockerfile:1: the file has no instructions"));
    assert!(error("# only a comment\n\n").contains("no instructions"));
}

#[test]
fn every_error_is_reported() {
    let errors = parse("f", "FROM x\nENV a\nRUN [1]\nENV b").unwrap_err();
    let lines: Vec<_> = errors.0.iter().map(|error| error.span.line).collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn words_know_their_places() {
    let text = "FROM x\nCOPY a \\\n  bb \\\n # no\n  /d\n";
    let file = parse("f", text).unwrap();
    let Arguments::Words(words) = &file.instructions[1].arguments else {
        panic!()
    };
    let places: Vec<_> = words
        .iter()
        .map(|word| (&text[word.span.start..word.span.end], word.span.line))
        .collect();
    assert_eq!(places, [("a", 2), ("bb", 3), ("/d", 5)]);
}
