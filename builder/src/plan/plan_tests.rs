use super::*;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn input(text: &str) -> PlanInput {
    PlanInput {
        file_name: "Dockerfile".into(),
        text: text.into(),
        target: None,
        build_args: BTreeMap::new(),
        platform: platform("linux/amd64"),
        build_platform: platform("linux/amd64"),
    }
}

fn image(env: &[&str]) -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.env = env.iter().map(|entry| (*entry).to_owned()).collect();
    image
}

fn facts(images: &[(&str, ImageConfig)]) -> Facts {
    images
        .iter()
        .map(|(name, image)| (((*name).to_owned(), platform("linux/amd64")), image.clone()))
        .collect()
}

/// Plans with an image `base` that has a PATH.
#[track_caller]
fn plan_of(input: PlanInput) -> Plan {
    let facts = facts(&[("base", image(&["PATH=/bin"]))]);
    match Planner::new(input).and_then(|planner| planner.step(&facts)) {
        Ok(Progress::Done(plan)) => *plan,
        Ok(Progress::Need(needs)) => panic!("needs {needs:?}"),
        Err(errors) => panic!("{errors}"),
    }
}

#[track_caller]
fn plan(text: &str) -> Plan {
    plan_of(input(text))
}

#[track_caller]
fn error(text: &str) -> String {
    let facts = facts(&[("base", image(&["PATH=/bin"]))]);
    match Planner::new(input(text)).and_then(|planner| planner.step(&facts)) {
        Ok(progress) => panic!("no error but {progress:?}"),
        Err(errors) => errors.to_string(),
    }
}

fn last(plan: &Plan) -> &Stage {
    plan.stages.last().unwrap()
}

#[track_caller]
fn history(text: &str) -> Vec<String> {
    let plan = plan(text);
    last(&plan)
        .steps
        .iter()
        .map(|step| step.created_by.clone())
        .collect()
}

#[track_caller]
fn run(plan: &Plan) -> &Run {
    let operations = last(plan).steps.iter().rev();
    operations
        .filter_map(|step| match &step.operation {
            Operation::Run(run) => Some(run),
            _ => None,
        })
        .next()
        .unwrap()
}

#[track_caller]
fn copy(plan: &Plan) -> &Copy {
    let operations = last(plan).steps.iter().rev();
    operations
        .filter_map(|step| match &step.operation {
            Operation::Copy(copy) => Some(copy),
            _ => None,
        })
        .next()
        .unwrap()
}

