//! How the answers of one route are read: its own rules first, then the faults of its protocol, then the status.
//!
//! Some of that stands in the body. [`Classes::judge`] says when it has to see more of it, so that an answer is held back
//! only as long as a rule that may decide it is open, and never for more than [`LOOK`] bytes.

use std::fmt;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::faults::{Faults, Sighting};
use super::{Outcome, classify_status};

/// How the answers of one route are read. The default goes by the status alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classes {
    /// The route's own rules: the first that fits decides.
    pub rules: Box<[Rule]>,
    /// How its protocol reports faults.
    pub faults: Faults,
}

/// What an answer means that looks like this. Everything that is given must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its status lies in one of these; any if there are none.
    pub statuses: Box<[Statuses]>,
    /// Its fields.
    pub fields: Box<[(HeaderName, Sign)]>,
    /// The beginning of its body (see [`LOOK`]) holds these bytes; any body if there are none.
    pub body: Box<[u8]>,
    /// What it means then.
    pub means: Outcome,
}

/// Statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// What a field must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It is there.
    Present,
    /// It is not.
    Absent,
    /// It has this value.
    Equals(HeaderValue),
    /// Its value begins with this.
    Begins(Box<[u8]>),
}

/// What is seen of a body.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Nothing more will be.
    pub whole: bool,
}

impl Seen<'_> {
    /// Nothing yet.
    pub const NOTHING: Self = Self { bytes: &[], whole: false };
}

/// What an answer means, and whether its status alone said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What it means.
    pub outcome: Outcome,
    /// A rule or a fault decided, not the status.
    pub by_rule: bool,
}

impl Verdict {
    /// By the status, as everywhere.
    pub const fn by_status(status: StatusCode) -> Self {
        Self { outcome: classify_status(status), by_rule: false }
    }

    /// Whether it is an answer to what was asked, whatever its status says: not if a rule says that it is none, as with
    /// an error that comes as a 200. Such an answer is never stored, and no proof that its caller was let in.
    pub fn is_an_answer(self) -> bool {
        !self.by_rule || self.outcome == Outcome::Ok
    }
}

impl Classes {
    /// What an answer means; `None`: more of its body has to be seen first.
    ///
    /// The body of an answer with a content coding is not looked into: its rules do not fit, and the status decides.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap, seen: Seen<'_>) -> Option<Verdict> {
        if self.rules.is_empty() && self.faults == Faults::Http {
            return Some(Verdict::by_status(status));
        }
        let is_coded = headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        let seen = if is_coded { Seen { bytes: &[], whole: true } } else { seen };
        let bytes = seen.bytes.get(..LOOK).unwrap_or(seen.bytes);
        let whole = seen.whole || bytes.len() == LOOK;
        for rule in self.rules.iter().filter(|rule| rule.fits_head(status, headers)) {
            if holds(bytes, &rule.body) {
                return Some(Verdict { outcome: rule.means, by_rule: true });
            } else if !whole {
                return None;
            }
        }
        if self.faults.may_be_in(status.as_u16(), headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)) {
            match self.faults.find(bytes) {
                Sighting::Fault(outcome) => return Some(Verdict { outcome, by_rule: true }),
                Sighting::Yet if !whole => return None,
                Sighting::Yet | Sighting::Nothing => {}
            }
        }
        Some(Verdict::by_status(status))
    }
}

