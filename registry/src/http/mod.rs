//! HTTP: paths and headers to typed calls, results to answers. axum is used here and nowhere else.

mod accounts;
mod api;
mod app;
mod blobs;
mod body;
mod builds;
mod cache;
mod catalog;
mod collection;
mod connection;
mod contexts;
mod error;
mod health;
mod images;
mod jobs;
mod manifests;
mod metrics;
mod openapi;
mod page;
mod principal;
mod range;
mod referrers;
mod route;
mod record;
mod sendfile;
mod state;
mod tags;
mod token;
mod uploads;
mod verify;

pub(crate) use app::App;
pub(crate) use error::{ApiError, Code};
pub(crate) use metrics::Metrics;
pub(crate) use sendfile::{Outbox, Outlet};
pub(crate) use state::{AppState, Inner};
