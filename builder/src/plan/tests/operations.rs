use super::*;

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
    let copied = copy(&plan);
    assert_eq!(copied.sources, ["etc/passwd"]);
    assert_eq!((copied.dest.as_str(), copied.dest_is_dir), ("/x", true));
    let plan = plan_of(input("FROM base\nWORKDIR /w\nADD --chmod=u+x / .\n"));
    let add = copy(&plan);
    assert_eq!((add.sources[0].as_str(), add.dest.as_str()), (".", "/w"));
    assert_eq!(add.chmod, Some(Chmod::Symbolic("u+x".into())));
    assert!(add.unpack && add.dest_is_dir);
}