impl Classes {
    /// The rules in words, in the order in which they are asked.
    pub fn told(&self) -> Vec<String> {
        let faults = match self.faults {
            Faults::Http => None,
            Faults::Soap => Some("then by the SOAP fault, if there is one".to_owned()),
            Faults::JsonRpc => Some("then by the error of JSON-RPC, if there is one".to_owned()),
        };
        self.rules.iter().map(ToString::to_string).chain(faults).collect()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.statuses.iter().map(ToString::to_string).collect();
        let statuses = if statuses.is_empty() { "any status".to_owned() } else { statuses.join(", ") };
        write!(f, "{}: {statuses}", self.means.code())?;
        for (name, sign) in &self.fields {
            let lossy = String::from_utf8_lossy;
            match sign {
                Sign::Present => write!(f, ", with {name}")?,
                Sign::Absent => write!(f, ", without {name}")?,
                Sign::Equals(value) => write!(f, ", {name}: {}", lossy(value.as_bytes()))?,
                Sign::Begins(begin) => write!(f, ", {name}: {}*", lossy(begin))?,
            }
        }
        match &*self.body {
            [] => Ok(()),
            body => write!(f, ", \"{}\" in its body", String::from_utf8_lossy(body)),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Rule {
    fn fits_head(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let code = status.as_u16();
        (self.statuses.is_empty() || self.statuses.iter().any(|range| (range.first..=range.last).contains(&code)))
            && self.fields.iter().all(|(name, sign)| sign.fits(headers, name))
    }
}

impl Sign {
    fn fits(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut values = headers.get_all(name).iter();
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Equals(wanted) => values.any(|value| value == wanted),
            Self::Begins(wanted) => values.any(|value| value.as_bytes().starts_with(wanted)),
        }
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|part| part == wanted)
}

/// Bytes of a body that are looked at. Error pages and fault codes show themselves well before.
pub const LOOK: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(statuses: &[(u16, u16)], fields: &[(&'static str, Sign)], body: &str, means: Outcome) -> Rule {
        Rule {
            statuses: statuses.iter().map(|&(first, last)| Statuses { first, last }).collect(),
            fields: fields.iter().map(|(name, sign)| (HeaderName::from_static(name), sign.clone())).collect(),
            body: body.as_bytes().into(),
            means,
        }
    }

    /// The rules of the legacy collection: limits reported with 400, sessions exhausted, a page where data should be.
    fn legacy() -> Classes {
        let html = Sign::Begins(b"text/html"[..].into());
        Classes {
            rules: Box::new([
                rule(&[(400, 400)], &[], "SSS_REQUEST_LIMIT_EXCEEDED", Outcome::Overloaded),
                rule(&[(500, 599)], &[], "no more sessions", Outcome::Overloaded),
                rule(&[(200, 299)], &[("content-type", html)], "", Outcome::Broken),
                rule(&[], &[("x-error", Sign::Equals(HeaderValue::from_static("data")))], "", Outcome::Business),
                rule(&[(500, 500), (502, 502)], &[("x-error", Sign::Absent)], "SRVE8025E", Outcome::Overloaded),
                rule(&[(404, 404)], &[("x-gone", Sign::Present)], "", Outcome::Ok),
            ]),
            faults: Faults::Soap,
        }
    }

    #[track_caller]
    fn check(status: u16, fields: &[(&'static str, &'static str)], seen: Seen<'_>, expected: Option<(Outcome, bool)>) {
        let headers = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let verdict = legacy().judge(StatusCode::from_u16(status).unwrap(), &headers, seen);
        assert_eq!(verdict.map(|verdict| (verdict.outcome, verdict.by_rule)), expected, "{status} {fields:?}");
    }

    const fn whole(body: &str) -> Seen<'_> {
        Seen { bytes: body.as_bytes(), whole: true }
    }

    const fn begun(body: &str) -> Seen<'_> {
        Seen { bytes: body.as_bytes(), whole: false }
    }

    #[test]
    fn the_first_rule_that_fits_decides_then_the_fault_then_the_status() {
        const XML: &[(&str, &str)] = &[("content-type", "text/xml")];
        const PAGE: &[(&str, &str)] = &[("content-type", "text/html; charset=latin1")];
        let server = "<Envelope><Body><Fault><faultcode>Server</faultcode>no more sessions";
        check(400, &[], whole("SSS_REQUEST_LIMIT_EXCEEDED"), Some((Outcome::Overloaded, true)));
        check(400, &[], whole("bad filter"), Some((Outcome::Business, false)));
        check(500, &[], whole("..no more sessions.."), Some((Outcome::Overloaded, true)));
        check(200, PAGE, Seen::NOTHING, Some((Outcome::Broken, true)));
        check(200, XML, whole("<Envelope><Body><Fault><faultcode>Client</"), Some((Outcome::Business, true)));
        check(500, &[("x-error", "data")], whole(""), Some((Outcome::Business, true)));
        check(500, &[("x-error", "other")], whole("SRVE8025E"), Some((Outcome::Broken, false)));
        check(502, &[], whole("SRVE8025E"), Some((Outcome::Overloaded, true)));
        check(501, &[], whole("SRVE8025E"), Some((Outcome::Business, false)));
        check(404, &[("x-gone", "")], Seen::NOTHING, Some((Outcome::Ok, true)));
        check(500, XML, whole(server), Some((Outcome::Overloaded, true)));
        check(500, XML, whole("<Envelope><Body><Fault><faultcode>Server</"), Some((Outcome::Broken, true)));
        check(503, XML, whole("<Envelope><Body><Fault><faultcode>Client</"), Some((Outcome::Overloaded, false)));
    }

    #[test]
    fn a_body_is_waited_for_only_where_it_may_decide() {
        check(204, &[("content-type", "text/plain")], Seen::NOTHING, Some((Outcome::Ok, false)));
        check(400, &[], begun("SSS_"), None);
        check(500, &[], begun("wait"), None);
        check(500, &[("content-encoding", "gzip")], begun("no more sessions"), Some((Outcome::Broken, false)));
        check(500, &[("content-encoding", "identity")], begun("no more sessions"), Some((Outcome::Overloaded, true)));
        let long = "x".repeat(LOOK);
        check(400, &[], begun(&long), Some((Outcome::Business, false)));
        check(400, &[], whole(&format!("{long}SSS_REQUEST_LIMIT_EXCEEDED")), Some((Outcome::Business, false)));
    }

    #[test]
    fn an_error_with_a_good_status_is_no_answer_and_a_plain_404_is_one() {
        let verdict = |outcome, by_rule| Verdict { outcome, by_rule };
        assert!(verdict(Outcome::Business, false).is_an_answer());
        assert!(verdict(Outcome::Ok, true).is_an_answer());
        assert!(!verdict(Outcome::Business, true).is_an_answer());
        assert!(!verdict(Outcome::Broken, true).is_an_answer());
    }

    proptest! {
        #[test]
        fn a_verdict_that_fell_early_is_the_one_of_the_whole(
            status in 200_u16..600,
            body in "(SSS_REQUEST_LIMIT_EXCEEDED|no more sessions|SRVE8025E|<Envelope>|<Body>|<Fault>|x){0,8}",
            cut in any::<prop::sample::Index>(),
        ) {
            let (classes, status) = (legacy(), StatusCode::from_u16(status).unwrap());
            let early = Seen { bytes: &body.as_bytes()[..cut.index(body.len() + 1)], whole: false };
            let fell = classes.judge(status, &HeaderMap::new(), early);
            let last = classes.judge(status, &HeaderMap::new(), whole(&body));
            prop_assert!(last.is_some());
            prop_assert!(fell.is_none() || fell == last);
        }
    }
}
