//! COPY and ADD.

use crate::dockerfile::expand::Expander;
use crate::dockerfile::statement::{self, CopySource, Statement};
use crate::dockerfile::{Diagnostic, Word};

use super::fold::Fold;
use super::outline::Origin;
use super::{Chmod, Copy, CopyFrom, InlineFile, Operation, Remote, checks, chmod, paths};

/// How much variables may bring into a heredoc's body.
const MAX_BODY_BYTES: usize = 16 << 20;

/// What the sources of a COPY turn out to be.
#[derive(Default)]
struct Sorted {
    paths: Vec<String>,
    remote: Vec<Remote>,
    inline: Vec<InlineFile>,
    /// For the history: the sources as written, expanded.
    texts: Vec<String>,
}

impl Fold<'_> {
    pub(super) fn copy(&mut self, statement: &Statement, copy: &statement::Copy) -> Result<(), Diagnostic> {
        let sorted = self.sources(statement, copy)?;
        self.check_remote_flags(statement, &sorted)?;
        let dest_text = self.expand(&copy.dest)?;
        let chown = self.optional(copy.chown.as_ref())?;
        let (chmod_text, chmod) = self.chmod(copy.chmod.as_ref())?;
        let exclude = copy
            .exclude
            .iter()
            .map(|word| self.expand(word))
            .collect::<Result<Vec<_>, _>>()?;
        let mut created_by = copy.name().to_owned();
        let mut note = |text: &str| {
            created_by.push(' ');
            created_by.push_str(text);
        };
        if copy.parents {
            note("--parents");
        }
        if let Some(chown) = &chown {
            note(&format!("--chown={chown}"));
        }
        if let Some(chmod) = &chmod_text {
            note(&format!("--chmod={chmod}"));
        }
        sorted.texts.iter().for_each(|text| note(text));
        note(&dest_text);
        note("# buildkit");
        let several = sorted.paths.len() + sorted.remote.len() + sorted.inline.len() > 1;
        let operation = Operation::Copy(Copy {
            from: self.copy_from(copy)?,
            sources: sorted.paths,
            inline: sorted.inline,
            remote: sorted.remote,
            dest: paths::absolute(&self.state.cwd(), &dest_text),
            dest_is_dir: several || paths::names_directory(&dest_text),
            chown,
            chmod,
            unpack: copy.unpack.unwrap_or(copy.add),
            link: copy.link,
            parents: copy.parents,
            exclude,
        });
        if copy.link {
            self.warnings.push(checks::link(statement.instruction.span));
        }
        self.step(statement, operation, created_by);
        Ok(())
    }

    fn sources(&mut self, statement: &Statement, copy: &statement::Copy) -> Result<Sorted, Diagnostic> {
        let mut sorted = Sorted::default();
        let mut inline_texts = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Heredoc(index) => {
                    let file = self.inline_file(statement, *index)?;
                    inline_texts.push(format!("<<{}", statement.instruction.heredocs[*index].head.name));
                    sorted.inline.push(file);
                }
                CopySource::Path(word) => self.path_source(copy, word, &mut sorted)?,
            }
        }
        sorted.texts.extend(inline_texts);
        Ok(sorted)
    }

    fn path_source(
        &mut self,
        copy: &statement::Copy,
        word: &Word,
        sorted: &mut Sorted,
    ) -> Result<(), Diagnostic> {
        let text = self.expand(word)?;
        let is_git = is_git(&text);
        if is_git || is_http(&text) {
            if !copy.add {
                return Err(self
                    .shared
                    .sources
                    .diagnose(word.span, format!("COPY can't fetch {text}"))
                    .help("use ADD for URLs and git repositories"));
            }
            let url = text.clone();
            let checksum = self.optional(copy.checksum.as_ref())?;
            sorted.remote.push(if is_git {
                Remote::Git {
                    url,
                    checksum,
                    keep_git_dir: copy.keep_git_dir.unwrap_or(false),
                }
            } else {
                Remote::Http { url, checksum }
            });
        } else if copy.parents {
            let (pivot, rest) = match text.split_once("/./") {
                Some((pivot, rest)) => (Some(paths::relative(pivot)), paths::relative(rest)),
                None => (None, paths::relative(&text)),
            };
            sorted.paths.push(match pivot {
                Some(pivot) => format!("{pivot}/./{rest}"),
                None => rest,
            });
        } else {
            sorted.paths.push(paths::relative(&text));
        }
        sorted.texts.push(text);
        Ok(())
    }

    fn inline_file(&mut self, statement: &Statement, index: usize) -> Result<InlineFile, Diagnostic> {
        let heredoc = &statement.instruction.heredocs[index];
        let Some(name) = paths::base_name(&heredoc.head.name) else {
            return Err(self.shared.sources.diagnose(
                statement.instruction.span,
                format!("the heredoc {} can't be a file's name", heredoc.head.name),
            ));
        };
        let content = heredoc.content();
        let data = if heredoc.head.expand {
            let expander = Expander {
                ignore_quotes: true,
                max_bytes: MAX_BODY_BYTES,
                ..Expander::new('\\')
            };
            let body = Word {
                raw: content,
                span: heredoc.span,
            };
            self.expand_with(expander, &body)?.text
        } else {
            content
        };
        Ok(InlineFile {
            name: name.to_owned(),
            data: data.into_bytes(),
        })
    }

    /// Flags that mean something only for URLs and git repositories.
    fn check_remote_flags(&self, statement: &Statement, sorted: &Sorted) -> Result<(), Diagnostic> {
        let only_git = sorted
            .remote
            .iter()
            .any(|remote| matches!(remote, Remote::Git { .. }));
        let misplaced = statement
            .instruction
            .flags
            .iter()
            .find(|flag| match flag.name.as_str() {
                "checksum" => sorted.remote.is_empty(),
                "keep-git-dir" => !only_git,
                _ => false,
            });
        match misplaced {
            None => Ok(()),
            Some(flag) => Err(self.shared.sources.diagnose(
                flag.span,
                format!("--{} is only for sources that are fetched", flag.name),
            )),
        }
    }

    fn copy_from(&self, copy: &statement::Copy) -> Result<CopyFrom, Diagnostic> {
        let Some(from) = &copy.from else {
            return Ok(CopyFrom::Context);
        };
        let sources = self.shared.sources;
        let origin = self
            .shared
            .outline
            .origin(self.index, from, sources.get(from.span.source))?;
        Ok(match origin {
            Origin::Image(name) => CopyFrom::Image(name),
            Origin::Stage(stage) => match self.shared.ids.get(stage).copied().flatten() {
                Some(id) => CopyFrom::Stage(id),
                None => return Err(sources.diagnose(from.span, "this stage is not part of the build")),
            },
        })
    }

    fn chmod(&mut self, word: Option<&Word>) -> Result<(Option<String>, Option<Chmod>), Diagnostic> {
        let (Some(text), Some(word)) = (self.optional(word)?, word) else {
            return Ok((None, None));
        };
        let mode = chmod::parse(&text).map_err(|message| self.shared.sources.diagnose(word.span, message))?;
        Ok((Some(text), Some(mode)))
    }

    /// An optional flag, expanded; empty counts as not given.
    fn optional(&mut self, word: Option<&Word>) -> Result<Option<String>, Diagnostic> {
        let text = word.map(|word| self.expand(word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// `git@host:path`, `git://…`, `ssh://…`, and web addresses whose path ends in `.git`.
fn is_git(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or(text);
    let scp_like = text
        .split_once('@')
        .and_then(|(user, rest)| Some((user, rest.split_once(':')?.0)))
        .is_some_and(|(user, host)| user == "git" && !host.contains('/'));
    scp_like
        || text.starts_with("git://")
        || text.starts_with("ssh://")
        || (is_http(text) && path.ends_with(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_sources_by_their_looks() {
        for git in [
            "git@github.com:a/b.git",
            "git://x/y",
            "ssh://git@x/y",
            "https://github.com/a/b.git#v1:sub",
            "https://github.com/a/b.git?tag=v1",
        ] {
            assert!(is_git(git), "{git}");
        }
        for other in [
            "https://x/y.tar",
            "https://x/y#b.git",
            "a.git",
            "git@x",
            "github.com/a/b.git",
        ] {
            assert!(!is_git(other), "{other}");
        }
    }
}
