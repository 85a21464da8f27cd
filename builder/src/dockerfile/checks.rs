//! Build checks: remarks on a Dockerfile that is right but can be better. They never fail a parse.
//!
//! Those here need the text alone. What needs values, the planner remarks while it plans. Codes are BuildKit's, so that
//! its documentation and `# check=` directives apply.

use std::collections::BTreeSet;

use super::ast::{Arguments, Dockerfile, Instruction, Word};
use super::{Directive, Keyword, Span};

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The check's name; `None`: it can't be switched off.
    pub code: Option<&'static str>,
    pub message: String,
    pub span: Span,
}

/// Which checks a Dockerfile wants: `# check=skip=A,B;error=true`, and `# check=skip=A` above an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    skipped: Skipped,
    /// Remarks fail the build.
    pub fatal: bool,
    /// Instructions with their own rules.
    local: Vec<(Span, Skipped)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Skipped {
    all: bool,
    codes: BTreeSet<String>,
}

/// Words in names of variables that are likely to hold secrets.
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const RESERVED_STAGES: [&str; 2] = ["scratch", "context"];

impl Checks {
    pub fn of(file: &Dockerfile) -> Self {
        let mut checks = Self::default();
        if let Some(Directive { value, .. }) = &file.directives.check {
            for (key, value) in options(value) {
                match key {
                    "skip" => checks.skipped.add(value),
                    "error" => checks.fatal = value.eq_ignore_ascii_case("true"),
                    _ => {}
                }
            }
        }
        for instruction in &file.instructions {
            let mut skipped = Skipped::default();
            for comment in &instruction.comments {
                let Some((name, value)) = comment.split_once('=') else {
                    continue;
                };
                if name.trim().eq_ignore_ascii_case("check") {
                    let skips = options(value).filter(|(key, _)| *key == "skip");
                    skips.for_each(|(_, codes)| skipped.add(codes));
                }
            }
            if skipped != Skipped::default() {
                checks.local.push((instruction.span, skipped));
            }
        }
        checks
    }

    /// Whether a remark is wanted.
    pub fn wants(&self, warning: &Warning) -> bool {
        let Some(code) = warning.code else {
            return true;
        };
        let inside = |span: &Span| {
            span.source == warning.span.source
                && (span.start..=span.end.max(span.start)).contains(&warning.span.start)
        };
        let local = self
            .local
            .iter()
            .any(|(span, skipped)| inside(span) && skipped.has(code));
        !local && !self.skipped.has(code)
    }
}

impl Skipped {
    fn add(&mut self, codes: &str) {
        for code in codes.split(',').map(str::trim) {
            if code.eq_ignore_ascii_case("all") {
                self.all = true;
            } else {
                self.codes.insert(code.to_ascii_lowercase());
            }
        }
    }

    fn has(&self, code: &str) -> bool {
        self.all || self.codes.contains(&code.to_ascii_lowercase())
    }
}

/// `key=value;key=value`.
fn options(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';')
        .filter_map(|option| option.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
}

/// All remarks on the text, wanted or not, in no particular order.
pub fn check(file: &Dockerfile) -> Vec<Warning> {
    let mut checker = Checker {
        warnings: Vec::new(),
        stages: Vec::new(),
        once: Vec::new(),
    };
    checker.casing(file);
    for instruction in &file.instructions {
        checker.instruction(instruction);
    }
    checker.warnings
}

struct Checker {
    warnings: Vec<Warning>,
    /// The names of stages so far.
    stages: Vec<String>,
    /// What counts once in this stage.
    once: Vec<(Keyword, Span)>,
}

impl Checker {
    fn warn(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.warnings.push(Warning {
            code: Some(code),
            message: message.into(),
            span,
        });
    }

