//! A server that follows a script and remembers every byte it has read.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::DEADLINE;
use super::client::reset;
use super::message::{End, Message};

/// The server; its connections are served by a thread each.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<u8>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

/// One connection, on the side of the server.
pub(crate) struct Talk {
    pub(crate) reader: BufReader<Recorder>,
}

/// Remembers what is read.
pub(crate) struct Recorder {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Origin {
    /// Runs `script` for each connection; it is closed when the script ends. Errors of the script's sockets end it,
    /// panics of its assertions too: the client then gets no good answer, and the test fails.
    pub(crate) fn start(script: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let (script, state) = (Arc::new(script), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if state.stopped.load(Ordering::Acquire) {
                    return;
                }
                state.connections.fetch_add(1, Ordering::AcqRel);
                let (script, shared) = (Arc::clone(&script), Arc::clone(&state));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(DEADLINE));
                    let _ = script(&mut Talk { reader: BufReader::new(Recorder { stream, shared }) });
                });
            }
        });
        Self { address, shared }
    }

    /// Answers every request with what `answer` makes of it.
    pub(crate) fn answering<R: AsRef<[u8]>>(answer: impl Fn(&Message) -> R + Send + Sync + 'static) -> Self {
        Self::start(move |talk| {
            while let Some(request) = talk.request()? {
                if request.end == End::Broken {
                    return Ok(());
                }
                talk.send(answer(&request))?;
            }
            Ok(())
        })
    }

    /// Every byte it has read, over all connections.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.shared.heard.lock()).into_owned()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Talk {
    /// Reads a whole request; `None` when the client closes instead.
    pub(crate) fn request(&mut self) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head()? else { return Ok(None) };
        message.request_body(&mut self.reader);
        Ok(Some(message))
    }

    pub(crate) fn head(&mut self) -> io::Result<Option<Message>> {
        Message::head(&mut self.reader)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream().write_all(bytes.as_ref())
    }

    /// Reads until the client closes.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map(|_| rest)
    }

    /// Makes the end of this connection a reset.
    pub(crate) fn reset_at_end(&mut self) {
        reset(self.stream());
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.reader.get_mut().stream
    }
}

impl Read for Recorder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(into)?;
        self.shared.heard.lock().extend(into.iter().take(count));
        Ok(count)
    }
}

/// A plain answer with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
