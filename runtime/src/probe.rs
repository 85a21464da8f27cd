//! probe
#[derive(Debug)]
pub struct MissingPermission;
#[derive(Debug)]
pub struct MissingPermissions;
pub fn probe() -> Result<(), MissingPermissions> { Ok(()) }
