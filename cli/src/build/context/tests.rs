use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn scan(directory: &tempfile::TempDir, ignore: &str) -> Context {
    Context::scan(directory.path(), &IgnoreRules::parse(ignore).unwrap()).unwrap()
}

fn pack(context: &Context) -> Vec<u8> {
    let mut bytes = Vec::new();
    context.write_to(&mut bytes).unwrap();
    bytes
}

/// Name, type and link of every entry, as a reader sees them.
fn listing(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let describe = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.link_name_bytes() {
            Some(link) => format!("{path} -> {}", String::from_utf8_lossy(&link)),
            None if entry.header().entry_type().is_dir() => format!("{path}/"),
            None => path,
        }
    };
    archive.entries().unwrap().map(describe).collect()
}

#[test]
fn entries_are_sorted_and_links_stay_links() {
    let directory = directory(&[("b/file", "1"), ("a", "2"), ("b-c", "3")]);
    symlink("/etc/passwd", directory.path().join("link")).unwrap();
    fs::hard_link(directory.path().join("a"), directory.path().join("twin")).unwrap();
    let archive = pack(&scan(&directory, ""));
    assert_eq!(
        listing(&archive),
        ["a", "b/", "b/file", "b-c", "link -> /etc/passwd", "twin -> a"]
    );
    assert_eq!(archive, pack(&scan(&directory, "")));
}

#[test]
fn ignored_files_stay_and_kept_ones_bring_their_directories() {
    let directory = directory(&[
        ("src/main", ""),
        ("target/a/keep", ""),
        ("target/b/x", ""),
        ("top", ""),
    ]);
    let context = scan(&directory, "target\n!target/a/keep\ntop\n");
    assert_eq!(
        listing(&pack(&context)),
        ["src/", "src/main", "target/", "target/a/", "target/a/keep"]
    );
}

#[test]
fn names_may_be_long_and_of_any_bytes() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    let directory = directory(&[(&long, "x")]);
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(directory.path().join(odd), "y").unwrap();
    symlink("t".repeat(150), directory.path().join("z")).unwrap();
    let archive = pack(&scan(&directory, ""));
    let names = listing(&archive);
    assert!(names.contains(&long), "{names:?}");
    assert!(names.contains(&format!("z -> {}", "t".repeat(150))), "{names:?}");
    let mut reader = tar::Archive::new(archive.as_slice());
    assert!(
        reader
            .entries()
            .unwrap()
            .any(|entry| &*entry.unwrap().path_bytes() == b"caf\xe9")
    );
}

#[test]
fn sockets_are_skipped_and_named() {
    let directory = directory(&[]);
    let _socket = UnixListener::bind(directory.path().join("socket")).unwrap();
    let context = scan(&directory, "");
    assert_eq!(context.skipped, [Path::new("socket")]);
    assert!(listing(&pack(&context)).is_empty());
}

#[test]
fn files_that_change_meanwhile_never_damage_the_archive() {
    let directory = directory(&[("log", "12345"), ("z", "tail")]);
    let context = scan(&directory, "");
    fs::write(directory.path().join("log"), "1234567890").unwrap();
    assert_eq!(listing(&pack(&context)), ["log", "z"]);
    fs::write(directory.path().join("log"), "12").unwrap();
    let error = context.write_to(Vec::new()).unwrap_err();
    assert!(
        matches!(error, ContextError::Shrank { expected: 5, .. }),
        "{error}"
    );
    fs::remove_file(directory.path().join("log")).unwrap();
    symlink("/etc/passwd", directory.path().join("log")).unwrap();
    assert!(matches!(
        context.write_to(Vec::new()),
        Err(ContextError::Read { .. })
    ));
}
