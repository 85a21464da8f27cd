//! System calls a command has no use for: answered with an error before the kernel's code for them runs.
//!
//! Capabilities already forbid most of what Docker's profile does. This closes what they don't: new user
//! namespaces, in which a command would have all capabilities again; kernel interfaces with a history; keys,
//! which have no namespace; and VM sockets, which lead past the network namespace. The answers are those
//! of Docker's profile, so programs fall back as they do there.
//!
//! Loaded while the process still has CAP_SYS_ADMIN: without it the kernel would want no_new_privs, and then
//! sudo couldn't work.

use std::io;

use crate::sys::{self, Instruction};

/// One architecture's numbers.
struct Table {
    audit_arch: u32,
    /// Refused as forbidden.
    forbidden: &'static [u32],
    /// Allowed without flags for namespaces in its first argument.
    clone: u32,
    /// Allowed but for VM sockets.
    socket: u32,
    /// Answered as if the kernel hadn't got them, because their arguments are out of a filter's sight.
    absent: &'static [u32],
}

/// Numbers from 424 on are the same everywhere: io_uring (425–427), the mount interface (428–433, 442),
/// pidfd_getfd, quotactl_fd, and clone3.
const FORBIDDEN_COMMON: &[u32] = &[425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443];
const CLONE3: u32 = 435;

/// mount, umount, umount2, pivot_root, unshare, setns, add_key, request_key, keyctl, bpf, perf_event_open,
/// userfaultfd, open_by_handle_at, fanotify_init, kcmp, lookup_dcookie, quotactl, acct, swapon, swapoff, reboot,
/// kexec_load, kexec_file_load, init_module, finit_module, delete_module, syslog, iopl, ioperm, uselib, vm86,
/// settimeofday, clock_settime, clock_adjtime, mbind, set_mempolicy, migrate_pages, move_pages; in this order,
/// as far as an architecture has them.
#[cfg(target_arch = "x86_64")]
const TABLES: [Table; 2] = [
    Table {
        audit_arch: 0xc000_003e,
        forbidden: &[
            165, 166, 155, 272, 308, 248, 249, 250, 321, 298, 323, 304, 300, 312, 212, 179, 163, 167, 168,
            169, 246, 320, 175, 313, 176, 103, 172, 173, 134, 164, 227, 305, 237, 238, 256, 279,
        ],
        clone: 56,
        socket: 41,
        absent: &[CLONE3],
    },
    // 32-bit programs.
    Table {
        audit_arch: 0x4000_0003,
        forbidden: &[
            21, 22, 52, 217, 310, 346, 286, 287, 288, 357, 336, 374, 342, 338, 349, 253, 131, 51, 87, 115,
            88, 283, 128, 350, 129, 103, 110, 101, 86, 113, 166, 79, 264, 404, 343, 274, 276, 294, 317,
        ],
        clone: 120,
        socket: 359,
        // socketcall: its arguments are in memory. Programs try socket first, or fall back to it.
        absent: &[CLONE3, 102],
    },
];

#[cfg(target_arch = "aarch64")]
const TABLES: [Table; 2] = [
    Table {
        audit_arch: 0xc000_00b7,
        forbidden: &[
            40, 39, 41, 97, 268, 217, 218, 219, 280, 241, 282, 265, 262, 272, 18, 60, 89, 224, 225, 142, 104,
            294, 105, 273, 106, 116, 170, 112, 266, 235, 237, 238, 239,
        ],
        clone: 220,
        socket: 198,
        absent: &[CLONE3],
    },
    // 32-bit programs.
    Table {
        audit_arch: 0x4000_0028,
        forbidden: &[
            21, 52, 218, 337, 375, 309, 310, 311, 386, 364, 388, 371, 367, 378, 249, 131, 51, 87, 115, 88,
            347, 401, 128, 379, 129, 103, 86, 79, 262, 404, 372, 319, 321, 400, 344,
        ],
        clone: 120,
        socket: 281,
        absent: &[CLONE3, 102],
    },
];

/// Time is not among them: a step has the machine's, as in Docker.
const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Bit of the x32 variant of x86-64, which nobody uses and whose numbers would slip by.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Where the kernel puts what a filter sees: number, architecture, low half of the first argument.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
#[cfg(target_arch = "x86_64")]
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

pub(super) fn load() -> io::Result<()> {
    sys::load_filter(&program())
}

fn program() -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, 0, 0, OFFSET_ARCH)];
    for table in &TABLES {
        let body = body(table);
        // An architecture's part is longer than a conditional jump reaches, an unconditional one isn't needed:
        // each part begins with the test whether it is meant, and the parts end by returning.
        program.push(instruction(JUMP_EQUAL, 1, 0, table.audit_arch));
        program.push(instruction(JUMP_ALWAYS, 0, 0, body.len() as u32));
        program.extend(body);
    }
    // Another architecture's call.
    program.push(refuse(libc::ENOSYS));
    program
}

