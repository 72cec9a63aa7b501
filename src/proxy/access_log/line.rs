//! One line of the access log, written by hand: no allocation, no serializer, and nothing a client sends can end a
//! string or a line, or reach a terminal as a control sequence.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Version};

use crate::message::secrets::hide;
use crate::message::trace::TraceParent;
use crate::metrics::{Ending, Facts};

/// What a line tells. Borrowed from the exchange when it finishes.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// When the exchange finished.
    pub time: SystemTime,
    /// The request's identity, as in the error body and in the answer's header.
    pub request_id: &'a str,
    /// Who sent it, as far as the trusted proxies tell.
    pub client: IpAddr,
    /// The host it was for.
    pub host: Option<&'a str>,
    /// The path as the client sent it, without the query. Secrets in it are hidden.
    pub path: &'a str,
    /// The query. Written only if the log is asked to, as it may name people; secrets in it are hidden.
    pub query: Option<&'a str>,
    /// The protocol between client and vaxel.
    pub version: Version,
    /// The route; `None` if none matched.
    pub route: Option<&'a str>,
    /// The upstream the route leads to.
    pub upstream: Option<&'a str>,
    /// The configured consumer; `None` if it is nobody known.
    pub consumer: Option<&'a str>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a HeaderValue>,
    /// The `traceparent` field (W3C Trace Context); its trace id is written if it is valid.
    pub traceparent: Option<&'a HeaderValue>,
    /// How many exchanges the line stands for: more than one if the log is sampled.
    pub weight: u32,
    /// The facts, the same that the metrics count.
    pub facts: &'a Facts<'a>,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object. Members that have no value are left out.
    #[default]
    Json,
    /// The Combined Log Format, followed by what it has no place for as `name=value`.
    Text,
}

