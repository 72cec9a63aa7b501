//! Faults that a protocol reports in the body of its answers, found in their first bytes: SOAP 1.1 (section 4.4), SOAP
//! 1.2 (part 1, section 5.4) and JSON-RPC 2.0 (section 5.1).
//!
//! Both scanners read ahead as little as they can: a verdict falls with the first element of the SOAP body, and with
//! the first of `result` and `error`. They never fail: what is not of the protocol is no fault of it.

use super::Outcome;

/// How an upstream reports its faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Faults {
    /// By its statuses alone.
    #[default]
    Http,
    /// As SOAP faults. Client (Sender) and what is said of the request's form is business; Server (Receiver) is broken;
    /// a code of the application's own is business: it had the time to name one.
    Soap,
    /// As the `error` of JSON-RPC: business, whatever its code. A batch is left to its status.
    JsonRpc,
}

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Nothing yet: more may.
    Yet,
    /// There is no fault.
    Nothing,
    /// There is one, and this is what it means.
    Fault(Outcome),
}

impl Faults {
    /// Whether an answer with this status and media type may hold a fault in its body that says more than its status.
    pub(super) fn may_be_in(self, status: u16, media_type: Option<&[u8]>) -> bool {
        let is = |words: &[&[u8]]| media_type.is_none_or(|media| words.iter().any(|word| holds_word(media, word)));
        matches!(status, 200..=299 | 500)
            && match self {
                Self::Http => false,
                Self::Soap => is(&[b"xml", b"multipart/related"]),
                Self::JsonRpc => is(&[b"json"]),
            }
    }

    /// Looks for a fault in the beginning of a body.
    pub(super) fn find(self, bytes: &[u8]) -> Sighting {
        match self {
            Self::Http => Sighting::Nothing,
            Self::Soap => soap(bytes),
            Self::JsonRpc => json_rpc(bytes),
        }
    }
}

fn holds_word(media: &[u8], word: &[u8]) -> bool {
    media.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

// ---- SOAP

/// Envelope > Body > Fault > faultcode (1.1), or > Code > Value (1.2).
fn soap(bytes: &[u8]) -> Sighting {
    let (mut in_body, mut in_fault, mut in_code) = (false, false, false);
    for tag in (Tags { rest: envelope(bytes), depth: 0 }) {
        match (tag.depth, tag.name) {
            (0, b"Envelope") => {}
            (0, _) => return Sighting::Nothing,
            (1, name) => in_body = name == b"Body",
            (2, name) if in_body => match name {
                b"Fault" => in_fault = true,
                _ => return Sighting::Nothing,
            },
            (3, name) if in_fault => {
                in_code = name == b"Code";
                if name == b"faultcode" {
                    return code(tag.text);
                }
            }
            (4, b"Value") if in_code => return code(tag.text),
            _ => {}
        }
    }
    Sighting::Yet
}

/// The root part, where the envelope comes with attachments (RFC 2387); its own fields hold `<` and `>`.
fn envelope(bytes: &[u8]) -> &[u8] {
    if !bytes.starts_with(b"--") {
        return bytes;
    }
    bytes.windows(4).position(|end| end == b"\r\n\r\n").and_then(|at| bytes.get(at + 4..)).unwrap_or_default()
}

/// A code is a qualified name; SOAP 1.1 lets dots divide it, the general part first. `None`: its end is not there yet.
fn code(text: Option<&[u8]>) -> Sighting {
    let Some(text) = text else { return Sighting::Yet };
    let local = text.rsplit(|byte| *byte == b':').next().unwrap_or_default();
    let general = local.split(|byte| *byte == b'.').next().unwrap_or_default();
    match general.trim_ascii() {
        b"" => Sighting::Nothing, // it is written in a way nobody writes it: the status decides
        b"Server" | b"Receiver" => Sighting::Fault(Outcome::Broken),
        _ => Sighting::Fault(Outcome::Business),
    }
}

/// The opening tags of an XML document, as far as it is there.
struct Tags<'a> {
    rest: &'a [u8],
    depth: usize,
}

