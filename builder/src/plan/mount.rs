//! `RUN --mount`: the words of a flag as a typed mount.

use crate::dockerfile::suggest::did_you_mean;

use super::paths;

/// A mount of a RUN, every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute and cleaned. A secret that is only an environment variable has none.
    pub target: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind {
        /// A stage or an image; `None` is the context.
        from: Option<String>,
        /// Relative to the root of `from`.
        source: String,
        read_only: bool,
    },
    Cache {
        id: String,
        from: Option<String>,
        source: String,
        sharing: Sharing,
        read_only: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Tmpfs {
        size_bytes: Option<u64>,
    },
    Secret {
        id: String,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
        /// The environment variable that carries it.
        env: Option<String>,
    },
    Ssh {
        id: String,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "ro",
    "readonly",
    "rw",
    "readwrite",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// What a mount's keys say before its type gives them meaning.
#[derive(Default)]
struct Keys {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<String>,
    required: bool,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
}

/// Reads the value of `--mount`, already expanded. Relative targets start at `cwd`.
pub(super) fn parse(text: &str, cwd: &str) -> Result<Mount, String> {
    let mut keys = Keys::default();
    for field in text.split(',').map(str::trim).filter(|field| !field.is_empty()) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim(), Some(unquoted(value.trim()))),
            None => (field, None),
        };
        keys.set(&key.to_ascii_lowercase(), value)?;
    }
    keys.finish(cwd)
}

/// A field may be quoted as in CSV.
fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

impl Keys {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let boolean = || match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key} must be true or false, not {other:?}")),
        };
        match key {
            "ro" | "readonly" => self.read_only = Some(boolean()?),
            "rw" | "readwrite" => self.read_only = Some(!boolean()?),
            "required" => self.required = boolean()?,
            _ if !KEYS.contains(&key) => {
                let hint = did_you_mean(key, KEYS).map_or_else(String::new, |hint| format!("; {hint}"));
                return Err(format!("a mount has no key {key:?}{hint}"));
            }
            _ => {
                let value = value.ok_or_else(|| format!("the key {key} needs a value"))?;
                self.set_value(key, value)?;
            }
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = Some(value.to_owned());
        let number =
            |radix| u32::from_str_radix(value, radix).map_err(|_| format!("{key}={value} is not a number"));
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "from" => self.from = text,
            "source" | "src" => self.source = text,
            "target" | "dst" | "destination" => self.target = text,
            "id" => self.id = text,
            "sharing" => self.sharing = Some(value.to_ascii_lowercase()),
            "env" => self.env = text,
            "size" => self.size_bytes = Some(size(value)?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            _ => self.gid = Some(number(10)?),
        }
        Ok(())
    }

    fn finish(self, cwd: &str) -> Result<Mount, String> {
        let kind = self.kind.as_deref().unwrap_or("bind").to_owned();
        if !TYPES.contains(&kind.as_str()) {
            let hint = did_you_mean(&kind, TYPES).map_or_else(String::new, |hint| format!("; {hint}"));
            return Err(format!("there is no mount type {kind:?}{hint}"));
        }
        self.only_where_allowed(&kind)?;
        let given = self.target.as_deref().filter(|target| !target.is_empty());
        let target = given.map(|target| paths::absolute(cwd, target));
        if target.as_deref() == Some("/") {
            return Err("a mount's target can't be /".to_owned());
        }
        let (uid, gid) = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        let source = paths::relative(self.source.as_deref().unwrap_or("/"));
        let needed = || {
            target
                .clone()
                .ok_or_else(|| format!("a {kind} mount needs a target"))
        };
        let (kind, target) = match kind.as_str() {
            "cache" => {
                let target = needed()?;
                (self.cache(&target, source, uid, gid)?, Some(target))
            }
            "tmpfs" => {
                let size_bytes = self.size_bytes;
                (MountKind::Tmpfs { size_bytes }, Some(needed()?))
            }
            "secret" => self.secret(target, uid, gid)?,
            "ssh" => {
                let kind = MountKind::Ssh {
                    id: self.id.unwrap_or_else(|| "default".to_owned()),
                    required: self.required,
                    mode: self.mode.unwrap_or(0o600),
                    uid,
                    gid,
                };
                (kind, target)
            }
            _ => {
                let target = needed()?;
                let kind = MountKind::Bind {
                    from: self.from,
                    source,
                    read_only: self.read_only.unwrap_or(true),
                };
                (kind, Some(target))
            }
        };
        Ok(Mount { kind, target })
    }

    fn cache(self, target: &str, source: String, uid: u32, gid: u32) -> Result<MountKind, String> {
        Ok(MountKind::Cache {
            sharing: self.sharing()?,
            id: self.id.unwrap_or_else(|| target.to_owned()),
            from: self.from,
            source,
            read_only: self.read_only.unwrap_or(false),
            mode: self.mode.unwrap_or(0o755),
            uid,
            gid,
        })
    }

    fn secret(
        self,
        target: Option<String>,
        uid: u32,
        gid: u32,
    ) -> Result<(MountKind, Option<String>), String> {
        let source = self.source.as_deref();
        let from_target = target.as_deref().and_then(paths::base_name);
        let id = self.id.as_deref().or(source).or(from_target);
        let id = id.ok_or("a secret mount needs an id")?.to_owned();
        let target = match (target, &self.env) {
            (None, Some(_)) => None,
            (None, None) => Some(format!("/run/secrets/{}", paths::base_name(&id).unwrap_or(&id))),
            (target, _) => target,
        };
        let kind = MountKind::Secret {
            id,
            required: self.required,
            mode: self.mode.unwrap_or(0o400),
            uid,
            gid,
            env: self.env,
        };
        Ok((kind, target))
    }

    fn sharing(&self) -> Result<Sharing, String> {
        match self.sharing.as_deref() {
            None | Some("shared") => Ok(Sharing::Shared),
            Some("private") => Ok(Sharing::Private),
            Some("locked") => Ok(Sharing::Locked),
            Some(other) => Err(format!("sharing={other}: it must be shared, private or locked")),
        }
    }

    /// Keys that make no sense with a type are mistakes.
    fn only_where_allowed(&self, kind: &str) -> Result<(), String> {
        let has_owner = ["cache", "secret", "ssh"];
        let rules = [
            ("from", self.from.is_some(), &["bind", "cache"][..]),
            ("sharing", self.sharing.is_some(), &["cache"]),
            ("size", self.size_bytes.is_some(), &["tmpfs"]),
            ("env", self.env.is_some(), &["secret"]),
            ("required", self.required, &["secret", "ssh"]),
            ("mode", self.mode.is_some(), &has_owner),
            ("uid", self.uid.is_some(), &has_owner),
            ("gid", self.gid.is_some(), &has_owner),
        ];
        match rules
            .iter()
            .find(|(_, given, kinds)| *given && !kinds.contains(&kind))
        {
            Some((key, ..)) => Err(format!("a {kind} mount takes no {key}")),
            None => Ok(()),
        }
    }
}