impl Line<'_> {
    /// Appends the line and its end.
    pub(super) fn write(&self, out: &mut Vec<u8>, format: Format, with_query: bool, stamp: &mut Stamp) {
        match format {
            Format::Json => self.write_json(out, with_query, stamp),
            Format::Text => self.write_text(out, with_query, stamp),
        }
        out.push(b'\n');
    }

    fn write_json(&self, out: &mut Vec<u8>, with_query: bool, stamp: &mut Stamp) {
        let facts = self.facts;
        out.extend_from_slice(b"{\"time\":\"");
        stamp.write(out, self.time);
        out.push(b'"');
        string(out, b",\"request_id\":\"", self.request_id.as_bytes());
        out.extend_from_slice(b",\"client\":\"");
        address(out, self.client);
        out.push(b'"');
        string(out, b",\"method\":\"", facts.method.as_str().as_bytes());
        optional(out, b",\"host\":\"", self.host.map(str::as_bytes));
        string(out, b",\"path\":\"", hide(self.path).as_bytes());
        if with_query {
            let query = self.query.map(hide);
            optional(out, b",\"query\":\"", query.as_deref().map(str::as_bytes));
        }
        out.extend_from_slice(b",\"protocol\":\"");
        out.extend_from_slice(protocol(self.version));
        out.extend_from_slice(b"\",\"status\":");
        number(out, u64::from(facts.status.as_u16()));
        out.extend_from_slice(b",\"bytes_in\":");
        number(out, facts.request_bytes);
        out.extend_from_slice(b",\"bytes_out\":");
        number(out, facts.response_bytes);
        out.extend_from_slice(b",\"duration_ms\":");
        millis(out, facts.duration);
        for (name, time) in [
            (&b",\"delay_ms\":"[..], facts.delayed),
            (b",\"upstream_ms\":", facts.upstream_time),
            (b",\"queue_ms\":", facts.queued),
        ] {
            if let Some(time) = time {
                out.extend_from_slice(name);
                millis(out, time);
            }
        }
        optional(out, b",\"route\":\"", self.route.map(str::as_bytes));
        optional(out, b",\"upstream\":\"", self.upstream.map(str::as_bytes));
        optional(out, b",\"consumer\":\"", self.consumer.map(str::as_bytes));
        string(out, b",\"cache\":\"", facts.cache.code().as_bytes());
        optional(out, b",\"reason\":\"", facts.reason.map(|reason| reason.code().as_bytes()));
        out.extend_from_slice(b",\"attempts\":");
        number(out, u64::from(facts.attempts));
        let aborted = facts.ending == Ending::Aborted;
        out.extend_from_slice(if aborted { b",\"aborted\":true" } else { b",\"aborted\":false" });
        if facts.ending == Ending::Broken {
            out.extend_from_slice(b",\"broken\":true");
        }
        optional(out, b",\"user_agent\":\"", self.user_agent.map(HeaderValue::as_bytes));
        optional(out, b",\"trace_id\":\"", self.trace_id().map(str::as_bytes));
        if self.weight > 1 {
            out.extend_from_slice(b",\"weight\":");
            number(out, u64::from(self.weight));
        }
        out.push(b'}');
    }

    fn write_text(&self, out: &mut Vec<u8>, with_query: bool, stamp: &mut Stamp) {
        let facts = self.facts;
        address(out, self.client);
        out.extend_from_slice(b" - ");
        word(out, self.consumer);
        out.extend_from_slice(b" [");
        stamp.write(out, self.time);
        out.extend_from_slice(b"] \"");
        escape(out, facts.method.as_str().as_bytes());
        out.push(b' ');
        escape(out, hide(self.path).as_bytes());
        if with_query && let Some(query) = self.query {
            out.push(b'?');
            escape(out, hide(query).as_bytes());
        }
        out.push(b' ');
        out.extend_from_slice(protocol(self.version));
        out.extend_from_slice(b"\" ");
        number(out, u64::from(facts.status.as_u16()));
        out.push(b' ');
        number(out, facts.response_bytes);
        // The Referer of the Combined Log Format: never written, it may carry the query of another site.
        out.extend_from_slice(b" \"-\" \"");
        escape(out, self.user_agent.map_or(b"-", HeaderValue::as_bytes));
        out.push(b'"');
        for (name, value) in [
            (&b" host="[..], self.host),
            (b" route=", self.route),
            (b" upstream=", self.upstream),
            (b" cache=", Some(facts.cache.code())),
            (b" reason=", facts.reason.map(|reason| reason.code())),
            (b" request_id=", Some(self.request_id)),
        ] {
            out.extend_from_slice(name);
            word(out, value);
        }
        out.extend_from_slice(b" duration_ms=");
        millis(out, facts.duration);
        for (name, time) in [
            (&b" delay_ms="[..], facts.delayed),
            (b" upstream_ms=", facts.upstream_time),
            (b" queue_ms=", facts.queued),
        ] {
            if let Some(time) = time {
                out.extend_from_slice(name);
                millis(out, time);
            }
        }
        out.extend_from_slice(match facts.ending {
            Ending::Whole => b"",
            Ending::Aborted => b" aborted",
            Ending::Broken => b" broken",
        });
        if self.weight > 1 {
            out.extend_from_slice(b" weight=");
            number(out, u64::from(self.weight));
        }
    }

    fn trace_id(&self) -> Option<&str> {
        TraceParent::read(self.traceparent?.as_bytes()).map(|parent| parent.id)
    }
}

/// The time of day as it was last written: a worker writes many lines in one second.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// Seconds since the epoch, and their text up to the second.
    last: Option<(u64, [u8; 19])>,
}

impl Stamp {
    /// Appends `time` in UTC by RFC 3339, to the millisecond. Times before 1970 become 1970.
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let text = match self.last {
            Some((second, text)) if second == since.as_secs() => text,
            _ => {
                let text = date_time(since.as_secs());
                self.last = Some((since.as_secs(), text));
                text
            }
        };
        out.extend_from_slice(&text);
        let millis = since.subsec_millis();
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

/// `YYYY-MM-DDThh:mm:ss` of `seconds` since the epoch; the last second of the year 9999 for all after it.
///
/// The date is found as in Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is the last.
fn date_time(seconds: u64) -> [u8; 19] {
    let seconds = seconds.min(LAST_SECOND);
    let second_of_day = u32::try_from(seconds % 86_400).unwrap_or(0);
    let days = u32::try_from(seconds / 86_400).unwrap_or(0) + DAYS_BEFORE_1970;
    let era = days / DAYS_OF_ERA;
    let day_of_era = days % DAYS_OF_ERA;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let tens = |number: u32| digit(number / 10);
    [
        digit(year / 1_000),
        digit(year / 100),
        tens(year),
        digit(year),
        b'-',
        tens(month),
        digit(month),
        b'-',
        tens(day),
        digit(day),
        b'T',
        tens(hour),
        digit(hour),
        b':',
        tens(minute),
        digit(minute),
        b':',
        tens(second),
        digit(second),
    ]
}

/// The last digit of `number`.
fn digit(number: u32) -> u8 {
    b"0123456789".get(number as usize % 10).copied().unwrap_or(b'0')
}

fn string(out: &mut Vec<u8>, begin: &[u8], value: &[u8]) {
    out.extend_from_slice(begin);
    escape(out, value);
    out.push(b'"');
}

fn optional(out: &mut Vec<u8>, begin: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        string(out, begin, value);
    }
}

