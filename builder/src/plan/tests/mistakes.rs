use super::*;

#[test]
fn remarks_can_fail_the_build() {
    let error = error("# check=error=true\nFROM base\nCMD x\n");
    assert!(
        error.starts_with("Dockerfile:3: CMD: the JSON form is better"),
        "{error}"
    );
    plan("# check=skip=JSONArgsRecommended;error=true\nFROM base\nCMD x\n");
    plan("# check=error=true\nFROM base\nSHELL [\"s\"]\nCMD x\n");
}

#[test]
fn bases_are_remarked_on() {
    let codes = |text: &str, args: &[(&str, &str)]| {
        let mut input = input(text);
        let args = args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        input.build_args = args.collect();
        let warnings = plan_of(input).warnings;
        warnings
            .into_iter()
            .filter_map(|warning| warning.code)
            .collect::<Vec<_>>()
    };
    assert_eq!(codes("FROM base$X", &[]), ["UndefinedArgInFrom"]);
    assert_eq!(
        codes("ARG B\nFROM $B", &[("B", "base")]),
        ["InvalidDefaultArgInFrom"]
    );
    assert!(codes("ARG B=base\nFROM $B", &[]).is_empty());

    let mut arm = image(&[]);
    (arm.os, arm.architecture) = ("linux".into(), "arm64".into());
    let facts = facts(&[("arm", arm)]);
    let Progress::Done(plan) = Planner::new(input("FROM arm")).unwrap().step(&facts).unwrap() else {
        panic!()
    };
    assert_eq!(plan.warnings[0].code, Some("InvalidBaseImagePlatform"));
}

#[test]
fn what_is_not_executed_is_refused_by_name_and_line() {
    for (line, construct) in [
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache"),
        ("RUN --mount=type=secret,id=s x", "RUN --mount=type=secret"),
        ("RUN --security=insecure x", "RUN --security=insecure"),
        ("RUN --device=a/b=c x", "RUN --device"),
        ("RUN --network=host x", "RUN --network=host"),
        ("ADD https://x/y /z", "ADD of a URL"),
        ("ADD https://x/y.git#main /z", "ADD of a git repository"),
        ("COPY --parents a/b /z", "COPY --parents"),
        ("ADD --exclude=*.o a /z", "ADD --exclude"),
    ] {
        let error = error(&format!("FROM base\nRUN true\n{line}\n"));
        assert!(
            error.starts_with(&format!("Dockerfile:3: {construct}")),
            "{line}: {error}"
        );
    }
    let both = error("FROM base\nRUN --mount=type=ssh a\nRUN --device=x b\n");
    assert!(
        both.contains("Dockerfile:2:") && both.contains("Dockerfile:3:"),
        "{both}"
    );
    assert!(error("# syntax=tonistiigi/dockerfile\nFROM base").contains("is not supported"));
    plan("# syntax=docker.io/docker/dockerfile:1.7-labs\nFROM base");
}

#[test]
fn mistakes_are_told_with_place_and_hint() {
    for (text, expected) in [
        (
            "FROM base\nRUNN x",
            "Dockerfile:2: unknown instruction RUNN\n  2 | RUNN x\n    | ^^^^\n  help: did you mean RUN?",
        ),
        ("FROM base\nCOPY --chwon=1 a b", "COPY has no flag --chwon"),
        ("FROM base\nCOPY --chwon=1 a b", "did you mean chown?"),
        ("FROM base\nCOPY --link --link a b", "--link is given twice"),
        ("RUN x\nFROM base", "RUN stands before the first FROM"),
        ("ARG x", "nothing to build"),
        ("FROM $X", "only ARGs before the first FROM are known"),
        ("ARG XY=base\nFROM $XZ", "did you mean XY?"),
        ("FROM base AS 1x", "can't be a stage's name"),
        ("FROM base x", "FROM takes an image"),
        ("FROM BASE:x:y", "image reference"),
        (
            "FROM base\nCOPY --from=later a b\nFROM base AS later",
            "not defined before this one",
        ),
        ("FROM base AS x\nCOPY --from=x a b", "not defined before this one"),
        (
            "FROM base\nCOPY --from=0 a b",
            "no earlier stage with the number 0",
        ),
        (
            "FROM base\nCOPY --from=$x a b",
            "variables are not expanded in --from",
        ),
        ("FROM base\nCOPY --from=scratch a b", "scratch has no files"),
        ("FROM base\nCOPY --from=UP/x a b", "neither a stage nor an image"),
        ("FROM base\nCOPY a", "needs a source and a destination"),
        ("FROM base\nCOPY https://x y", "COPY can't fetch"),
        (
            "FROM base\nADD --checksum=sha256:x a y",
            "only for sources that are fetched",
        ),
        ("FROM base\nENV =x", "a name is missing"),
        ("FROM base\nENV a=${x", "not closed"),
        ("FROM base\nEXPOSE 80/tpc", "did you mean tcp?"),
        ("FROM base\nSTOPSIGNAL SIGFOO", "no signal"),
        ("FROM base\nSHELL x", "JSON array"),
        ("FROM base\nHEALTHCHECK CMX", "HEALTHCHECK knows no CMX"),
        ("FROM base\nHEALTHCHECK --interval=1 CMD x", "must be a duration"),
        ("FROM base\nONBUILD FROM x", "can't be a trigger"),
        ("FROM base\nONBUILD RUNN x", "unknown instruction RUNN"),
        (
            "FROM base\nRUN --network=bridge x",
            "it may be default, none, host",
        ),
        (
            "FROM base\nRUN --mount=type=cach,target=/x y",
            "did you mean cache?",
        ),
        ("FROM base\nUSER", "exactly one argument"),
        ("FROM base\nRUN", "RUN needs a command"),
        ("FROM base\nCOPY --chmod=999 a b", "between 0 and 7777"),
        ("FROM base\nVOLUME [\"\"]", "can't be empty"),
        ("FROM base\nVOLUME $NO", "can't be empty"),
        ("ARG SOURCE_DATE_EPOCH=x\nFROM base", "not a number of seconds"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn undefined_variables_are_remarked() {
    let plan = plan("FROM base\nENV HELLO=1\nARG Q\nLABEL a=$HELO b=${NO:-x} c=$Q\n");
    let messages: Vec<_> = plan
        .warnings
        .iter()
        .map(|w| (w.code, w.message.as_str()))
        .collect();
    assert_eq!(
        messages,
        [(
            Some("UndefinedVar"),
            "the variable $HELO is not defined (did you mean $HELLO?)"
        )]
    );
}

#[test]
fn variables_that_grow_without_end_are_stopped() {
    let long = format!("FROM base\nENV A={}\n", "x".repeat(60_000));
    let error_of = |line: &str, times: usize| error(&format!("{long}{}", line.repeat(times)));
    assert!(error_of("ENV A=$A$A\n", 8).contains("longer than"));
    assert!(error_of("ARG A=$A$A\n", 8).contains("longer than"));
    assert!(error_of("RUN x\n", 1_200).contains("larger than 67108864 bytes"));
}
