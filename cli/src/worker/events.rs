//! [`EventSink`]: a build's events, sent to the server in batches.
//!
//! `emit` never waits. A batch that got no answer is sent again with the same number, so that the server takes it once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use builder::event::{Event, EventSink, Stream};
use client::api::EventBatch;
use client::api_client::Api;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long events are gathered: a person sees no difference, and a chatty step makes ten requests a second.
const GATHER: Duration = Duration::from_millis(100);

/// Output of one step that is kept; the rest is counted and left out.
const OUTPUT_BYTES_PER_STEP_MAX: usize = 2 << 20;

/// How many events are sent in one request.
const BATCH_MAX: usize = 2_000;

/// Pause before a batch is sent again, and how often.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRIES_MAX: u32 = 20;

/// The build's end of the channel.
pub(crate) struct Events {
    queue: mpsc::UnboundedSender<Event>,
}

/// Sends what is emitted until it is told to finish.
pub(crate) struct EventSender {
    task: JoinHandle<()>,
    last: CancellationToken,
}

impl Events {
    pub(crate) fn start(api: Api, build: String) -> (Self, EventSender) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let last = CancellationToken::new();
        let task = tokio::spawn(send_all(api, build, receiver, last.clone()));
        (Self { queue }, EventSender { task, last })
    }
}

impl EventSink for Events {
    fn emit(&self, event: Event) {
        // The receiver only goes first when the server has gone, and the build with it.
        drop(self.queue.send(event));
    }
}

impl EventSender {
    /// Sends what has been emitted so far, and ends; a straggler of the build is not waited for.
    pub(crate) async fn finish(self) {
        self.last.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the event sender ended badly");
        }
    }
}

async fn send_all(
    api: Api,
    build: String,
    mut queue: mpsc::UnboundedReceiver<Event>,
    last: CancellationToken,
) {
    let mut first = 0;
    let mut output = OutputLimit::default();
    let mut events = Vec::new();
    loop {
        let received = tokio::select! {
            biased;
            received = queue.recv_many(&mut events, BATCH_MAX) => received,
            () = last.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if received == 0 {
            return;
        }
        if events.len() < BATCH_MAX && !last.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = last.cancelled() => {}
            }
            while events.len() < BATCH_MAX
                && let Ok(event) = queue.try_recv()
            {
                events.push(event);
            }
        }
        let batch = condense(std::mem::take(&mut events), &mut output);
        if batch.is_empty() {
            continue;
        }
        let sent = batch.len() as u64;
        if !send(&api, &build, EventBatch { first, events: batch }).await {
            return;
        }
        first += sent;
    }
}

/// Sends one batch until it arrives. False: the server does not want this build's events any more.
async fn send(api: &Api, build: &str, batch: EventBatch) -> bool {
    for _ in 0..RETRIES_MAX {
        match api.send_events(build, &batch).await {
            Ok(_) => return true,
            Err(error) if error.is_outage() => tracing::debug!(%error, build, "events are sent again"),
            Err(error) => {
                tracing::warn!(%error, build, "the server refuses events");
                return false;
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    tracing::warn!(build, "events could not be sent");
    false
}

/// Drops what nobody needs: all but the newest state of a transfer, and output past the limit.
fn condense(events: Vec<Event>, output: &mut OutputLimit) -> Vec<Value> {
    let mut newest = HashSet::new();
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    for event in events.into_iter().rev() {
        let superseded = match &event {
            Event::Progress { id, action, .. } => !newest.insert((id.clone(), action.clone())),
            _ => false,
        };
        if !superseded {
            kept.push(event);
        }
    }
    let in_order = kept.into_iter().rev();
    in_order
        .filter_map(|event| output.pass(event))
        .filter_map(|event| serde_json::to_value(event).ok())
        .collect()
}

/// Bytes of output seen, by step.
#[derive(Default)]
struct OutputLimit(HashMap<usize, usize>);

impl OutputLimit {
    fn pass(&mut self, event: Event) -> Option<Event> {
        let Event::Output { step, text, .. } = &event else {
            return Some(event);
        };
        let seen = self.0.entry(*step).or_default();
        let before = *seen;
        *seen = before.saturating_add(text.len());
        if *seen <= OUTPUT_BYTES_PER_STEP_MAX {
            return Some(event);
        }
        let limit = OUTPUT_BYTES_PER_STEP_MAX >> 20;
        (before <= OUTPUT_BYTES_PER_STEP_MAX).then(|| Event::Output {
            step: *step,
            stream: Stream::Stderr,
            text: format!("[this step's output is longer than {limit} MiB; the rest is left out]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(step: usize, text: String) -> Event {
        Event::Output {
            step,
            stream: Stream::Stdout,
            text,
        }
    }

    #[test]
    fn output_past_the_limit_is_left_out_and_said_so_once() {
        let mut limit = OutputLimit::default();
        let line = "x".repeat(1 << 20);
        let events = (0..5)
            .map(|_| output(0, line.clone()))
            .chain([output(1, "other".into())])
            .collect();
        let kept = condense(events, &mut limit);
        assert_eq!(kept.len(), 4);
        assert!(kept[2]["text"].as_str().unwrap().contains("longer than 2 MiB"));
        assert_eq!(kept[3]["text"], "other");
    }

    #[test]
    fn only_the_newest_state_of_a_transfer_is_sent() {
        let progress = |id: &str, done_bytes| Event::Progress {
            id: id.into(),
            action: "unpack".into(),
            done_bytes,
            total_bytes: None,
        };
        let events = vec![
            progress("a", 1),
            output(0, "line".into()),
            progress("b", 1),
            progress("a", 2),
        ];
        let kept = condense(events, &mut OutputLimit::default());
        let types: Vec<_> = kept.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["output", "progress", "progress"]);
        assert_eq!(kept[2]["done_bytes"], 2);
    }
}
