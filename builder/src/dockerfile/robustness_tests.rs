//! Whatever the text: no panic, spans within it, messages that can be shown.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::plan::{Facts, PlanInput, Planner, Progress};

use super::ast::{Arguments, Instruction, Word};
use super::{Checks, Dockerfile, Span};

/// Everything the language has, to be broken.
const EVERYTHING: &str = r#"# syntax=docker/dockerfile:1
# escape=\
# check=skip=StageNameCasing;error=false
ARG BASE=base VERSION
FROM --platform=$BUILDPLATFORM ${BASE:-base} AS build
ARG VERSION=1 OTHER="a b"
ENV PATH=/x:$PATH A="1 2" B='3' C=a\ b
ENV OLD style value
LABEL a.b=c "d"="e"
MAINTAINER someone
SHELL ["/bin/bash", "-c"]
RUN --mount=type=cache,target=/c,sharing=locked --network=none \
    # a comment
    make \

    && echo ${A#1} ${A%%2} ${A/1/2} ${A//1/2} ${A:?no}
RUN <<EOF cat <<-'B' > /x
hi $A
EOF
	there
	B
RUN ["a", "b\u00e9"]
COPY --from=0 --chown=1:2 --chmod=u+x --link a* [b]/ /d/
COPY <<"x.txt" <<y /z/
body
x.txt
$A \$A "q"
y
ADD --checksum=sha256:ab https://example.com/x.tar /t
WORKDIR ../a/./b
USER $A:1
EXPOSE 80 53/udp 7-9
VOLUME ["/v"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x || exit 1
ONBUILD COPY <<T /t
trigger
T
ENTRYPOINT exec top
CMD ["-b"]
FROM scratch
COPY --from=0 / /
"#;

fn check_span(text: &str, span: Span) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(text.get(span.start..span.end).is_some(), "{span:?}");
    let lines_before = text[..span.start].matches('\n').count();
    assert_eq!(span.line, lines_before + 1, "{span:?}");
}

fn check_words(text: &str, words: &[Word]) {
    words.iter().for_each(|word| check_span(text, word.span));
}

fn check_instruction(text: &str, instruction: &Instruction) {
    check_span(text, instruction.span);
    check_span(text, instruction.name.span);
    for flag in &instruction.flags {
        check_span(text, flag.span);
    }
    for heredoc in &instruction.heredocs {
        check_span(text, heredoc.span);
        assert_eq!(&text[heredoc.span.start..heredoc.span.end], heredoc.body);
    }
    match &instruction.arguments {
        Arguments::Text(word) => check_span(text, word.span),
        Arguments::Json(words) | Arguments::Words(words) => check_words(text, words),
        Arguments::Pairs(pairs) => pairs
            .iter()
            .for_each(|pair| check_words(text, &[pair.name.clone(), pair.value.clone()])),
        Arguments::Check { kind, .. } => check_span(text, kind.span),
        Arguments::Trigger(trigger) => check_instruction(text, trigger),
    }
}

fn check_file(file: &Dockerfile, text: &str) {
    for instruction in &file.instructions {
        check_instruction(text, instruction);
    }
    let checks = Checks::of(file);
    for warning in super::check(file) {
        check_span(text, warning.span);
        checks.wants(&warning);
    }
}

/// Parses and plans, whatever comes out.
fn survive(text: &str) {
    match super::parse("Dockerfile", text) {
        Ok(file) => check_file(&file, text),
        Err(errors) => {
            for error in &errors.0 {
                check_span(text, error.span);
            }
            assert!(errors.to_string().starts_with("Dockerfile:"));
        }
    }
    let input = PlanInput {
        file_name: "Dockerfile".into(),
        text: text.into(),
        target: None,
        build_args: BTreeMap::new(),
        platform: "linux/amd64".parse().unwrap(),
        build_platform: "linux/amd64".parse().unwrap(),
    };
    let planner = match Planner::new(input) {
        Ok(planner) => planner,
        Err(errors) => {
            assert!(!errors.to_string().is_empty());
            return;
        }
    };
    let mut facts = Facts::new();
    for _ in 0..3 {
        match planner.step(&facts) {
            Ok(Progress::Need(needs)) => {
                for need in needs {
                    facts.insert((need.reference, need.platform), oci::ImageConfig::default());
                }
            }
            Ok(Progress::Done(_)) | Err(_) => return,
        }
    }
    panic!("the planner does not come to an end");
}

/// One change to a text, at a place between 0 and 1.
#[derive(Clone, Debug)]
enum Edit {
    Insert(f64, String),
    Delete(f64, usize),
    Repeat(f64, usize),
    Swap(f64, f64),
}

fn boundary(text: &str, place: f64) -> usize {
    let mut at = ((text.len() as f64) * place) as usize;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn end_after(text: &str, start: usize, length: usize) -> usize {
    let rest = text[start..].char_indices().nth(length);
    rest.map_or(text.len(), |(index, _)| start + index)
}

fn apply(text: &str, edit: &Edit) -> String {
    match edit {
        Edit::Insert(place, new) => {
            let at = boundary(text, *place);
            format!("{}{new}{}", &text[..at], &text[at..])
        }
        Edit::Delete(place, length) => {
            let at = boundary(text, *place);
            format!("{}{}", &text[..at], &text[end_after(text, at, *length)..])
        }
        Edit::Repeat(place, length) => {
            let at = boundary(text, *place);
            let part = &text[at..end_after(text, at, *length)];
            format!("{}{part}{}", &text[..at], &text[at..])
        }
        Edit::Swap(one, other) => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            let index = |place: f64| ((lines.len() - 1) as f64 * place) as usize;
            let (one, other) = (index(*one), index(*other));
            lines.swap(one, other);
            lines.join("\n")
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let snippets = vec![
        "$", "${", "}", "\"", "'", "\\", "\\\n", "\n", "<<", "<<-E", "--", "=", "[", "]", "#", "\r\n", "\t",
        "é", "\u{feff}", "\u{2003}", "\0", "`", ":-", "//", "ONBUILD ", "FROM ", ",",
    ];
    let snippet = prop_oneof![
        prop::sample::select(snippets).prop_map(str::to_owned),
        "\\PC{1,3}",
    ];
    prop_oneof![
        (0.0..1.0, snippet).prop_map(|(place, text)| Edit::Insert(place, text)),
        (0.0..1.0, 1_usize..20).prop_map(|(place, length)| Edit::Delete(place, length)),
        (0.0..1.0, 1_usize..40).prop_map(|(place, length)| Edit::Repeat(place, length)),
        (0.0..1.0, 0.0..1.0).prop_map(|(one, other)| Edit::Swap(one, other)),
    ]
}

#[test]
fn the_whole_language_parses() {
    let file = super::parse("Dockerfile", EVERYTHING).unwrap();
    check_file(&file, EVERYTHING);
    let mut keywords: Vec<_> = file
        .instructions
        .iter()
        .filter_map(|instruction| instruction.keyword)
        .collect();
    assert_eq!(keywords.len(), file.instructions.len());
    keywords.sort();
    keywords.dedup();
    assert_eq!(keywords, super::Keyword::ALL);
    survive(EVERYTHING);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "(?s).{0,200}") {
        survive(&text);
    }

    #[test]
    fn any_instruction_is_survived(
        lines in prop::collection::vec(
            "(FROM|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK|EXPOSE|LABEL|ADD|CMD) [-a-z$\\{\\}:=\"'\\\\<\\[\\], /#]{0,30}",
            1..6,
        )
    ) {
        survive(&format!("FROM scratch\n{}", lines.join("\n")));
    }

    #[test]
    fn broken_files_are_survived(edits in prop::collection::vec(edit(), 1..8)) {
        let text = edits.iter().fold(EVERYTHING.to_owned(), |text, edit| apply(&text, edit));
        survive(&text);
    }
}
