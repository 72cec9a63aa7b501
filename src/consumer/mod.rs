//! Who calls.
//!
//! A request is tried against what the configured consumers are known by, the hardest to come by first:
//! API key > header value > network (the longest prefix) ; else it is anonymous, one caller per client address.
//! Kinds of identification that no consumer uses cost nothing.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::throttle::quota::QuotaParams;
use crate::throttle::{Class, RateParams};

/// Every configured consumer, indexed by what identifies it; immutable, shared by all workers.
#[derive(Debug)]
pub struct Consumers {
    params: Vec<ConsumerParams>,
    /// Per header the keys presented in it.
    keys: Vec<(HeaderName, Digests)>,
    /// In the order in the file.
    values: Vec<(HeaderName, HeaderValue, usize)>,
    /// The longest prefix first, then the order in the file.
    networks: Vec<(IpNet, usize)>,
}

/// SHA-256 digests, sorted, each with the consumer it stands for.
type Digests = Vec<([u8; 32], usize)>;

/// One consumer, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerParams {
    /// Its name in metrics and logs.
    pub name: String,
    /// What it is known by.
    pub identify: Identify,
    /// Its share of the backend when that is scarce, beside the others of its class.
    pub weight: u32,
    /// Its priority class, where it is not the route's.
    pub class: Option<Class>,
    /// Its rate over all routes, beside each route's.
    pub rate: Option<RateParams>,
    /// Its quotas, at most one of each length.
    pub quotas: Vec<QuotaParams>,
}

/// What a consumer is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identify {
    /// A secret presented in a header; `authorization` carries it as `Bearer SECRET` (RFC 6750 section 2.1).
    ApiKey {
        /// Where it is presented.
        header: HeaderName,
        /// The SHA-256 of each key that is valid, so that no secret is kept in memory. The keys must be long and
        /// random: a plain digest does not protect a guessable one.
        sha256: Vec<[u8; 32]>,
    },
    /// A header with a value. Anybody can send one: use it only where a trusted proxy in front sets or removes it.
    Header {
        /// The header.
        name: HeaderName,
        /// Its value, compared exactly.
        value: HeaderValue,
    },
    /// The networks its requests come from.
    Network(Vec<IpNet>),
}

/// Who a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A configured consumer, by its index in the parameters.
    Known(usize),
    /// Nobody known: one caller per address, as [`aggregate`] sees it.
    Anonymous(IpAddr),
}

impl Consumers {
    /// Indexes the consumers. Of two that are known by the same thing the first one gets it; the configuration is
    /// where that is refused.
    pub fn new(params: Vec<ConsumerParams>) -> Self {
        let mut consumers = Self { params: Vec::new(), keys: Vec::new(), values: Vec::new(), networks: Vec::new() };
        for (consumer, params) in params.iter().enumerate() {
            match &params.identify {
                Identify::ApiKey { header, sha256 } => {
                    let digests = consumers.digests(header);
                    digests.extend(sha256.iter().map(|digest| (*digest, consumer)));
                }
                Identify::Header { name, value } => consumers.values.push((name.clone(), value.clone(), consumer)),
                Identify::Network(nets) => {
                    consumers.networks.extend(nets.iter().map(|net| (unmapped(*net), consumer)));
                }
            }
        }
        for (_, digests) in &mut consumers.keys {
            digests.sort_unstable();
            digests.dedup_by_key(|(digest, _)| *digest);
        }
        consumers.networks.sort_by_key(|(net, consumer)| (Reverse(net.prefix_len()), *consumer));
        consumers.params = params;
        consumers
    }

    /// Who sent a request with `headers` from the address `peer`.
    ///
    /// A header that identifies must stand there once: with several lines vaxel and the upstream could each believe
    /// another one. An unknown key does not identify; the other ways are still tried.
    pub fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Identity {
        let known = self
            .by_key(headers)
            .or_else(|| self.by_value(headers))
            .or_else(|| if self.networks.is_empty() { None } else { self.by_network(peer.to_canonical()) });
        known.map_or_else(|| Identity::Anonymous(aggregate(peer)), Identity::Known)
    }

