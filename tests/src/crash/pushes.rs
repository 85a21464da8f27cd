//! Kill -9 in the middle of everything that clients do, over SQLite and the file system.

use super::load::Ordeal;
use super::{instants, seeded};
use crate::harness::server::Server;
use crate::harness::tell;
use crate::harness::tool::Tool;

/// With those of `builds.rs` more than 200.
const INSTANTS: usize = 180;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_visible() {
    let ordeal = Ordeal {
        instants: instants(INSTANTS),
        life_ms_max: 120,
        ledger_size_max: 40,
    };
    let mut server = Server::start();
    let acknowledged = ordeal.endure(&mut server, &mut seeded("crash::pushes"), || {});
    tell(&format!(
        "{} kills, {acknowledged} acknowledged changes",
        ordeal.instants
    ));
    assert!(
        acknowledged > ordeal.instants / 4,
        "hardly anything was changed: {acknowledged}"
    );
    server.assert_healthy();
    server.stop();
    assert_accounted_for(&server);
}

/// Every file of the store has a row that will keep it or have it deleted, every kept row has its file, and the
/// database is sound.
pub(super) fn assert_accounted_for(server: &Server) {
    let database = server.data_dir().join("registry.db");
    let query = |sql: &str| {
        Tool::debian("sqlite3")
            .arg("-readonly")
            .arg(&database)
            .arg(sql)
            .ok()
    };
    assert_eq!(query("PRAGMA integrity_check"), "ok");
    assert_eq!(query("PRAGMA foreign_key_check"), "");

    let named = query(
        "SELECT storage_key FROM blobs UNION SELECT key FROM doomed UNION SELECT key FROM uploads WHERE key IS NOT NULL",
    );
    let named: std::collections::BTreeSet<&str> = named.lines().collect();
    let live = query("SELECT storage_key FROM blobs");
    let on_disk = files_below(&server.data_dir(), "blobs");
    for key in live.lines() {
        assert!(
            on_disk.contains(key),
            "{key} is in the database and not in the store"
        );
    }
    for key in &on_disk {
        assert!(
            named.contains(key.as_str()),
            "{key} lies in the store and nobody knows it"
        );
    }
    let sessions = query("SELECT lower(hex(id)) FROM uploads");
    let sessions: std::collections::BTreeSet<&str> = sessions.lines().collect();
    for file in files_below(&server.data_dir(), "uploads") {
        let id = file.trim_start_matches("uploads/").replace('-', "");
        assert!(sessions.contains(id.as_str()), "{file} belongs to no session");
    }
}

/// Names relative to the data directory.
fn files_below(data_dir: &std::path::Path, dir: &str) -> std::collections::BTreeSet<String> {
    let entries = walkdir::WalkDir::new(data_dir.join(dir))
        .into_iter()
        .map(|entry| entry.expect("walk the store"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    let relative = files.map(|file| file.path().strip_prefix(data_dir).expect("below").to_owned());
    relative
        .map(|path| path.to_str().expect("a name in UTF-8").to_owned())
        .collect()
}