const JUMP_ALWAYS: u16 = 0x05;

fn body(table: &Table) -> Vec<Instruction> {
    let mut body = vec![instruction(LOAD, 0, 0, OFFSET_NUMBER)];
    #[cfg(target_arch = "x86_64")]
    body.extend([instruction(JUMP_AT_LEAST, 0, 1, X32), refuse(libc::ENOSYS)]);
    for number in table.absent {
        body.extend([instruction(JUMP_EQUAL, 0, 1, *number), refuse(libc::ENOSYS)]);
    }
    for number in table.forbidden.iter().chain(FORBIDDEN_COMMON) {
        body.extend([instruction(JUMP_EQUAL, 0, 1, *number), refuse(libc::EPERM)]);
    }
    let first_argument = || instruction(LOAD, 0, 0, OFFSET_FIRST_ARGUMENT);
    body.extend([
        instruction(JUMP_EQUAL, 0, 4, table.clone),
        first_argument(),
        instruction(JUMP_ANY_BIT, 0, 1, NAMESPACE_FLAGS),
        refuse(libc::EPERM),
        instruction(RETURN, 0, 0, ALLOW),
    ]);
    body.extend([
        instruction(JUMP_EQUAL, 0, 3, table.socket),
        first_argument(),
        instruction(JUMP_EQUAL, 0, 1, libc::AF_VSOCK as u32),
        refuse(libc::EPERM),
        instruction(RETURN, 0, 0, ALLOW),
    ]);
    body
}

fn refuse(errno: i32) -> Instruction {
    instruction(RETURN, 0, 0, ERRNO | errno as u32)
}

fn instruction(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        value,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::sched::CloneFlags;
    use rustix::net::{AddressFamily, SocketType};

    use super::*;

    /// What a kernel of this architecture does with the filter, without the kernel.
    fn decide(arch: u32, number: u32, argument: u32) -> u32 {
        let program = program();
        let (mut at, mut register) = (0, 0);
        loop {
            let Instruction {
                code,
                if_true,
                if_false,
                value,
            } = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { if_true } else { if_false });
            match code {
                LOAD => register = [number, arch, 0, 0, argument][value as usize / 4],
                JUMP_EQUAL => at += jump(register == value),
                JUMP_ANY_BIT => at += jump(register & value != 0),
                JUMP_ALWAYS => at += value as usize,
                RETURN => return value,
                _ => at += jump(register >= value),
            }
        }
    }

    #[test]
    fn each_architectures_calls_are_decided_by_its_own_numbers() {
        let forbidden = ERRNO | libc::EPERM as u32;
        let absent = ERRNO | libc::ENOSYS as u32;
        for table in &TABLES {
            let decide = |number, argument| decide(table.audit_arch, number, argument);
            assert_eq!(decide(table.clone, libc::SIGCHLD as u32), ALLOW);
            assert_eq!(decide(table.clone, libc::CLONE_NEWUSER as u32), forbidden);
            assert_eq!(decide(table.socket, libc::AF_INET as u32), ALLOW);
            assert_eq!(decide(table.socket, libc::AF_VSOCK as u32), forbidden);
            assert_eq!(decide(CLONE3, 0), absent);
            assert_eq!(decide(425, 0), forbidden);
            assert_eq!(decide(3, 0), ALLOW);
        }
        assert_eq!(decide(0xdead, 3, 0), absent, "of no architecture");
    }

    #[test]
    fn numbers_are_this_architectures() {
        let native = TABLES[0].forbidden;
        let wanted = [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_open_by_handle_at,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_move_pages,
            libc::SYS_clock_settime,
        ];
        for number in wanted {
            assert!(native.contains(&(number as u32)), "{number}");
        }
        assert_eq!(TABLES[0].clone, libc::SYS_clone as u32);
        assert_eq!(TABLES[0].socket, libc::SYS_socket as u32);
        assert_eq!(CLONE3, libc::SYS_clone3 as u32);
    }

    #[test]
    fn the_kernel_takes_the_filter() {
        let socket = |family| rustix::net::socket(family, SocketType::STREAM, None).map(|_: OwnedFd| ());
        let thread = std::thread::spawn(move || {
            load().unwrap();
            assert_eq!(
                nix::sched::unshare(CloneFlags::CLONE_NEWUSER),
                Err(nix::errno::Errno::EPERM)
            );
            assert_eq!(socket(AddressFamily::VSOCK), Err(rustix::io::Errno::PERM));
            assert_eq!(socket(AddressFamily::INET), Ok(()));
            std::thread::spawn(|| 5).join().unwrap()
        });
        assert_eq!(thread.join().unwrap(), 5);
    }
}
