//! What an answer means, after a look at the beginning of its body where its route asks for one: an error may come as a
//! 200, a fault says who is to blame. What was read goes on to the client unchanged.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use tokio::time::timeout;

use super::held::Held;
use crate::outcome::classes::{Classes, LOOK, Seen, Verdict};
use crate::upstream::body::ReplyBody;

/// Judges an answer by what is there of it; false: its body is to be looked at.
pub(super) fn judges(classes: &Classes, response: &Response<ReplyBody>, held: &mut Held) -> bool {
    let seen = Seen { whole: response.body().is_end_stream(), ..Seen::NOTHING };
    let verdict = classes.judge(response.status(), response.headers(), seen);
    verdict.map(|verdict| held.judged(verdict)).is_some()
}

/// Judges an answer by the beginning of its body.
pub(super) async fn into(
    classes: &Classes,
    response: Response<ReplyBody>,
    held: Box<Held>,
) -> (Response<ReplyBody>, Box<Held>) {
    let (parts, body) = response.into_parts();
    let mut looking = Looking(Some((body, held)));
    if let Some((body, held)) = &mut looking.0 {
        held.judged(verdict(classes, parts.status, &parts.headers, body).await);
    }
    let (body, held) = looking.0.take().expect("taken only here and in drop");
    (Response::from_parts(parts, body), held)
}

/// What an answer with this head means. Reads of `body` what that takes, within [`PATIENCE`]; nothing of it is lost.
pub(super) async fn verdict(
    classes: &Classes,
    status: StatusCode,
    headers: &HeaderMap,
    body: &mut ReplyBody,
) -> Verdict {
    let mut bytes = Vec::new();
    let look = async {
        let mut whole = body.is_end_stream();
        loop {
            if let Some(verdict) = classes.judge(status, headers, Seen { bytes: &bytes, whole }) {
                return verdict;
            }
            whole = poll_fn(|cx| body.poll_ahead(cx).map(|frame| !keep(frame, &mut bytes))).await;
        }
    };
    let looked = timeout(PATIENCE, look).await.ok();
    let by_status = Verdict::by_status(status);
    looked.or_else(|| classes.judge(status, headers, Seen { bytes: &bytes, whole: true })).unwrap_or(by_status)
}

/// Keeps of a frame what is looked at; says whether there was one.
fn keep(frame: Option<&Frame<Bytes>>, bytes: &mut Vec<u8>) -> bool {
    if let Some(data) = frame.and_then(Frame::data_ref) {
        bytes.extend_from_slice(data.get(..LOOK.saturating_sub(bytes.len())).unwrap_or(data));
    }
    frame.is_some()
}

/// An answer that is being looked at. The client may leave meanwhile.
struct Looking(Option<(ReplyBody, Box<Held>)>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some((body, held)) = self.0.take() {
            held.leave(body, false);
        }
    }
}

/// An answer that dribbles is not held back for longer: then what has come decides. A fault comes in one piece.
const PATIENCE: Duration = Duration::from_secs(1);
