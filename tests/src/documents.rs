//! Documents name tests; what they name exists.

use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use crate::harness::paths;

const DOCUMENTS: [&str; 2] = ["docs/security.md", "docs/compatibility.md"];
/// Crates whose tests a document may name. Everything else is a theme of this one.
const CRATES: [&str; 5] = ["builder", "cli", "client", "oci", "registry"];

#[test]
fn tests_that_documents_name_exist() {
    let mut missing = Vec::new();
    let mut named = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(paths::root().join(document)).expect("read a document");
        for name in names(&text) {
            named += 1;
            if !exists(paths::root(), name) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    assert!(named > 50, "only {named} names were found");
}

#[test]
fn a_wrong_name_is_found() {
    let text = "| `a::b::c` and `d`, `Guard::new()` | `documents::a_wrong_name_is_found` |";
    let found: Vec<&str> = names(text).collect();
    assert_eq!(found, ["a::b::c", "documents::a_wrong_name_is_found"]);
    assert!(exists(paths::root(), "documents::a_wrong_name_is_found"));
    assert!(!exists(paths::root(), "documents::a_test_that_is_not_there"));
    assert!(!exists(paths::root(), "architecture::a_wrong_name_is_found"));
}

/// What stands in backticks and looks like a test's path.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
        name.contains("::") && name.chars().all(plain)
    })
}

/// `module::function`, or `crate::module::function`: a file of that module has a function of that name.
fn exists(root: &Path, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [.., module, function] = parts.as_slice() else {
        return false;
    };
    let directory = match CRATES.contains(&parts[0]) {
        true => root.join(parts[0]),
        false => root.join("tests/src"),
    };
    let declared = format!("fn {function}(");
    let files = WalkDir::new(directory).into_iter().flatten();
    let mut files = files.filter(|entry| {
        let path = entry.path().with_extension("");
        let in_module = path.ends_with(module) || path.ends_with(format!("{module}/mod"));
        in_module || path.parent().is_some_and(|parent| parent.ends_with(module))
    });
    files.any(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&declared)))
}
