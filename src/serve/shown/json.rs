//! The bodies of the reads, written by hand into one buffer. A figure that is not known is left out.

use super::hour::Hour;
use crate::calendar::{PerPeriod, Period};
use crate::sites::Site;
use crate::totals::Figures;

pub struct PageItem<'a> {
    /// Its name; what was asked for where that is no page of the site.
    pub page: &'a str,
    /// None where it is no page of the site.
    pub online: Option<u64>,
    /// Its views; none where they are not known.
    pub views: Option<PerPeriod<u64>>,
}

/// What every body begins with.
pub struct BodyHead<'a> {
    site: &'a str,
    /// When the figures last changed (RFC 3339).
    at: String,
    /// The JSON object of the running buckets' names.
    buckets: &'a str,
}

impl<'a> BodyHead<'a> {
    /// The head of a site in its running hour, whose figures last changed at `changed_ms`.
    pub fn new(site: &'a Site, hour: &'a Hour, changed_ms: i64) -> Self {
        let at = hour.rfc3339(&site.calendar, changed_ms);
        BodyHead { site: site.key.as_str(), at, buckets: &hour.buckets }
    }
}

/// What the body of `counters` begins with: all of it that is the same for every page.
pub fn site_counters(body: &mut Vec<u8>, head: &BodyHead<'_>, online: u64, figures: &Figures) {
    begin(body, head);
    text(body, r#","online":"#);
    number(body, online);
    text(body, r#","buckets":"#);
    text(body, head.buckets);
    row(body, r#","views":"#, known(&figures.views));
    row(body, r#","visits":"#, known(&figures.visits));
    row(body, r#","visitors":"#, known(&figures.visitors));
}

/// What it ends with. `kept`: names of the query that belong to a page; `stale`: something shown may be old.
pub fn page_counters(body: &mut Vec<u8>, page: Option<&PageItem<'_>>, kept: &[String], stale: bool) {
    if let Some(page) = page {
        text(body, r#","page":"#);
        item(body, page);
    }
    tail(body, kept, stale);
}

/// The body of `pages`. `kept`: names of the query that belong to a page; `stale`: something shown may be old.
pub fn pages<'a>(
    head: &BodyHead<'_>,
    pages: impl ExactSizeIterator<Item = PageItem<'a>>,
    kept: &[String],
    stale: bool,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(256 + 192 * pages.len());
    begin(&mut body, head);
    text(&mut body, r#","buckets":"#);
    text(&mut body, head.buckets);
    text(&mut body, r#","pages":["#);
    for (place, page) in pages.enumerate() {
        text(&mut body, if place == 0 { "" } else { "," });
        item(&mut body, &page);
    }
    text(&mut body, "]");
    tail(&mut body, kept, stale);
    body
}

fn begin(body: &mut Vec<u8>, head: &BodyHead<'_>) {
    for part in [r#"{"site":""#, head.site, r#"","at":""#, &head.at, r#"""#] {
        text(body, part);
    }
}

fn tail(body: &mut Vec<u8>, kept: &[String], stale: bool) {
    let mut between = r#","page_query":["#;
    for name in kept {
        text(body, between);
        quoted(body, name);
        between = ",";
    }
    text(body, if kept.is_empty() { "" } else { "]" });
    text(body, if stale { r#","stale":true}"# } else { r#","stale":false}"# });
}

fn item(body: &mut Vec<u8>, page: &PageItem<'_>) {
    text(body, r#"{"page":"#);
    quoted(body, page.page);
    if let Some(online) = page.online {
        text(body, r#","online":"#);
        number(body, online);
    }
    if let Some(views) = page.views {
        row(body, r#","views":"#, views.iter().map(|(period, views)| (period, *views)));
    }
    text(body, "}");
}

fn known(figures: &PerPeriod<Option<u64>>) -> impl Iterator<Item = (Period, u64)> {
    figures.iter().filter_map(|(period, figure)| Some((period, (*figure)?)))
}

/// A member with the figures of periods; nothing at all where there are none.
fn row(body: &mut Vec<u8>, member: &str, figures: impl Iterator<Item = (Period, u64)>) {
    let before = body.len();
    text(body, member);
    let first = body.len();
    for (period, figure) in figures {
        text(body, named(period));
        number(body, figure);
    }
    match body.get_mut(first) {
        Some(comma) => {
            *comma = b'{';
            text(body, "}");
        }
        None => body.truncate(before),
    }
}

/// A period as the name of a member that follows another.
fn named(period: Period) -> &'static str {
    match period {
        Period::Hour => ",\"hour\":",
        Period::Day => ",\"day\":",
        Period::Week => ",\"week\":",
        Period::Month => ",\"month\":",
        Period::Year => ",\"year\":",
        Period::All => ",\"all\":",
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(text.as_bytes());
}

fn number(body: &mut Vec<u8>, number: u64) {
    text(body, itoa::Buffer::new().format(number));
}

/// A string from outside, with its quotes.
fn quoted(body: &mut Vec<u8>, string: &str) {
    // The compiler makes this loop fast because it never stops early.
    let odd = string.bytes().fold(false, |odd, b| odd | (b < b' ') | (b == b'"') | (b == b'\\'));
    if !odd {
        text(body, "\"");
        text(body, string);
        return text(body, "\"");
    }
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(body, string);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> BodyHead<'static> {
        BodyHead {
            site: "lamdong",
            at: "2023-09-15T08:19:00+07:00".to_owned(),
            buckets: r#"{"day":"2023-09-15","week":"2023-W37","month":"2023-09","year":"2023"}"#,
        }
    }

    fn counters(online: u64, figures: &Figures, page: Option<&PageItem<'_>>, stale: bool) -> Vec<u8> {
        let mut body = Vec::new();
        site_counters(&mut body, &head(), online, figures);
        page_counters(&mut body, page, &[], stale);
        body
    }

    fn figures() -> Figures {
        Figures {
            views: [Some(61); 5].into(),
            visits: [Some(61), Some(10194), Some(53796), Some(634_758), Some(1_316_717)].into(),
            visitors: [Some(61); 5].into(),
            ..Figures::default()
        }
    }

    #[test]
    fn counters_are_the_described_body_to_the_byte() {
        let page =
            PageItem { page: "/bai-viet/1.html", online: Some(2), views: Some([1, 1, 1, 1, 13].into()) };
        let expected = concat!(
            r#"{"site":"lamdong","at":"2023-09-15T08:19:00+07:00","online":61,"#,
            r#""buckets":{"day":"2023-09-15","week":"2023-W37","month":"2023-09","year":"2023"},"#,
            r#""views":{"day":61,"week":61,"month":61,"year":61,"all":61},"#,
            r#""visits":{"day":61,"week":10194,"month":53796,"year":634758,"all":1316717},"#,
            r#""visitors":{"day":61,"week":61,"month":61,"year":61,"all":61},"#,
            r#""page":{"page":"/bai-viet/1.html","online":2,"#,
            r#""views":{"day":1,"week":1,"month":1,"year":1,"all":13}},"#,
            r#""stale":false}"#,
        );
        let body = counters(61, &figures(), Some(&page), false);
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_never_zero() {
        let some = Figures { views: [None, Some(2), None, None, Some(0)].into(), ..Figures::default() };
        let body = counters(0, &some, None, true);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["views"], serde_json::json!({"week": 2, "all": 0}));
        assert!(body.get("visits").is_none() && body.get("visitors").is_none() && body.get("page").is_none());
        assert_eq!(body["stale"], true);
    }

    #[test]
    fn pages_keep_order_and_duplicates_and_escape_what_needs_it() {
        let texts = ["/b", "/a\"\\\u{1}\u{2028}é", "/b"];
        let shown = texts.iter().map(|page| PageItem {
            page,
            online: Some(1),
            views: (*page == "/b").then_some([1, 2, 3, 4, 5].into()),
        });
        let body = pages(&head(), shown, &[], false);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let items = body["pages"].as_array().unwrap();
        assert_eq!(items.iter().map(|item| item["page"].as_str().unwrap()).collect::<Vec<_>>(), texts);
        assert_eq!(items[0]["views"]["all"], 5);
        assert!(items[1].get("views").is_none());
        assert_eq!(body["buckets"]["week"], "2023-W37");
        assert!(body.get("online").is_none());
    }

    #[test]
    fn names_of_the_query_are_told_where_a_site_keeps_some() {
        let kept = ["id".to_owned(), "mục\"".to_owned()];
        let foreign = PageItem { page: "tin", online: None, views: None };
        let body = String::from_utf8(pages(&head(), [foreign].into_iter(), &kept, false)).unwrap();
        let end = r#""pages":[{"page":"tin"}],"page_query":["id","mục\""],"stale":false}"#;
        assert!(body.ends_with(end), "{body}");
        let body = String::from_utf8(pages(&head(), [].into_iter(), &[], true)).unwrap();
        assert!(body.ends_with(r#""pages":[],"stale":true}"#), "{body}");
    }
}
