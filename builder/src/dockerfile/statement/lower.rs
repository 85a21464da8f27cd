//! [`Instruction`] → [`Statement`].

use crate::dockerfile::heredoc;
use crate::dockerfile::suggest::did_you_mean;
use crate::dockerfile::{Arguments, Diagnostic, Instruction, Keyword, Pair, Source, Word};

use super::flags::{Flags, Shape};
use super::{Argument, Command, Copy, CopySource, From, Kind, Onbuild, Run, Statement, health};

const RUN_FLAGS: [(&str, Shape); 4] = [
    ("mount", Shape::Values),
    ("network", Shape::Value),
    ("security", Shape::Value),
    ("device", Shape::Values),
];
const COPY_FLAGS: [(&str, Shape); 6] = [
    ("from", Shape::Value),
    ("chown", Shape::Value),
    ("chmod", Shape::Value),
    ("link", Shape::Switch),
    ("parents", Shape::Switch),
    ("exclude", Shape::Values),
];
const ADD_FLAGS: [(&str, Shape); 7] = [
    ("chown", Shape::Value),
    ("chmod", Shape::Value),
    ("link", Shape::Switch),
    ("exclude", Shape::Values),
    ("keep-git-dir", Shape::Switch),
    ("checksum", Shape::Value),
    ("unpack", Shape::Switch),
];

/// Types an instruction, or says what is wrong with it.
pub fn lower(source: &Source, instruction: &Instruction) -> Result<Statement, Diagnostic> {
    let Some(keyword) = instruction.keyword else {
        return Err(unknown(source, instruction));
    };
    let lowering = Lowering { source, instruction };
    let flags = match keyword {
        Keyword::Run => lowering.flags(&RUN_FLAGS)?,
        Keyword::Copy => lowering.flags(&COPY_FLAGS)?,
        Keyword::Add => lowering.flags(&ADD_FLAGS)?,
        Keyword::From => lowering.flags(&[("platform", Shape::Value)])?,
        // Depends on its arguments.
        Keyword::Healthcheck => Flags::default(),
        _ => lowering.flags(&[])?,
    };
    let kind = match keyword {
        Keyword::From => lowering.from(&flags).map(Kind::From),
        Keyword::Run => lowering.run(&flags).map(Kind::Run),
        Keyword::Copy => lowering.copy(&flags, false).map(Kind::Copy),
        Keyword::Add => lowering.copy(&flags, true).map(Kind::Copy),
        Keyword::Env => lowering.pairs().map(Kind::Env),
        Keyword::Label => lowering.pairs().map(Kind::Label),
        Keyword::Arg => lowering.arg().map(Kind::Arg),
        Keyword::Workdir => lowering.text().map(Kind::Workdir),
        Keyword::User => lowering.text().map(Kind::User),
        Keyword::Stopsignal => lowering.text().map(Kind::Stopsignal),
        Keyword::Maintainer => lowering.text().map(Kind::Maintainer),
        Keyword::Cmd => Ok(Kind::Cmd(lowering.command())),
        Keyword::Entrypoint => Ok(Kind::Entrypoint(lowering.command())),
        Keyword::Expose => lowering.words().map(Kind::Expose),
        Keyword::Volume => lowering.volumes().map(Kind::Volume),
        Keyword::Shell => lowering.shell().map(Kind::Shell),
        Keyword::Healthcheck => health::lower(source, instruction).map(Kind::Healthcheck),
        Keyword::Onbuild => lowering.onbuild().map(Kind::Onbuild),
    }?;
    Ok(Statement {
        kind,
        instruction: instruction.clone(),
    })
}

fn unknown(source: &Source, instruction: &Instruction) -> Diagnostic {
    let names = Keyword::ALL.iter().map(|keyword| keyword.name());
    source
        .diagnose(
            instruction.name.span,
            format!("unknown instruction {}", instruction.title()),
        )
        .maybe_help(did_you_mean(&instruction.name.raw, names))
}

struct Lowering<'a> {
    source: &'a Source,
    instruction: &'a Instruction,
}

