//! What the tests stand on: the server under test, the real peers, images, and HTTP as raw as a test wants it.

pub(crate) mod balancer;
pub(crate) mod build;
pub(crate) mod collector;
pub(crate) mod containerd;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod issuer;
pub(crate) mod paths;
mod peer;
pub(crate) mod postgres;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod server;
pub(crate) mod token_server;
pub(crate) mod tool;
pub(crate) mod upstream;

/// Says something that the test runner shows if the test fails.
#[expect(
    clippy::print_stdout,
    reason = "the test runner captures standard output and shows it with a failure"
)]
pub(crate) fn tell(text: &str) {
    println!("{text}");
}
