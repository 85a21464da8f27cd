//! EXPOSE.

use std::net::IpAddr;

use crate::dockerfile::suggest::did_you_mean;

/// What is wrong with a port, and perhaps what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortError {
    pub message: String,
    pub help: Option<String>,
}

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// `[[ip:]port:]port[-port][/protocol]` → `port/protocol` for every port of the range. Addresses and host ports are
/// accepted, as Docker does, and mean nothing.
pub(super) fn parse(text: &str) -> Result<Vec<String>, PortError> {
    let error = |message: String| PortError { message, help: None };
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let (host, address) = (parts.next(), parts.next());
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        protocol => protocol,
    };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(PortError {
            message: format!("{text:?}: there is no protocol {protocol}"),
            help: did_you_mean(&protocol, PROTOCOLS).or_else(|| Some("use tcp, udp or sctp".to_owned())),
        });
    }
    if ports.is_empty() {
        return Err(error(format!("{text:?} names no port")));
    }
    let (first, last) = range(text, ports)?;
    if let Some(address) = address.filter(|address| !address.is_empty()) {
        let bare = address
            .strip_prefix('[')
            .and_then(|address| address.strip_suffix(']'));
        if bare.unwrap_or(address).parse::<IpAddr>().is_err() {
            return Err(error(format!("{text:?}: {address} is not an address")));
        }
    }
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let (host_first, host_last) = range(text, host)?;
        if last != first && host_last - host_first != last - first {
            return Err(error(format!("{text:?}: the two ranges differ in length")));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `port` or `port-port`.
fn range(text: &str, ports: &str) -> Result<(u16, u16), PortError> {
    let error = |message: String| PortError { message, help: None };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |digits: &str| {
        digits
            .parse::<u16>()
            .ok()
            .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| error(format!("{text:?}: {digits:?} is not a port (0 to 65535)")))
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(error(format!("{text:?}: the range ends before it begins")));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("7-9/sctp").unwrap(), ["7/sctp", "8/sctp", "9/sctp"]);
        for odd in [
            "127.0.0.1:8080:80/tcp",
            "[::1]:1:80",
            "::1:1:80",
            "8080:80",
            ":80",
            "1-9:80",
        ] {
            assert_eq!(parse(odd).unwrap(), ["80/tcp"], "{odd}");
        }
    }

    #[test]
    fn what_is_no_port() {
        for bad in [
            "", "/tcp", "x", "80/http", "9-7", "65536", "+80", "1-2-3", "x:1:2", "x:2", "1-2:1-3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse("80/tpc").unwrap_err().help.as_deref(),
            Some("did you mean tcp?")
        );
    }
}
