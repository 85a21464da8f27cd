//! A root file system with busybox, and a way to run one command in it.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use runtime::{Exit, NetworkHandle, RuntimeError, Spec, Stdio, Step, User, Zygote};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const BUSYBOX: &str = "/bin/busybox";

/// One for all tests: they run at the same time, which is a test of its own.
pub(crate) fn zygote() -> &'static Zygote {
    static ZYGOTE: OnceLock<Zygote> = OnceLock::new();
    ZYGOTE.get_or_init(new_zygote)
}

pub(crate) fn new_zygote() -> Zygote {
    Zygote::spawn_from(Path::new(env!("CARGO_BIN_EXE_layeryard-zygote-helper"))).unwrap()
}

/// An image's directory, and an overlay on it for each command.
pub(crate) struct Image {
    directory: tempfile::TempDir,
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Image {
    pub(crate) fn new() -> Self {
        let image = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for directory in ["bin", "proc", "sys", "dev", "etc", "root", "home", "tmp"] {
            fs::create_dir_all(image.path(directory)).unwrap();
        }
        fs::set_permissions(image.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy(BUSYBOX, image.path("bin/busybox")).expect("busybox-static has to be installed");
        fs::write(
            image.path("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            image.path("etc/group"),
            "root:x:0:\napp:x:1001:\naudio:x:29:app\n",
        )
        .unwrap();
        for name in ["resolv.conf", "hosts", "hostname"] {
            fs::write(image.path("etc").join(name), "the image's own\n").unwrap();
        }
        for applet in APPLETS.split_ascii_whitespace() {
            symlink("busybox", image.path("bin").join(applet)).unwrap();
        }
        image
    }

    /// A path of the image's directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("lower").join(path)
    }

    /// What commands have written.
    pub(crate) fn upper(&self, number: u32) -> PathBuf {
        self.directory.path().join(format!("upper-{number}"))
    }

    /// A writable overlay: `number` keeps commands apart that run on the same image.
    pub(crate) fn mount(&self, number: u32) -> OwnedFd {
        let work = self.directory.path().join(format!("work-{number}"));
        fs::create_dir_all(self.upper(number)).unwrap();
        fs::set_permissions(self.upper(number), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(&work).unwrap();
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        rustix::mount::fsconfig_set_string(&context, "lowerdir", self.path("")).unwrap();
        rustix::mount::fsconfig_set_string(&context, "upperdir", self.upper(number)).unwrap();
        rustix::mount::fsconfig_set_string(&context, "workdir", work).unwrap();
        rustix::mount::fsconfig_set_flag(&context, "userxattr").unwrap();
        rustix::mount::fsconfig_create(&context).unwrap();
        // NOSUID is what the runtime has to clear.
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap()
    }

    /// Runs a shell script as root.
    pub(crate) fn sh(&self, script: &str) -> Outcome {
        self.run(&shell(script))
    }

    pub(crate) fn run(&self, spec: &Spec) -> Outcome {
        self.run_on(spec, &NetworkHandle::none())
    }

    pub(crate) fn run_on(&self, spec: &Spec, network: &NetworkHandle) -> Outcome {
        let (step, stdout, stderr) = self.start(zygote(), spec, network, 0).unwrap();
        let stderr = std::thread::spawn(move || read(stderr));
        let stdout = read(stdout);
        Outcome {
            exit: step.wait().unwrap(),
            stdout,
            stderr: stderr.join().unwrap(),
        }
    }

    /// A running step, and the other ends of its output.
    pub(crate) fn start(
        &self,
        zygote: &Zygote,
        spec: &Spec,
        network: &NetworkHandle,
        number: u32,
    ) -> Result<(Step, OwnedFd, OwnedFd), RuntimeError> {
        let (stdout, out) = pipe();
        let (stderr, err) = pipe();
        let stdio = Stdio {
            stdout: out,
            stderr: err,
        };
        let step = zygote.start(spec, self.mount(number).as_fd(), stdio, network)?;
        Ok((step, stdout, stderr))
    }
}

pub(crate) fn shell(script: &str) -> Spec {
    Spec::run_step(
        vec!["sh".into(), "-c".into(), script.into()],
        Vec::new(),
        "/",
        User::root(),
    )
}

pub(crate) fn read(pipe: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// The value of a `Name:\tvalue` line of /proc/PID/status.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

const APPLETS: &str = "sh cat echo id ls stat head sleep true false kill mount umount mknod ps nslookup nc printf ping df sed unshare ip \
    readlink grep hostname touch mkdir rm ln cp chmod chown setsid env pwd dd wc sort su test hexdump tail";
