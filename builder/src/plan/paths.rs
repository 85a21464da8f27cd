//! Paths inside images and contexts, cleaned by text alone: `..` stops at the root.

/// An absolute path from a base directory and a path that may be relative, without `.`, `..` and doubled slashes.
pub(super) fn absolute(base: &str, path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for name in base.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// A path relative to the root; the root is `.`.
pub(super) fn relative(path: &str) -> String {
    match absolute("/", path).trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

/// Whether a destination's text says that it is a directory.
pub(super) fn names_directory(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("" | "." | ".."))
}

/// The last name of a path.
pub(super) fn base_name(path: &str) -> Option<&str> {
    path.rsplit('/').find(|name| !matches!(*name, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(absolute("/a/b", "../c//./d/"), "/a/c/d");
        assert_eq!(absolute("/a", "/../../x"), "/x");
        assert_eq!(absolute("", "../../x"), "/x");
        assert_eq!(absolute("/a", ""), "/a");
        assert_eq!(relative("../../etc/passwd"), "etc/passwd");
        assert_eq!(relative("/"), ".");
        assert_eq!(relative("./a/"), "a");
    }

    #[test]
    fn directories_by_name() {
        for (path, expected) in [
            ("/x/", true),
            (".", true),
            ("..", true),
            ("a/..", true),
            ("", true),
            ("/x", false),
            ("a.", false),
        ] {
            assert_eq!(names_directory(path), expected, "{path}");
        }
        assert_eq!(base_name("a/b/"), Some("b"));
        assert_eq!(base_name("../"), None);
    }
}