    /// Most instructions are in capitals, or most are not: the others stand out.
    fn casing(&mut self, file: &Dockerfile) {
        let names = || file.instructions.iter().map(|instruction| &instruction.name);
        let lower = names().filter(|name| is_lower(&name.raw)).count();
        let upper = names().filter(|name| is_upper(&name.raw)).count();
        let (fits, case): (fn(&str) -> bool, _) = if lower > upper {
            (is_lower, "lower case")
        } else {
            (is_upper, "capitals")
        };
        for name in names().filter(|name| !fits(&name.raw)) {
            let message = format!("{} is not in {case} as most instructions are", name.raw);
            self.warn("ConsistentInstructionCasing", name.span, message);
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        if let Some(span) = instruction.empty_continuation {
            let message = "an empty line continues the instruction above; it will not do so for ever";
            self.warn("NoEmptyContinuation", span, message);
        }
        match instruction.keyword {
            Some(Keyword::From) => self.from(instruction),
            Some(Keyword::Maintainer) => {
                let message = "MAINTAINER is deprecated; write LABEL org.opencontainers.image.authors=…";
                self.warn("MaintainerDeprecated", instruction.span, message);
            }
            Some(keyword @ (Keyword::Cmd | Keyword::Entrypoint | Keyword::Healthcheck)) => {
                self.only_once(keyword, instruction.span);
            }
            Some(Keyword::Env | Keyword::Label) => self.pairs(instruction),
            Some(Keyword::Arg) => {
                if let Arguments::Words(words) = &instruction.arguments {
                    for word in words {
                        let name = word.raw.split('=').next().unwrap_or_default();
                        self.secret("ARG", name, word.span);
                    }
                }
            }
            _ => {}
        }
    }

    fn from(&mut self, instruction: &Instruction) {
        self.once.clear();
        let Arguments::Words(words) = &instruction.arguments else {
            return;
        };
        let name = match words.as_slice() {
            [_, keyword, name] => {
                self.as_casing(instruction, keyword);
                self.stage_name(name);
                name.raw.to_lowercase()
            }
            _ => String::new(),
        };
        if let Some(flag) = instruction.flags.iter().find(|flag| flag.name == "platform") {
            self.platform(flag.value.as_deref().unwrap_or_default(), &name, flag.span);
        }
        self.stages.extend((!name.is_empty()).then_some(name));
    }

    fn as_casing(&mut self, instruction: &Instruction, keyword: &Word) {
        let from = &instruction.name.raw;
        let fits = (is_lower(from) && is_lower(&keyword.raw)) || (is_upper(from) && is_upper(&keyword.raw));
        if !fits {
            let message = format!("{from} and {} differ in case", keyword.raw);
            self.warn("FromAsCasing", keyword.span, message);
        }
    }

    fn stage_name(&mut self, name: &Word) {
        let lower = name.raw.to_lowercase();
        if lower != name.raw {
            let message = format!("the stage's name {} should be in lower case", name.raw);
            self.warn("StageNameCasing", name.span, message);
        }
        if RESERVED_STAGES.contains(&lower.as_str()) {
            let message = format!("the name {lower} is reserved");
            self.warn("ReservedStageName", name.span, message);
        }
        if self.stages.contains(&lower) {
            let message = format!("there is another stage with the name {lower}");
            self.warn("DuplicateStageName", name.span, message);
        }
    }

    fn platform(&mut self, platform: &str, stage: &str, span: Span) {
        if matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!("--platform={platform} is what FROM does anyway");
            self.warn("RedundantTargetPlatform", span, message);
        }
        // A stage that is named after its platform knows what it does.
        let meant = platform.split('/').any(|part| stage.contains(part));
        if !platform.contains('$') && !platform.is_empty() && !meant {
            let message = format!("--platform={platform} builds for that platform whatever is asked for");
            self.warn("FromPlatformFlagConstDisallowed", span, message);
        }
    }

    fn only_once(&mut self, keyword: Keyword, span: Span) {
        let earlier = self.once.iter_mut().find(|(other, _)| *other == keyword);
        let overruled = match earlier {
            Some((_, earlier)) => std::mem::replace(earlier, span),
            None => {
                self.once.push((keyword, span));
                return;
            }
        };
        let message = format!("only the last {keyword} of a stage counts");
        self.warn("MultipleInstructionsDisallowed", overruled, message);
    }

