//! The codec and hyper's client read the same answers.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ask;

/// What hyper's client makes of the same answer, without what it means for the connection.
async fn ask_hyper(method: Method, answer: &[u8]) -> Option<(u16, Vec<u8>, String)> {
    let (mut far, near) = tokio::io::duplex(1 << 20);
    let serving = async move {
        let _ = far.read(&mut [0; 1024]).await;
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        far
    };
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    let asking = async {
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?;
        let trailers = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
        Some((status, body.to_bytes().to_vec(), trailers))
    };
    let (answer, _, _far) = tokio::join!(asking, driver, serving);
    answer
}

/// Answers near the border: pieces in any order, sound and broken.
fn scraps() -> impl Strategy<Value = String> {
    let first = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.1 404\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        "\r\nHTTP/1.1 599 Odd\r\n",
        "HTTP/1.1 099 Odd\r\n",
        "HTTP/1.1  200 OK\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 3\r\n",
        "content-length:  003 \r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: y\n",
        "X:\r\n",
        "X: \u{e4}\t \r\n",
        "X : y\r\n",
        " y\r\n",
        "X\r\n",
        "\u{e4}: y\r\n",
        "X: \u{1}\r\n",
        "Connection: close\r\n",
    ]);
    let piece = prop::sample::select(vec![
        "abc",
        "3\r\nabc\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "\r\n",
        "\n",
        "3;x\r\nabc\r\n",
        "003 \r\nabc\r\n",
        "X: y\r\n",
        "a",
        "X: y\n",
        "1\n",
    ]);
    let fields = prop::collection::vec(field, 0..3);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", ""]);
    let pieces = prop::collection::vec(piece, 0..5);
    (first, fields, end, pieces)
        .prop_map(|(first, fields, end, pieces)| format!("{first}{}{end}{}", fields.concat(), pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_hyper_reads_of_an_answer_is_read_here(answer in scraps(), is_head: bool) {
        let method = if is_head { Method::HEAD } else { Method::GET };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let theirs = runtime.block_on(ask_hyper(method.clone(), answer.as_bytes()));
        let ours = ask(method, [answer.as_bytes()]);
        match (ours, theirs) {
            (Ok((status, data, trailers, _)), theirs) => {
                prop_assert_eq!(Some((status, data.into_bytes(), trailers)), theirs);
            }
            // What is read more strictly on purpose.
            (Err("answer"), Some((status, ..))) => {
                let lower = answer.to_lowercase().replace("http/1.1 100 continue\r\n\r\n", "");
                let head = lower.split("\r\n\r\n").next().unwrap_or_default();
                let framings = head.matches("content-length:").count() + head.matches("transfer-encoding:").count();
                let old = head.starts_with("http/1.0") && head.contains("transfer-encoding:");
                prop_assert!(framings > 1 || old || !(200..=599).contains(&status), "{answer:?}");
            }
            (Err(error), theirs) => prop_assert_eq!(theirs, None, "{}", error),
        }
    }
}
