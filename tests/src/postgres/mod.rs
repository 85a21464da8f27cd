//! One server over PostgreSQL and a bucket; `replicas` has several.

mod accounts;
mod away;
mod backup;
mod conformance;
mod integrity;

use crate::harness::postgres::Postgres;
use crate::harness::s3::Gateway;
use crate::harness::server::Server;

/// Where everything lies that a server must not lose.
struct Backends {
    postgres: Postgres,
    gateway: Gateway,
}

impl Backends {
    fn start() -> Self {
        Self {
            postgres: Postgres::start(),
            gateway: Gateway::start(),
        }
    }

    fn serve(&self, more: &[&str]) -> Server {
        self.serve_database("postgres", more)
    }

    fn serve_database(&self, database: &str, more: &[&str]) -> Server {
        let setting = self.postgres.setting_of(database);
        let mut settings = vec![setting.as_str()];
        settings.extend(more);
        self.gateway.serve(&settings)
    }
}
