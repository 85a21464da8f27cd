//! End-to-end tests: the built binary against real engines, clients and registries. `make test` installs them.

mod harness;

mod architecture;
mod clients;
mod conformance;
mod engines;
mod protocol;
