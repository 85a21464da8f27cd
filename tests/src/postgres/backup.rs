//! The backup of PostgreSQL and a bucket as docs/operations.md has it, while the server runs.

use super::Backends;
use crate::harness::image::Image;
use crate::harness::paths;
use crate::harness::server::Server;

fn push(server: &Server, seeds: std::ops::Range<u64>) -> Vec<(Image, String)> {
    let image = |seed| {
        let image = Image::small(seed);
        let tag = format!("v{seed}");
        image.push(server, "team/app", &tag);
        (image, tag)
    };
    seeds.map(image).collect()
}

#[test]
fn a_copy_in_the_documented_order_is_complete() {
    let (original, copy) = (Backends::start(), Backends::start());
    let server = original.serve(&[]);
    let mut kept = push(&server, 4200..4204);
    original
        .gateway
        .copy_to(&copy.gateway, |name| name.starts_with("meta/"));
    // Only the database of the copy has these.
    kept.extend(push(&server, 4210..4214));
    let gone = server.request("DELETE", "/v2/team/app/manifests/v4200").send();
    gone.expect(202);
    let (_, deleted) = kept.remove(0);
    let dumps = paths::scratch();
    let dump = dumps.path().join("dump.sql");
    original.postgres.dump(&dump);
    // Only the bucket of the copy has what these are made of.
    push(&server, 4220..4224);
    original
        .gateway
        .copy_to(&copy.gateway, |name| !name.starts_with("meta/"));
    copy.postgres.restore(&dump);
    drop(server);
    drop(original);

    let mut server = copy.serve(&[]);
    for (image, tag) in &kept {
        image.assert_on(&server, "team/app", tag);
    }
    for absent in [deleted.as_str(), "v4220"] {
        let target = format!("/v2/team/app/manifests/{absent}");
        server.request("GET", &target).send().expect(404);
    }
    // A server that takes its database for older than the store would change nothing.
    let (later, tag) = push(&server, 4230..4231).remove(0);
    later.assert_on(&server, "team/app", &tag);
    server.assert_healthy();
}
