//! ARCHITECTURE.md's "who may import whom", held by a test: crate dependencies from the manifests, and the places
//! where certain names may occur at all from the sources.

mod lexer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use crate::harness::paths;

/// Workspace crate → the workspace crates that it may depend on. Who isn't listed may depend on all.
const IMPORTS: [(&str, &[&str]); 5] = [
    ("oci", &[]),
    ("runtime", &[]),
    ("client", &["oci"]),
    ("registry", &["oci", "client"]),
    ("builder", &["oci", "runtime"]),
];

/// Word of a source file → the only places where it may stand.
const PLACES: [(&str, &[&str]); 5] = [
    ("axum", &["registry/src/http"]),
    ("sqlx", &["registry/src/metadata"]),
    ("nix", &["runtime", "builder/src/snapshot", "builder/src/layer"]),
    ("libc", &["runtime", "builder/src/snapshot", "builder/src/layer"]),
    ("unsafe", &["runtime/src/sys.rs"]),
];

#[test]
fn crates_import_only_whom_they_may() {
    let found = wrong_imports(paths::root());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn names_stay_where_they_belong() {
    let found = wrong_places(paths::root());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn violations_are_found() {
    let tree = paths::scratch();
    let write = |name: &str, text: &str| {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(path, text).expect("write a file");
    };
    write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"oci\", \"registry\", \"builder\"]\n",
    );
    write(
        "oci/Cargo.toml",
        "[target.'cfg(unix)'.dev-dependencies]\nclient.workspace = true\n",
    );
    write(
        "oci/src/lib.rs",
        "// axum, unsafe\nconst S: &str = r#\"sqlx \" nix\"#; fn a<'a>(c: char) { c == '\"'; }\n",
    );
    write(
        "registry/Cargo.toml",
        "[dependencies]\nx = { package = \"layeryard-builder\", path = \"../builder\" }\n",
    );
    write("registry/src/service.rs", "use axum::Router;\n");
    write(
        "registry/src/http/mod.rs",
        "use axum::Router;\n/* /* */ unsafe */",
    );
    write("builder/Cargo.toml", "[dependencies]\noci.workspace = true\n");
    write(
        "builder/src/exec.rs",
        "fn f() {\n    unsafe { ::libc::getpid() };\n}\n",
    );
    write("builder/src/layer/x.rs", "use {nix, libc};\n");

    assert_eq!(
        wrong_imports(tree.path()),
        ["oci depends on client", "registry depends on builder"]
    );
    let places = [
        "builder/src/exec.rs:2: libc belongs to runtime, builder/src/snapshot, builder/src/layer",
        "builder/src/exec.rs:2: unsafe belongs to runtime/src/sys.rs",
        "registry/src/service.rs:1: axum belongs to registry/src/http",
    ];
    let mut found = wrong_places(tree.path());
    found.sort();
    assert_eq!(found, places);
}

fn wrong_imports(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, allowed) in IMPORTS {
        let manifest = root.join(name).join("Cargo.toml");
        if !manifest.exists() {
            continue;
        }
        for dependency in workspace_dependencies(&read_toml(&manifest)) {
            if dependency != name && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    wrong.sort();
    wrong
}

/// The workspace crates among all kinds of dependencies, by their short names.
fn workspace_dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            for (name, specification) in table {
                let package = specification
                    .get("package")
                    .and_then(toml::Value::as_str)
                    .unwrap_or(name);
                let short = package.strip_prefix("layeryard-").unwrap_or(package);
                if [
                    "oci",
                    "client",
                    "registry",
                    "builder",
                    "runtime",
                    "layeryard",
                    "tests",
                ]
                .contains(&short)
                {
                    found.push(short.to_owned());
                }
            }
        } else if key == "target" {
            found.extend(
                table
                    .values()
                    .filter_map(toml::Value::as_table)
                    .flat_map(workspace_dependencies),
            );
        }
    }
    found
}

fn wrong_places(root: &Path) -> Vec<String> {
    let places: BTreeMap<&str, &[&str]> = PLACES.into_iter().collect();
    let mut wrong = Vec::new();
    for member in members(root) {
        for entry in WalkDir::new(root.join(&member)).sort_by_file_name() {
            let entry = entry.expect("walk the sources");
            if entry.path().extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let relative = entry.path().strip_prefix(root).expect("below the root");
            let source = fs::read_to_string(entry.path()).expect("read a source");
            for (line, word) in lexer::words(&source) {
                if let Some(allowed) = places.get(word)
                    && !allowed.iter().any(|place| relative.starts_with(place))
                {
                    wrong.push(format!(
                        "{}:{line}: {word} belongs to {}",
                        relative.display(),
                        allowed.join(", ")
                    ));
                }
            }
        }
    }
    wrong
}

fn members(root: &Path) -> Vec<String> {
    let workspace = read_toml(&root.join("Cargo.toml"));
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("a list of members");
    members
        .iter()
        .map(|member| member.as_str().expect("a path").to_owned())
        .collect()
}

fn read_toml(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