impl Lowering<'_> {
    fn flags(&self, allowed: &[(&'static str, Shape)]) -> Result<Flags, Diagnostic> {
        Flags::read(self.source, self.instruction, allowed)
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.source.diagnose(self.instruction.span, message)
    }

    fn missing(&self) -> Diagnostic {
        self.error(format!(
            "{} needs at least one argument",
            self.instruction.title()
        ))
    }

    fn from(&self, flags: &Flags) -> Result<From, Diagnostic> {
        let words = self.words()?;
        let (image, name, as_keyword) = match words.as_slice() {
            [image] => (image, None, None),
            [image, word, name] if word.raw.eq_ignore_ascii_case("as") => (image, Some(name), Some(word)),
            _ => {
                return Err(self
                    .error("FROM takes an image, or an image, AS and a name")
                    .help("write FROM image AS name"));
            }
        };
        let name = name.map(|word| self.stage_name(word)).transpose()?;
        Ok(From {
            image: image.clone(),
            name,
            platform: flags.value("platform"),
            as_keyword: as_keyword.cloned(),
        })
    }

    fn stage_name(&self, word: &Word) -> Result<Word, Diagnostic> {
        let raw = word.raw.to_lowercase();
        let valid = raw.starts_with(|c: char| c.is_ascii_lowercase())
            && raw
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
        if !valid {
            return Err(self
                .source
                .diagnose(word.span, format!("{:?} can't be a stage's name", word.raw))
                .help("a name begins with a letter and holds letters, digits, `-`, `_` and `.`"));
        }
        Ok(Word { raw, span: word.span })
    }

    fn run(&self, flags: &Flags) -> Result<Run, Diagnostic> {
        let command = self.command();
        let empty = match &command {
            Command::Shell(text) => text.is_empty(),
            Command::Exec(words) => words.is_empty(),
        };
        if empty {
            return Err(self.error("RUN needs a command"));
        }
        Ok(Run {
            command,
            mounts: flags.values("mount"),
            network: self.one_of("network", flags, &["default", "none", "host"])?,
            security: self.one_of("security", flags, &["sandbox", "insecure"])?,
            devices: flags.values("device"),
        })
    }

    /// A flag that takes one of a few words.
    fn one_of(&self, flag: &str, flags: &Flags, choices: &[&str]) -> Result<Option<Word>, Diagnostic> {
        let word = flags.value(flag);
        match &word {
            Some(word) if !choices.contains(&word.raw.as_str()) => {
                let listed = || format!("it may be {}", choices.join(", "));
                Err(self
                    .source
                    .diagnose(word.span, format!("--{flag} can't be {:?}", word.raw))
                    .help(did_you_mean(&word.raw, choices.iter().copied()).unwrap_or_else(listed)))
            }
            _ => Ok(word),
        }
    }

    fn copy(&self, flags: &Flags, add: bool) -> Result<Copy, Diagnostic> {
        let (Arguments::Words(words) | Arguments::Json(words)) = &self.instruction.arguments else {
            return Err(self.missing());
        };
        let [sources @ .., dest] = words.as_slice() else {
            return Err(self.missing());
        };
        let title = self.instruction.title();
        if sources.is_empty() {
            return Err(self
                .error(format!("{title} needs a source and a destination"))
                .help(format!("write {title} source… destination")));
        }
        if matches!(heredoc::parse(&dest.raw), Ok(Some(_))) {
            return Err(self
                .source
                .diagnose(dest.span, "a heredoc can't be the destination"));
        }
        let sources = sources
            .iter()
            .map(|word| self.copy_source(word))
            .collect::<Result<_, _>>()?;
        Ok(Copy {
            add,
            sources,
            dest: dest.clone(),
            from: flags.value("from"),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: flags.values("exclude"),
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.value("checksum"),
            unpack: flags.switch("unpack"),
        })
    }

    fn copy_source(&self, word: &Word) -> Result<CopySource, Diagnostic> {
        // The JSON form has no heredocs.
        let head = match &self.instruction.arguments {
            Arguments::Words(_) => heredoc::parse(&word.raw).ok().flatten(),
            _ => None,
        };
        let Some(head) = head else {
            return Ok(CopySource::Path(word.clone()));
        };
        self.instruction
            .heredocs
            .iter()
            .position(|heredoc| heredoc.head.name == head.name)
            .map(CopySource::Heredoc)
            .ok_or_else(|| {
                self.source
                    .diagnose(word.span, format!("the heredoc {} has no body", head.name))
            })
    }

    fn pairs(&self) -> Result<Vec<Pair>, Diagnostic> {
        let Arguments::Pairs(pairs) = &self.instruction.arguments else {
            return Err(self.missing());
        };
        if pairs.is_empty() {
            return Err(self.missing());
        }
        match pairs.iter().find(|pair| pair.name.raw.is_empty()) {
            Some(pair) => Err(self
                .source
                .diagnose(pair.name.span, "a name is missing before the `=`")),
            None => Ok(pairs.clone()),
        }
    }

    fn arg(&self) -> Result<Vec<Argument>, Diagnostic> {
        self.words()?
            .into_iter()
            .map(|word| {
                let (name, default) = match word.raw.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (word.raw.as_str(), None),
                };
                if name.is_empty() {
                    return Err(self
                        .source
                        .diagnose(word.span, "a name is missing before the `=`"));
                }
                Ok(Argument {
                    name: name.to_owned(),
                    default: default.map(|raw| Word {
                        raw: raw.to_owned(),
                        span: word.span,
                    }),
                    word,
                })
            })
            .collect()
    }

    fn text(&self) -> Result<Word, Diagnostic> {
        match &self.instruction.arguments {
            Arguments::Text(word) if !word.raw.is_empty() => Ok(word.clone()),
            _ => Err(self.error(format!("{} needs exactly one argument", self.instruction.title()))),
        }
    }

    fn words(&self) -> Result<Vec<Word>, Diagnostic> {
        match &self.instruction.arguments {
            Arguments::Words(words) | Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
            _ => Err(self.missing()),
        }
    }

    fn volumes(&self) -> Result<Vec<Word>, Diagnostic> {
        let words = self.words()?;
        match words.iter().find(|word| word.raw.is_empty()) {
            Some(word) => Err(self.source.diagnose(word.span, "a volume can't be empty")),
            None => Ok(words),
        }
    }

    fn command(&self) -> Command {
        match &self.instruction.arguments {
            Arguments::Json(words) => Command::Exec(words.iter().map(|word| word.raw.clone()).collect()),
            Arguments::Text(word) => Command::Shell(word.raw.clone()),
            _ => Command::Shell(String::new()),
        }
    }

    fn shell(&self) -> Result<Vec<String>, Diagnostic> {
        match &self.instruction.arguments {
            Arguments::Json(words) if !words.is_empty() => {
                Ok(words.iter().map(|word| word.raw.clone()).collect())
            }
            Arguments::Json(_) => Err(self.missing()),
            _ => Err(self
                .error("SHELL needs a JSON array")
                .help("write SHELL [\"/bin/sh\", \"-c\"]")),
        }
    }

    fn onbuild(&self) -> Result<Onbuild, Diagnostic> {
        let Arguments::Trigger(trigger) = &self.instruction.arguments else {
            return Err(self.missing());
        };
        if trigger.name.raw.is_empty() {
            return Err(self.missing());
        }
        if let Some(keyword @ (Keyword::Onbuild | Keyword::From | Keyword::Maintainer)) = trigger.keyword {
            return Err(self.source.diagnose(
                trigger.name.span,
                format!("{keyword} can't be a trigger of ONBUILD"),
            ));
        }
        // A trigger that is wrong would fail every build on the image.
        lower(self.source, trigger)?;
        let mut expression = trigger.text.clone();
        for heredoc in &trigger.heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.body);
            expression.push_str(&heredoc.head.name);
        }
        Ok(Onbuild { expression })
    }
}
