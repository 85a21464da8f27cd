//! Two other parsers as oracles: what they read, ours must read the same. Generated files keep to the part of the
//! language that both understand; cases by hand are in the other test modules.

use dockerfile_parser::{Dockerfile as Peer, Instruction as PeerInstruction, ShellOrExecExpr};
use proptest::prelude::*;

use super::expand::Expander;
use super::statement::{Command, CopySource, Kind};
use super::{Dockerfile, Statement, Word};

/// An instruction in words that all three parsers can be asked for.
type Reading = (String, Vec<String>);

fn reading(name: &str, words: impl IntoIterator<Item = String>) -> Reading {
    (name.to_owned(), words.into_iter().collect())
}

/// Blanks where lines were joined are a matter of taste.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn plain(word: &Word) -> String {
    let expander = Expander::new('\\');
    expander.expand(&word.raw, &|_| None).unwrap().text
}

fn command(command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) => vec!["shell".into(), squeezed(text)],
        Command::Exec(words) => ["exec".to_owned()].into_iter().chain(words.clone()).collect(),
    }
}

fn pair(name: &str, value: &str) -> String {
    format!("{name}={value}")
}

fn ours(file: &Dockerfile) -> Vec<Reading> {
    let statements = file
        .instructions
        .iter()
        .map(|instruction| super::lower(&file.source, instruction).unwrap());
    statements.map(|statement| our_reading(&statement)).collect()
}

fn our_reading(statement: &Statement) -> Reading {
    let name = statement.instruction.title();
    let words = match &statement.kind {
        Kind::From(from) => {
            let alias = from.name.as_ref().map(|name| name.raw.clone());
            [plain(&from.image)].into_iter().chain(alias).collect()
        }
        Kind::Run(run) => command(&run.command),
        Kind::Cmd(words) | Kind::Entrypoint(words) => command(words),
        Kind::Copy(copy) => {
            let flags = statement.instruction.flags.iter().map(|flag| {
                let value = flag.value.clone().unwrap_or_default();
                format!("--{}={value}", flag.name)
            });
            let sources = copy.sources.iter().map(|source| match source {
                CopySource::Path(word) => plain(word),
                CopySource::Heredoc(index) => format!("<<{index}"),
            });
            flags.chain(sources).chain([plain(&copy.dest)]).collect()
        }
        Kind::Env(pairs) | Kind::Label(pairs) => pairs
            .iter()
            .map(|entry| pair(&plain(&entry.name), &plain(&entry.value)))
            .collect(),
        Kind::Arg(arguments) => arguments
            .iter()
            .map(|argument| match &argument.default {
                Some(default) => pair(&argument.name, &plain(default)),
                None => argument.name.clone(),
            })
            .collect(),
        Kind::Workdir(word) | Kind::User(word) | Kind::Stopsignal(word) => vec![plain(word)],
        Kind::Expose(words) | Kind::Volume(words) => words.iter().map(plain).collect(),
        other => panic!("not generated: {other:?}"),
    };
    reading(&name, words)
}

/// `None` where dockerfile-parser gives no types.
fn peer_reading(instruction: &PeerInstruction) -> Option<Reading> {
    let expression = |expression: &ShellOrExecExpr| match expression {
        ShellOrExecExpr::Shell(text) => vec!["shell".to_owned(), squeezed(&text.to_string())],
        ShellOrExecExpr::Exec(words) => ["exec"]
            .into_iter()
            .chain(words.as_str_vec())
            .map(str::to_owned)
            .collect(),
    };
    Some(match instruction {
        PeerInstruction::From(from) => {
            let alias = from.alias.as_ref().map(|alias| alias.content.clone());
            reading("FROM", [from.image.content.clone()].into_iter().chain(alias))
        }
        PeerInstruction::Arg(arg) => {
            let name = arg.name.content.clone();
            let text = match &arg.value {
                Some(value) => pair(&name, &value.content),
                None => name,
            };
            reading("ARG", [text])
        }
        PeerInstruction::Label(label) => {
            let labels = label.labels.iter();
            reading("LABEL", labels.map(|l| pair(&l.name.content, &l.value.content)))
        }
        PeerInstruction::Env(env) => {
            let variables = env.vars.iter();
            reading(
                "ENV",
                variables.map(|v| pair(&v.key.content, &v.value.to_string())),
            )
        }
        PeerInstruction::Run(run) => reading("RUN", expression(&run.expr)),
        PeerInstruction::Cmd(cmd) => reading("CMD", expression(&cmd.expr)),
        PeerInstruction::Entrypoint(entrypoint) => reading("ENTRYPOINT", expression(&entrypoint.expr)),
        PeerInstruction::Copy(copy) => {
            let flags = copy
                .flags
                .iter()
                .map(|flag| format!("--{}={}", flag.name.content, flag.value.content));
            let paths = copy.sources.iter().chain([&copy.destination]);
            reading("COPY", flags.chain(paths.map(|path| path.content.clone())))
        }
        PeerInstruction::Misc(_) => return None,
    })
}

