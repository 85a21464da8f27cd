//! Runs one step on a writable tree and turns what it wrote into a snapshot and a layer.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use oci::Descriptor;
use tokio::sync::watch;

use super::Build;
use super::commit::Commit;
use super::copy::{self, Owner};
use super::error::{BuildError, StepRef};
use super::places::Places;
use super::prepare::{Prepared, copy_error};
use super::stage::presence;
use super::state::{Info, StageLayer, StageState};
use crate::blocking;
use crate::layer::{ChainTimes, LayerTimes};
use crate::plan::{Copy, Mkdir, Operation, Step};
use crate::snapshot::{Clock, Pending, Root, Snapshot, Times, Tree, file_type};

impl Build<'_> {
    /// Does the step; says whether it made a layer.
    pub(super) async fn execute(
        &self,
        state: &mut StageState,
        step: &Step,
        prepared: &Prepared,
        at: &StepRef,
    ) -> Result<bool, BuildError> {
        let parent = self.materialise(state, at).await?;
        if let Operation::Mkdir(mkdir) = &step.operation
            && self.directory_exists(parent.as_ref(), mkdir, at)?
        {
            self.remember(state, presence(mkdir), "present".to_owned());
            self.push_history(state, step, None);
            return Ok(false);
        }
        let snapshot_error = |source| BuildError::Snapshot {
            at: at.boxed(),
            source,
        };
        let store = &self.node.snapshots;
        let pending = store.begin(parent.as_ref()).map_err(snapshot_error)?;
        let tree = pending.tree(parent.as_ref()).map_err(snapshot_error)?;
        let low = self.clock(at, Clock::start)?;
        match &step.operation {
            Operation::Run(run) => {
                let places_error = |source| BuildError::StepIo {
                    at: at.boxed(),
                    action: "make the places of /proc, /sys, /dev and files in /etc".to_owned(),
                    source,
                };
                let places = Places::make(&tree).map_err(places_error)?;
                self.run(run, tree, state.epoch, at).await?;
                places.remove(&pending.fs()).map_err(places_error)?;
            }
            Operation::Copy(copy) => self.copy(copy, tree, at).await?,
            Operation::Mkdir(mkdir) => self.mkdir(mkdir, &tree, at)?,
            Operation::Config => {}
        }
        let times = Times {
            low,
            high: self.clock(at, Clock::end)?,
        };
        let snapshot = self
            .seal(pending, parent.clone(), prepared.time, times, at)
            .await?;
        let times = LayerTimes {
            own: prepared.time,
            step: times,
            below: ChainTimes::of(parent.as_ref()),
        };
        let (sender, receiver) = watch::channel(None);
        let below = state.layers.iter().map(|layer| layer.info.clone()).collect();
        self.commit(
            Commit {
                at: at.clone(),
                prepared: prepared.clone(),
                snapshot: Arc::clone(&snapshot),
                parent,
                times,
                below,
            },
            sender,
        );
        state.layers.push(StageLayer {
            info: Info::Pending(receiver),
            snapshot: Some(snapshot),
        });
        self.push_history(state, step, Some(prepared.time));
        Ok(true)
    }

    /// From here on nobody writes to the directory: the next step may stand on it.
    async fn seal(
        &self,
        pending: Pending,
        parent: Option<Arc<Snapshot>>,
        time: i64,
        times: Times,
        at: &StepRef,
    ) -> Result<Arc<Snapshot>, BuildError> {
        let sealed = tokio::task::spawn_blocking(move || pending.commit(parent, Some(time), Some(times)));
        sealed
            .await
            .map_err(|_| BuildError::TaskDied)?
            .map_err(|source| BuildError::Snapshot {
                at: at.boxed(),
                source,
            })
    }

    fn clock(
        &self,
        at: &StepRef,
        read: impl FnOnce(&Clock) -> std::io::Result<i64>,
    ) -> Result<i64, BuildError> {
        read(self.node.snapshots.clock()).map_err(|source| BuildError::StepIo {
            at: at.boxed(),
            action: "read the file system's clock".to_owned(),
            source,
        })
    }

    async fn copy(&self, copy: &Copy, tree: Tree, at: &StepRef) -> Result<(), BuildError> {
        let origin = self.origin(copy, at).await?;
        let owner = match &copy.chown {
            Some(chown) => Some(owner(&tree, chown).map_err(|reason| BuildError::Step {
                at: at.boxed(),
                reason,
            })?),
            None => None,
        };
        let copy = copy.clone();
        let copied = blocking::spawn("copy", move || {
            let tree = Root::new(tree.into_fd());
            copy::apply(&tree, origin.as_deref(), &copy, owner)
        });
        copied
            .await
            .map_err(|_| BuildError::TaskDied)?
            .map_err(|error| copy_error(at, error))
    }

    fn directory_exists(
        &self,
        parent: Option<&Arc<Snapshot>>,
        mkdir: &Mkdir,
        at: &StepRef,
    ) -> Result<bool, BuildError> {
        let tree = self
            .node
            .snapshots
            .tree(parent)
            .map_err(|source| BuildError::Snapshot {
                at: at.boxed(),
                source,
            })?;
        let root = Root::new(tree.into_fd());
        Ok(is_directory(&root, &mkdir.path))
    }

    fn mkdir(&self, mkdir: &Mkdir, tree: &Tree, at: &StepRef) -> Result<(), BuildError> {
        let user =
            runtime::user::resolve_user(tree.as_fd(), &mkdir.user).map_err(|error| BuildError::Step {
                at: at.boxed(),
                reason: error.to_string(),
            })?;
        make_directory(
            tree,
            &mkdir.path,
            Owner {
                uid: user.uid,
                gid: user.gid,
            },
        )
        .map_err(|source| BuildError::StepIo {
            at: at.boxed(),
            action: format!("make the directory {}", mkdir.path),
            source,
        })
    }
}

