//! The live page: three files that stand in the binary, and load nothing from elsewhere.
//!
//! A browser takes text for code too easily, and this page shows what strangers chose (paths, names): no inline script
//! or style, nothing from other hosts, no frame around it, and no markup made of data. The token is the operator's: it
//! stays in the page's session storage and is sent as `Authorization` alone, which no other site can make a browser do.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Reply, answer};

/// The page.
pub(super) fn html() -> Reply {
    guarded("text/html; charset=utf-8", include_str!("page/page.html"))
}

/// How it looks.
pub(super) fn css() -> Reply {
    guarded("text/css; charset=utf-8", include_str!("page/page.css"))
}

/// What it does.
pub(super) fn js() -> Reply {
    guarded("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// Whether a browser asks, which can show the page.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| {
        let listed = value.to_str().unwrap_or_default().split(',');
        listed
            .map(|kind| kind.split(';').next().unwrap_or_default().trim())
            .any(|kind| kind.eq_ignore_ascii_case("text/html"))
    })
}

fn guarded(content_type: &'static str, text: &'static str) -> Reply {
    let mut response = answer(StatusCode::OK, content_type, text);
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

const GUARDS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_the_page_and_a_program_the_list() {
        let check = |accept: &'static str, expected| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        };
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true);
        check("application/xml, TEXT/HTML;q=0.5", true);
        check("*/*", false);
        check("application/json", false);
        check("text/html5", false);
        assert!(!is_wanted(&HeaderMap::new()));
    }

    /// The policy forbids all of it; this tells at once, and for browsers that know no policy.
    #[test]
    fn the_page_has_no_code_or_style_in_its_markup_and_makes_no_markup_of_data() {
        let html = include_str!("page/page.html");
        let script = include_str!("page/page.js");
        for word in ["style=", "<style", " onclick", " onload", "javascript:", "http://", "https://"] {
            assert!(!html.contains(word), "{word}");
        }
        assert_eq!(html.matches("<script").count(), html.matches("<script src=\"page.js\" defer></script>").count());
        let sinks = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "localStorage",
            "cookie",
        ];
        for word in sinks {
            assert!(!script.contains(word), "{word}");
        }
    }
}
