//! Header edits and static answers that an operator asked for.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Header fields to remove and to set, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replace whatever is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed first.
    pub remove: Vec<HeaderName>,
}

/// An answer that needs no upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its Content-Type.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}

impl HeaderEdits {
    /// Whether nothing is edited.
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Edits `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed_then_set() {
        let name = HeaderName::from_static;
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        headers.append("b", HeaderValue::from_static("3"));
        let edits = HeaderEdits {
            set: vec![(name("a"), HeaderValue::from_static("4")), (name("c"), HeaderValue::from_static("5"))],
            remove: vec![name("b"), name("c")],
        };
        edits.apply(&mut headers);
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("a", "4"), ("c", "5")]);
    }
}
