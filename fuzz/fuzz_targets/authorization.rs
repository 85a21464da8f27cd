//! `Authorization` headers and scopes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::access::{Authorization, ResourceScope};

fuzz_target!(|text: &str| {
    if let Ok(Authorization::Bearer(token)) = Authorization::parse(text) {
        assert!(!token.is_empty() && !token.contains(' '));
    }
    if let Ok(scopes) = ResourceScope::parse_all(text) {
        for scope in scopes {
            // What was read is written so that it is read the same.
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
    }
});
