//! After a switch of protocols (WebSocket): bytes both ways, until one side ends. The slot is taken until then.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::held::Held;

/// Joins both sides in a task of its own once the client has read the 101.
pub(super) fn join(client: OnUpgrade, upstream: OnUpgrade, held: Box<Held>) {
    tokio::spawn(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(sides) => sides,
            Err(error) => return tracing::debug!(%error, "a protocol switch was not completed"),
        };
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
        drop(held);
    });
}
