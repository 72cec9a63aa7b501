//! What the simulated box answers with: JSON, and the HTML error pages of an application server.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::sim::backend::Stats;

/// The same bytes for the same id, for ever, so that an `ETag` made of them holds. A conditional request cost the
/// box as much as any other: such systems make the whole answer before they look at its tag.
pub(super) fn catalog(
    id: &str,
    if_none_match: Option<&HeaderValue>,
    max_age: Option<Duration>,
) -> Response<Full<Bytes>> {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let tag = format!("\"{hash:016x}\"");
    let known = if_none_match.and_then(|known| known.to_str().ok()).unwrap_or_default();
    let known = known.split(',').map(str::trim).any(|known| known.trim_start_matches("W/") == tag);
    let mut response = if known {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        json(StatusCode::OK, catalog_item(id, SMALLEST_ITEM + (hash % SPAN_OF_ITEMS) as usize))
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if let Some(control) = max_age.and_then(|age| HeaderValue::try_from(format!("max-age={}", age.as_secs())).ok()) {
        response.headers_mut().insert(header::CACHE_CONTROL, control);
    }
    response
}

pub(super) fn account(id: &str) -> Response<Full<Bytes>> {
    let mut response = json(StatusCode::OK, format!("{{\"account\":{},\"balance\":\"1204.50\"}}", quoted(id)));
    let private = HeaderValue::from_static("private, no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, private);
    response
}

pub(super) fn order(number: u64) -> Response<Full<Bytes>> {
    json(StatusCode::CREATED, format!("{{\"order\":{number}}}"))
}

pub(super) fn report() -> Response<Full<Bytes>> {
    json(StatusCode::OK, "{\"rows\":[],\"title\":\"Open items\"}".to_owned())
}

/// The counts, for machines.
pub(super) fn stats(stats: &Stats) -> Response<Full<Bytes>> {
    json(StatusCode::OK, stats_json(stats))
}

/// An error page.
pub(super) fn error(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    let body =
        format!("<html><head><title>{status}</title></head><body><h1>{status}</h1><p>{sentence}</p></body></html>\n");
    respond(status, "text/html; charset=utf-8", body)
}

/// JSON of about `size` bytes.
fn catalog_item(id: &str, size: usize) -> String {
    let mut item = format!("{{\"id\":{},\"name\":\"Cast iron gear\",\"stock\":[", quoted(id));
    let mut plant = 1000;
    while item.len() < size {
        let separator = if plant == 1000 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(item, "{separator}{{\"plant\":{plant},\"unit\":\"PC\",\"free\":{}}}", plant % 97);
        plant += 10;
    }
    item.push_str("]}");
    item
}

/// A JSON string. Paths hold neither quotes nor control characters (RFC 3986 section 3.3), but clients may.
fn quoted(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\');
    format!("\"{}\"", plain.collect::<String>())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "application/json", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn stats_json(stats: &Stats) -> String {
    let Stats {
        arrived,
        answered,
        failed,
        turned_away,
        reset,
        wasted,
        crashes,
        working,
        present,
        abandoned,
        max_working,
        max_present,
        down,
    } = stats;
    format!(
        "{{\"arrived\":{arrived},\"answered\":{answered},\"failed\":{failed},\"turned_away\":{turned_away},\
         \"reset\":{reset},\"wasted\":{wasted},\"crashes\":{crashes},\"working\":{working},\"present\":{present},\
         \"abandoned\":{abandoned},\"max_working\":{max_working},\"max_present\":{max_present},\"down\":{down}}}\n"
    )
}

/// Bytes of the smallest catalogue item.
const SMALLEST_ITEM: usize = 1024;
/// The largest is smaller than the smallest and this.
const SPAN_OF_ITEMS: u64 = 3 * 1024;
