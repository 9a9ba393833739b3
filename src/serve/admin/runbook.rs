//! What each alert means and what to do about it: the handbook's part on alerts as a page, where whoever is woken by
//! one has it at hand.

use hyper::Request;
use hyper::body::Incoming;

use crate::serve::answer::{self, Response, html::escaped};
use crate::serve::parts::Parts;

const HANDBOOK: &str = include_str!("../../../config/prometheus/README.md");

/// `/runbook`
pub fn runbook(_parts: &Parts, _request: &Request<Incoming>) -> Response {
    let page = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
                content=\"width=device-width\"><title>footfall runbook</title><h1>Alerts</h1>\n";
    let (_, alerts) = HANDBOOK.split_once("\n## Alerts\n").unwrap_or_default();
    let alerts: String = alerts.split("\n\n").map(block).collect();
    answer::admin_page(page.to_owned() + &alerts)
}

/// A paragraph, and the heading before it, if there is one. What it links to in other files is not here.
fn block(text: &str) -> String {
    let (heading, text) = match text.trim().strip_prefix("### ") {
        Some(rest) => rest.split_once('\n').unwrap_or((rest, "")),
        None => ("", text),
    };
    let anchor = heading.to_lowercase();
    let heading =
        if heading.is_empty() { String::new() } else { format!("<h2 id=\"{anchor}\">{heading}</h2>\n") };
    let mut text = text.to_owned();
    while let Some((begin, rest)) = text.split_once("](..")
        && let Some((_, end)) = rest.split_once(')')
    {
        text = format!("{begin}]{end}");
    }
    // Every second piece stands between backquotes.
    let pieces = text.split('`').zip([false, true].into_iter().cycle());
    let pieces = pieces.map(|(piece, is_code)| match is_code {
        true => format!("<code>{}</code>", escaped(piece)),
        false => linked(piece),
    });
    format!("{heading}<p>{}</p>\n", pieces.collect::<String>())
}

/// A text with its links to other alerts.
fn linked(text: &str) -> String {
    let link = |text: &str| {
        let (begin, rest) = text.split_once("](#")?;
        let (before, label) = begin.rsplit_once('[')?;
        let (anchor, rest) = rest.split_once(')')?;
        Some(format!("{}<a href=\"#{anchor}\">{}</a>{}", escaped(before), escaped(label), linked(rest)))
    };
    link(text).unwrap_or_else(|| escaped(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_told_with_its_heading_code_and_links() {
        assert_eq!(
            block("### OneAlert\nAsk `a <b>` & see ([`c`](../R.md#d)), [Two](#two) [x].\n"),
            "<h2 id=\"onealert\">OneAlert</h2>\n<p>Ask <code>a &lt;b&gt;</code> &amp; see ([<code>c</code>]), \
             <a href=\"#two\">Two</a> [x].</p>\n"
        );
    }
}
