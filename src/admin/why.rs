//! What became of requests, over the admin listener: `GET /why`.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{AdminSource, JSON, Reply, answer, problem};
use crate::gateway::why::Kept;

/// `id=` asks for one request; else the latest are listed, with `reason=` and `limit=` if it matters.
pub(super) fn why(source: &dyn AdminSource, query: Option<&str>) -> Reply {
    let asked = match Asked::read(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(mistake) => return problem(StatusCode::BAD_REQUEST, &mistake),
    };
    let accounts = match &asked {
        Asked::Request(id) => source.why(id),
        Asked::Latest(word, most) => source.accounts(word.as_deref(), *most),
    };
    match asked {
        Asked::Request(id) if accounts.is_empty() => problem(StatusCode::NOT_FOUND, &forgotten(&id)),
        _ => answer(StatusCode::OK, JSON, format!("{:#}\n", json!({ "accounts": accounts }))),
    }
}

fn forgotten(id: &str) -> String {
    format!(
        "Nothing is remembered of {id:?}. What is refused, failed, broken, left, retried, stale, queued or slow is, and a sample of \
         the others but plain hits: the last few thousand of each worker, since its start."
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Request(String),
    Latest(Option<String>, usize),
}

impl Asked {
    fn read(query: &str) -> Result<Self, String> {
        let (mut id, mut word, mut most) = (None, None, LISTED);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| format!("`{name}` is no UTF-8."))?;
            match name {
                "id" if !value.is_empty() => id = Some(value.into_owned()),
                "reason" if Kept::is_word(&value) => word = Some(value.into_owned()),
                "reason" => return Err(format!("There is no reason {value:?}; there are {}.", words())),
                "limit" => {
                    let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
                    most = number.ok_or_else(|| format!("`limit` is a number from 1 to {MOST}."))?;
                }
                _ => return Err(format!("There is no parameter `{name}`; there are id, reason, limit.")),
            }
        }
        Ok(id.map_or(Self::Latest(word, most), Self::Request))
    }
}

fn words() -> String {
    let kept = Kept::ALL.iter().map(|kept| kept.code());
    let reasons = crate::refusal::Reason::ALL.iter().map(|reason| reason.code());
    kept.chain(reasons).collect::<Vec<_>>().join(", ")
}

/// A screenful.
const LISTED: usize = 50;
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_asks_for_one_or_for_the_latest() {
        let latest = |word: Option<&str>, most| Some(Asked::Latest(word.map(str::to_owned), most));
        for (query, expected) in [
            ("", latest(None, LISTED)),
            ("id=0011223344556677", Some(Asked::Request("0011223344556677".to_owned()))),
            ("id=a%2Fb", Some(Asked::Request("a/b".to_owned()))),
            ("reason=queue.full&limit=3", latest(Some("queue.full"), 3)),
            ("reason=slow", latest(Some("slow"), LISTED)),
            ("id=", None),
            ("reason=queue", None),
            ("limit=0", None),
            ("limit=1001", None),
            ("x=1", None),
            ("id=%FF", None),
        ] {
            assert_eq!(Asked::read(query).ok(), expected, "{query}");
        }
    }
}
