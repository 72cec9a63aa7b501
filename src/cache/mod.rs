//! The shared HTTP cache (RFC 9111): what may be stored, under which key, how long it is good, and what is answered.
//!
//! Rules, pure (time is an argument, nothing waits, nothing locks):
//! - [`control`]: Cache-Control of requests and answers, targeted fields (RFC 9213), as plain values
//! - [`key`]: the 128-bit key of a request and of a variant of it
//! - [`storing`]: may this answer be stored, and what of it
//! - [`freshness`]: age and lifetime; the update by a 304
//! - [`reuse`]: may the stored answer serve this request; conditional requests in both directions
//! - [`identity`]: whose answers these are
//! - [`fence`]: what was read before a write ended is not taken for what is there after it
//! - [`media`]: what an answer is expected to be
//! - [`canonical`]: POST requests that only read
//! - [`range`]: byte ranges of a complete answer (RFC 9110 section 14)
//! - [`search`]: which query parameters an answer says it depends on (No-Vary-Search)
//! - [`entry`]: the stored answer · [`record`]: the same as bytes
//!
//! Mechanisms: [`store`] (bounded by bytes; `room`) · [`hot`] (in front of it) · [`flight`] (collapsed, streaming fills) · [`purge`] · [`survey`] ·
//! [`persist`] (over a restart) · [`identities`] (who may have what is shared; whose answers are forgotten).
//!
//! A request walks: `reuse::bypass` → `key` → `store` → `reuse::decide` → `reuse::answer`; a miss or a validation
//! comes back through `storing::decide` or `freshness::refreshed`.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, Method};
use percent_encoding::percent_decode;

use canonical::PostRule;
use identity::{CookiePattern, IdentityRule};
use media::Expectation;

mod aliases;
pub mod canonical;
pub mod control;
pub mod entry;
pub mod fence;
pub mod flight;
pub mod freshness;
pub mod hot;
pub mod identities;
pub mod identity;
pub mod key;
pub mod media;
pub mod persist;
pub mod purge;
pub mod range;
pub mod record;
pub mod reuse;
mod room;
pub mod search;
pub mod store;
pub mod storing;
pub mod survey;

/// How one route caches. The default is transparent: only what the origin allows, as long as it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheParams {
    /// How long an answer is fresh, from its arrival, where the origin says nothing. `None`: the origin alone
    /// decides, and the heuristic of RFC 9111 section 4.2.2 applies.
    pub ttl: Option<Duration>,
    /// `ttl` counts even where the origin says otherwise (`no-store`, `no-cache`, `max-age`, `Expires`, `Pragma`).
    /// Without `ttl` it has no effect. It never overrides identity: `private`, answers to `Authorization`, answers that
    /// set a cookie, and session answers stay unshared.
    pub override_origin: bool,
    /// Methods answered from the store; of GET and HEAD. The others pass.
    pub methods: Vec<Method>,
    /// How long after its freshness an answer is still served while it is refreshed in the background, where the
    /// origin gives no `stale-while-revalidate` (RFC 5861 section 3). Only for answers that were fresh for a while.
    pub stale_while_revalidate: Duration,
    /// How long after its freshness an answer stands in for a failing origin, where the origin gives no
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// How long after its freshness an answer with a validator is kept only to be revalidated.
    pub keep: Duration,
    /// How long 404 and 410 are fresh where the origin says nothing. `None`: `ttl` never applies to them.
    pub negative: Option<Duration>,
    /// The largest body stored, in bytes.
    pub max_entry: u64,
    /// Each identity has answers of its own: the caller sets the key's partition ([`key::Keyer::partition`]), and
    /// `private` answers and answers to `Authorization` may be stored in it.
    pub per_consumer: bool,
    /// What tells users apart, if that is more or less than all their credentials. Each identity then has answers of
    /// its own as with `per_consumer`, unless `shared_after_auth` lets them share.
    pub identity: Option<IdentityRule>,
    /// Answers are shared between identities, but an identity gets them only after the upstream itself has answered it
    /// on this route with a success within this time. 401 and 403 end that at once.
    pub shared_after_auth: Option<Duration>,
    /// Cookies whose setting says nothing of the answer: it is stored without them.
    pub ignore_set_cookie: Vec<CookiePattern>,
    /// Fields a stored answer never carries, beside those it never may.
    pub strip: Vec<HeaderName>,
    /// POST requests of this route only read, and are answered from the store like GET. `None`: they write.
    pub post: Option<PostRule>,
    /// What answers are expected to be; others are not stored. `None`: anything.
    pub expect: Option<Expectation>,
    /// Targeted cache-control fields (RFC 9213) that replace Cache-Control and Expires; the first valid one counts.
    pub targeted: Vec<HeaderName>,
    /// Which query parameters count for the key.
    pub query: QueryRule,
}

