//! The same over PostgreSQL and a bucket, which live on when the server dies.

use std::thread;
use std::time::Duration;

use super::load::Ordeal;
use super::{instants, seeded};
use crate::harness::postgres::Postgres;
use crate::harness::processes::eventually;
use crate::harness::s3::Gateway;
use crate::harness::tell;

const INSTANTS: usize = 40;
const IDLE: Duration = Duration::from_secs(2);

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_visible() {
    let ordeal = Ordeal {
        instants: instants(INSTANTS),
        life_ms_max: 300,
        ledger_size_max: 12,
    };
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    let setting = postgres.setting();
    let mut server = gateway.serve(&[&setting, "LAYERYARD_LIMITS__UPLOAD_IDLE_MAX=2s"]);
    // A transaction whose client died may still be on its way to its end: until then nobody can say what happened.
    let between = || postgres.await_silence();
    let acknowledged = ordeal.endure(&mut server, &mut seeded("crash::replicated"), between);
    tell(&format!(
        "{} kills, {acknowledged} acknowledged changes",
        ordeal.instants
    ));
    assert!(
        acknowledged > ordeal.instants / 4,
        "hardly anything was changed: {acknowledged}"
    );
    server.assert_healthy();
    // Broken uploads expire, and a restart looks after them at once.
    thread::sleep(IDLE);
    server.stop();
    server.restart();
    eventually("parts and fragments are gone", || {
        gateway.parts() == 0 && gateway.objects("f/").is_empty()
    });
    server.stop();
    gateway.assert_accounted_for(|sql| postgres.query("postgres", sql));
}
