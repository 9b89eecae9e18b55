//! What the HTML reports share: the page around them, charts, thumbnails. A page is one self-contained file.

pub(crate) mod charts;
pub(crate) mod thumbnails;

use std::io::{self, Write};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use xmore_files::escape_lines;

const STYLE: &str = include_str!("style.css");

/// A whole page.
pub(crate) fn document(title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (main) } }
        }
    }
}

/// Writes a page; characters that change the direction of text are shown escaped.
pub(crate) fn write_page(file: &mut dyn Write, page: &Markup) -> io::Result<()> {
    file.write_all(escape_lines(&page.0).as_bytes())
}

/// CSS class of a method: which modality it uses.
pub(crate) fn class(method: &str) -> &'static str {
    match method {
        "captions" => "captions",
        "equal" | "xmore" | "xmore-stream" | "coop-xmore" | "coop-xmore-stream" => "both",
        _ => "picture",
    }
}
