//! What an HTTP/1.1 connection asks of an answer.

use bytes::BytesMut;

/// A response body that may bring the head of its answer as it goes over an HTTP/1.1 connection.
pub trait Preset {
    /// Appends status line and all fields, each ended by CRLF, framing included, to `head` and says true; the response's
    /// own status and fields are then not looked at. No Connection field, no final empty line, and a Date only if the
    /// answer has one of its own. False: nothing was appended.
    fn preset(&mut self, head: &mut BytesMut) -> bool;

    /// Appends the fields, each ended by CRLF, that stand beside those of the response where its head is made of them.
    fn beside(&mut self, head: &mut BytesMut);
}
