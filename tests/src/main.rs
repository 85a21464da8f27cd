//! End-to-end tests: the built binary against real engines, clients and registries. `make test` installs them.

mod harness;

mod access;
mod architecture;
mod build;
mod cli;
mod clients;
mod conformance;
mod crash;
mod documents;
mod engines;
mod gc;
mod helm;
mod hostile;
mod operations;
mod postgres;
mod protocol;
mod replicas;
mod s3;
mod upstream;