    /// The parameters of the consumer with this index.
    pub fn params(&self, consumer: usize) -> Option<&ConsumerParams> {
        self.params.get(consumer)
    }

    /// How many consumers there are.
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    fn by_key(&self, headers: &HeaderMap) -> Option<usize> {
        self.keys.iter().find_map(|(name, digests)| {
            let secret = secret(name, only(headers, name)?)?;
            let presented: [u8; 32] = Sha256::digest(secret).into();
            // The search leaks how much of a *digest* was right, which teaches nothing about the key; equality itself
            // is settled in constant time.
            let at = digests.partition_point(|(digest, _)| *digest < presented);
            let (digest, consumer) = digests.get(at)?;
            bool::from(digest.ct_eq(&presented)).then_some(*consumer)
        })
    }

    fn by_value(&self, headers: &HeaderMap) -> Option<usize> {
        let found = self.values.iter().find(|(name, value, _)| only(headers, name) == Some(value));
        found.map(|(.., consumer)| *consumer)
    }

    fn by_network(&self, peer: IpAddr) -> Option<usize> {
        self.networks.iter().find(|(net, _)| net.contains(&peer)).map(|(_, consumer)| *consumer)
    }

    fn digests(&mut self, header: &HeaderName) -> &mut Digests {
        let at = self.keys.iter().position(|(name, _)| name == header).unwrap_or_else(|| {
            self.keys.push((header.clone(), Vec::new()));
            self.keys.len() - 1
        });
        let (_, digests) = self.keys.get_mut(at).expect("found or just pushed there");
        digests
    }
}

/// The address that stands for one anonymous caller: an IPv4-mapped IPv6 address is the IPv4 one, and the /64 a site
/// gets counts as one, for whoever has one address of it has all of them.
pub fn aggregate(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// The header's value if it stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    // Names are compared faster than looked up, and most requests have none of these.
    if !headers.keys().any(|key| key == name) {
        return None;
    }
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// The secret in a header's value. The scheme is case-insensitive (RFC 9110 section 11.1).
fn secret<'h>(name: &HeaderName, value: &'h HeaderValue) -> Option<&'h [u8]> {
    let value = value.as_bytes();
    let secret = if *name == header::AUTHORIZATION {
        let (scheme, rest) = value.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        rest.trim_ascii()
    } else {
        value
    };
    (!secret.is_empty()).then_some(secret)
}

