//! Showing a build: one [`Board`] of what is known, and three ways to draw it.

mod board;
mod clean;
mod live;
mod plain;

use builder::event::Event;
use client::api::NumberedEvent;

pub(crate) use board::Board;
use live::Live;
use plain::Plain;

use crate::args::ProgressMode;
use crate::output;

/// A way to show a build.
pub(crate) trait Renderer: Send {
    /// Shows what an event changed; `board` knows it already.
    fn event(&mut self, board: &Board, event: &Event, at_ms: u64);
    /// Clears what only makes sense while the build runs.
    fn end(&mut self) {}
}

/// The events as the server sent them, on standard output.
struct Json;

impl Renderer for Json {
    fn event(&mut self, _: &Board, _: &Event, _: u64) {}
}

pub(crate) struct Screen {
    board: Board,
    renderer: Box<dyn Renderer>,
    json: bool,
}

impl Screen {
    pub(crate) fn new(mode: ProgressMode, file_name: &str) -> Self {
        let renderer: Box<dyn Renderer> = match mode {
            ProgressMode::Json => Box::new(Json),
            ProgressMode::Auto if output::is_terminal() => Box::new(Live::new()),
            ProgressMode::Auto | ProgressMode::Plain => Box::new(Plain::new(Box::new(output::note))),
        };
        Self {
            board: Board::new(file_name),
            renderer,
            json: mode == ProgressMode::Json,
        }
    }

    /// Shows one event. What a newer server tells and this program does not know is left out, except in JSON.
    pub(crate) fn show(&mut self, numbered: &NumberedEvent) -> anyhow::Result<()> {
        if self.json {
            output::line(serde_json::to_string(numbered)?)?;
        }
        if let Ok(event) = serde_json::from_value::<Event>(numbered.event.clone()) {
            self.board.apply(&event, numbered.at_ms);
            self.renderer.event(&self.board, &event, numbered.at_ms);
        }
        Ok(())
    }

    pub(crate) fn end(mut self) {
        self.renderer.end();
    }
}

/// Why a step failed, in a few words: the whole story is the build's last message.
fn reason(message: &str, exit_code: Option<i32>) -> String {
    match exit_code {
        Some(code) => format!("exit code {code}"),
        None => clean::clean(message.lines().next().unwrap_or_default()),
    }
}

/// What is transferred, short enough for a line: of a digest the first digits.
fn short(id: &str) -> String {
    match id.parse::<oci::Digest>() {
        Ok(digest) => digest.short(),
        Err(_) => clean::clean(id),
    }
}