struct Tag<'a> {
    /// Elements around it.
    depth: usize,
    /// Without its prefix.
    name: &'a [u8],
    /// The text up to the next tag, if that is there.
    text: Option<&'a [u8]>,
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let start = self.rest.iter().position(|byte| *byte == b'<')?;
            let markup = self.rest.get(start + 1..)?;
            if let Some((_, end)) = OPAQUE.iter().find(|(begin, _)| markup.starts_with(begin)) {
                let length = markup.windows(end.len()).position(|part| part == *end)?;
                self.rest = markup.get(length + end.len()..)?;
                continue;
            }
            let end = tag_end(markup)?;
            let (tag, rest) = (markup.get(..end)?, markup.get(end + 1..)?);
            self.rest = rest;
            if tag.starts_with(b"/") {
                self.depth = self.depth.saturating_sub(1);
                continue;
            }
            let depth = self.depth;
            self.depth += usize::from(!tag.ends_with(b"/"));
            let name = tag.split(|byte| byte.is_ascii_whitespace() || *byte == b'/').next()?;
            let name = name.rsplit(|byte| *byte == b':').next()?;
            let text = rest.iter().position(|byte| *byte == b'<').and_then(|end| rest.get(..end));
            return Some(Tag { depth, name, text });
        }
    }
}

/// Where a tag ends: a `>` in an attribute's value does not end it.
fn tag_end(markup: &[u8]) -> Option<usize> {
    let mut quote = None;
    markup.iter().position(|byte| match (quote, byte) {
        (None, b'>') => true,
        (None, b'"' | b'\'') => {
            quote = Some(*byte);
            false
        }
        (Some(open), byte) if open == *byte => {
            quote = None;
            false
        }
        _ => false,
    })
}

/// Markup that is no tag, and what ends it.
const OPAQUE: [(&[u8], &[u8]); 4] = [(b"!--", b"-->"), (b"![CDATA[", b"]]>"), (b"!", b">"), (b"?", b"?>")];

// ---- JSON-RPC

/// `error` in the outermost object, unless it is null, as JSON-RPC 1.0 has it beside every result.
fn json_rpc(bytes: &[u8]) -> Sighting {
    let text = bytes.trim_ascii_start();
    match text.first() {
        None => return Sighting::Yet,
        Some(b'{') => {}
        Some(_) => return Sighting::Nothing,
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Sighting::Nothing,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Some(length) = text.get(at..).and_then(string_end) else { return Sighting::Yet };
                let name = text.get(at..at + length).unwrap_or_default();
                at += length + 1;
                let after = text.get(at..).unwrap_or_default().trim_ascii_start();
                let Some((b':', value)) = after.split_first() else {
                    if after.is_empty() {
                        return Sighting::Yet;
                    }
                    continue; // a value
                };
                if depth != 1 || !matches!(name, b"result" | b"error") {
                    continue;
                }
                match (value.trim_ascii_start().first(), name) {
                    (None, _) => return Sighting::Yet,
                    (Some(b'n'), _) => {}
                    (Some(_), b"error") => return Sighting::Fault(Outcome::Business),
                    (Some(_), _) => return Sighting::Nothing,
                }
            }
            _ => {}
        }
    }
    Sighting::Yet
}