/// `::ffff:10.0.0.0/104` as `10.0.0.0/8`, because peers are compared in that form.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let length = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), length) {
        (Some(v4), Some(length)) => IpNet::new(v4.into(), length).unwrap_or(net),
        _ => net,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn consumer(name: &str, identify: Identify) -> ConsumerParams {
        ConsumerParams { name: name.to_owned(), identify, weight: 1, class: None, rate: None, quotas: Vec::new() }
    }

    fn key(header: &'static str, secrets: &[&str]) -> Identify {
        let sha256 = secrets.iter().map(|secret| Sha256::digest(secret).into()).collect();
        Identify::ApiKey { header: HeaderName::from_static(header), sha256 }
    }

    fn nets(nets: &[&str]) -> Identify {
        Identify::Network(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    fn value(name: &'static str, value: &'static str) -> Identify {
        Identify::Header { name: HeaderName::from_static(name), value: HeaderValue::from_static(value) }
    }

    #[test]
    fn the_strongest_identification_that_fits_wins() {
        let consumers = Consumers::new(vec![
            consumer("webshop", key("x-api-key", &["s3cret", "next"])),
            consumer("mobile", key("authorization", &["t0ken"])),
            consumer("intranet", nets(&["10.0.0.0/8", "fd00::/8"])),
            consumer("batch host", nets(&["10.1.2.3/32", "::ffff:192.0.2.0/120"])),
            consumer("portal", value("x-client", "portal")),
            consumer("other shop", key("x-api-key", &["third"])),
        ]);
        let check = |lines: &[(&'static str, &'static str)], peer: &str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let peer: IpAddr = peer.parse().unwrap();
            let name = match consumers.identify(&headers, peer) {
                Identity::Known(at) => Some(consumers.params(at).unwrap().name.as_str()),
                Identity::Anonymous(ip) => {
                    assert_eq!(ip, aggregate(peer));
                    None
                }
            };
            assert_eq!(name, expected, "{lines:?} from {peer}");
        };
        let outside = "203.0.113.9";
        check(&[("x-api-key", "s3cret")], outside, Some("webshop"));
        check(&[("x-api-key", "next")], outside, Some("webshop"));
        check(&[("x-api-key", "third")], outside, Some("other shop"));
        check(&[("x-api-key", "S3cret")], outside, None);
        check(&[("x-api-key", "")], outside, None);
        check(&[("x-api-key", "Bearer s3cret")], outside, None);
        check(&[("x-api-key", "s3cret"), ("x-api-key", "s3cret")], outside, None);
        check(&[("authorization", "Bearer t0ken")], outside, Some("mobile"));
        check(&[("authorization", "bearer  t0ken")], outside, Some("mobile"));
        check(&[("authorization", "Basic t0ken")], outside, None);
        check(&[("authorization", "t0ken")], outside, None);
        check(&[("authorization", "Bearer ")], outside, None);
        check(&[("x-client", "portal")], outside, Some("portal"));
        check(&[("x-client", "Portal")], outside, None);
        check(&[("x-client", "portal"), ("x-api-key", "s3cret")], outside, Some("webshop"));
        check(&[("x-client", "portal")], "10.9.9.9", Some("portal"));
        check(&[("x-api-key", "wrong")], "10.9.9.9", Some("intranet"));
        check(&[], "10.1.2.3", Some("batch host"));
        check(&[], "::ffff:10.9.9.9", Some("intranet"));
        check(&[], "192.0.2.7", Some("batch host"));
        check(&[], "fd12::1", Some("intranet"));
        check(&[], outside, None);
    }

    #[test]
    fn without_consumers_everybody_is_anonymous() {
        let consumers = Consumers::new(Vec::new());
        let peer = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(consumers.identify(&HeaderMap::new(), peer), Identity::Anonymous("10.0.0.1".parse().unwrap()));
        assert!(consumers.is_empty() && consumers.params(0).is_none());
    }

    #[test]
    fn addresses_of_one_site_are_one_caller() {
        let check = |ip: &str, expected: &str| {
            assert_eq!(aggregate(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{ip}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:2::", "2001:db8:1:2::");
        check("::1", "::");
    }

    proptest! {
        #[test]
        fn a_key_identifies_its_consumer_and_no_other_text_does(
            keys in prop::collection::btree_set("[!-~]{1,12}", 1..12), other in "[!-~]{1,12}",
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let consumers = Consumers::new(keys.iter().map(|secret| consumer(secret, key("x-key", &[secret]))).collect());
            let ask = |secret: &str| {
                let headers = HeaderMap::from_iter([(HeaderName::from_static("x-key"), secret.parse().unwrap())]);
                consumers.identify(&headers, "192.0.2.1".parse().unwrap())
            };
            for (at, secret) in keys.iter().enumerate() {
                prop_assert_eq!(ask(secret), Identity::Known(at));
            }
            if !keys.contains(&other) {
                prop_assert!(matches!(ask(&other), Identity::Anonymous(_)));
            }
        }

        #[test]
        fn aggregating_twice_changes_nothing_more(bits: u128) {
            let once = aggregate(IpAddr::V6(bits.into()));
            prop_assert_eq!(aggregate(once), once);
        }
    }
}
