//! The embedding program's hand in a trip. Each method has a default that changes nothing.

use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;

use crate::listen::Peer;
use crate::metrics::Facts;
use crate::refusal::Denied;

/// Whose an exchange was, by the names of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parties<'a> {
    /// Its route, if one matched.
    pub route: Option<&'a str>,
    /// The upstream the route leads to.
    pub upstream: Option<&'a str>,
    /// Its consumer, if it is a configured one.
    pub consumer: Option<&'a str>,
}

/// What an embedding program may do with a request on its way. Called inside the trip: no method may block.
pub trait Hooks: Send + Sync + 'static {
    /// Before routing: may change the request, or refuse it.
    ///
    /// # Errors
    /// A refusal ends the trip; it is rendered like every other, for a [`Refusal`](crate::Refusal) with the reason it
    /// has, for a [`Denial`](crate::Denial) in the program's words.
    fn request(&self, request: &mut RequestParts, peer: &Peer) -> Result<(), Denied> {
        let _ = (request, peer);
        Ok(())
    }

    /// After identification by the configured rules found nobody: the name of a configured consumer, if the program
    /// knows better (a session, a token of its own).
    fn consumer(&self, request: &RequestParts, peer: &Peer) -> Option<&str> {
        let _ = (request, peer);
        None
    }

    /// Before a request is sent upstream, on each attempt.
    fn upstream(&self, headers: &mut http::HeaderMap) {
        let _ = headers;
    }

    /// Before an answer goes to the client.
    fn response(&self, response: &mut ResponseParts) {
        let _ = response;
    }

    /// When the exchange is over.
    fn finished(&self, facts: &Facts<'_>, parties: Parties<'_>) {
        let _ = (facts, parties);
    }
}
