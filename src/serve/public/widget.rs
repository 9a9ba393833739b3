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

use std::borrow::Cow;

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use url::form_urlencoded;

use crate::ingest::{Page, Reason};
use crate::serve::answer::{self, Fault, Response};
use crate::serve::public::context::{Asked, Public, Reply};
use crate::serve::public::counters::{self, Ready};
use crate::serve::shown::labels::Words;
use crate::sites::Site;
use crate::totals::Figures;

/// The stylesheet of the document.
const CSS: &str = include_str!("widget/widget.css");

/// Digits of the visits of all time, at least.
const TOTAL_DIGITS: usize = 9;

/// Most digits that may be asked for.
const MAX_PAD: usize = 20;

const PERIODS: [&str; 5] = ["day", "week", "month", "year", "all"];

/// A figure by its name, as `data-footfall` of a page names it: `online`, `visits.week`, `page.views.all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Visitors online on the site.
    Online,
    /// Visitors online on the page.
    PageOnline,
    /// A total of the site in a period.
    Of(Total, usize),
    /// Views of the page in a period.
    PageViews(usize),
}

/// A total of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    Views,
    Visits,
    Visitors,
}

impl Figure {
    /// Reads a name.
    pub fn named(name: &str) -> Option<Figure> {
        let period = |name: &str| PERIODS.iter().position(|period| *period == name);
        match name.rsplit_once('.') {
            None => (name == "online").then_some(Figure::Online),
            Some(("page", "online")) => Some(Figure::PageOnline),
            Some(("page.views", name)) => period(name).map(Figure::PageViews),
            Some(("views", name)) => period(name).map(|period| Figure::Of(Total::Views, period)),
            Some(("visits", name)) => period(name).map(|period| Figure::Of(Total::Visits, period)),
            Some(("visitors", name)) => period(name).map(|period| Figure::Of(Total::Visitors, period)),
            Some(_) => None,
        }
    }
}

/// What is known of a site, and of a page of it where one is asked for.
pub struct Known {
    figures: Figures,
    online: u64,
    page: Option<(u64, Option<[u64; 5]>)>,
    /// Whether something may be old.
    pub stale: bool,
}

impl Known {
    /// Looks it up in memory.
    pub fn now(public: &Public, site: &Site, page: Option<&Page>) -> Known {
        let parts = &public.parts;
        let now = parts.clock.now();
        let figures = parts.totals.figures(site.id, now);
        let views = page.map(|page| parts.totals.page(page, site.id, now));
        let unknown = figures.visits.iter().any(Option::is_none) || views.is_some_and(|v| v.is_none());
        Known {
            online: parts.sessions.online(site.id, now),
            page: page.map(|page| parts.sessions.page_online(page, now)).zip(views),
            stale: parts.totals.stale() || unknown,
            figures,
        }
    }

    /// A figure, if it is known.
    pub fn of(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::Online => Some(self.online),
            Figure::PageOnline => self.page.map(|(online, _)| online),
            Figure::PageViews(period) => self.page?.1?.get(period).copied(),
            Figure::Of(Total::Views, period) => *self.figures.views.get(period)?,
            Figure::Of(Total::Visits, period) => *self.figures.visits.get(period)?,
            Figure::Of(Total::Visitors, period) => *self.figures.visitors.get(period)?,
        }
    }
}

/// What a request for a block asks for.
struct Wish {
    format: Format,
    theme: &'static str,
    lang: Option<String>,
    figure: Option<Figure>,
    pad: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Fragment,
    Json,
    Text,
}

impl Wish {
    fn read(query: &str) -> Result<Wish, Reason> {
        let mut wish = Wish { format: Format::Html, theme: "auto", lang: None, figure: None, pad: 0 };
        for (name, said) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = Reason::Malformed;
            match &*name {
                "format" => wish.format = format(&said).ok_or(wrong)?,
                "theme" => {
                    let themes = ["auto", "light", "dark"];
                    wish.theme = themes.into_iter().find(|theme| *theme == said).ok_or(wrong)?;
                }
                "lang" => wish.lang = Some(said.into_owned()),
                "figure" => wish.figure = Some(Figure::named(&said).ok_or(wrong)?),
                "pad" => wish.pad = said.parse().ok().filter(|pad| *pad <= MAX_PAD).ok_or(wrong)?,
                _ => {}
            }
        }
        if wish.figure.is_some() && wish.format != Format::Text {
            return Err(Reason::Malformed);
        }
        Ok(wish)
    }
}

fn format(said: &str) -> Option<Format> {
    match said {
        "html" => Some(Format::Html),
        "fragment" => Some(Format::Fragment),
        "json" => Some(Format::Json),
        "text" => Some(Format::Text),
        _ => None,
    }
}

/// `GET /widget/{site}`.
pub fn widget(asked: Asked<'_>) -> Reply {
    let understood = counters::site_and_page(&asked)
        .and_then(|found| Ok((found, Wish::read(asked.uri.query().unwrap_or_default())?)));
    match understood {
        Err(reason) => Reply::Now(answer::refused(reason.into())),
        Ok(((site, page), wish)) => {
            counters::once_known(asked, site, page, move |ready, site, page| show(ready, site, page, &wish))
        }
    }
}

/// `GET /widget.css`.
pub fn stylesheet(asked: Asked<'_>) -> Reply {
    Reply::Now(counters::unless_held(asked.headers, CSS.into(), answer::CSS, answer::AN_HOUR))
}

