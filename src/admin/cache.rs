//! The cache over the admin listener: `POST /purge`, `GET /cache`, `GET /cache/entry`; and `GET /explain`, which asks about
//! a request in the same words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::{AdminSource, JSON, Reply, answer, problem};
use crate::cache::purge::Depth;
use crate::gateway::cache::Extent;
use crate::listen::Peer;

/// The body of `POST /purge`: exactly one of the extents, as JSON, since URLs would have to be encoded in a query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    url: Option<String>,
    prefix: Option<String>,
    group: Option<String>,
    /// Of the group.
    origin: Option<String>,
    route: Option<String>,
    upstream: Option<String>,
    all: bool,
    /// Make stale, in place of taking out.
    soft: bool,
}

/// Does what the body orders.
pub(super) fn purge(source: &dyn AdminSource, body: &[u8]) -> Reply {
    let order = match Order::read(body) {
        Ok(order) => order,
        Err(mistake) => return problem(StatusCode::BAD_REQUEST, &mistake),
    };
    let (extent, depth) = order;
    match source.purge(&extent, depth) {
        Ok(purged) => {
            let depth = if depth == Depth::Soft { "soft" } else { "hard" };
            let body = json!({ "purged": purged, "extent": extent.to_string(), "depth": depth });
            answer(StatusCode::OK, JSON, format!("{body}\n"))
        }
        Err(mistake) => problem(StatusCode::UNPROCESSABLE_ENTITY, &mistake),
    }
}

/// Shows what the request that the query describes would get.
pub(super) fn entry(source: &dyn AdminSource, query: Option<&str>) -> Reply {
    let asked = match Asked::read(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(mistake) => return problem(StatusCode::BAD_REQUEST, &mistake),
    };
    match source.entry(&asked) {
        Ok(entry) => answer(StatusCode::OK, JSON, format!("{entry:#}\n")),
        Err(refusal) => problem(StatusCode::UNPROCESSABLE_ENTITY, &refusal),
    }
}

/// Explains what would become of the request that the query describes.
pub(super) fn explain(source: &dyn AdminSource, query: Option<&str>) -> Reply {
    match Asked::read(query.unwrap_or_default()) {
        Ok(asked) => answer(StatusCode::OK, JSON, format!("{:#}\n", source.explain(&asked))),
        Err(mistake) => problem(StatusCode::BAD_REQUEST, &mistake),
    }
}

impl Order {
    fn read(body: &[u8]) -> Result<(Extent, Depth), String> {
        let order: Self = serde_json::from_slice(body).map_err(|error| {
            format!(
                "The body is no order: {error}. It is JSON, such as {{\"url\": \"http://HOST/PATH\", \"soft\": true}}."
            )
        })?;
        let depth = if order.soft { Depth::Soft } else { Depth::Hard };
        Ok((order.extent()?, depth))
    }

    fn extent(self) -> Result<Extent, String> {
        let url = self.url.map(|url| url.parse::<Uri>().map_err(|error| format!("{url} is no URL: {error}.")));
        if self.origin.is_some() && self.group.is_none() {
            return Err("`origin` goes with a `group`.".to_owned());
        }
        let origin = self.origin;
        let extents = [
            url.transpose()?.map(Extent::Url),
            self.prefix.filter(|prefix| !prefix.is_empty()).map(Extent::Prefix),
            self.group.map(|name| Extent::Group { name, origin }),
            self.route.map(Extent::Route),
            self.upstream.map(Extent::Upstream),
            self.all.then_some(Extent::All),
        ];
        let mut extents = extents.into_iter().flatten();
        match (extents.next(), extents.next()) {
            (Some(extent), None) => Ok(extent),
            _ => {
                Err("Say what to purge: one of `url`, `prefix`, `group`, `route`, `upstream`, or `all`: true."
                    .to_owned())
            }
        }
    }
}

/// A request somebody wonders about.
#[derive(Debug)]
pub struct Asked {
    /// Its method, target and fields, the Host among them.
    pub parts: Parts,
    /// Whether it comes over HTTPS.
    pub tls: bool,
    /// Who sends it.
    pub client: IpAddr,
}

impl Asked {
    /// Who sends it, and how.
    pub fn peer(&self) -> Peer {
        Peer { address: SocketAddr::new(self.client, 0), tls: self.tls }
    }

