//! What the command may do: limits, capabilities, user.

use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Rlimit as Limit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Named, SetupError};
use crate::spec::{RlimitKind, Spec};

/// Numbers above the kernel's last capability are refused by it, which ends the loop below.
const CAPABILITY_NUMBERS: u32 = 64;

pub(super) fn set_limits(spec: &Spec) -> Result<(), SetupError> {
    for limit in &spec.rlimits {
        let resource = match limit.kind {
            RlimitKind::Nofile => Resource::Nofile,
            RlimitKind::Nproc => Resource::Nproc,
            RlimitKind::Core => Resource::Core,
            RlimitKind::Fsize => Resource::Fsize,
            RlimitKind::Memlock => Resource::Memlock,
            RlimitKind::Stack => Resource::Stack,
        };
        // Raising a hard limit needs CAP_SYS_RESOURCE, which even root may lack.
        let available = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let maximum = limit.hard.min(available);
        let current = limit.soft.min(maximum);
        rustix::process::setrlimit(
            resource,
            Limit {
                current: Some(current),
                maximum: Some(maximum),
            },
        )
        .named("set a limit", format!("{:?}", limit.kind))?;
    }
    Ok(())
}

/// Drops what isn't the user's. Afterwards nothing of the set-up could be done any more.
pub(super) fn assume(spec: &Spec) -> Result<(), SetupError> {
    const STEP: &str = "set capabilities";
    rustix::process::umask(Mode::from_raw_mode(spec.user.umask));
    let wanted = spec
        .capabilities
        .iter()
        .fold(0, |set, capability| set | capability.bit());
    for number in 0..CAPABILITY_NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Err(_) => break,
            Ok(true) if wanted & capability.bits() == 0 => {
                rustix::thread::remove_capability_from_bounding_set(capability)
                    .named(STEP, format!("bounding set, {number}"))?;
            }
            Ok(_) => {}
        }
    }
    // Kernels before 4.3 have none; there is nothing to clear then.
    let _ = rustix::thread::clear_ambient_capability_set();
    become_user(spec)?;
    // A user other than root has lost all permitted ones in that change.
    let permitted = rustix::thread::capabilities(None)
        .named(STEP, "capget")?
        .permitted;
    let kept = permitted & CapabilitySet::from_bits_retain(wanted);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).named(STEP, "capset")
}

fn become_user(spec: &Spec) -> Result<(), SetupError> {
    const STEP: &str = "become the user";
    let user = &spec.user;
    let groups: Vec<Gid> = user
        .additional_gids
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    rustix::thread::set_thread_groups(&groups).named(STEP, "setgroups")?;
    let gid = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).named(STEP, format!("gid {}", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).named(STEP, format!("uid {}", user.uid))
}
