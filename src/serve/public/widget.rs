//! `/widget/{site}`: the footer block of a news page, in the site's language.
//!
//! As text it is, to the character,
//!
//! ```text
//! Thống kê truy cập
//!   • 001316717
//!   • Đang online: 61
//!   • Trong tuần: 10.194
//!   • Trong tháng: 53.796
//!   • Trong năm: 634.758
//! ```
//!
//! `?format=`: `html` (a document for an iframe, kept fresh by the page script where scripts run),
//! `fragment` (the block alone, to be put into a page by its server), `json`, `text`. With `figure=` it is
//! that figure alone. A figure that is not known is left out.
//!
//! A server that assembles pages names the page by the header `Footfall-Page`, as its reader asked for it: such a text
//! cannot be put into a query without being encoded once more, which few servers can do.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use url::form_urlencoded;

use super::context::{ReadRequest, Reply};
use super::known::SiteRead;
use crate::ingest::{self, Reason};
use crate::serve::answer::{
    self, Fault, Response,
    html::{escaped, filled},
};
use crate::serve::shown::{
    figure::{CurrentFigures, Figure},
    labels::Labels,
};
use crate::sites::Site;

const CSS: &str = include_str!("widget/widget.css");
const DOCUMENT: &str = include_str!("widget/document.html");

/// The path and query of the page that the block becomes part of.
const PAGE: HeaderName = HeaderName::from_static("footfall-page");

/// Digits of the visits of all time, at least.
const TOTAL_DIGITS: usize = 9;

/// Most digits that may be asked for.
const MAX_PAD: usize = 20;

struct WidgetRequest {
    format: Format,
    theme: &'static str,
    lang: Option<String>,
    figure: Option<Figure>,
    pad: usize,
    /// Whether a header may have named the page: then the URL does not say what is answered.
    unnamed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Fragment,
    Json,
    Text,
}

const FORMATS: [(&str, Format); 4] =
    [("html", Format::Html), ("fragment", Format::Fragment), ("json", Format::Json), ("text", Format::Text)];

impl WidgetRequest {
    fn read(query: &str) -> Result<WidgetRequest, Reason> {
        let mut asked = WidgetRequest {
            format: Format::Html,
            theme: "auto",
            lang: None,
            figure: None,
            pad: 0,
            unnamed: false,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = Reason::Malformed;
            match &*name {
                "format" => {
                    let named = FORMATS.into_iter().find(|(name, _)| *name == value);
                    asked.format = named.ok_or(wrong)?.1;
                }
                "theme" => {
                    let themes = ["auto", "light", "dark"];
                    asked.theme = themes.into_iter().find(|theme| *theme == value).ok_or(wrong)?;
                }
                "lang" => asked.lang = Some(value.into_owned()),
                "figure" => asked.figure = Some(Figure::named(&value).ok_or(wrong)?),
                "pad" => asked.pad = value.parse().ok().filter(|pad| *pad <= MAX_PAD).ok_or(wrong)?,
                _ => {}
            }
        }
        if asked.figure.is_some() && asked.format != Format::Text {
            return Err(Reason::Malformed);
        }
        Ok(asked)
    }
}

pub fn widget(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<Reply, Fault> {
    let query = request.query();
    let page = request.headers.get(PAGE).cloned();
    let mut read = SiteRead::of(request, site)?;
    let mut asked = WidgetRequest::read(query)?;
    if let Some(page) = page.filter(|_| read.page.is_none()) {
        read.page = ingest::read_page(&read.site, &String::from_utf8_lossy(page.as_bytes())).ok();
        asked.unnamed = true;
    }
    Ok(read.once_known(move |read| show(read, &asked)))
}

pub fn stylesheet(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    Ok(Reply::Now(answer::unless_held(request.headers, CSS.into(), answer::CSS, answer::AN_HOUR)))
}

fn show(read: SiteRead, asked: &WidgetRequest) -> Response {
    let (site, current) = (&read.site, read.current_figures());
    let lists = read.public.parts.lists.load();
    let labels = lists.languages.of(asked.lang.as_deref(), &site.locale);
    let lines = lines(&current, labels);
    let (kind, body) = match asked.format {
        Format::Text => (answer::TEXT, text(&current, labels, &lines, asked)),
        Format::Fragment => (answer::HTML, fragment(labels, &lines)),
        Format::Html => (answer::HTML, document(site, labels, &lines, asked.theme)),
        // One line alone would be of no use to another program.
        Format::Json if lines.len() < 2 => return answer::refused(Fault::StoreUnreachable),
        Format::Json => (answer::JSON, json(site, labels, &lines, current.stale)),
    };
    let cache = if current.stale || asked.unnamed { answer::NO_STORE } else { answer::HALF_A_MINUTE };
    let response = answer::unless_held(read.headers, body.into(), kind, cache);
    match asked.format {
        Format::Html => answer::guarded(response, policy(&site.hosts)),
        _ => response,
    }
}

/// What the document may load, and who may frame it: the site's own pages, on any port.
fn policy(hosts: &[String]) -> HeaderValue {
    let mut policy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        .to_owned();
    // A policy cannot name an IPv6 address.
    for host in hosts.iter().filter(|host| !host.starts_with('[')) {
        policy += &format!(" https://{host}:* http://{host}:*");
    }
    HeaderValue::try_from(policy).unwrap_or(answer::NO_SOURCES)
}

pub struct WidgetLine<'a> {
    name: &'static str,
    label: &'a str,
    figure: u64,
    /// Digits it is padded to, in place of a label.
    pad: usize,
    /// The figure as the block shows it.
    text: String,
}