/// A value of the text format that must not hold a blank: `-` if there is none, quoted if it does.
fn word(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None | Some("") => out.push(b'-'),
        Some(value) if value.bytes().any(|byte| matches!(byte, b' ' | b'"' | b'=')) => {
            out.push(b'"');
            escape(out, value.as_bytes());
            out.push(b'"');
        }
        Some(value) => escape(out, value.as_bytes()),
    }
}

/// Appends `text` so that it is the inside of a JSON string (RFC 8259 section 7). Control characters are escaped, those
/// of C1 and the ones that turn or break a line included; what is no UTF-8 becomes U+FFFD.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    // Almost every text is plain; without an early end the loop is a few vector instructions.
    if text.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
                char if is_hidden(char) => {
                    // Writing to a vector cannot fail.
                    let _ = write!(out, "\\u{:04x}", u32::from(char));
                }
                char => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte < 0x7f) & (byte != b'"') & (byte != b'\\')
}

/// What would act on the reader's terminal instead of being seen: C0, DEL, C1, line and paragraph separators, and the
/// characters that change the direction of the text.
fn is_hidden(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            number(out, u64::from(a));
            for octet in [b, c, d] {
                out.push(b'.');
                number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// Appends `value` in decimal, without the machinery of `fmt`.
fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut len = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        len += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - len..).unwrap_or_default());
}

