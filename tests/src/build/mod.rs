//! `layeryard build` from a Dockerfile to an image that engines run.

mod cache;
mod debian;
mod language;
mod lifecycle;
mod refused;
