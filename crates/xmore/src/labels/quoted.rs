//! Fields between separators, some of them in quotes.

/// Fields between separators, trimmed. One that begins with a quote goes to the closing quote, with `""` for a quote in it; what stands
/// behind that is added. `None` where a quote is not closed.
pub(super) fn split_quoted(text: &str, separates: impl Fn(char) -> bool) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.trim_start_matches(|c: char| c.is_whitespace() && !separates(c));
        let mut field = String::new();
        let behind = match start.strip_prefix('"') {
            Some(mut body) => loop {
                let quote = body.find('"')?;
                field += &body[..quote];
                body = &body[quote + 1..];
                match body.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        body = more;
                    }
                    None => break body,
                }
            },
            None => start,
        };
        let end = behind.find(&separates).unwrap_or(behind.len());
        field += behind[..end].trim_end();
        fields.push(field.trim().to_owned());
        match behind[end..].chars().next() {
            Some(separator) => rest = &behind[end + separator.len_utf8()..],
            None => return Some(fields),
        }
    }
}
