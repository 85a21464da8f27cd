//! Which registries a Dockerfile's images come from: only their credentials leave this machine.

use std::collections::{BTreeMap, BTreeSet};

use builder::dockerfile::expand::Expander;
use builder::dockerfile::{Arguments, Dockerfile, Instruction, Keyword};
use oci::ImageRef;

use crate::server::ServerUrl;

/// The hosts of all images that the file names, this server left out.
pub(crate) fn registries(
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
    server: &ServerUrl,
) -> BTreeSet<String> {
    let mut names = Names {
        expander: Expander::new(dockerfile.directives.escape_char()),
        build_args,
        globals: BTreeMap::new(),
        stages: BTreeSet::from(["scratch".to_owned()]),
        images: BTreeSet::new(),
    };
    let mut in_stage = false;
    for instruction in &dockerfile.instructions {
        match (&instruction.keyword, &instruction.arguments) {
            (Some(Keyword::Arg), Arguments::Words(words)) if !in_stage => {
                words.iter().for_each(|word| names.global(&word.raw));
            }
            (Some(Keyword::From), Arguments::Words(words)) => {
                in_stage = true;
                let words: Vec<&str> = words.iter().map(|word| word.raw.as_str()).collect();
                names.from(&words);
            }
            _ => names.sources(instruction),
        }
    }
    names
        .images
        .into_iter()
        .filter(|host| !server.is_host(host))
        .collect()
}

struct Names<'a> {
    expander: Expander,
    build_args: &'a BTreeMap<String, String>,
    /// ARGs before the first FROM.
    globals: BTreeMap<String, String>,
    stages: BTreeSet<String>,
    /// Hosts of the images found.
    images: BTreeSet<String>,
}

impl Names<'_> {
    fn global(&mut self, word: &str) {
        let (name, default) = word.split_once('=').unwrap_or((word, ""));
        let value = self
            .build_args
            .get(name)
            .cloned()
            .or_else(|| self.expand(default));
        self.globals.insert(name.to_owned(), value.unwrap_or_default());
    }

    /// `FROM image [AS name]`.
    fn from(&mut self, words: &[&str]) {
        if let Some(image) = words.first().and_then(|word| self.expand(word)) {
            self.image(&image);
        }
        if let [_, _, name, ..] = words {
            self.stages.insert(name.to_lowercase());
        }
    }

    /// `COPY --from=image`, `RUN --mount=…,from=image`.
    fn sources(&mut self, instruction: &Instruction) {
        let flags = instruction
            .flags
            .iter()
            .filter_map(|flag| Some((flag.name.as_str(), flag.value.as_deref()?)));
        for (name, value) in flags {
            match name {
                "from" => self.image(value),
                "mount" => value
                    .split(',')
                    .filter_map(|part| part.strip_prefix("from="))
                    .for_each(|name| self.image(name)),
                _ => {}
            }
        }
    }

    fn image(&mut self, name: &str) {
        let is_stage = self.stages.contains(&name.to_lowercase()) || name.bytes().all(|b| b.is_ascii_digit());
        // What is no image name is for the server to refuse, with its line.
        if !is_stage && let Ok(image) = name.parse::<ImageRef>() {
            self.images.extend(image.or_docker_hub().registry);
        }
    }

    fn expand(&self, word: &str) -> Option<String> {
        self.expander
            .expand(word, &|name| self.globals.get(name).cloned())
            .ok()
            .map(|expansion| expansion.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_that_images_come_from_are_named() {
        let text = "ARG REGISTRY=ghcr.io\nARG TAG\nFROM ${REGISTRY}/org/base:${TAG:-1} AS build\nFROM build\n\
                    COPY --from=quay.io/tool /x /y\nCOPY --from=0 /a /b\nRUN --mount=from=registry.io/m,target=/m true\n\
                    FROM localhost:5000/own\nFROM scratch\n";
        let parsed = builder::dockerfile::parse("Dockerfile", text).unwrap();
        let server = "http://127.0.0.1:5000".parse().unwrap();
        let found = registries(&parsed, &BTreeMap::new(), &server);
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            ["ghcr.io", "quay.io", "registry.io"]
        );
        let args = BTreeMap::from([("REGISTRY".to_owned(), "docker.io".to_owned())]);
        assert!(registries(&parsed, &args, &server).contains("docker.io"));
    }
}
