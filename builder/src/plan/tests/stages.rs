use super::*;

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
fn the_epoch_is_read() {
    assert_eq!(
        plan("ARG SOURCE_DATE_EPOCH=12\nFROM base").source_date_epoch,
        Some(12)
    );
    assert_eq!(plan("FROM base").source_date_epoch, None);
}
