//! What the HTML reports share: the page around them, charts, small pictures. A page needs nothing beside it.

pub(crate) mod charts;
pub(crate) mod pictures;

use maud::{DOCTYPE, Markup, PreEscaped, html};

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

/// CSS class of a method: which modality it uses.
pub(crate) fn kind(method: &str) -> &'static str {
    match method {
        "captions" => "captions",
        "equal" | "xmore" | "xmore-stream" => "both",
        _ => "picture",
    }
}
