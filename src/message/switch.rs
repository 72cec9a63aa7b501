//! A connection after a switch of protocols (101, RFC 9110 section 7.8): whoever spoke HTTP on it hands it over to
//! whoever asked for the switch.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The stream of a connection that speaks HTTP no longer.
pub struct Switched {
    /// Read already, but not HTTP.
    ahead: Bytes,
    stream: Box<dyn Duplex>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Hands the stream over when HTTP has ended; dropped, there is no switch.
#[derive(Debug)]
pub struct Switching(oneshot::Sender<Switched>);

/// Where the stream will arrive. Travels with a message in its extensions; the first of its copies that waits gets it.
#[derive(Debug, Clone)]
pub struct Switch(Arc<Mutex<Option<oneshot::Receiver<Switched>>>>);

/// The connection ended before the switch, or another has taken its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection did not switch protocols")]
pub struct NotSwitched;

/// Both ends of one switch.
pub fn pair() -> (Switching, Switch) {
    let (sender, receiver) = oneshot::channel();
    (Switching(sender), Switch(Arc::new(Mutex::new(Some(receiver)))))
}

impl Switching {
    /// Hands `stream` over. If nobody waits for it any more it is dropped, and the connection closed.
    pub fn hand_over(self, stream: Switched) {
        let _ = self.0.send(stream);
    }
}

impl Switch {
    /// Waits for the stream.
    ///
    /// # Errors
    /// When it never comes, or has gone to a copy of this.
    pub async fn switched(self) -> Result<Switched, NotSwitched> {
        let receiver = self.0.lock().take().ok_or(NotSwitched)?;
        receiver.await.map_err(|_| NotSwitched)
    }
}

impl Switched {
    /// `stream`, from which `ahead` was read already.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, ahead: Bytes) -> Self {
        Self { ahead, stream: Box::new(stream) }
    }
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switched({} bytes ahead)", self.ahead.len())
    }
}

impl AsyncRead for Switched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let now = this.ahead.split_to(this.ahead.len().min(buf.remaining()));
        buf.put_slice(&now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_before_the_rest() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b"rest").await.unwrap();
        let (switching, switch) = pair();
        let copy = switch.clone();
        switching.hand_over(Switched::new(near, Bytes::from_static(b"ahead")));
        let mut stream = switch.switched().await.unwrap();
        let mut read = [0; 3];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ahe");
        let mut read = [0; 6];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"adrest");
        stream.write_all(b"back").await.unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"back");
        assert_eq!(copy.switched().await.unwrap_err(), NotSwitched, "it is there once");
    }

    #[tokio::test]
    async fn without_a_switch_nobody_waits_for_ever() {
        let (switching, switch) = pair();
        drop(switching);
        assert_eq!(switch.switched().await.unwrap_err(), NotSwitched);
    }

    #[tokio::test]
    async fn a_stream_for_nobody_is_closed() {
        let (mut far, near) = tokio::io::duplex(64);
        let (switching, switch) = pair();
        drop(switch);
        switching.hand_over(Switched::new(near, Bytes::new()));
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
}
