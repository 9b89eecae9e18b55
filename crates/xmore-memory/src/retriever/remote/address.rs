//! Parts of the URLs that remote indexes have.

/// What is before a question mark, and what is after it if there is one.
pub(super) fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (text, None),
    }
}

/// A host, with brackets if it is an IPv6 address, and a port if there is one.
pub(super) fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => (&authority[..=end], &authority[end + 1..]),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?),
    };
    let valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    valid.then(|| (host.to_owned(), port))
}

/// The text with its `%` escapes resolved; `None` for escapes that are none, for `&`, and for what is not UTF-8 then.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push((digit()? * 16 + digit()?) as u8);
            }
            b'&' => return None,
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// The text with everything escaped but letters, digits and `-_.~`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
