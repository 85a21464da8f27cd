//! `/api/v1` on a real server, with a worker driven over HTTP by the test.

mod builds;
mod harness;
mod malformed;
mod upstream;