    fn pairs(&mut self, instruction: &Instruction) {
        let Arguments::Pairs(pairs) = &instruction.arguments else {
            return;
        };
        let title = instruction.title();
        for pair in pairs {
            if pair.legacy {
                let message = format!("write {title} name=value; the form without `=` is old");
                self.warn("LegacyKeyValueFormat", instruction.span, message);
            }
            if instruction.keyword == Some(Keyword::Env) {
                self.secret(&title, &pair.name.raw, pair.name.span);
            }
        }
    }

    fn secret(&mut self, title: &str, name: &str, span: Span) {
        let lower = name.to_ascii_lowercase();
        let words: Vec<&str> = lower.split('_').collect();
        if words.iter().any(|word| SECRET_WORDS.contains(word)) && !words.contains(&"public") {
            let message =
                format!("{title} {name}: secrets stay readable in the image; use RUN --mount=type=secret");
            self.warn("SecretsUsedInArgOrEnv", span, message);
        }
    }
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and lines of the wanted remarks.
    fn codes(text: &str) -> Vec<(&'static str, usize)> {
        let file = super::super::parse("Dockerfile", text).unwrap();
        let checks = Checks::of(&file);
        let mut found: Vec<_> = check(&file)
            .into_iter()
            .filter(|warning| checks.wants(warning))
            .map(|warning| (warning.code.unwrap(), warning.span.line))
            .collect();
        found.sort_by_key(|(_, line)| *line);
        found
    }

    #[test]
    fn a_good_file_has_no_remarks() {
        let good = "FROM --platform=$BUILDPLATFORM a AS b\nRUN x\nENV A=1 PUBLIC_KEY=2\nCMD [\"x\"]\nFROM b\nCMD [\"y\"]\n";
        assert_eq!(codes(good), []);
        assert_eq!(codes("from a as b\nrun x\n"), []);
    }

    #[test]
    fn remarks_on_stages() {
        assert_eq!(
            codes("FROM a AS Build\nFROM a as build\nFROM a AS scratch\nFROM --platform=linux/amd64 a\n"),
            [
                ("StageNameCasing", 1),
                ("FromAsCasing", 2),
                ("DuplicateStageName", 2),
                ("ReservedStageName", 3),
                ("FromPlatformFlagConstDisallowed", 4),
            ]
        );
        assert_eq!(
            codes("FROM --platform=$TARGETPLATFORM a\n"),
            [("RedundantTargetPlatform", 1)]
        );
        assert_eq!(codes("FROM --platform=linux/arm64 a AS for-arm64\n"), []);
    }

    #[test]
    fn remarks_on_instructions() {
        assert_eq!(
            codes(
                "FROM a\nrun x\nMAINTAINER m\nENV a b\nCMD x\nCMD y\nRUN a \\\n\n b\nARG MY_TOKEN\nENV AUTH=1 x=2\n"
            ),
            [
                ("ConsistentInstructionCasing", 2),
                ("MaintainerDeprecated", 3),
                ("LegacyKeyValueFormat", 4),
                ("MultipleInstructionsDisallowed", 5),
                ("NoEmptyContinuation", 8),
                ("SecretsUsedInArgOrEnv", 10),
                ("SecretsUsedInArgOrEnv", 11),
            ]
        );
    }

    #[test]
    fn checks_can_be_switched_off() {
        assert_eq!(codes("# check=skip=all\nFROM a\nrun x\n"), []);
        assert_eq!(
            codes("# check=skip=LegacyKeyValueFormat;error=true\nFROM a\nENV a b\nMAINTAINER m"),
            [("MaintainerDeprecated", 4)]
        );
        assert_eq!(
            codes("FROM a\n# check=skip=LegacyKeyValueFormat\nENV a b\nENV c d\n"),
            [("LegacyKeyValueFormat", 4)]
        );
        let file = super::super::parse("f", "# check=error=true\nFROM a").unwrap();
        assert!(Checks::of(&file).fatal);
    }
}
