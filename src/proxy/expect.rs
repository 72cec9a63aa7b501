//! Whether an answer is what its route expects, judged before anybody is served from it.

use bytes::Bytes;
use http::Method;
use http::response::Parts;

use super::held::Held;
use super::snapshot::{Route, Worker};
use crate::cache::media::{Expectation, Otherwise};
use crate::metrics::CacheEvent;
use crate::upstream::body::ReplyBody;

/// What a route expects of a reply to `method`, if it does of one with this head.
pub(super) fn of<'a>(route: &'a Route, method: &Method, parts: &Parts) -> Option<&'a Expectation> {
    let expectation = route.cache.as_ref().and_then(|params| params.expect.as_ref());
    expectation.filter(|_| *method != Method::HEAD && Expectation::concerns(parts.status))
}

/// Judges a reply to `method` by its head and its first bytes, for which it waits. Gives the body, whole, and what is to
/// become of the reply if it is not an expected one.
pub(super) async fn judge(
    worker: &Worker,
    route: &Route,
    method: &Method,
    parts: &Parts,
    mut body: ReplyBody,
    mut held: Option<&mut Held>,
) -> (ReplyBody, Option<Otherwise>) {
    let Some(expectation) = of(route, method, parts) else { return (body, None) };
    let next = std::future::poll_fn(|cx| match &mut held {
        Some(held) => held.peek_body(&mut body, cx),
        None => body.poll_frame(cx),
    });
    let first = next.await;
    let bytes = match &first {
        Some(Ok(frame)) => frame.data_ref().cloned().unwrap_or_default(),
        // A body that breaks off is told by itself.
        Some(Err(_)) => return (first.map_or(ReplyBody::Full(None), |first| ReplyBody::begun(first, body)), None),
        None => Bytes::new(),
    };
    let body = match first {
        Some(first) => ReplyBody::begun(first, body),
        None => body,
    };
    if expectation.begins_well(&parts.headers, &bytes) {
        return (body, None);
    }
    route.meter.event(worker.index, CacheEvent::Unexpected);
    if let (Otherwise::Broken, Some(held)) = (expectation.otherwise, held) {
        held.spoil();
    }
    (body, Some(expectation.otherwise))
}
