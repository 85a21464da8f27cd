//! What whoever runs a server relies on: nothing is lost with the power or the database, broken blobs are found, others
//! are told of pushes, a stop is orderly.

mod integrity;
mod limits;
mod observed;
mod power;
mod shutdown;
mod sink;
mod space;
mod traces;
mod verify;
mod webhooks;
