//! Fields that belong to one connection only (RFC 9110 section 7.6.1), and the fields by which a proxy makes itself
//! known: `Via`, `Forwarded` and `X-Forwarded-*`.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};

/// `Keep-Alive`, of HTTP/1.0 and still sent by many.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Proxy-Connection`, an old mistake that clients still make.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `HTTP2-Settings`, of the h2c upgrade.
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Always of one hop, whether `Connection` names it or not.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    HTTP2_SETTINGS,
    header::PROXY_AUTHORIZATION,
];

/// The place of a field in [`HOP_BY_HOP`].
fn place(name: &HeaderName) -> Option<u8> {
    // By text: all messages pay for this, for each of their fields, and a match on text looks at its length first.
    Some(match name.as_str() {
        "connection" => 0,
        "keep-alive" => 1,
        "proxy-connection" => 2,
        "transfer-encoding" => 3,
        "upgrade" => 4,
        "te" => 5,
        "http2-settings" => 6,
        "proxy-authorization" => 7,
        _ => return None,
    })
}

/// Fields that `Connection` may not take away: without them the message would mean something else.
static NEVER_NOMINATED: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CACHE_CONTROL, header::VARY];

/// Removes the fields of this hop and those that `Connection` nominates.
pub fn strip(headers: &mut HeaderMap) {
    let present = headers.keys().filter_map(place).fold(0_u8, |present, place| present | 1 << place);
    if present == 0 {
        return;
    }
    if !nominates_none(headers) {
        strip_nominated(headers);
    }
    for (place, name) in HOP_BY_HOP.iter().enumerate() {
        if present >> place & 1 == 1 {
            headers.remove(name);
        }
    }
}

/// Whether `Connection` nominates no field.
pub fn nominates_none(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().all(nominates_nothing)
}

/// Whether a line of `Connection` says what it says most often.
fn nominates_nothing(value: &HeaderValue) -> bool {
    [&b"keep-alive"[..], b"close"].iter().any(|option| value.as_bytes().eq_ignore_ascii_case(option))
}

fn strip_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
        .filter(|name| !NEVER_NOMINATED.contains(name))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// The protocol a request wants to switch to, if `Connection: upgrade` and one `Upgrade` value say so. `h2c` is no
/// protocol vaxel switches to: such tunnels hide requests from a proxy, and RFC 9113 has retired them.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::UPGRADE)?;
    let wanted = connection_has(headers, "upgrade");
    let h2c = value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    (wanted && !h2c).then(|| value.clone())
}

/// Whether `Connection` lists `option`.
pub fn connection_has(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(option))
}

/// The name under which this process stands in `Via`, unique to it, so that a request that comes back is known.
#[derive(Debug, Clone)]
pub struct Pseudonym {
    id: Box<str>,
    http1: HeaderValue,
    line: Box<str>,
    http2: HeaderValue,
    http10: HeaderValue,
}

impl Pseudonym {
    /// A pseudonym that ends in `nonce`.
    pub fn new(nonce: u32) -> Self {
        let id = format!("vaxel-{nonce:08x}");
        let value = |version: &str| {
            HeaderValue::from_str(&format!("{version} {id}")).expect("hex digits and letters are a valid field value")
        };
        let line = format!("via: 1.1 {id}\r\n").into_boxed_str();
        Self { line, http10: value("1.0"), http1: value("1.1"), http2: value("2"), id: id.into_boxed_str() }
    }

    /// Whether the message already went through this process.
    pub fn seen_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::VIA)
            .iter()
            .any(|value| memchr::memmem::find(value.as_bytes(), self.id.as_bytes()).is_some())
    }

    /// What [`sign`](Self::sign) appends to a message that came in HTTP/1.1, as a field line with its end.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Appends this hop to `Via` (RFC 9110 section 7.6.3); `received` is the version the message came in.
    pub fn sign(&self, headers: &mut HeaderMap, received: Version) {
        let value = match received {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http10,
            _ => &self.http1,
        };
        headers.append(header::VIA, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn fields_of_the_hop_and_nominated_ones_stay_behind() {
        let mut headers = map(&[
            ("connection", "Keep-Alive"),
            ("connection", "close, X-Secret"),
            ("connection", "x-other, host, content-length"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-kept", "3"),
            ("host", "a"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("http2-settings", "AAM"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("x-kept", "3"), ("host", "a"), ("content-length", "3")]));
    }

    #[test]
    fn only_an_asked_for_upgrade_counts_and_never_h2c() {
        for (fields, wanted) in [
            (&[("connection", "Upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")], true),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
            (&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], false),
        ] {
            assert_eq!(upgrade(&map(fields)).is_some(), wanted, "{fields:?}");
        }
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let (own, other) = (Pseudonym::new(1), Pseudonym::new(2));
        let mut headers = map(&[("via", "1.1 other")]);
        assert!(!own.seen_in(&headers));
        other.sign(&mut headers, Version::HTTP_11);
        assert!(!own.seen_in(&headers));
        own.sign(&mut headers, Version::HTTP_2);
        assert!(own.seen_in(&headers));
        assert_eq!(headers.get_all(header::VIA).iter().count(), 3);
    }
}
