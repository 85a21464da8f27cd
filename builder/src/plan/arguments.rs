//! Build arguments that exist without being declared.

use std::collections::BTreeMap;

use oci::Platform;

use super::PlanInput;
use super::variables::Variables;

const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Sets the time of everything that is made.
pub(super) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The predefined arguments `BUILD*` and `TARGET*`; `--build-arg` overrides them.
pub(super) fn predefined(input: &PlanInput, target: &str) -> Variables {
    let mut variables = Variables::default();
    let platforms = [("BUILD", &input.build_platform), ("TARGET", &input.platform)];
    for (prefix, platform) in platforms {
        let platform = normalised(platform);
        let version = platform.os_version.as_deref().unwrap_or_default();
        let variant = platform.variant.as_deref().unwrap_or_default();
        let values = [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", version.to_owned()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", variant.to_owned()),
        ];
        for (name, value) in values {
            set(
                &mut variables,
                &input.build_args,
                &format!("{prefix}{name}"),
                &value,
            );
        }
    }
    let target = if target.is_empty() { "default" } else { target };
    set(&mut variables, &input.build_args, "TARGETSTAGE", target);
    variables
}

/// Whether `--build-arg` may give a value although no ARG declares the name.
pub(super) fn is_predefined(name: &str, predefined: &Variables) -> bool {
    predefined.get(name).is_some()
        || is_proxy(name)
        || name == SOURCE_DATE_EPOCH
        || name.starts_with("BUILDKIT_")
}

/// The proxy variables of a RUN: both cases of each that `--build-arg` gives in either.
pub(super) fn proxies(build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
    PROXIES
        .iter()
        .filter_map(|proxy| {
            let (_, value) = build_args
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(proxy))?;
            Some([
                ((*proxy).to_owned(), value.clone()),
                (proxy.to_ascii_lowercase(), value.clone()),
            ])
        })
        .flatten()
        .collect()
}

pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// A platform as containerd writes it: the default variant is not written, except arm's.
fn normalised(platform: &Platform) -> Platform {
    let mut platform = platform.clone();
    let variant = platform.variant.as_deref().unwrap_or_default();
    platform.variant = match (platform.architecture.as_str(), variant) {
        ("arm", "") => Some("v7".to_owned()),
        ("arm64", "v8") | ("amd64", "v1") | (_, "") => None,
        (_, variant) => Some(variant.to_owned()),
    };
    platform
}

fn set(variables: &mut Variables, build_args: &BTreeMap<String, String>, name: &str, value: &str) {
    let value = build_args.get(name).map_or(value, String::as_str);
    variables.set(name, value);
}
