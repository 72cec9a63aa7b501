//! The names of fields that nearly all messages have, in the spellings they mostly come in: quicker to compare with than to
//! look up.

use http::header::{self, HeaderName};

/// The name, if it is a usual one in a usual spelling; what is not found here may be a name all the same.
pub fn usual(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Host" | b"host" => header::HOST,
        b"Date" | b"date" => header::DATE,
        b"ETag" | b"etag" => header::ETAG,
        b"Vary" | b"vary" => header::VARY,
        b"Accept" | b"accept" => header::ACCEPT,
        b"Cookie" | b"cookie" => header::COOKIE,
        b"Server" | b"server" => header::SERVER,
        b"Expires" | b"expires" => header::EXPIRES,
        b"Connection" | b"connection" => header::CONNECTION,
        b"Set-Cookie" | b"set-cookie" => header::SET_COOKIE,
        b"User-Agent" | b"user-agent" => header::USER_AGENT,
        b"Content-Type" | b"content-type" => header::CONTENT_TYPE,
        b"Authorization" | b"authorization" => header::AUTHORIZATION,
        b"Accept-Ranges" | b"accept-ranges" => header::ACCEPT_RANGES,
        b"Cache-Control" | b"cache-control" => header::CACHE_CONTROL,
        b"Last-Modified" | b"last-modified" => header::LAST_MODIFIED,
        b"Content-Length" | b"content-length" => header::CONTENT_LENGTH,
        b"Accept-Encoding" | b"accept-encoding" => header::ACCEPT_ENCODING,
        b"Accept-Language" | b"accept-language" => header::ACCEPT_LANGUAGE,
        b"Content-Encoding" | b"content-encoding" => header::CONTENT_ENCODING,
        b"Transfer-Encoding" | b"transfer-encoding" => header::TRANSFER_ENCODING,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_name_is_the_one_that_is_meant() {
        let names = "Host Date ETag Vary Accept Cookie Server Expires Connection Set-Cookie User-Agent Content-Type \
                     Authorization Accept-Ranges Cache-Control Last-Modified Content-Length Accept-Encoding \
                     Accept-Language Content-Encoding Transfer-Encoding";
        for name in names.split_whitespace() {
            for name in [name.to_owned(), name.to_lowercase()] {
                assert_eq!(usual(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
            }
        }
        for other in ["", "hOST", "Content-Size", "X-Host", "host "] {
            assert_eq!(usual(other.as_bytes()), None);
        }
    }
}
