//! Which of the fields that steer a proxy a request has, found in one pass over its names. Most requests have almost
//! none of them, and a look-up that finds nothing costs as much as one that finds something.

use std::ops::BitOr;

use http::HeaderMap;

/// Kinds of fields, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present(u16);

impl Present {
    /// A method tunnelled through a field: `X-HTTP-Method-Override` and its kin.
    pub const OVERRIDE: Self = Self(1);
    /// `Via`.
    pub const VIA: Self = Self(1 << 1);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(1 << 2);
    /// `TE`.
    pub const TE: Self = Self(1 << 3);
    /// `Authorization`.
    pub const AUTHORIZATION: Self = Self(1 << 4);
    /// What is said of caching: `Cache-Control`, `Pragma`.
    pub const CONTROL: Self = Self(1 << 5);
    /// What a stored answer is met with: `If-None-Match`, `If-Modified-Since`, `Range`, `If-Range`.
    pub const CONDITION: Self = Self(1 << 6);
    /// What may lead past the store: `If-Match`, `If-Unmodified-Since`, `X-CSRF-Token`, `sap-contextid`.
    pub const PAST: Self = Self(1 << 7);
    /// `traceparent`.
    pub const TRACE: Self = Self(1 << 8);
    /// `Connection`.
    pub const CONNECTION: Self = Self(1 << 9);
    /// What else is of one hop, but for what frames a body: `Proxy-Connection`, `HTTP2-Settings`, `Proxy-Authorization`.
    pub const HOP: Self = Self(1 << 10);
    /// What proxies say of the client: `X-Forwarded-For`, `-Proto` and `-Host`, `Forwarded`.
    pub const FORWARDED: Self = Self(1 << 11);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 12);
    /// `Content-Length`.
    pub const LENGTH: Self = Self(1 << 13);

    /// What stands in `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |all, name| all | Self::kind(name.as_str()))
    }

    /// Whether there is a field of one of `kinds`.
    pub const fn has(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// By text: such a match looks at the length first.
    fn kind(name: &str) -> Self {
        match name {
            "x-http-method-override" | "x-http-method" | "x-method-override" => Self::OVERRIDE,
            "via" => Self::VIA,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "authorization" => Self::AUTHORIZATION,
            "cache-control" | "pragma" => Self::CONTROL,
            "if-none-match" | "if-modified-since" | "range" | "if-range" => Self::CONDITION,
            "if-match" | "if-unmodified-since" | "x-csrf-token" | "sap-contextid" => Self::PAST,
            "traceparent" => Self::TRACE,
            "connection" => Self::CONNECTION,
            "proxy-connection" | "http2-settings" | "proxy-authorization" => Self::HOP,
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "forwarded" => Self::FORWARDED,
            "expect" => Self::EXPECT,
            "content-length" => Self::LENGTH,
            _ => Self::default(),
        }
    }
}

impl BitOr for Present {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(names: &[&'static str], kinds: Present) {
        let fields = names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("")));
        assert_eq!(Present::of(&fields.collect()), kinds, "{names:?}");
    }

    #[test]
    fn every_field_counts_for_its_kind_and_the_others_for_none() {
        check(&["host", "user-agent", "accept", "cookie", "range-x", "x-if-match"], Present::default());
        for (kind, names) in [
            (Present::OVERRIDE, &["x-http-method-override", "x-http-method", "x-method-override"][..]),
            (Present::VIA, &["via"]),
            (Present::UPGRADE, &["upgrade"]),
            (Present::TE, &["te"]),
            (Present::AUTHORIZATION, &["authorization"]),
            (Present::CONTROL, &["cache-control", "pragma"]),
            (Present::CONDITION, &["if-none-match", "if-modified-since", "range", "if-range"]),
            (Present::PAST, &["if-match", "if-unmodified-since", "x-csrf-token", "sap-contextid"]),
            (Present::TRACE, &["traceparent"]),
            (Present::CONNECTION, &["connection"]),
            (Present::HOP, &["proxy-connection", "http2-settings", "proxy-authorization"]),
            (Present::FORWARDED, &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]),
            (Present::EXPECT, &["expect"]),
            (Present::LENGTH, &["content-length"]),
        ] {
            for name in names {
                check(&["host", *name], kind);
            }
        }
    }

    #[test]
    fn kinds_add_up() {
        check(&["via", "host", "pragma"], Present::VIA | Present::CONTROL);
        let some = Present::VIA | Present::CONTROL;
        assert!(some.has(Present::VIA) && some.has(Present::TE | Present::CONTROL) && !some.has(Present::TE));
    }
}
