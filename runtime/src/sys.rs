//! The only `unsafe` code of the workspace: system calls that no safe wrapper offers. Each function here is
//! safe to call, or says in its name and documentation what the caller has to be.
#![expect(
    unsafe_code,
    reason = "raw system calls without a safe wrapper in nix or rustix"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which side of [`clone_step`] the caller is.
pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `struct clone_args` of the kernel, up to and including `cgroup` (Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Evidence that this process has one thread, so that a copy of it (`fork`) can't inherit a lock that nobody
/// will release. Whoever holds it must not start threads.
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            _ => Err(io::Error::from_raw_os_error(libc::EDEADLK)),
        }
    }
}

/// Clones this process (copy of the memory, as `fork`) into new namespaces, optionally into a cgroup v2.
pub(crate) fn clone_step(
    _process: &SingleThreaded,
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: namespaces as u64 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `arguments` and `pidfd` outlive the call and have the layout and size the kernel is told. No
    // stack is given and memory is not shared, so the child goes on with a copy of this one; the process
    // has one thread (`SingleThreaded`), so no lock of the copy is held by a thread that doesn't exist.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: with CLONE_PIDFD a successful clone3 stored a new descriptor there that nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent {
                pid: pid as i32,
                pidfd,
            })
        }
    }
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets and clears attributes (`MOUNT_ATTR_*`) of the mount that `mount` is the root of.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    let attr = MountAttr {
        set,
        clear,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated literal; `attr` outlives the call and its size is the one passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on, except `keep`.
///
/// Only for the child of [`clone_step`], just before it executes a program: no Rust object that owns one of
/// those descriptors may be used or dropped afterwards. The child leaves by `execve` or [`exit`], neither
/// of which drops anything.
pub(crate) fn close_all_but(first: RawFd, keep: RawFd) -> io::Result<()> {
    let close = |from: RawFd, to: RawFd| {
        if from > to {
            return Ok(());
        }
        // SAFETY: touches no memory; that nobody uses the descriptors afterwards is this function's contract.
        let result = unsafe { libc::syscall(libc::SYS_close_range, from as u32, to as u32, 0) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    close(first, keep - 1)?;
    close(keep + 1, RawFd::MAX)
}

/// Gives every signal its default action and unblocks all: Rust programs ignore SIGPIPE, a command must not.
pub(crate) fn reset_signals() {
    /// The kernel's own structure, which is not libc's: handler, flags, restorer, mask; all zero is SIG_DFL.
    #[repr(C)]
    struct KernelSigaction([u64; 4]);
    let default = KernelSigaction([0; 4]);
    for signal in 1..=SIGNALS {
        // SAFETY: `default` outlives the call and is at least as large as the kernel's structure, the old
        // action isn't asked for, and no handler is installed. By system call, because libc refuses to touch
        // the two signals it uses itself. SIGKILL and SIGSTOP fail with EINVAL, which is what we want.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null::<KernelSigaction>(),
                SIGNAL_SET_BYTES,
            );
        }
    }
    let none = 0_u64;
    // SAFETY: `none` outlives the call and has the size the kernel is told; the old mask isn't asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null::<u64>(),
            SIGNAL_SET_BYTES,
        );
    }
}

/// Number of signals, and size of the kernel's set of them.
const SIGNALS: libc::c_int = 64;
const SIGNAL_SET_BYTES: usize = 8;

/// One instruction of a system call filter: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// Applies a filter to the calling thread and what it starts, for good.
pub(crate) fn load_filter(program: &[Instruction]) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        instructions: *const Instruction,
    }
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let program = Program {
        length,
        instructions: program.as_ptr(),
    };
    // SAFETY: `program` and its instructions, which have the kernel's layout and the length it is told, outlive
    // the call; the kernel checks and copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves the session keyring of the caller: keys of the host are not the step's business.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Ends the process at once, without destructors or exit handlers (which belong to the process cloned).
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes no memory and doesn't return.
    unsafe { libc::_exit(code) }
}