#[test]
fn an_ordinary_dockerfile() {
    let plan = plan(
        "ARG V=1\nFROM base AS build\nARG V\nWORKDIR /src\nCOPY . .\nRUN make V=$V\n\
         FROM scratch\nCOPY --from=build --chown=1:2 /src/out /app\nUSER 1\nEXPOSE 80 53/udp\nENTRYPOINT [\"/app\"]\n",
    );
    assert_eq!(plan.stages.len(), 2);
    let build = &plan.stages[0];
    assert_eq!(build.base, Base::Image("base".into()));
    let created: Vec<_> = build.steps.iter().map(|step| step.created_by.as_str()).collect();
    assert_eq!(
        created,
        [
            "ARG V=1",
            "WORKDIR /src",
            "COPY . . # buildkit",
            "RUN |1 V=1 /bin/sh -c make V=$V # buildkit"
        ]
    );
    let last = last(&plan);
    assert_eq!((last.label.as_str(), &last.base), ("1", &Base::Scratch));
    assert_eq!(last.config.env, [format!("PATH={}", fold::DEFAULT_PATH)]);
    assert_eq!(last.config.entrypoint.as_deref(), Some(&["/app".to_owned()][..]));
    let copy = copy(&plan);
    assert_eq!(copy.from, CopyFrom::Stage(StageId(0)));
    assert_eq!(copy.sources, ["src/out"]);
    assert_eq!((copy.dest.as_str(), copy.dest_is_dir), ("/app", false));
    assert_eq!(last.steps[2].created_by, "EXPOSE [53/udp 80/tcp]");
    assert_eq!(
        last.steps[0].created_by,
        "COPY --chown=1:2 /src/out /app # buildkit"
    );
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn history_is_written_as_buildkit_does() {
    assert_eq!(
        history(
            "FROM base\nENV A=1 B=\"x y\"\nLABEL l=1\nARG X Y=2\nWORKDIR a\nWORKDIR b\nUSER u\n\
             VOLUME /v /w\nSHELL [\"/bin/bash\",\"-c\"]\nCMD y\nSTOPSIGNAL SIGINT\nMAINTAINER me\n\
             HEALTHCHECK --interval=5s CMD x\nENTRYPOINT [\"a\",\"b\"]\nADD f /x/\nRUN [\"z\"]\nWORKDIR /\n"
        ),
        [
            "ENV A=1 B=x y",
            "LABEL l=1",
            "ARG X Y=2",
            "WORKDIR /a",
            "WORKDIR /a/b",
            "USER u",
            "VOLUME [/v /w]",
            "SHELL [/bin/bash -c]",
            "CMD [\"/bin/bash\" \"-c\" \"y\"]",
            "STOPSIGNAL SIGINT",
            "MAINTAINER me",
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "ENTRYPOINT [\"a\" \"b\"]",
            "ADD f /x/ # buildkit",
            "RUN |2 X= Y=2 z # buildkit",
            "WORKDIR /",
        ]
    );
}

#[test]
fn one_statement_sees_one_set_of_values() {
    let plan = plan("FROM base\nENV a=1\nENV a=2 b=$a\nRUN x");
    assert_eq!(last(&plan).config.env, ["PATH=/bin", "a=2", "b=1"]);
    assert_eq!(
        run(&plan).env,
        [
            ("PATH".into(), "/bin".into()),
            ("a".into(), "2".into()),
            ("b".to_owned(), "1".to_owned())
        ]
    );
}

#[test]
fn arguments_have_scopes() {
    let text = "ARG G=g\nARG H=${G}h\nFROM base AS one\nARG G\nARG L=l$G\nRUN x\nFROM one\nRUN y\n";
    let first = run(&plan(text)).env.clone();
    let value = |name: &str| {
        let found = first.iter().find(|(set, _)| set == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(value("G").as_deref(), Some("g"));
    assert_eq!(value("L").as_deref(), Some("lg"));
    assert_eq!(value("H"), None);

    let mut given = input(text);
    given.build_args = BTreeMap::from([("G".into(), "G".into()), ("l".into(), "x".into())]);
    let plan = plan_of(given);
    assert_eq!(
        last(&plan).steps[0].created_by,
        "RUN |2 G=G L=lG /bin/sh -c y # buildkit"
    );
    assert_eq!(plan.warnings.len(), 1);
    assert!(
        plan.warnings[0]
            .message
            .contains("the build argument l is not used")
    );
}

#[test]
fn predefined_arguments_need_a_declaration_and_proxies_none() {
    let mut given = input("FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH TARGETPLATFORM\nRUN x");
    given.platform = platform("linux/arm64");
    given.build_args = BTreeMap::from([("http_proxy".into(), "http://p".into())]);
    let plan = plan_of(given);
    let run = run(&plan);
    assert!(run.env.contains(&("TARGETARCH".into(), "arm64".into())));
    assert!(run.env.contains(&("TARGETPLATFORM".into(), "linux/arm64".into())));
    assert!(!run.env.iter().any(|(name, _)| name == "BUILDARCH"));
    assert_eq!(
        run.proxies,
        [
            ("HTTP_PROXY".into(), "http://p".into()),
            ("http_proxy".to_owned(), "http://p".to_owned())
        ]
    );
    assert!(!last(&plan).steps[1].created_by.contains("proxy"));
    assert_eq!(plan.warnings.len(), 0, "{:?}", plan.warnings);
}

#[test]
fn entrypoint_clears_an_inherited_cmd_only() {
    let mut base = image(&["PATH=/bin"]);
    base.config.cmd = Some(vec!["sh".into()]);
    let facts = facts(&[("base", base)]);
    let cmd = |text| match Planner::new(input(text)).unwrap().step(&facts).unwrap() {
        Progress::Done(plan) => last(&plan).config.cmd.clone(),
        Progress::Need(_) => panic!(),
    };
    assert_eq!(cmd("FROM base\nUSER x"), Some(vec!["sh".to_owned()]));
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"a\"]"), None);
    assert_eq!(
        cmd("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"a\"]"),
        Some(vec!["c".to_owned()])
    );
    assert_eq!(
        cmd("FROM base AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"a\"]"),
        None
    );
}

#[test]
fn targets_and_pruning() {
    let text = "FROM base AS One\nFROM scratch AS unused\nCOPY --from=nowhere /x /x\nFROM one\nCOPY --from=0 /a /a\nFROM base\n";
    let stages = |target: Option<&str>| {
        let mut input = input(text);
        input.target = target.map(str::to_owned);
        plan_of(input)
            .stages
            .iter()
            .map(|stage| stage.label.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(stages(None), ["3"]);
    assert_eq!(stages(Some("ONE")), ["one"]);
    assert_eq!(stages(Some("2")), ["one", "2"]);
    let mut wrong = input(text);
    wrong.target = Some("unsued".into());
    let error = Planner::new(wrong).unwrap_err().to_string();
    assert!(error.contains("did you mean unused?"), "{error}");
}

#[test]
fn images_are_needed_once_each() {
    let text = "FROM a AS x\nFROM --platform=linux/arm64 b AS y\nFROM x\nCOPY --from=a /q /q\nCOPY --from=c:1 /q /q\nCOPY --from=y /q /q\n";
    let planner = Planner::new(input(text)).unwrap();
    let Progress::Need(needs) = planner.step(&Facts::new()).unwrap() else {
        panic!()
    };
    let needs: Vec<_> = needs
        .iter()
        .map(|need| format!("{} {} {}", need.reference, need.platform, need.span.line))
        .collect();
    assert_eq!(needs, ["a linux/amd64 1", "b linux/arm64 2", "c:1 linux/amd64 5"]);
}

#[test]
fn triggers_run_first_and_may_need_more() {
    let mut parent = image(&["PATH=/bin"]);
    parent.config.on_build = vec![
        "COPY --from=tool /t /t".into(),
        "RUN <<E\nhi\nE".into(),
        "ARG A=1".into(),
    ];
    let planner = Planner::new(input("FROM parent\nONBUILD RUN later\nRUN own")).unwrap();
    let mut facts = facts(&[("parent", parent)]);
    let Progress::Need(needs) = planner.step(&facts).unwrap() else {
        panic!()
    };
    assert_eq!(needs[0].reference, "tool");
    assert_eq!(needs[0].span.source, 1);
    facts.insert(("tool".into(), platform("linux/amd64")), image(&[]));
    let Progress::Done(plan) = planner.step(&facts).unwrap() else {
        panic!()
    };
    let created: Vec<_> = last(&plan)
        .steps
        .iter()
        .map(|step| step.created_by.as_str())
        .collect();
    assert_eq!(
        created,
        [
            "COPY /t /t # buildkit",
            "RUN /bin/sh -c hi\n # buildkit",
            "ARG A=1",
            "RUN |1 A=1 /bin/sh -c own # buildkit"
        ]
    );
    assert_eq!(last(&plan).config.on_build, ["RUN later"]);
}

#[test]
fn triggers_of_stages_run_in_the_next_one_only() {
    let plan = plan("FROM base AS a\nONBUILD RUN t\nFROM a AS b\nFROM b\n");
    let steps: Vec<usize> = plan.stages.iter().map(|stage| stage.steps.len()).collect();
    assert_eq!(steps, [0, 1, 0]);
    assert_eq!(plan.stages[0].config.on_build, ["RUN t"]);
    assert!(last(&plan).config.on_build.is_empty());
}

#[test]
fn heredocs_of_run() {
    let plan_of_run = |text: &str| run(&plan(&format!("FROM base\nSHELL [\"s\"]\n{text}"))).clone();
    let simple = plan_of_run("RUN <<-E\n\ta $X\n\tE\n");
    assert_eq!(simple.args, ["s", "a $X\n"]);
    let complex = plan_of_run("RUN cat <<A - <<-B\n1\nA\n\t2\n\tB\n");
    assert_eq!(complex.args, ["s", "cat <<A - <<-B\n1\nA\n\t2\nB"]);
    let script = plan_of_run("RUN <<E\n#!/usr/bin/env python\nprint()\nE\n");
    assert_eq!(script.args, ["s", "/dev/pipes/E"]);
    assert_eq!(
        script.script.as_deref(),
        Some(&b"#!/usr/bin/env python\nprint()\n"[..])
    );
}

#[test]
fn heredocs_of_copy() {
    let plan = plan("FROM base\nENV A=1\nCOPY <<a.txt <<\"b\" c /d\n\"$A\" \\$A\na.txt\n$A\nb\n");
    let copy = copy(&plan);
    let inline: Vec<_> = copy
        .inline
        .iter()
        .map(|file| {
            (
                file.name.as_str(),
                String::from_utf8_lossy(&file.data).into_owned(),
            )
        })
        .collect();
    assert_eq!(
        inline,
        [("a.txt", "\"1\" $A\n".to_owned()), ("b", "$A\n".to_owned())]
    );
    assert_eq!(copy.sources, ["c"]);
    assert!(copy.dest_is_dir);
    assert_eq!(
        last(&plan).steps[1].created_by,
        "COPY c <<a.txt <<b /d # buildkit"
    );
}

#[test]
fn paths_are_clean_and_stay_inside() {
    let plan = plan("FROM base\nWORKDIR /w\nCOPY ../../etc/./passwd \"../../../x/\"\n");
    let copy = copy(&plan);
    assert_eq!(copy.sources, ["etc/passwd"]);
    assert_eq!((copy.dest.as_str(), copy.dest_is_dir), ("/x", true));
    let plan = plan_of(input("FROM base\nWORKDIR /w\nADD --chmod=u+x / .\n"));
    let add = super::tests::copy(&plan);
    assert_eq!((add.sources[0].as_str(), add.dest.as_str()), (".", "/w"));
    assert_eq!(add.chmod, Some(Chmod::Symbolic("u+x".into())));
    assert!(add.unpack && add.dest_is_dir);
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
        ("FROM base\nWORKDIR $NO", "is empty"),
        ("FROM base\nRUN", "RUN needs a command"),
        ("FROM base\nCOPY --chmod=999 a b", "between 0 and 7777"),
        ("FROM base\nVOLUME [\"\"]", "can't be empty"),
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
fn the_epoch_is_read() {
    assert_eq!(
        plan("ARG SOURCE_DATE_EPOCH=12\nFROM base").source_date_epoch,
        Some(12)
    );
    assert_eq!(plan("FROM base").source_date_epoch, None);
}
