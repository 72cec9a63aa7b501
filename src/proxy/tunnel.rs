//! After a switch of protocols (WebSocket): bytes both ways, until one side ends. The slot is taken until then.

use http::Extensions;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::held::Held;
use crate::message::switch::{Switch, Switched};
use crate::upstream::body::BoxError;

/// Where one side's stream will come from. It lies in the extensions of that side's message.
#[derive(Debug)]
pub(super) enum Side {
    /// From a connection of ours.
    Own(Switch),
    /// From an embedding program, or its own origin, that speaks through hyper.
    Foreign(OnUpgrade),
}

impl Side {
    /// Takes it out of a message's extensions.
    pub(super) fn take(extensions: &mut Extensions) -> Option<Self> {
        match extensions.remove::<Switch>() {
            Some(switch) => Some(Self::Own(switch)),
            None => extensions.remove::<OnUpgrade>().map(Self::Foreign),
        }
    }

    async fn switched(self) -> Result<Switched, BoxError> {
        match self {
            Self::Own(switch) => Ok(switch.switched().await?),
            Self::Foreign(upgrade) => Ok(Switched::new(TokioIo::new(upgrade.await?), bytes::Bytes::new())),
        }
    }
}

/// Joins both sides in a task of its own once the client has read the 101.
pub(super) fn join(client: Side, upstream: Side, held: Box<Held>) {
    tokio::spawn(async move {
        let (mut client, mut upstream) = match tokio::try_join!(client.switched(), upstream.switched()) {
            Ok(sides) => sides,
            Err(error) => return tracing::debug!(%error, "a protocol switch was not completed"),
        };
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        drop(held);
    });
}