/// Makes a directory and its parents in a tree, links followed inside it.
pub(super) fn make_directory(tree: &Tree, path: &str, owner: Owner) -> std::io::Result<()> {
    use rustix::fs::{Gid, Uid};
    let root = Root::new(tree.try_clone()?.into_fd());
    let path = root.resolve(Path::new(path), true)?;
    let made = root.make_dirs(&path, 0o755, |_, dir| {
        Ok(rustix::fs::fchown(
            dir,
            Some(Uid::from_raw(owner.uid)),
            Some(Gid::from_raw(owner.gid)),
        )?)
    });
    made.map(drop)
}

fn is_directory(root: &Root, path: &str) -> bool {
    let resolved = root.resolve(Path::new(path), true);
    resolved
        .and_then(|path| root.stat(&path))
        .is_ok_and(|stat| stat.is_some_and(|stat| file_type(&stat) == rustix::fs::FileType::Directory))
}

/// `--chown`'s `user[:group]`. As in Docker a number alone is the group's too, whatever the image's passwd file says;
/// a name alone has its group by that file.
fn owner(tree: impl AsFd, chown: &str) -> Result<Owner, String> {
    let alone = chown.strip_suffix(':').unwrap_or(chown);
    let user = runtime::user::resolve_user(tree.as_fd(), chown).map_err(|error| error.to_string())?;
    let is_number = !alone.is_empty() && alone.bytes().all(|byte| byte.is_ascii_digit());
    Ok(Owner {
        uid: user.uid,
        gid: if is_number { user.uid } else { user.gid },
    })
}

/// The part of a descriptor that a cache record keeps.
pub(super) fn with_time(mut descriptor: Descriptor, time: Option<i64>) -> Descriptor {
    if let Some(time) = time {
        descriptor
            .annotations
            .insert(super::state::LAYER_TIME_ANNOTATION.to_owned(), time.to_string());
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_those_of_docker() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "games:x:5:60::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let root = std::fs::File::open(root.path()).unwrap();
        for (chown, uid, gid) in [
            ("5", 5, 5),
            ("5:", 5, 5),
            ("games", 5, 60),
            ("5:60", 5, 60),
            ("77:staff", 77, 50),
            (":staff", 0, 50),
        ] {
            assert_eq!(owner(&root, chown), Ok(Owner { uid, gid }), "{chown}");
        }
        assert!(owner(&root, "absent").is_err());
    }
}