    /// From a query: `url=`, and if it matters `method=`, `header=NAME: VALUE` (any number), `client=ADDRESS`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(query: &str) -> Result<Self, String> {
        let (mut url, mut method, mut client, mut fields) =
            (None, Method::GET, IpAddr::V4(Ipv4Addr::LOCALHOST), Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8().map_err(|_| format!("`{name}` is no UTF-8."))?;
            let mistake = |what: &str| format!("`{value}` is no {what}.");
            match name {
                "url" => url = Some(value.parse::<Uri>().map_err(|_| mistake("URL"))?),
                "method" => method = value.parse().map_err(|_| mistake("method"))?,
                "client" => client = value.parse().map_err(|_| mistake("address"))?,
                "header" => fields.push(field(&value).ok_or_else(|| mistake("header field: NAME: VALUE"))?),
                _ => return Err(format!("There is no parameter `{name}`; there are url, method, header, client.")),
            }
        }
        Self::of(&url.ok_or("Say which: ?url=http://HOST/PATH, percent-encoded.")?, method, client, fields)
    }

    fn of(url: &Uri, method: Method, client: IpAddr, fields: Vec<(HeaderName, HeaderValue)>) -> Result<Self, String> {
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{url} is not absolute: give http://HOST/PATH as clients ask for it.")),
        };
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, authority);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let (parts, ()) =
            request.body(()).map_err(|error| format!("{url} is no URL of a request: {error}."))?.into_parts();
        Ok(Self { parts, tls, client })
    }
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    // Its Host is that of the URL.
    (name != header::HOST).then_some((name, HeaderValue::try_from(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_exactly_one_extent() {
        let check = |body: &str, expected: Option<(Extent, Depth)>| {
            assert_eq!(Order::read(body.as_bytes()).ok(), expected, "{body}");
        };
        let hard = |extent| Some((extent, Depth::Hard));
        check(r#"{"url":"http://a/b"}"#, hard(Extent::Url(Uri::from_static("http://a/b"))));
        check(r#"{"prefix":"http://a/","soft":true}"#, Some((Extent::Prefix("http://a/".into()), Depth::Soft)));
        check(r#"{"group":"g"}"#, hard(Extent::Group { name: "g".into(), origin: None }));
        let origin = Some("http://a".into());
        check(r#"{"group":"g","origin":"http://a"}"#, hard(Extent::Group { name: "g".into(), origin }));
        check(r#"{"route":"r"}"#, hard(Extent::Route("r".into())));
        check(r#"{"upstream":"u"}"#, hard(Extent::Upstream("u".into())));
        check(r#"{"all":true}"#, hard(Extent::All));
        for body in [
            "",
            "{}",
            "[]",
            "7",
            "{\"all\":false}",
            "{\"soft\":true}",
            "{\"prefix\":\"\"}",
            "{\"url\":\"http://a b\"}",
            "{\"origin\":\"http://a\",\"all\":true}",
            "{\"all\":true,\"route\":\"r\"}",
            "{\"al\":true}",
            "{\"all\":true} x",
        ] {
            check(body, None);
        }
    }

    #[test]
    fn a_request_is_described_by_the_query() {
        let asked = Asked::read(
            "url=https%3A%2F%2Ferp%3A8443%2Fa%3Fx%3D1&header=Accept:+text/html&header=X-A:%20b&method=HEAD&client=10.0.0.1",
        );
        let Asked { parts, tls, client } = asked.unwrap();
        assert_eq!(
            (parts.method, parts.uri, tls, client),
            (Method::HEAD, Uri::from_static("/a?x=1"), true, [10, 0, 0, 1].into())
        );
        assert_eq!(
            (&parts.headers["host"], &parts.headers["accept"], &parts.headers["x-a"]),
            (
                &HeaderValue::from_static("erp:8443"),
                &HeaderValue::from_static("text/html"),
                &HeaderValue::from_static("b")
            )
        );
        for query in [
            "",
            "url=",
            "url=/a",
            "url=ftp://a/",
            "url=http://a/&method=",
            "url=http://a/&client=a",
            "url=http://a/&header=a",
            "url=http://a/&header=host:b",
            "url=http://a/&x=1",
            "url=http://a/%FF&header=%FF",
        ] {
            assert!(Asked::read(query).is_err(), "{query}");
        }
    }
}
