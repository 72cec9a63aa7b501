//! The origin behind every proxy: nginx where it is installed, else a small one of our own, in a process of its own
//! either way. It must be fast rather than real: what it costs runs on the other core and is not counted.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::program::{self, Program};
use crate::site::{self, Site};

/// A running origin.
pub(crate) struct Origin {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// What it is.
    pub(crate) name: &'static str,
    program: Program,
}

impl Origin {
    /// Starts nginx (from `nginx` if given) or, without it or when `built_in` is wanted, the built-in origin.
    pub(crate) fn start(site: &Site, nginx: Option<PathBuf>, built_in: bool) -> io::Result<Self> {
        let port = site::free_port()?;
        let room = site.room("origin")?;
        let log = room.join("log");
        let nginx = nginx.or_else(|| program::find("nginx")).filter(|_| !built_in);
        let Some(nginx) = nginx else {
            let program =
                Program::start(&std::env::current_exe()?, [SERVE.to_owned(), port.to_string()], site.load_core, log)?;
            return Ok(Self { port, name: "built-in origin", program });
        };
        std::fs::create_dir_all(room.join("files"))?;
        std::fs::write(room.join("files/100k"), &*LARGE)?;
        let kilobyte = String::from_utf8_lossy(&SMALL).into_owned();
        let values = [("port", port.to_string()), ("kilobyte", kilobyte)];
        let config = site.write(&room, "origin.conf", include_str!("peers/origin.conf"), &values)?;
        let arguments = ["-c".into(), config.into_os_string(), "-p".into(), room.into_os_string()];
        let program = Program::start(&nginx, arguments, site.load_core, log)?;
        Ok(Self { port, name: "nginx", program })
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// The last lines it printed.
    pub(crate) fn last_words(&self) -> String {
        self.program.last_words()
    }
}

/// The argument that makes this program the built-in origin at the port that follows.
pub(crate) const SERVE: &str = "--serve-origin";

/// Is the built-in origin, until it is ended.
pub(crate) fn serve(port: u16) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let asked = Arc::new(AtomicU64::new(0));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let asked = Arc::clone(&asked);
            let service = service_fn(move |request| {
                let count = asked.fetch_add(1, Ordering::Relaxed) + 1;
                async move { Ok::<_, Infallible>(answer(request, count).await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

/// The same answers as `peers/origin.conf`.
async fn answer(request: Request<Incoming>, count: u64) -> Response<Full<Bytes>> {
    let (storable, large) = match request.uri().path() {
        "/hit1k" => (true, false),
        "/hit100k" => (true, true),
        "/pass1k" | "/post1k" => (false, false),
        "/pass100k" => (false, true),
        "/count" => return Response::new(Full::from(format!(" {count} {count} {count} \n"))),
        _ => {
            let mut nothing = Response::new(Full::default());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            return nothing;
        }
    };
    let received = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    let mut response = Response::new(Full::new(if large { LARGE.clone() } else { SMALL.clone() }));
    let control = HeaderValue::from_static(if storable { "max-age=86400" } else { "no-store" });
    response.headers_mut().insert(CACHE_CONTROL, control);
    if received > 0 {
        response.headers_mut().insert(BODY_LENGTH, HeaderValue::from(received));
    }
    response
}

/// How long a body the origin was told of.
pub(crate) const BODY_LENGTH: HeaderName = HeaderName::from_static("x-body-length");

static SMALL: LazyLock<Bytes> = LazyLock::new(|| letters(1024));
static LARGE: LazyLock<Bytes> = LazyLock::new(|| letters(102_400));

fn letters(length: usize) -> Bytes {
    (b'a'..=b'z').cycle().take(length).collect::<Vec<_>>().into()
}

/// Whether `body` is one of the origin's.
pub(crate) fn is_genuine(body: &[u8]) -> bool {
    body == letters(body.len())
}
