//! The `layeryard` binary.

fn main() {}