/// The lines whose figures are known.
pub fn lines<'a>(current: &CurrentFigures, labels: &'a Labels) -> Vec<WidgetLine<'a>> {
    [
        ("visits.all", &labels.total, TOTAL_DIGITS),
        ("online", &labels.online, 0),
        ("visits.week", &labels.week, 0),
        ("visits.month", &labels.month, 0),
        ("visits.year", &labels.year, 0),
    ]
    .into_iter()
    .filter_map(|(name, label, pad)| {
        let figure = current.of(Figure::named(name)?)?;
        Some(WidgetLine { name, label, figure, pad, text: written(labels, figure, pad) })
    })
    .collect()
}

/// A figure in groups, or padded and without them.
fn written(labels: &Labels, figure: u64, pad: usize) -> String {
    if pad == 0 { labels.grouped(figure) } else { format!("{figure:0pad$}") }
}

fn text(
    current: &CurrentFigures,
    labels: &Labels,
    lines: &[WidgetLine<'_>],
    asked: &WidgetRequest,
) -> String {
    if let Some(figure) = asked.figure {
        return current.of(figure).map_or(String::new(), |figure| written(labels, figure, asked.pad));
    }
    let mut text = format!("{}\n", labels.title);
    for line in lines {
        let label = if line.pad == 0 { format!("{}: ", line.label) } else { String::new() };
        text += &format!("  • {label}{}\n", line.text);
    }
    text
}

/// The block as a piece of HTML; the page script keeps it fresh.
pub fn fragment(labels: &Labels, lines: &[WidgetLine<'_>]) -> String {
    let (tag, title) = (escaped(&labels.tag), escaped(&labels.title));
    let mut html = format!(
        "<div class=\"footfall\" role=\"group\" aria-label=\"{title}\" lang=\"{tag}\">\
         <strong class=\"footfall-title\">{title}</strong>\n<ul class=\"footfall-lines\">\n"
    );
    for line in lines {
        let (name, label) = (line.name, escaped(line.label));
        let (text, grouped) = (escaped(&line.text), labels.grouped(line.figure));
        let grouped = escaped(&grouped);
        html += &match line.pad {
            0 => format!("<li>{label}: <span data-footfall=\"{name}\">{text}</span></li>\n"),
            // It is shown padded and without a label, and read aloud with the label and without padding.
            pad => format!(
                "<li><span data-footfall=\"{name}\" data-footfall-pad=\"{pad}\" role=\"img\" \
                 aria-label=\"{label}: {grouped}\" title=\"{label}\">{text}</span></li>\n"
            ),
        };
    }
    html + "</ul></div>\n"
}

fn document(site: &Site, labels: &Labels, lines: &[WidgetLine<'_>], theme: &str) -> String {
    let texts = [
        ("lang", &*escaped(&labels.tag)),
        ("theme", theme),
        ("title", &escaped(&labels.title)),
        ("site", site.key.as_str()),
        ("block", &fragment(labels, lines)),
    ];
    filled(DOCUMENT, &texts)
}

fn json(site: &Site, labels: &Labels, lines: &[WidgetLine<'_>], stale: bool) -> String {
    let line = |line: &WidgetLine<'_>| {
        serde_json::json!({
            "figure": line.name, "label": line.label, "value": line.figure, "text": line.text,
        })
    };
    serde_json::json!({
        "site": site.key.as_str(),
        "lang": labels.tag,
        "title": labels.title,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
        "stale": stale,
    })
    .to_string()
}

#[cfg(test)]
mod tests;