impl Default for CacheParams {
    /// - no `ttl`, no stale service beyond what the origin grants: nothing is served that the origin did not allow
    /// - `keep` 1 h: a 304 is far cheaper for a legacy box than a full answer, and an hour covers a user's session
    /// - `max_entry` 8 MiB: larger answers of systems of record are exports, read once
    fn default() -> Self {
        Self {
            ttl: None,
            override_origin: false,
            methods: vec![Method::GET, Method::HEAD],
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::from_secs(3600),
            negative: None,
            max_entry: 8 * 1024 * 1024,
            per_consumer: false,
            identity: None,
            shared_after_auth: None,
            ignore_set_cookie: Vec::new(),
            strip: Vec::new(),
            post: None,
            expect: None,
            targeted: vec![
                HeaderName::from_static("vaxel-cache-control"),
                HeaderName::from_static("cdn-cache-control"),
            ],
            query: QueryRule::default(),
        }
    }
}

impl CacheParams {
    /// Whether each identity has answers of its own.
    pub const fn is_partitioned(&self) -> bool {
        (self.per_consumer || self.identity.is_some()) && self.shared_after_auth.is_none()
    }

    /// Whether a write to a URL outdates what is stored of it by its fence: a purge reaches one identity and one body.
    pub const fn is_fenced_by_url(&self) -> bool {
        self.is_partitioned() || self.post.is_some()
    }

    /// Whether it matters who asks.
    pub const fn knows_identities(&self) -> bool {
        self.per_consumer || self.identity.is_some() || self.shared_after_auth.is_some()
    }
}

/// Which query parameters count for the key. The default takes the query as it is.
///
/// The whole query goes to the origin, so what does not count here must not count there either. Servers read names in
/// many ways: what any of them might take for a name that counts does count, as it is spelled (`loose_name`). Only
/// the very name that is to be dropped is dropped. What holds a `;` counts, for old servers find parameters behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRule {
    /// Parameters count in the order of their names; repeated names keep their order.
    pub sort: bool,
    /// Parameters that do not count.
    pub drop: Vec<String>,
    /// Only these parameters count; `drop` still applies.
    pub keep: Option<Vec<String>>,
}

impl QueryRule {
    /// Whether the query is taken as it is.
    pub const fn is_empty(&self) -> bool {
        !self.sort && self.drop.is_empty() && self.keep.is_none()
    }

    /// Whether the parameter (`name=value` or `name`) counts.
    pub(crate) fn counts(&self, parameter: &str) -> bool {
        if parameter.contains(';') {
            return true;
        }
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        let is_kept = |keep: &Vec<String>| {
            let name = loose_name(name.as_bytes());
            keep.iter().any(|kept| loose_name(kept.as_bytes()) == name)
        };
        self.keep.as_ref().is_none_or(is_kept) && !self.drop.iter().any(|dropped| dropped == name)
    }
}

/// The name of a parameter `name=value` of a query or a form, as the most lenient servers read it together: decoded, in
/// any case (ASP.NET), without white space around it, without an index, and with `_` for what no variable may hold (PHP).
/// What any server takes for one name has one such form; what has one such form may be two names.
pub(crate) fn loose_name(parameter: &[u8]) -> Cow<'_, [u8]> {
    let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    if name.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'$')) {
        return Cow::Borrowed(name);
    }
    let spaced: Vec<u8> = name.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded: Vec<u8> = percent_decode(&spaced).collect();
    let name = decoded.trim_ascii().split(|byte| *byte == b'[').next().unwrap_or_default();
    let loose = |byte: &u8| if matches!(byte, b' ' | b'.') { b'_' } else { byte.to_ascii_lowercase() };
    Cow::Owned(name.iter().map(loose).collect())
}
