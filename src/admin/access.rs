//! Who may ask the admin listener for what.
//!
//! | page | with a token | without, on loopback | without, elsewhere |
//! |---|---|---|---|
//! | `/`, `/livez`, `/readyz` | everybody | everybody | everybody |
//! | `/metrics` | everybody, or the token (`metrics = "token"`) | everybody | everybody |
//! | what only shows | the token | who names the listener by address | everybody |
//! | what acts, or shows stored answers | the token | who names the listener by address | nobody |
//!
//! Whoever reaches a loopback address has the machine already, except a browser on it: a page of another site is
//! refused by its Origin, and one whose name was rebound to 127.0.0.1 by the name in Host.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The SHA-256 digest of the token, if there is one.
    pub token: Option<[u8; 32]>,
    /// Whether `/metrics` needs it as well.
    pub metrics: bool,
    /// Where the listener listens.
    pub listen: SocketAddr,
}

/// What a page asks of who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: probes have no secrets.
    Nothing,
    /// What scrapers have.
    Metrics,
    /// It only shows.
    Look,
    /// It acts, or shows what is stored for others.
    Act,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token is missing, or another one.
    Token,
    /// There is no token, and the listener is open to the network.
    Open,
    /// There is no token, and the listener was named by a name that anybody may have made.
    Name,
}

impl Access {
    /// Who may act, in a word: `token`, `local` (who is on this machine), `nobody`.
    pub fn word(&self) -> &'static str {
        match self.token {
            Some(_) => "token",
            None if self.listen.ip().is_loopback() => "local",
            None => "nobody",
        }
    }

    /// Whether a request may have a page.
    pub(super) fn check(&self, need: Need, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        let open = match need {
            Need::Nothing => true,
            Need::Metrics => self.token.is_none() || !self.metrics,
            Need::Look | Need::Act => false,
        };
        if open {
            return Ok(());
        }
        match &self.token {
            Some(digest) => bearer(headers).filter(|token| is_token(token, digest)).map(drop).ok_or(Denied::Token),
            None if self.listen.ip().is_loopback() => is_named_by_address(uri, headers).ok_or(Denied::Name),
            None if need == Need::Act => Err(Denied::Open),
            None => Ok(()),
        }
    }
}

impl Denied {
    /// What is answered.
    pub(super) const fn problem(self) -> (StatusCode, &'static str) {
        match self {
            Self::Token => (StatusCode::UNAUTHORIZED, "This needs the token of [admin]: Authorization: Bearer TOKEN."),
            Self::Open => (
                StatusCode::FORBIDDEN,
                "The admin listener is open to the network and has no token: give [admin] a `token`, or listen on 127.0.0.1.",
            ),
            Self::Name => (StatusCode::FORBIDDEN, "Without a token this listener is named by address, or localhost."),
        }
    }
}

/// Whether a browser sends this on behalf of another site (cross-site request forgery): a browser on the operator's
/// machine reaches the listener.
pub(super) fn is_foreign(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        // No browser leaves it out of a POST to another site (Fetch, section 3.2).
        return false;
    };
    let own = origin.as_bytes().strip_prefix(b"http://").or_else(|| origin.as_bytes().strip_prefix(b"https://"));
    own.is_none() || own != host(uri, headers)
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    host.or_else(|| uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// A client that names no host (HTTP/1.0) is no browser.
fn is_named_by_address(uri: &Uri, headers: &HeaderMap) -> Option<()> {
    let Some(host) = host(uri, headers) else { return Some(()) };
    let authority = Authority::try_from(host).ok()?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()).then_some(())
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn is_token(token: &[u8], digest: &[u8; 32]) -> bool {
    Sha256::digest(token).as_slice().ct_eq(digest).into()
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:9900";
    const NETWORK: &str = "0.0.0.0:9900";

    fn check(access: Access, need: Need, fields: &[(HeaderName, &'static str)], expected: Result<(), Denied>) {
        let headers = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        assert_eq!(access.check(need, &Uri::from_static("/x"), &headers), expected, "{access:?} {need:?} {fields:?}");
    }

    fn access(listen: &str, token: Option<&str>, metrics: bool) -> Access {
        Access { token: token.map(|token| Sha256::digest(token).into()), metrics, listen: listen.parse().unwrap() }
    }

    #[test]
    fn a_token_opens_what_needs_it_and_nothing_else_does() {
        use Need::{Act, Look, Metrics, Nothing};
        let good = &[(header::AUTHORIZATION, "Bearer s3cret"), (header::HOST, "vaxel.example")][..];
        for listen in [LOOPBACK, NETWORK] {
            for metrics in [false, true] {
                let access = access(listen, Some("s3cret"), metrics);
                for need in [Nothing, Metrics, Look, Act] {
                    check(access, need, good, Ok(()));
                    check(access, need, &[(header::AUTHORIZATION, "bearer  s3cret")], Ok(()));
                }
                let without = [
                    &[][..],
                    &[(header::HOST, "127.0.0.1:9900")],
                    &[(header::AUTHORIZATION, "Bearer s3cre")],
                    &[(header::AUTHORIZATION, "Bearer s3crets")],
                    &[(header::AUTHORIZATION, "Bearer ")],
                    &[(header::AUTHORIZATION, "Bearer")],
                    &[(header::AUTHORIZATION, "Basic s3cret")],
                    &[(header::AUTHORIZATION, "s3cret")],
                ];
                for fields in without {
                    check(access, Nothing, fields, Ok(()));
                    check(access, Metrics, fields, if metrics { Err(Denied::Token) } else { Ok(()) });
                    check(access, Look, fields, Err(Denied::Token));
                    check(access, Act, fields, Err(Denied::Token));
                }
            }
        }
    }

    #[test]
    fn without_a_token_nobody_acts_over_the_network() {
        use Need::{Act, Look, Metrics, Nothing};
        for need in [Nothing, Metrics, Look] {
            check(access(NETWORK, None, true), need, &[(header::HOST, "vaxel:9900")], Ok(()));
        }
        check(access(NETWORK, None, true), Act, &[(header::HOST, "127.0.0.1:9900")], Err(Denied::Open));
        check(access("[::]:9900", None, true), Act, &[], Err(Denied::Open));
    }

    #[test]
    fn without_a_token_loopback_is_named_by_address() {
        use Need::{Act, Look, Metrics, Nothing};
        for listen in [LOOPBACK, "[::1]:9900"] {
            let access = access(listen, None, false);
            for host in ["127.0.0.1:9900", "localhost:9900", "LOCALHOST", "[::1]:9900", "10.0.0.1"] {
                check(access, Look, &[(header::HOST, host)], Ok(()));
                check(access, Act, &[(header::HOST, host)], Ok(()));
            }
            check(access, Act, &[], Ok(()));
            for host in ["rebound.example:9900", "localhost.example", "127.0.0.1.example", "", "[::1"] {
                check(access, Look, &[(header::HOST, host)], Err(Denied::Name));
                check(access, Act, &[(header::HOST, host)], Err(Denied::Name));
                check(access, Nothing, &[(header::HOST, host)], Ok(()));
                check(access, Metrics, &[(header::HOST, host)], Ok(()));
            }
        }
    }
}
