//! The instructions that only describe the image.

use serde_json::{Map, Value};

use crate::dockerfile::statement::{Health, Statement};
use crate::dockerfile::{Diagnostic, Word};

use super::fold::Fold;
use super::{checks, history, ports, signal};

/// What a port takes in a plan, about.
const PORT_BYTES: usize = 100;

impl Fold<'_> {
    pub(super) fn expose(&mut self, statement: &Statement, words: &[Word]) -> Result<(), Diagnostic> {
        let mut exposed = Vec::new();
        // BuildKit lists ports in the order of the arguments' texts.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|one, other| one.raw.cmp(&other.raw));
        for word in words {
            for text in self.expand_fully(word)?.words {
                let found = ports::parse(&text).map_err(|error| {
                    self.shared
                        .sources
                        .diagnose(word.span, error.message)
                        .maybe_help(error.help)
                })?;
                self.warnings.extend(checks::exposed(&text, word.span));
                self.spend(found.len() * PORT_BYTES, word.span)?;
                exposed.extend(found);
            }
        }
        for port in &exposed {
            self.state.config.exposed_ports.insert(port.clone(), Map::new());
        }
        self.config_step(statement, format!("EXPOSE {}", history::list(&exposed)));
        Ok(())
    }

    pub(super) fn volume(&mut self, statement: &Statement, words: &[Word]) -> Result<(), Diagnostic> {
        let mut volumes = Vec::new();
        for word in words {
            let path = self.expand(word)?;
            if path.is_empty() {
                return Err(self.shared.sources.diagnose(word.span, "a volume can't be empty"));
            }
            volumes.push(path);
        }
        for volume in &volumes {
            self.state.config.volumes.insert(volume.clone(), Map::new());
        }
        self.config_step(statement, format!("VOLUME {}", history::list(&volumes)));
        Ok(())
    }

    pub(super) fn stopsignal(&mut self, statement: &Statement, word: &Word) -> Result<(), Diagnostic> {
        let name = self.expand(word)?;
        if !signal::is_known(&name) {
            return Err(self
                .shared
                .sources
                .diagnose(word.span, format!("there is no signal {name:?}"))
                .help("write a name such as SIGTERM, or a number"));
        }
        self.config_step(statement, format!("STOPSIGNAL {name}"));
        self.state.config.stop_signal = Some(name);
        Ok(())
    }

    pub(super) fn healthcheck(&mut self, statement: &Statement, check: &Health) {
        let mut fields = Map::new();
        let test = history::health_test(&check.test);
        fields.insert("Test".to_owned(), Value::from(test));
        let numbers = [
            ("Interval", check.interval_ns),
            ("Timeout", check.timeout_ns),
            ("StartPeriod", check.start_period_ns),
            ("StartInterval", check.start_interval_ns),
            ("Retries", i64::from(check.retries)),
        ];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            fields.insert(name.to_owned(), Value::from(number));
        }
        self.state.config.healthcheck = Some(Value::Object(fields));
        self.config_step(statement, format!("HEALTHCHECK {}", history::health(check)));
    }
}
