//! How values are written: times as `30s`, `24h`, `7d`, sizes as `4MiB`, addresses as `HOST:PORT`.

/// `#[serde(with = "units::time")]`
pub(super) mod time {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = super::text(deserializer, "a time such as \"30s\" or \"24h\"")?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

/// `#[serde(with = "units::size")]`
pub(super) mod size {
    use bytesize::ByteSize;
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];

    /// Exactly: the largest unit that divides it.
    pub(in crate::config) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = UNITS
            .iter()
            .find(|(_, unit)| *bytes > 0 && bytes.is_multiple_of(*unit));
        match unit {
            Some((name, unit)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        let text = super::text(deserializer, "a size such as \"4MiB\"")?;
        let size: Result<ByteSize, _> = text.parse();
        size.map(|size| size.as_u64())
            .map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

/// `#[serde(with = "units::optional_size")]`
pub(super) mod optional_size {
    use serde::{Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::size::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// A key that is there has a value.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(deserializer).map(Some)
    }
}

/// `IP:PORT`, `[IP]:PORT`, `HOST:PORT` (all of the host's addresses) or `:PORT` (every address of the machine).
pub(super) mod addresses {
    use std::net::{SocketAddr, ToSocketAddrs};

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        addresses: &[SocketAddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        addresses.serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SocketAddr>, D::Error> {
        resolve(&Vec::<String>::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    pub(super) fn resolve(texts: &[String]) -> Result<Vec<SocketAddr>, String> {
        let mut found = Vec::new();
        for text in texts {
            let full = if text.starts_with(':') {
                format!("[::]{text}")
            } else {
                text.clone()
            };
            let resolved = full.to_socket_addrs().map_err(|error| {
                format!("{text:?}: {error}; expected ADDRESS:PORT, such as 127.0.0.1:5000")
            })?;
            for address in resolved {
                // Port 0 may be asked for twice; any other address only once.
                if address.port() == 0 || !found.contains(&address) {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }
}

/// A text value; `expected` is what the error says of anything else.
fn text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<String, D::Error> {
    struct Visitor(&'static str);
    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    deserializer.deserialize_str(Visitor(expected))
}

#[cfg(test)]
mod tests {
    use super::addresses::resolve;

    #[test]
    fn hosts_and_ports_are_listened_on() {
        let texts = ["localhost:7000", "127.0.0.1:7000", "127.0.0.1:0"].map(str::to_owned);
        let found = resolve(&texts).unwrap();
        let wanted = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(found.iter().filter(|address| **address == wanted).count(), 1);
        assert!(found.contains(&"127.0.0.1:0".parse().unwrap()));
        let error = resolve(&["5000".to_owned()]).unwrap_err();
        assert!(error.contains("ADDRESS:PORT"));
    }
}