/// What parse-dockerfile reads, where it takes arguments apart.
fn second_reading(text: &str, instruction: &parse_dockerfile::Instruction<'_>) -> Option<Reading> {
    use parse_dockerfile::{Instruction as I, JsonOrStringArray, Source};
    let _ = text;
    Some(match instruction {
        I::From(from) => {
            let alias = from.as_.as_ref().map(|(_, name)| name.value.to_string());
            reading("FROM", [from.image.value.to_string()].into_iter().chain(alias))
        }
        I::Copy(copy) => {
            let flags = copy.options.iter().map(|flag| {
                let value = flag.value.as_ref().map_or("", |value| value.value.as_ref());
                format!("--{}={value}", flag.name.value)
            });
            let sources = copy.src.iter().map(|source| match source {
                Source::Path(path) => path.value.to_string(),
                other => panic!("not generated: {other:?}"),
            });
            reading("COPY", flags.chain(sources).chain([copy.dest.value.to_string()]))
        }
        I::Workdir(word) => reading("WORKDIR", [word.arguments.value.to_string()]),
        I::User(word) => reading("USER", [word.arguments.value.to_string()]),
        I::Stopsignal(word) => reading("STOPSIGNAL", [word.arguments.value.to_string()]),
        I::Expose(expose) => reading("EXPOSE", expose.arguments.iter().map(|w| w.value.to_string())),
        I::Volume(volume) => {
            let words = match &volume.arguments {
                JsonOrStringArray::Json(words) => &words.value,
                JsonOrStringArray::String(words) => words,
            };
            reading("VOLUME", words.iter().map(|word| word.value.to_string()))
        }
        _ => return None,
    })
}

#[track_caller]
fn compare(text: &str) {
    let ours = ours(&super::parse("Dockerfile", text).unwrap());
    let peer = Peer::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(peer.instructions.len(), ours.len(), "{text}");
    for (theirs, ours) in peer.instructions.iter().zip(&ours) {
        if let Some(theirs) = peer_reading(theirs) {
            assert_eq!(&theirs, ours, "dockerfile-parser (left) in\n{text}");
        }
    }
    let second = parse_dockerfile::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(second.instructions.len(), ours.len(), "{text}");
    for (theirs, ours) in second.instructions.iter().zip(&ours) {
        if let Some(theirs) = second_reading(text, theirs) {
            assert_eq!(&theirs, ours, "parse-dockerfile (left) in\n{text}");
        }
    }
}

#[test]
fn an_ordinary_file_reads_the_same() {
    compare(
        "# a comment\nARG VERSION=12\nFROM debian:12 AS build\n\n# another\nRUN apt-get update && \\\n    apt-get install -y \\\n    # a comment inside\n    gcc\nWORKDIR /src\nCOPY --chown=1:2 a b/ ./\nENV A=1 B=\"two words\"\nLABEL x=\"y z\"\nFROM scratch\nCOPY --from=build /src/out /out\nUSER 1000\nEXPOSE 80 443/tcp\nVOLUME /data\nENTRYPOINT [\"/out\", \"-v\"]\nCMD serve now\n",
    );
}

fn word() -> impl Strategy<Value = String> {
    "[a-z/][a-z0-9/._:-]{0,8}"
}

fn name() -> impl Strategy<Value = String> {
    "[A-Z][A-Z_0-9]{0,6}"
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![word(), "\"[a-z]{1,4} [a-z]{1,4}\"".prop_map(|text| text)]
}

/// The gap between words: blanks, or a line's end that is escaped.
fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(" "),
        1 => Just("  \t"),
        1 => Just(" \\\n  "),
        1 => Just(" \\\n# a comment\n    "),
    ]
}

fn exec() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 1..4).prop_map(|words| format!("{words:?}"))
}

fn shell() -> impl Strategy<Value = String> {
    prop::collection::vec((word(), gap()), 1..5).prop_map(|words| {
        words
            .iter()
            .map(|(word, gap)| format!("{word}{gap}"))
            .collect::<String>()
            + "end"
    })
}

fn instruction() -> impl Strategy<Value = String> {
    let pairs = || {
        prop::collection::vec((name(), value()), 1..4).prop_map(|pairs| {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            pairs.join(" ")
        })
    };
    let copy = (
        prop_oneof![
            Just(""),
            Just("--from=base "),
            Just("--chown=a:b "),
            Just("--chmod=755 ")
        ],
        prop::collection::vec(word(), 2..5),
    );
    prop_oneof![
        shell().prop_map(|text| format!("RUN {text}")),
        exec().prop_map(|text| format!("CMD {text}")),
        exec().prop_map(|text| format!("ENTRYPOINT {text}")),
        pairs().prop_map(|text| format!("ENV {text}")),
        pairs().prop_map(|text| format!("LABEL {text}")),
        (name(), prop::option::of(word())).prop_map(|(name, value)| match value {
            Some(value) => format!("ARG {name}={value}"),
            None => format!("ARG {name}"),
        }),
        copy.prop_map(|(flag, words)| format!("COPY {flag}{}", words.join(" "))),
        word().prop_map(|word| format!("WORKDIR {word}")),
        word().prop_map(|word| format!("USER {word}")),
        (1_u16..9000).prop_map(|port| format!("EXPOSE {port} 53/udp")),
        word().prop_map(|word| format!("VOLUME {word}")),
        "[a-z]{1,5}".prop_map(|name| format!("FROM base AS s{name}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_files_read_the_same(instructions in prop::collection::vec(instruction(), 0..12)) {
        // parse-dockerfile refuses stages of the same name.
        let numbered = instructions.iter().enumerate().map(|(index, line)| {
            let stage = if line.starts_with("FROM") { index.to_string() } else { String::new() };
            format!("{line}{stage}\n")
        });
        compare(&format!("FROM base AS base\n{}", numbered.collect::<String>()));
    }
}
