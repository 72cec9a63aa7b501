//! The floor of the stack: hyper and nothing else, in a process of its own. What Vaxel needs beyond it is the price of
//! the policies; what this needs beyond nginx is the price of the libraries.
//!
//! `/hit*` is answered from a map, everything else forwarded over kept connections, bodies whole. No limits, no timeouts,
//! no counters, no header is looked at.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// The argument that makes this program the bare proxy that the file which follows tells of.
pub(crate) const SERVE: &str = "--serve-bare";
/// Its ports.
pub(crate) const CONFIG: &str = "{{port}} {{tls_port}} {{origin_port}}";

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Bare {
    origin: u16,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    stored: RefCell<HashMap<String, Response<Full<Bytes>>>>,
}

/// Is the bare proxy, until it is ended.
pub(crate) fn serve(config: &Path) -> io::Result<Infallible> {
    let text = std::fs::read_to_string(config)?;
    let ports: Vec<u16> = text.split_ascii_whitespace().filter_map(|port| port.parse().ok()).collect();
    let &[port, _, origin] = ports.as_slice() else { return Err(io::Error::other("three ports are needed")) };
    let bare = Rc::new(Bare { origin, idle: RefCell::default(), stored: RefCell::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let bare = Rc::clone(&bare);
            let service = service_fn(move |request| answer(Rc::clone(&bare), request));
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(serving);
        }
    })
}

async fn answer(bare: Rc<Bare>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
    let path = request.uri().path();
    let is_stored = path.starts_with("/hit");
    if is_stored && let Some(stored) = bare.stored.borrow().get(path) {
        return Ok(stored.clone());
    }
    let path = path.to_owned();
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, Full::new(body.collect().await?.to_bytes()));
    let idle = bare.idle.borrow_mut().pop();
    let mut sender = match idle {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", bare.origin)).await?;
            stream.set_nodelay(true)?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(driver);
            sender
        }
    };
    sender.ready().await?;
    let (mut parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    bare.idle.borrow_mut().push(sender);
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    let response = Response::from_parts(parts, Full::new(body));
    if is_stored {
        bare.stored.borrow_mut().insert(path, response.clone());
    }
    Ok(response)
}
