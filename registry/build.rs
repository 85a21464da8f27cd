//! Rebuilds the crate when a migration changes: the macro that embeds them can't tell cargo itself.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/sqlite");
    println!("cargo:rerun-if-changed=../migrations/postgres");
}