/// A number of bytes with an optional unit: `64m`, `1g`, `512KiB`.
fn size(text: &str) -> Result<u64, String> {
    let error = || format!("size={text} is not a size; write a number and perhaps k, m or g");
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(error()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_by_type() {
        let mount = parse("target=src,from=x,source=../a", "/w").unwrap();
        assert_eq!(mount.target.as_deref(), Some("/w/src"));
        let bind = MountKind::Bind {
            from: Some("x".into()),
            source: "a".into(),
            read_only: true,
        };
        assert_eq!(mount.kind, bind);
        let mount = parse("type=cache,dst=/root/.cache/,sharing=locked", "/").unwrap();
        assert!(
            matches!(mount.kind, MountKind::Cache { id, sharing: Sharing::Locked, mode: 0o755, .. } if id == "/root/.cache")
        );
        let mount = parse("type=secret,id=a/token", "/").unwrap();
        assert_eq!(mount.target.as_deref(), Some("/run/secrets/token"));
        let mount = parse("type=secret,id=t,env=T", "/").unwrap();
        assert_eq!(mount.target, None);
        assert!(matches!(
            parse("type=tmpfs,target=/t,size=64m", "/").unwrap().kind,
            MountKind::Tmpfs {
                size_bytes: Some(67_108_864)
            }
        ));
        assert!(matches!(
            parse("type=ssh", "/").unwrap().kind,
            MountKind::Ssh { mode: 0o600, .. }
        ));
        assert!(matches!(
            parse("target=/a,rw", "/").unwrap().kind,
            MountKind::Bind { read_only: false, .. }
        ));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("type=cash,target=/x", "did you mean cache?"),
            ("tpye=cache", "did you mean type?"),
            ("type=cache", "a cache mount needs a target"),
            ("target=/", "can't be /"),
            ("type=cache,target=/x/..", "can't be /"),
            ("type=bind,target=/x,size=1", "a bind mount takes no size"),
            ("type=cache,target=/x,sharing=all", "shared, private or locked"),
            ("type=tmpfs,target=/x,size=1x", "is not a size"),
            ("type=secret", "needs an id"),
            ("type=ssh,required=perhaps", "true or false"),
            ("type=cache,target=/x,mode=9", "is not a number"),
            ("target", "needs a value"),
        ] {
            let error = parse(text, "/").unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
