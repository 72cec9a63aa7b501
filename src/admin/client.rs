//! Asks the admin listener of a running vaxel: what `vaxel purge` and `vaxel cache` are made of.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where a running vaxel is asked, and with what.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    token: Option<HeaderValue>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No admin listener is there.
    #[error("{0} is no address of an admin listener: give http://HOST:PORT")]
    Address(Uri),
    /// The token cannot stand in a header field.
    #[error("the token has characters that no token has")]
    Token,
    /// Nobody answers.
    #[error("the admin listener at {authority} does not answer")]
    Connect {
        /// Who was asked.
        authority: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The exchange broke off.
    #[error("the admin listener at {0} broke off")]
    Broken(String),
    /// It answers too slowly.
    #[error("the admin listener at {0} does not answer in time")]
    Timeout(String),
    /// It says no.
    #[error("{detail} ({status})")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Its explanation.
        detail: String,
    },
}

impl Client {
    /// Of the admin listener at `admin`: plain HTTP.
    ///
    /// # Errors
    /// When that is no such address, or the token no token.
    pub fn new(admin: &Uri, token: Option<&str>) -> Result<Self, ClientError> {
        let unusable = || ClientError::Address(admin.clone());
        let usable = matches!(admin.scheme_str(), Some("http") | None) && admin.path().trim_matches('/').is_empty();
        let host = admin.host().filter(|_| usable).ok_or_else(unusable)?;
        let authority = format!("{host}:{}", admin.port_u16().unwrap_or(80));
        let token = token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut token = token.map_err(|_| ClientError::Token)?;
        token.iter_mut().for_each(|token| token.set_sensitive(true));
        Ok(Self { authority, token })
    }

    /// Shows `target`, path and query.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, target: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, target, String::new()).await
    }

    /// Sends `order` to `target`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(&self, target: &str, order: &Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, target, order.to_string()).await
    }

    async fn ask(&self, method: Method, target: &str, body: String) -> Result<Value, ClientError> {
        let exchange = self.exchange(method, target, body);
        let late = || ClientError::Timeout(self.authority.clone());
        let (status, body) = timeout(PATIENCE, exchange).await.map_err(|_| late())??;
        let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if status.is_success() && !value.is_null() {
            return Ok(value);
        }
        let detail = value.get("detail").and_then(Value::as_str).unwrap_or("It answers as no admin listener does.");
        Err(ClientError::Refused { status, detail: detail.to_owned() })
    }

    async fn exchange(&self, method: Method, target: &str, body: String) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = || ClientError::Broken(self.authority.clone());
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|source| ClientError::Connect { authority: self.authority.clone(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| broken())?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| broken())?;
        let (head, body) = sender.send_request(request).await.map_err(|_| broken())?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|_| broken())?.to_bytes();
        drop(sender);
        driver.abort();
        Ok((head.status, body))
    }
}

/// The target that asks `path` about one request: `fields` are lines `NAME: VALUE`.
pub fn request_target(path: &str, url: &str, method: &str, client: Option<&str>, fields: &[String]) -> String {
    let fields = fields.iter().map(|line| ("header", line.as_str())).chain(client.map(|client| ("client", client)));
    target(path, &[("url", url), ("method", method)].into_iter().chain(fields).collect::<Vec<_>>())
}

/// Path and query.
pub fn target(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut target = path.to_owned();
    for (index, (name, value)) in parameters.iter().enumerate() {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        target.extend([if index == 0 { "?" } else { "&" }, name, "=", &value]);
    }
    target
}

/// A walk through a large store takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// The report of a thousand routes is far smaller.
const LARGEST: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::serve;
    use super::super::tests::Known;
    use super::*;

    #[tokio::test]
    async fn it_speaks_with_the_listener() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = Known { token: Some("s3cret"), ..Known::default() };
        let served = tokio::spawn(serve(listener, Arc::new(known), std::future::pending()));
        let admin: Uri = format!("http://{address}").parse().unwrap();
        let client = Client::new(&admin, Some("s3cret")).unwrap();
        assert_eq!(client.get("/cache").await.unwrap(), json!({ "entries": 7 }));
        assert_eq!(client.post("/purge", &json!({ "all": true })).await.unwrap()["purged"], 4);
        let target = request_target(
            "/cache/entry",
            "http://a/b?c=d&e=%20f",
            "GET",
            Some("::1"),
            &["accept: a/b; q=1".to_owned()],
        );
        assert_eq!(client.get(&target).await.unwrap(), json!("/b?c=d&e=%20f"));
        let refused = client.post("/purge", &json!({})).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused { status: StatusCode::BAD_REQUEST, .. }), "{refused:?}");
        let denied = Client::new(&admin, Some("other")).unwrap().get("/cache").await.unwrap_err();
        assert!(matches!(denied, ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. }), "{denied:?}");
        let text = client.get("/").await.unwrap_err();
        assert!(text.to_string().contains("as no admin listener does"), "{text}");
        served.abort();
        let _ = served.await;
        let gone = client.get("/cache").await.unwrap_err();
        assert!(matches!(gone, ClientError::Connect { .. }), "{gone:?}");
    }

    #[test]
    fn only_an_address_is_asked() {
        for (admin, good) in [
            ("http://127.0.0.1:9900", true),
            ("http://[::1]:9900/", true),
            ("127.0.0.1:9900", true),
            ("https://a:1", false),
            ("http://a:1/b", false),
            ("/a", false),
        ] {
            assert_eq!(Client::new(&admin.parse().unwrap(), None).is_ok(), good, "{admin}");
        }
        assert!(Client::new(&Uri::from_static("http://a"), Some("a\nb")).is_err());
    }
}
