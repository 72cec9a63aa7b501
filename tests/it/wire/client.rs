//! A client that sends exactly the bytes it is given.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::DEADLINE;
use super::message::Message;

/// One connection.
pub(crate) struct Client {
    pub(crate) reader: BufReader<TcpStream>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Fate {
    Answered(Message),
    /// The other side closed, or reset, without an answer.
    Dropped,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        // Long: only a test that fails waits for it.
        stream.set_read_timeout(Some(DEADLINE)).expect("a duration above zero");
        stream.set_write_timeout(Some(DEADLINE)).expect("a duration above zero");
        Self { reader: BufReader::new(stream) }
    }

    /// Sends, ignoring that the other side may have closed already: what it answered is then still to be read.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Reads one whole response, interim ones (1xx) included, to a request of `method`.
    pub(crate) fn fate(&mut self, method: &str) -> Fate {
        match self.head() {
            Ok(Some(mut message)) => {
                message.response_body(&mut self.reader, method);
                Fate::Answered(message)
            }
            Ok(None) => Fate::Dropped,
            Err(error) => {
                assert!(!timed_out(&error), "neither an answer nor an end");
                Fate::Dropped
            }
        }
    }

    /// The response to a request of `method`, which must come.
    pub(crate) fn answer_to(&mut self, method: &str) -> Message {
        match self.fate(method) {
            Fate::Answered(message) => message,
            Fate::Dropped => panic!("the connection was closed without an answer"),
        }
    }

    pub(crate) fn answer(&mut self) -> Message {
        self.answer_to("GET")
    }

    pub(crate) fn head(&mut self) -> io::Result<Option<Message>> {
        Message::head(&mut self.reader)
    }

    /// Reads exactly `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes come");
        bytes
    }

    /// Whether the other side closes now, without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => !timed_out(&error),
        }
    }

    /// Sends FIN; still reads.
    pub(crate) fn finish(&mut self) {
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
    }

    /// Sends FIN where `wanted`.
    pub(crate) fn finish_if(&mut self, wanted: bool) {
        if wanted {
            self.finish();
        }
    }

    /// Ends with RST.
    pub(crate) fn reset(self) {
        reset(self.reader.get_ref());
    }
}

/// Makes the close of `stream` a reset.
pub(crate) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
