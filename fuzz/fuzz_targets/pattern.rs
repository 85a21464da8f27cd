//! Patterns of repositories: what matches lies in the range.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::RepoName;
use oci::access::RepoPattern;

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(pattern), Ok(name)) = (texts.0.parse::<RepoPattern>(), texts.1.parse::<RepoName>()) else {
        return;
    };
    assert_eq!(pattern.to_string(), texts.0);
    if pattern.matches(&name) {
        let range = pattern.range();
        assert!(range.low.as_str() <= name.as_str());
        assert!(range.high.is_none_or(|high| name.as_str() < high.as_str()));
    }
});
