//! Who the client was, told to the upstream: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239). What a
//! client says of itself is believed only from trusted peers.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::short::{Short, Text};

/// `X-Forwarded-For`.
pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// By which a client says who it is.
static CLAIMS: [HeaderName; 4] = [FOR, PROTO, HOST, header::FORWARDED];

/// Which fields are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardMode {
    /// None; what trusted peers send is passed on.
    Off,
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
    /// All of them.
    Both,
}

/// How the client is named to the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Which fields are sent.
    pub mode: ForwardMode,
    /// Peers whose word is believed: load balancers and proxies in front of this one.
    pub trusted: Vec<IpNet>,
}

impl Forwarding {
    /// Whether what `peer` says of others is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// The address of the client: the peer, or, if that is trusted, the last address in `X-Forwarded-For` that is not.
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        if self.trusted.is_empty() || !self.trusts(peer) {
            return peer;
        }
        headers
            .get_all(FOR)
            .iter()
            .rev()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.rsplit(','))
            .map_while(|address| address.trim().parse().ok())
            .find(|address| !self.trusts(*address))
            .unwrap_or(peer)
    }

    /// Whether the client asked by https: the listener knows, or a trusted peer that says so. Upstreams answer by what they
    /// are told of it, so what they answer is stored by the same.
    pub fn is_https(&self, headers: &HeaderMap, peer: IpAddr, tls: bool) -> bool {
        if self.trusted.is_empty() || !self.trusts(peer) {
            return tls;
        }
        headers.get(PROTO).map_or(tls, |proto| proto.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https"))
    }

    /// Writes the fields for a request that came from `peer` for `host`, encrypted or not.
    pub fn write(&self, headers: &mut HeaderMap, peer: IpAddr, host: &HeaderValue, tls: bool) {
        let mut claims = headers.keys().any(|name| CLAIMS.contains(name));
        if claims && (self.trusted.is_empty() || !self.trusts(peer)) {
            for name in &CLAIMS {
                headers.remove(name);
            }
            claims = false;
        }
        let peer = peer.to_canonical();
        let proto = if tls { "https" } else { "http" };
        if matches!(self.mode, ForwardMode::XForwarded | ForwardMode::Both) {
            if claims && headers.contains_key(FOR) {
                append_list(headers, FOR, |value| write!(value, "{peer}"));
            } else if let Some(value) = Short::default().address(peer).value() {
                headers.insert(FOR, value);
            }
            headers.entry(PROTO).or_insert(HeaderValue::from_static(proto));
            headers.entry(HOST).or_insert_with(|| host.clone());
        }
        if matches!(self.mode, ForwardMode::Forwarded | ForwardMode::Both) {
            let host = host.to_str().unwrap_or_default();
            append_list(headers, header::FORWARDED, |value| match peer {
                IpAddr::V4(v4) => write!(value, "for={v4};host=\"{host}\";proto={proto}"),
                IpAddr::V6(v6) => write!(value, "for=\"[{v6}]\";host=\"{host}\";proto={proto}"),
            });
        }
    }
}

impl Forwarding {
    /// The same as lines, of a request that says nothing of the kind itself.
    pub fn lines(&self, to: &mut impl Text, peer: IpAddr, host: &HeaderValue, tls: bool) {
        let peer = peer.to_canonical();
        let proto = if tls { "https" } else { "http" };
        if matches!(self.mode, ForwardMode::XForwarded | ForwardMode::Both) {
            to.text("x-forwarded-for: ").address(peer);
            to.text("\r\nx-forwarded-proto: ").text(proto);
            to.text("\r\nx-forwarded-host: ").bytes(host.as_bytes()).text("\r\n");
        }
        if matches!(self.mode, ForwardMode::Forwarded | ForwardMode::Both) {
            let (before, after) = if peer.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
            to.text("forwarded: for=").text(before).address(peer).text(after);
            to.text(";host=\"").text(host.to_str().unwrap_or_default()).text("\";proto=").text(proto).text("\r\n");
        }
    }
}

/// Appends to the one list that the field lines of `name` are together: recipients often read one line only.
fn append_list(headers: &mut HeaderMap, name: HeaderName, write: impl FnOnce(&mut String) -> std::fmt::Result) {
    let mut value = String::with_capacity(40);
    for line in headers.get_all(&name).iter().filter_map(|line| line.to_str().ok()) {
        value.push_str(line);
        value.push_str(", ");
    }
    if write(&mut value).is_ok()
        && let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value))
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(forwarding: &Forwarding, peer: &str, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        forwarding.write(&mut headers, peer.parse().unwrap(), &HeaderValue::from_static("erp:80"), true);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn lines_say_what_fields_do() {
        for mode in [ForwardMode::Off, ForwardMode::XForwarded, ForwardMode::Forwarded, ForwardMode::Both] {
            let forwarding = Forwarding { mode, trusted: vec![] };
            for peer in ["192.0.2.7", "2001:db8::7", "::ffff:10.1.1.1"] {
                let mut lines = bytes::BytesMut::new();
                forwarding.lines(&mut lines, peer.parse().unwrap(), &HeaderValue::from_static("erp:80"), true);
                let mut lines: Vec<_> = std::str::from_utf8(&lines).unwrap().split_terminator("\r\n").collect();
                lines.sort_unstable();
                assert_eq!(lines, sent(&forwarding, peer, &[]), "{mode:?}");
            }
        }
    }

    #[test]
    fn a_stranger_cannot_pass_for_another() {
        let forwarding = Forwarding { mode: ForwardMode::Both, trusted: vec![] };
        let lies = [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-forwarded-host", "evil")];
        assert_eq!(
            sent(&forwarding, "192.0.2.7", &lies),
            [
                "forwarded: for=192.0.2.7;host=\"erp:80\";proto=https",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: erp:80",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn a_trusted_peer_is_believed_and_added() {
        let forwarding = Forwarding { mode: ForwardMode::XForwarded, trusted: vec!["10.0.0.0/8".parse().unwrap()] };
        let told =
            [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "10.9.9.9"), ("x-forwarded-proto", "http")];
        assert_eq!(
            sent(&forwarding, "::ffff:10.1.1.1", &told),
            [
                "x-forwarded-for: 198.51.100.1, 10.9.9.9, 10.1.1.1",
                "x-forwarded-host: erp:80",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn the_client_is_the_last_address_nobody_vouches_for() {
        let forwarding = Forwarding { mode: ForwardMode::Off, trusted: vec!["10.0.0.0/8".parse().unwrap()] };
        for (peer, list, client) in [
            ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.9", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, garbage", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let headers = HeaderMap::from_iter([(FOR, HeaderValue::from_static(list))]);
            assert_eq!(forwarding.client(&headers, peer.parse().unwrap()), client.parse::<IpAddr>().unwrap(), "{list}");
        }
    }
}
