//! Whom a certificate is for. Read from DER by hand: of all of X.509 only the subject is wanted, of certificates that
//! rustls has verified already.

use std::fmt::Write as _;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// The version, which is there but in certificates of 1988.
const CONTEXT_0: u8 = 0xa0;

/// A subject's parts in the certificate's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject(Vec<(String, String)>);

impl Subject {
    /// None: it isn't a certificate, or its subject has texts in encodings that nobody uses any more.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        if rest.first() == Some(&CONTEXT_0) {
            rest = any(rest)?.2;
        }
        // Serial number, algorithm, issuer, validity.
        for _ in 0..4 {
            rest = any(rest)?.2;
        }
        let (mut names, _) = element(rest, SEQUENCE)?;
        let mut parts = Vec::new();
        while !names.is_empty() {
            let (mut set, after) = element(names, SET)?;
            names = after;
            while !set.is_empty() {
                let (pair, after) = element(set, SEQUENCE)?;
                set = after;
                let (kind, value) = element(pair, OBJECT_IDENTIFIER)?;
                let (tag, text, _) = any(value)?;
                if !matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
                    return None;
                }
                parts.push((attribute(kind), str::from_utf8(text).ok()?.to_owned()));
            }
        }
        Some(Self(parts))
    }

    /// Whether it is what the configuration calls `wanted`: all parts in order, or the common name alone.
    pub(super) fn is(&self, wanted: &str) -> bool {
        // A comma in a part would make two of it: then only the common name can be meant.
        let given = wanted.split(',').map(str::trim);
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(kind, text)| format!("{kind}={text}"))
            .collect();
        self.common_name() == Some(wanted) || parts.iter().map(String::as_str).eq(given)
    }

    fn common_name(&self) -> Option<&str> {
        let mut names = self.0.iter().filter(|(kind, _)| kind == "CN");
        let first = names.next()?;
        // Two are none: which one was meant?
        names.next().is_none().then_some(first.1.as_str())
    }
}

/// An element of a kind: its content and what follows.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// The next element: its tag, its content, and what follows.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return None;
        }
        let (number, after) = rest.split_at_checked(digits)?;
        length = number
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The short name of RFC 4514, else the number in dots.
fn attribute(identifier: &[u8]) -> String {
    let short = match identifier {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        _ => return dotted(identifier),
    };
    short.to_owned()
}

fn dotted(identifier: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0_u64;
    for &byte in identifier {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let _ = match text.is_empty() {
                true => write!(
                    text,
                    "{}.{}",
                    (number / 40).min(2),
                    number - 40 * (number / 40).min(2)
                ),
                false => write!(text, ".{number}"),
            };
            number = 0;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in parts {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn subjects_are_compared_whole_or_by_common_name() {
        let der = certificate(&[
            (DnType::OrganizationName, "Exämple"),
            (DnType::CommonName, "runner-7"),
            (DnType::CustomDnType(vec![2, 5, 4, 5]), "42"),
        ]);
        let subject = Subject::of(&der).unwrap();
        assert!(subject.is("runner-7"));
        assert!(subject.is("O=Exämple, CN=runner-7,2.5.4.5=42"), "{subject:?}");
        for other in ["CN=runner-7", "runner", "Exämple", "", "O=Exämple,CN=runner-7"] {
            assert!(!subject.is(other), "{other}");
        }
        // Nobody becomes somebody else by writing a comma into a name.
        let sly = Subject::of(&certificate(&[(DnType::CommonName, "a,O=b")])).unwrap();
        assert!(!sly.is("CN=a,O=b") && sly.is("a,O=b"));
        for end in 0..der.len() {
            assert_eq!(Subject::of(&der[..end]), None);
        }
        for index in 0..der.len() {
            let mut broken = der.clone();
            broken[index] ^= 0xff;
            let _ = Subject::of(&broken);
        }
    }
}
