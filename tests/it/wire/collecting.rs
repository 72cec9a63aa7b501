//! Traces by OTLP: what a collector gets of requests, over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use parking_lot::Mutex;
use prost::Message as _;
use vaxel::traces::TraceParams;
use vaxel::traces::wire::{Export, KeyValue, Span, Value};

use super::DEADLINE;
use super::client::Client;
use super::message::Message;
use super::origin::{Origin, ok};
use super::rig::Rig;

/// Answers OTLP requests with these statuses in turn, the last for ever, and keeps what those with 200 brought.
struct Collector {
    origin: Origin,
    spans: Receiver<Vec<Span>>,
}

impl Collector {
    fn answering(statuses: &'static [u16]) -> Self {
        let (sender, spans) = channel();
        let (sender, number) = (Mutex::new(sender), AtomicUsize::new(0));
        let origin = Origin::answering(move |request| {
            assert!(request.start.starts_with("POST /v1/traces HTTP/1.1"), "{}", request.start);
            assert_eq!(request.field("content-type"), Some("application/x-protobuf"));
            let status = statuses[number.fetch_add(1, Ordering::AcqRel).min(statuses.len() - 1)];
            if status == 200 {
                let _ = sender.lock().send(decoded(&request.body));
            }
            format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n")
        });
        Self { origin, spans }
    }

    /// The spans of the next batch.
    fn next(&self) -> Vec<Span> {
        self.spans.recv_timeout(DEADLINE).expect("the collector gets spans")
    }
}

/// An origin that answers with what it was told of the trace.
fn origin() -> Origin {
    Origin::answering(|request| {
        let field = |name| request.field(name).unwrap_or("none").to_owned();
        ok(&format!("{} {}", field("traceparent"), field("tracestate")))
    })
}

fn decoded(body: &[u8]) -> Vec<Span> {
    let export = Export::decode(body).expect("it is an export");
    let service = export.resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(text(&service.attributes, "service.name"), "facade");
    export.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::Text(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Flag(flag)) => flag.to_string(),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rig(origin: &Origin, collector: &Collector, sample: f64) -> Rig {
    Rig::with(origin.address, |settings| {
        let otlp = format!("http://{}", collector.origin.address).parse().unwrap();
        settings.traces = Some(TraceParams { otlp, sample, service: "facade".into() });
    })
}

/// What the origin was told of the trace.
fn get(client: &mut Client, path: &str, fields: &str) -> String {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: erp.example\r\n{fields}\r\n"));
    let answer: Message = client.answer();
    answer.text().to_owned()
}

/// The span of this name; there is one.
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

#[test]
fn a_collector_gets_a_span_for_each_step_below_that_of_the_caller() {
    let collector = Collector::answering(&[200]);
    let origin = origin();
    let rig = rig(&origin, &collector, 0.0);
    let told = get(
        &mut rig.client(),
        "/orders/1;token=geheim?token=geheim",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\nAuthorization: geheim\r\n",
    );
    let spans = collector.next();
    for span in &spans {
        assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        assert!(!format!("{span:?}").contains("geheim"), "{span:?}");
    }
    let whole = &spans[0];
    assert_eq!((whole.kind, hex(&whole.parent_span_id).as_str()), (2, "b7ad6b7169203331"));
    assert_eq!(text(&whole.attributes, "http.response.status_code"), "200");
    assert_eq!(text(&whole.attributes, "url.path"), "/orders/1;token=***");
    for step in ["admit", "lookup", "body"] {
        assert_eq!(named(&spans, step).parent_span_id, whole.span_id, "{step}");
    }
    // What the origin was told its parent is, is the span of the attempt.
    let attempt = named(&spans, "GET");
    assert_eq!(attempt.kind, 3);
    assert_eq!(told, format!("00-0af7651916cd43dd8448eb211c80319c-{}-01 a=b", hex(&attempt.span_id)));
    assert_eq!(named(&spans, "gate").parent_span_id, attempt.parent_span_id);
    rig.until("3 results are counted", || rig.metric("vaxel_trace_spans_total{result=\"sent\"}") == spans.len() as f64);
    rig.settles();
}

#[test]
fn who_does_not_record_is_not_traced_and_relayed_as_he_is() {
    let collector = Collector::answering(&[200]);
    let origin = origin();
    let rig = rig(&origin, &collector, 1.0);
    let mut client = rig.client();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let told = get(&mut client, "/a", &format!("traceparent: {parent}\r\n"));
    assert_eq!(told, format!("{parent} none"));
    // The next one, which has no parent, is the first that the collector hears of.
    let told = get(&mut client, "/b", "tracestate: a=b\r\n");
    let spans = collector.next();
    assert_eq!(text(&spans[0].attributes, "url.path"), "/b");
    assert!(spans[0].parent_span_id.is_empty());
    let parent = format!("00-{}-{}-01", hex(&spans[0].trace_id), hex(&named(&spans, "GET").span_id));
    assert_eq!(told, format!("{parent} none"), "the state belonged to a parent that there is not");
    drop(client);
    rig.settles();
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let collector = Collector::answering(&[503, 200]);
    let origin = origin();
    let rig = rig(&origin, &collector, 1.0);
    get(&mut rig.client(), "/a", "");
    assert_eq!(text(&collector.next()[0].attributes, "url.path"), "/a");
    rig.settles();
}

#[test]
fn a_collector_that_refuses_costs_its_spans_and_no_request() {
    let collector = Collector::answering(&[400]);
    let origin = origin();
    let rig = rig(&origin, &collector, 1.0);
    get(&mut rig.client(), "/a", "");
    rig.until("the loss is counted", || rig.metric("vaxel_trace_spans_total{result=\"failed\"}") > 0.0);
    get(&mut rig.client(), "/b", "");
    rig.settles();
}
