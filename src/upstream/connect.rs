//! Opening a connection to an endpoint: resolve, connect, TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve::Resolver;

/// How to reach one endpoint.
#[derive(Clone)]
pub struct Connector {
    host: Box<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    resolver: Arc<Resolver>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}:{}, tls: {})", self.host, self.port, self.tls.is_some())
    }
}

/// Where opening a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: Box<str>,
        /// Why.
        source: io::Error,
    },
    /// No address answers.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The handshake failed. Old stacks offer only TLS 1.0 or 1.1 or key exchanges without forward secrecy; those are
    /// not spoken here.
    #[error("TLS handshake failed (TLS 1.2 or 1.3 with forward secrecy is needed)")]
    Tls(#[source] io::Error),
}

/// A connection, with or without TLS.
///
/// When the endpoint resets it while we still write, what it has said before is still to be read: a server that answers
/// 413 and closes without reading on does just that. Who stops at the failed write misses the answer. So from the first
/// failed write on, writing goes nowhere, and reading tells how it ended.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    /// The other side takes nothing any more.
    deaf: bool,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Pipe(tokio::io::DuplexStream),
}

impl Connector {
    /// Reaches `host:port`, with TLS if a configuration and the name to verify are given.
    pub fn new(
        host: &str,
        port: u16,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
        resolver: Arc<Resolver>,
    ) -> Self {
        let tls = tls.map(|(config, name)| (TlsConnector::from(config), name));
        Self { host: host.into(), port, tls, resolver }
    }

    /// Opens a connection; the caller bounds the time.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let tcp = self.connect_tcp().await?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::new(Inner::Plain(tcp))) };
        let stream = connector.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        Ok(Stream::new(Inner::Tls(Box::new(stream))))
    }

    async fn connect_tcp(&self) -> Result<TcpStream, ConnectError> {
        let unresolved = |source| ConnectError::Resolve { host: self.host.clone(), source };
        let addresses = self.resolver.resolve(&self.host, self.port).await.map_err(unresolved)?;
        let mut last = unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for &address in addresses.iter() {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Heads and small bodies leave at once; they are written in one piece anyway.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(source) => last = ConnectError::Connect { address, source },
            }
        }
        Err(last)
    }
}

impl Stream {
    fn new(inner: Inner) -> Self {
        Self { inner, deaf: false }
    }

    /// One without TLS that is open already.
    #[cfg(test)]
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::new(Inner::Plain(stream))
    }

    /// One that does not leave the process, and is cut into pieces just as they are written.
    #[cfg(test)]
    pub(super) fn pipe(stream: tokio::io::DuplexStream) -> Self {
        Self::new(Inner::Pipe(stream))
    }

    /// Whether nothing has come while nobody asked: neither the end of the stream nor words. That costs no call into the
    /// kernel, unless the event loop has seen that there is something to read.
    pub(super) fn is_quiet(&mut self) -> bool {
        match &mut self.inner {
            Inner::Plain(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Inner::Tls(stream) => {
                let mut byte = [0];
                let mut unwoken = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut unwoken, &mut ReadBuf::new(&mut byte)).is_pending()
            }
            #[cfg(test)]
            Inner::Pipe(_) => true,
        }
    }

    /// Writes by `write`, unless the other side is deaf; then it counts as written, all `whole` bytes of it.
    fn written<T>(
        &mut self,
        whole: T,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Unpin)>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.deaf {
            return Poll::Ready(Ok(whole));
        }
        let result = match &mut self.inner {
            Inner::Plain(stream) => write(Pin::new(stream)),
            Inner::Tls(stream) => write(Pin::new(stream.as_mut())),
            #[cfg(test)]
            Inner::Pipe(stream) => write(Pin::new(stream)),
        };
        match result {
            Poll::Ready(Err(error)) if is_deafness(error.kind()) => {
                self.deaf = true;
                Poll::Ready(Ok(whole))
            }
            other => other,
        }
    }
}

/// The errors of a write to a connection that was reset.
fn is_deafness(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(test)]
            Inner::Pipe(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().written(buf.len(), |stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().written((), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().written((), |stream| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole = bufs.iter().map(|buf| buf.len()).sum();
        self.get_mut().written(whole, |stream| stream.poll_write_vectored(cx, bufs))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_said_before_a_reset_is_read_after_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut stream = Stream::new(Inner::Plain(tcp));
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        server.read_exact(&mut [0; 10]).unwrap();
        server.write_all(b"enough").unwrap();
        // With unread bytes: the close is a reset.
        drop(server);
        while !stream.deaf {
            stream.write_all(&[b'x'; 1000]).await.unwrap();
        }
        stream.flush().await.unwrap();
        let mut said = [0; 6];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"enough");
        assert!(!matches!(stream.read(&mut said).await, Ok(1..)), "and then it has ended");
    }
}
