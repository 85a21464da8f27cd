//! Takes files out of a worker's sight: what it never sees, a build that takes it over can't read either.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, mount_remount,
    move_mount, open_tree,
};

/// Why a directory could not be hidden.
#[derive(Debug, thiserror::Error)]
#[error("could not hide {}: {action}: {source}", directory.display())]
pub struct IsolateError {
    directory: PathBuf,
    action: &'static str,
    source: io::Error,
}

/// Gives the calling thread, and what it starts from now on, a mount namespace in which `directory` is empty and
/// read-only except for `keep`, directories directly in it. To be called before any other thread exists.
pub fn hide_directory(directory: &Path, keep: &[&str]) -> Result<(), IsolateError> {
    let failed = |action| {
        move |source: io::Error| IsolateError {
            directory: directory.to_owned(),
            action,
            source,
        }
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| failed("make a mount namespace")(errno.into()))?;
    // Unmounts of the host still arrive, so that we pin nothing; nothing of ours goes back.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|errno| failed("cut mount propagation")(errno.into()))?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mut kept = Vec::new();
    for name in keep {
        let path = directory.join(name);
        let tree = open_tree(CWD, &path, flags).map_err(|errno| failed("keep a directory")(errno.into()))?;
        kept.push((path, tree));
    }
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"mode=0711,size=64k";
    mount("tmpfs", directory, "tmpfs", safe, Some(options))
        .map_err(|errno| failed("cover it")(errno.into()))?;
    for (path, tree) in kept {
        fs::create_dir(&path).map_err(failed("make a mount point"))?;
        move_mount(tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| failed("show a kept directory")(errno.into()))?;
    }
    mount_remount(directory, safe | MountFlags::RDONLY, "")
        .map_err(|errno| failed("make it read-only")(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The namespace is the test thread's own.
    #[test]
    fn only_the_kept_directories_are_seen_by_who_asked() {
        let data = tempfile::tempdir().unwrap();
        let at = |name: &str| data.path().join(name);
        for directory in ["blobs", "builder", "run"] {
            fs::create_dir(at(directory)).unwrap();
            fs::write(at(directory).join("file"), directory).unwrap();
        }
        fs::write(at("registry.db"), "secret").unwrap();
        let directory = data.path().to_owned();
        let hidden = std::thread::spawn(move || {
            hide_directory(&directory, &["builder", "run"]).unwrap();
            let mut names: Vec<_> = fs::read_dir(&directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["builder", "run"]);
            assert!(fs::write(directory.join("new"), "").is_err());
            fs::write(directory.join("builder/made"), "x").unwrap();
            fs::read_to_string(directory.join("run/file")).unwrap()
        });
        assert_eq!(hidden.join().unwrap(), "run");
        assert_eq!(fs::read_to_string(at("registry.db")).unwrap(), "secret");
        assert!(at("builder/made").exists());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().to_owned();
        let error = std::thread::spawn(move || hide_directory(&directory, &["absent"]).unwrap_err())
            .join()
            .unwrap();
        assert!(error.to_string().contains("keep a directory"), "{error}");
    }
}