fn show(ready: Ready, site: &Site, page: Option<&Page>, wish: &Wish) -> Response {
    let known = Known::now(&ready.public, site, page);
    let lists = ready.public.parts.lists.load();
    let words = lists.languages.of(wish.lang.as_deref(), &site.locale);
    let lines = lines(&known, words);
    let (kind, body) = match wish.format {
        Format::Text => (answer::TEXT, text(&known, words, &lines, wish)),
        Format::Fragment => (answer::HTML, fragment(words, &lines)),
        Format::Html => (answer::HTML, document(site, words, &lines, wish.theme)),
        // What is left of it would be nothing that another program can use.
        Format::Json if lines.len() < 2 => return answer::refused(Fault::StoreUnreachable),
        Format::Json => (answer::JSON, json(site, words, &lines, known.stale)),
    };
    let cache = if known.stale { answer::NO_STORE } else { answer::HALF_A_MINUTE };
    let mut response = counters::unless_held(ready.headers, body.into(), kind, cache);
    if wish.format == Format::Html {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy(&site.hosts));
    }
    response
}

/// What the document may load, and who may frame it: the site's own pages, on any port.
fn policy(hosts: &[String]) -> HeaderValue {
    let mut policy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        .to_owned();
    // A policy has no words for an IPv6 address.
    for host in hosts.iter().filter(|host| !host.starts_with('[')) {
        policy += &format!(" https://{host}:* http://{host}:*");
    }
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// A line of the block.
pub struct Line<'a> {
    /// Its figure's name.
    name: &'static str,
    /// What the figure is.
    label: &'a str,
    figure: u64,
    /// The figure as the language writes it.
    grouped: String,
    /// The figure as it stands in the block.
    shown: String,
    /// Digits it is padded to, in place of a label.
    pad: usize,
}

/// The lines of which the figures are known.
pub fn lines<'a>(known: &Known, words: &'a Words) -> Vec<Line<'a>> {
    [
        ("visits.all", &words.total, TOTAL_DIGITS),
        ("online", &words.online, 0),
        ("visits.week", &words.week, 0),
        ("visits.month", &words.month, 0),
        ("visits.year", &words.year, 0),
    ]
    .into_iter()
    .filter_map(|(name, label, pad)| {
        let figure = known.of(Figure::named(name)?)?;
        let grouped = words.grouped(figure);
        let shown = written(words, figure, pad);
        Some(Line { name, label, figure, grouped, shown, pad })
    })
    .collect()
}

/// A figure in groups, or padded and without them.
fn written(words: &Words, figure: u64, pad: usize) -> String {
    if pad == 0 { words.grouped(figure) } else { format!("{figure:0pad$}") }
}

fn text(known: &Known, words: &Words, lines: &[Line<'_>], wish: &Wish) -> String {
    if let Some(figure) = wish.figure {
        return known.of(figure).map_or(String::new(), |figure| written(words, figure, wish.pad));
    }
    let mut text = format!("{}\n", words.title);
    for line in lines {
        match line.pad {
            0 => text += &format!("  • {}: {}\n", line.label, line.shown),
            _ => text += &format!("  • {}\n", line.shown),
        }
    }
    text
}

/// The block as a piece of HTML; the page script keeps it fresh.
pub fn fragment(words: &Words, lines: &[Line<'_>]) -> String {
    let (tag, title) = (escaped(&words.tag), escaped(&words.title));
    let mut html = format!(
        "<div class=\"footfall\" role=\"group\" aria-label=\"{title}\" lang=\"{tag}\">\
         <strong class=\"footfall-title\">{title}</strong>\n<ul class=\"footfall-lines\">\n"
    );
    for Line { name, label, grouped, shown, pad, .. } in lines {
        let (label, grouped, shown) = (escaped(label), escaped(grouped), escaped(shown));
        html += &match pad {
            0 => format!("<li>{label}: <span data-footfall=\"{name}\">{shown}</span></li>\n"),
            // What is shown without a label, and with zeros, is read aloud with the one, without the others.
            pad => format!(
                "<li><span data-footfall=\"{name}\" data-footfall-pad=\"{pad}\" role=\"img\" \
                 aria-label=\"{label}: {grouped}\" title=\"{label}\">{shown}</span></li>\n"
            ),
        };
    }
    html + "</ul></div>\n"
}

fn document(site: &Site, words: &Words, lines: &[Line<'_>], theme: &str) -> String {
    let (tag, title, key) = (escaped(&words.tag), escaped(&words.title), &site.key);
    let block = fragment(words, lines);
    format!(
        "<!doctype html>\n<html lang=\"{tag}\" data-theme=\"{theme}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"../widget.css\">\n\
         <script defer src=\"../footfall.js\" data-site=\"{key}\" data-auto=\"off\" data-page=\"/\"></script>\n\
         </head>\n<body>\n{block}</body>\n</html>\n"
    )
}

fn json(site: &Site, words: &Words, lines: &[Line<'_>], stale: bool) -> String {
    let line = |line: &Line<'_>| {
        serde_json::json!({
            "figure": line.name, "label": line.label, "value": line.figure, "text": line.shown,
        })
    };
    serde_json::json!({
        "site": site.key.as_str(),
        "lang": words.tag,
        "title": words.title,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
        "stale": stale,
    })
    .to_string()
}

/// A text as it may stand in HTML and XML, between tags and in quotes. What XML cannot hold is dropped.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let special =
        |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'' | '\u{fffe}' | '\u{ffff}') || c.is_control();
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if special(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