/// Appends `time` in milliseconds, to the microsecond.
fn millis(out: &mut Vec<u8>, time: Duration) {
    number(out, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let micros = time.subsec_micros() % 1_000;
    out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

const fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;
/// From 0000-03-01, where the eras begin, to the epoch.
const DAYS_BEFORE_1970: u32 = 719_468;
/// 400 years.
const DAYS_OF_ERA: u32 = 146_097;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use http::{Method, StatusCode};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::metrics::{CacheResult, plain};
    use crate::refusal::Reason;

    fn bare<'a>(facts: &'a Facts<'a>) -> Line<'a> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_493_751_007),
            request_id: "01J",
            client: IpAddr::V4(Ipv4Addr::new(10, 0, 200, 7)),
            host: None,
            path: "/",
            query: None,
            version: Version::HTTP_11,
            route: None,
            upstream: None,
            consumer: None,
            user_agent: None,
            traceparent: None,
            weight: 1,
            facts,
        }
    }

    fn written(line: &Line<'_>, format: Format, with_query: bool) -> String {
        let mut out = Vec::new();
        line.write(&mut out, format, with_query, &mut Stamp::default());
        let text = String::from_utf8(out).unwrap();
        let (line, rest) = text.split_once('\n').unwrap();
        assert_eq!(rest, "", "one line, and its end");
        line.to_owned()
    }

    #[track_caller]
    fn check(line: &Line<'_>, format: Format, with_query: bool, expected: &str) {
        assert_eq!(written(line, format, with_query), expected);
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        check(
            &bare(&plain()),
            Format::Json,
            true,
            r#"{"time":"2026-11-24T04:15:51.007Z","request_id":"01J","client":"10.0.200.7","method":"GET","path":"/","protocol":"HTTP/1.1","status":200,"bytes_in":0,"bytes_out":0,"duration_ms":0.080,"cache":"hit","attempts":0,"aborted":false}"#,
        );
        check(
            &bare(&plain()),
            Format::Text,
            true,
            r#"10.0.200.7 - - [2026-11-24T04:15:51.007Z] "GET / HTTP/1.1" 200 0 "-" "-" host=- route=- upstream=- cache=hit reason=- request_id=01J duration_ms=0.080"#,
        );
    }

    #[test]
    fn everything_that_has_a_value_is_written() {
        let agent = HeaderValue::from_static("curl/8 \"x\"");
        let parent = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let method = Method::POST;
        let facts = Facts {
            method: &method,
            status: StatusCode::SERVICE_UNAVAILABLE,
            cache: CacheResult::StaleError,
            reason: Some(Reason::QueueTimeout),
            duration: Duration::from_micros(2_013_456),
            delayed: None,
            upstream_time: Some(Duration::from_nanos(999)),
            queued: Some(Duration::from_secs(2)),
            request_bytes: 12,
            response_bytes: u64::MAX,
            attempts: 2,
            ending: Ending::Aborted,
            traced: None,
        };
        let line = Line {
            client: IpAddr::V6(Ipv6Addr::LOCALHOST),
            host: Some("erp.example"),
            path: "/orders/1",
            query: Some("$top=5&token=geheim"),
            version: Version::HTTP_2,
            route: Some("my orders"),
            upstream: Some("erp"),
            consumer: Some("webshop"),
            user_agent: Some(&agent),
            traceparent: Some(&parent),
            ..bare(&facts)
        };
        check(
            &line,
            Format::Json,
            true,
            r#"{"time":"2026-11-24T04:15:51.007Z","request_id":"01J","client":"::1","method":"POST","host":"erp.example","path":"/orders/1","query":"$top=5&token=***","protocol":"HTTP/2.0","status":503,"bytes_in":12,"bytes_out":18446744073709551615,"duration_ms":2013.456,"upstream_ms":0.000,"queue_ms":2000.000,"route":"my orders","upstream":"erp","consumer":"webshop","cache":"stale_error","reason":"queue.timeout","attempts":2,"aborted":true,"user_agent":"curl/8 \"x\"","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
        );
        check(
            &line,
            Format::Text,
            true,
            r#"::1 - webshop [2026-11-24T04:15:51.007Z] "POST /orders/1?$top=5&token=*** HTTP/2.0" 503 18446744073709551615 "-" "curl/8 \"x\"" host=erp.example route="my orders" upstream=erp cache=stale_error reason=queue.timeout request_id=01J duration_ms=2013.456 upstream_ms=0.000 queue_ms=2000.000 aborted"#,
        );
        let broken = Facts { ending: Ending::Broken, ..facts };
        let line = Line { facts: &broken, ..line };
        assert!(written(&line, Format::Json, true).contains(r#""aborted":false,"broken":true,"#));
        assert!(written(&line, Format::Text, true).ends_with(" broken"));
        for format in [Format::Json, Format::Text] {
            assert!(!written(&line, format, false).contains("$top"), "a query is left out unless asked for");
        }
    }

    #[test]
    fn a_line_tells_how_many_it_stands_for() {
        let facts = plain();
        let line = Line { weight: 100, ..bare(&facts) };
        assert!(written(&line, Format::Json, false).ends_with(r#""weight":100}"#));
        assert!(written(&line, Format::Text, false).ends_with(" weight=100"));
    }

    #[test]
    fn nothing_a_client_sends_forges_a_line_or_a_field() {
        let facts = plain();
        let hostile = "/x\" 200 0 \"-\" \"-\" cache=hit\r\n10.0.0.1 - admin \u{2028}\u{1b}[2K{\"status\":200}";
        let agent = HeaderValue::from_bytes(b"a\",\"status\":999,\"x\":\"\t\xff").unwrap();
        let line =
            Line { path: hostile, query: Some(hostile), host: Some(hostile), user_agent: Some(&agent), ..bare(&facts) };
        let json: Value = serde_json::from_str(&written(&line, Format::Json, true)).unwrap();
        assert_eq!((json["status"].as_u64(), json["path"].as_str()), (Some(200), Some(hostile)));
        let text = written(&line, Format::Text, true);
        assert!(!text.chars().any(is_hidden), "{text}");
        // Its quotes are escaped: what stands between the plain ones is the request, "-" and the agent.
        let plain = text.replace("\\\"", "");
        assert_eq!(plain.matches('"').count(), 8, "{plain}");
    }

    #[test]
    fn a_mapped_address_is_written_as_the_address_it_maps() {
        let facts = plain();
        let line = Line { client: "::ffff:192.0.2.1".parse().unwrap(), ..bare(&facts) };
        assert!(written(&line, Format::Json, false).contains(r#""client":"192.0.2.1""#));
    }

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        for (raw, expected) in [
            (&b"\x1b[31m"[..], r"\u001b[31m"),
            (b"a\nb\r\tc\x7f", r"a\u000ab\u000d\u0009c\u007f"),
            ("\u{9b}2J\u{202e}\u{2028}é".as_bytes(), r"\u009b2J\u202e\u2028é"),
            (b"\"\\", r#"\"\\"#),
            (b"a\xff\xfeb\xc3", "a\u{fffd}\u{fffd}b\u{fffd}"),
        ] {
            let mut out = Vec::new();
            escape(&mut out, raw);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (LAST_SECOND, "9999-12-31T23:59:59"),
            (u64::MAX, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(str::from_utf8(&date_time(seconds)), Ok(expected), "{seconds}");
        }
    }

    #[test]
    fn a_stamp_follows_the_time_in_both_directions() {
        let mut stamp = Stamp::default();
        for (millis, expected) in [
            (1_000, "1970-01-01T00:00:01.000Z"),
            (1_999, "1970-01-01T00:00:01.999Z"),
            (2_050, "1970-01-01T00:00:02.050Z"),
            (1_001, "1970-01-01T00:00:01.001Z"),
        ] {
            let mut out = Vec::new();
            stamp.write(&mut out, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(str::from_utf8(&out), Ok(expected));
        }
        let mut out = Vec::new();
        stamp.write(&mut out, SystemTime::UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(str::from_utf8(&out), Ok("1970-01-01T00:00:00.000Z"));
    }

    proptest! {
        #[test]
        fn times_agree_with_the_dates_of_http(seconds in 0..LAST_SECOND) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let text = date_time(seconds);
            let text = str::from_utf8(&text).unwrap();
            let http = httpdate::fmt_http_date(time);
            prop_assert_eq!(&text[8..10], &http[5..7], "day");
            prop_assert_eq!(&text[..4], &http[12..16], "year");
            prop_assert_eq!(&text[11..], &http[17..25], "time");
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month: usize = text[5..7].parse().unwrap();
            prop_assert_eq!(&MONTHS[month * 3 - 3..month * 3], &http[8..11], "month");
        }

        #[test]
        fn every_line_is_valid_json_and_gives_back_what_went_in(
            path in any::<String>(),
            query in any::<Option<String>>(),
            host in any::<Option<String>>(),
            route in any::<Option<String>>(),
            agent in prop::collection::vec(prop_oneof![0x20_u8..=0x7e, 0x80_u8..=0xff], 0..40),
            micros in 0_u64..10_000_000_000,
            bytes in any::<u64>(),
        ) {
            let agent = HeaderValue::from_bytes(&agent).unwrap();
            let facts = Facts { duration: Duration::from_micros(micros), response_bytes: bytes, ..plain() };
            let line = Line {
                path: &path,
                query: query.as_deref(),
                host: host.as_deref(),
                route: route.as_deref(),
                user_agent: Some(&agent),
                ..bare(&facts)
            };
            let text = written(&line, Format::Json, true);
            prop_assert!(!text.chars().any(is_hidden), "{}", text);
            let json: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(json["path"].as_str(), Some(&*hide(&path)));
            let shown = query.as_deref().map(hide);
            prop_assert_eq!(json.get("query").and_then(Value::as_str), shown.as_deref());
            prop_assert_eq!(json.get("host").and_then(Value::as_str), host.as_deref());
            prop_assert_eq!(json.get("route").and_then(Value::as_str), route.as_deref());
            prop_assert_eq!(json["user_agent"].as_str(), Some(&*String::from_utf8_lossy(agent.as_bytes())));
            prop_assert_eq!(json["bytes_out"].as_u64(), Some(bytes));
            let expected = micros as f64 / 1e3;
            prop_assert!((json["duration_ms"].as_f64().unwrap() - expected).abs() < 1e-6);
            prop_assert!(!written(&line, Format::Text, true).chars().any(is_hidden));
        }

        #[test]
        fn numbers_are_written_as_by_the_library(value in any::<u64>()) {
            let mut out = Vec::new();
            number(&mut out, value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
