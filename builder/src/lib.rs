//! Dockerfile → image. The front end (`dockerfile`), the planner (`plan`), and what runs the plan (`exec`, `snapshot`,
//! `layer`, `context`). Knows no registry: see `services`.

mod blocking;
pub mod context;
pub mod dockerfile;
pub mod event;
pub mod exec;
pub mod layer;
pub mod plan;
pub mod services;
pub mod snapshot;