/// The length of a string whose opening quote was read.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BROKEN: Sighting = Sighting::Fault(Outcome::Broken);
    const BUSINESS: Sighting = Sighting::Fault(Outcome::Business);
    const NOTHING: Sighting = Sighting::Nothing;
    const YET: Sighting = Sighting::Yet;

    fn fault_11(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><!-- <Body> --><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <soap:Header><Body><Fault/></Body></soap:Header><soap:Body a=\"x>y\"><soap:Fault>\
             <faultcode>{code}</faultcode><faultstring>no</faultstring></soap:Fault></soap:Body></soap:Envelope>"
        )
    }

    fn fault_12(code: &str) -> String {
        format!(
            "<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Body><e:Fault><e:Code>\
             <e:Value>{code}</e:Value><e:Subcode><e:Value>m:Sender</e:Value></e:Subcode></e:Code></e:Fault>"
        )
    }

    #[test]
    fn a_soap_fault_says_who_is_to_blame() {
        let table = [
            (BUSINESS, fault_11("soap:Client")),
            (BUSINESS, fault_11("Client.Authentication")),
            (BROKEN, fault_11("soap:Server")),
            (BROKEN, fault_11(" SOAP-ENV:Server.userException ")),
            (BUSINESS, fault_11("soap:MustUnderstand")),
            (BUSINESS, fault_11("bank:AccountUnknown")),
            (BUSINESS, fault_12("e:Sender")),
            (BROKEN, fault_12("e:Receiver")),
            (BROKEN, format!("--b\r\nContent-ID: <root@bank>\r\n\r\n{}", fault_11("Server"))),
            (NOTHING, "<Envelope><Body><GetBalanceResponse><Fault/></GetBalanceResponse></Body></Envelope>".to_owned()),
            (NOTHING, "<html><body><Fault><faultcode>Server</faultcode></Fault></body></html>".to_owned()),
            (NOTHING, "<Fault><faultcode>Server</faultcode></Fault>".to_owned()),
            (YET, "Internal Server Error".to_owned()),
            (YET, "<Envelope><Body>".to_owned()),
            (YET, "<Envelope><Body><Fault><faultcode>Serv".to_owned()),
            (NOTHING, "<Envelope><Body><Fault><faultcode><![CDATA[Server]]></faultcode>".to_owned()),
            (YET, String::new()),
        ];
        for (expected, body) in table {
            assert_eq!(Faults::Soap.find(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn an_error_of_json_rpc_is_one_in_the_outermost_object() {
        let table = [
            (BUSINESS, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#),
            (BUSINESS, r#" { "result" : null , "error" : "no such record" }"#),
            (BUSINESS, r#"{"id":"\"error\":1","error":{"#),
            (NOTHING, r#"{"error":null,"result":[{"error":1}]}"#),
            (NOTHING, r#"{"jsonrpc":"2.0","result":{"error":{"code":1}},"id":1}"#),
            (NOTHING, r#"{"params":{"error":1},"x":["error"],"y":"error"}"#),
            (NOTHING, r#"[{"error":{"code":1}}]"#),
            (NOTHING, "<html>"),
            (YET, ""),
            (YET, r#"{"jsonrpc":"2.0","id":1,"err"#),
            (YET, r#"{"jsonrpc":"2.0","id":1,"error""#),
            (YET, r#"{"error": "#),
        ];
        for (expected, body) in table {
            assert_eq!(Faults::JsonRpc.find(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn only_bodies_of_the_protocol_are_looked_into() {
        let table = [
            (true, Faults::Soap, 500, Some("text/xml; charset=utf-8")),
            (true, Faults::Soap, 200, Some("application/soap+XML")),
            (true, Faults::Soap, 200, Some("multipart/related; boundary=b")),
            (true, Faults::Soap, 500, None),
            (false, Faults::Soap, 500, Some("text/html")),
            (false, Faults::Soap, 503, Some("text/xml")),
            (false, Faults::Soap, 404, Some("text/xml")),
            (true, Faults::JsonRpc, 200, Some("application/json")),
            (false, Faults::JsonRpc, 200, Some("text/event-stream")),
            (false, Faults::Http, 500, None),
        ];
        for (expected, faults, status, media) in table {
            assert_eq!(faults.may_be_in(status, media.map(str::as_bytes)), expected, "{faults:?} {status} {media:?}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            body in prop_oneof![
                "[<>/a-c:\"'! -]{0,60}",
                "[{}\\[\\]:,\"a\\\\n ]{0,60}",
                Just(fault_11("soap:Server")),
                Just(fault_12("e:Sender")),
                Just(r#"{"a":{"error":1},"error":{"code":1}}"#.to_owned()),
            ],
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = body.as_bytes();
            let beginning = &bytes[..cut.index(bytes.len() + 1)];
            for faults in [Faults::Soap, Faults::JsonRpc] {
                let early = faults.find(beginning);
                prop_assert!(early == YET || early == faults.find(bytes), "{faults:?}: {early:?}");
            }
        }
    }
}
