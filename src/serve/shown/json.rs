//! The bodies of the reads, written by hand into one buffer. A figure that is not known is left out.

use crate::totals::Figures;

const PERIODS: [&str; 5] = ["day", "week", "month", "year", "all"];

/// A page as shown.
pub struct PageShown<'a> {
    /// The page.
    pub page: &'a str,
    /// Visitors online on it.
    pub online: u64,
    /// Day, week, month, year, all; none where they are not known.
    pub views: Option<[u64; 5]>,
}

/// What stands in every body.
pub struct Shown<'a> {
    /// The site's key.
    pub site: &'a str,
    /// When the figures last changed (RFC 3339).
    pub at: &'a str,
    /// The JSON object of the running buckets' names.
    pub buckets: &'a str,
}

/// What the body of `counters` begins with: all of it that is the same for every page.
pub fn site_counters(body: &mut Vec<u8>, shown: &Shown<'_>, online: u64, figures: &Figures) {
    head(body, shown);
    text(body, r#","online":"#);
    number(body, online);
    text(body, r#","buckets":"#);
    text(body, shown.buckets);
    row(body, r#","views":"#, &figures.views);
    row(body, r#","visits":"#, &figures.visits);
    row(body, r#","visitors":"#, &figures.visitors);
}

/// What it ends with. `stale`: something shown may be old.
pub fn page_counters(body: &mut Vec<u8>, page: Option<&PageShown<'_>>, stale: bool) {
    if let Some(page) = page {
        text(body, r#","page":"#);
        item(body, page);
    }
    tail(body, stale);
}

/// The body of `pages`. `stale`: something shown may be old.
pub fn pages<'a>(
    shown: &Shown<'_>,
    pages: impl ExactSizeIterator<Item = PageShown<'a>>,
    stale: bool,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(256 + 192 * pages.len());
    head(&mut body, shown);
    text(&mut body, r#","buckets":"#);
    text(&mut body, shown.buckets);
    text(&mut body, r#","pages":["#);
    for (place, page) in pages.enumerate() {
        text(&mut body, if place == 0 { "" } else { "," });
        item(&mut body, &page);
    }
    text(&mut body, "]");
    tail(&mut body, stale);
    body
}

fn head(body: &mut Vec<u8>, shown: &Shown<'_>) {
    text(body, r#"{"site":""#);
    text(body, shown.site);
    text(body, r#"","at":""#);
    text(body, shown.at);
    text(body, r#"""#);
}

fn tail(body: &mut Vec<u8>, stale: bool) {
    text(body, if stale { r#","stale":true}"# } else { r#","stale":false}"# });
}

fn item(body: &mut Vec<u8>, page: &PageShown<'_>) {
    text(body, r#"{"page":"#);
    quoted(body, page.page);
    text(body, r#","online":"#);
    number(body, page.online);
    if let Some(views) = page.views {
        row(body, r#","views":"#, &views.map(Some));
    }
    text(body, "}");
}

/// A member with what is known of five periods; nothing at all where nothing is known.
fn row(body: &mut Vec<u8>, member: &str, figures: &[Option<u64>; 5]) {
    let known = PERIODS.iter().zip(figures).filter_map(|(period, figure)| Some((period, (*figure)?)));
    let mut between = "{\"";
    for (period, figure) in known {
        text(body, if between == "{\"" { member } else { "" });
        text(body, between);
        text(body, period);
        text(body, "\":");
        number(body, figure);
        between = ",\"";
    }
    text(body, if between == ",\"" { "}" } else { "" });
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(text.as_bytes());
}

fn number(body: &mut Vec<u8>, number: u64) {
    text(body, itoa::Buffer::new().format(number));
}

/// A string of anyone's making, with its quotes.
fn quoted(body: &mut Vec<u8>, said: &str) {
    // Looking at all of it, without stopping at the first, is what the compiler makes quick.
    let odd = said.bytes().fold(false, |odd, b| odd | (b < b' ') | (b == b'"') | (b == b'\\'));
    if !odd {
        text(body, "\"");
        text(body, said);
        return text(body, "\"");
    }
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(body, said);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Shown<'static> = Shown {
        site: "lamdong",
        at: "2023-09-15T08:19:00+07:00",
        buckets: r#"{"day":"2023-09-15","week":"2023-W37","month":"2023-09","year":"2023"}"#,
    };

    fn counters(online: u64, figures: &Figures, page: Option<&PageShown<'_>>, stale: bool) -> Vec<u8> {
        let mut body = Vec::new();
        site_counters(&mut body, &SHOWN, online, figures);
        page_counters(&mut body, page, stale);
        body
    }

    fn figures() -> Figures {
        Figures {
            views: [Some(61); 5],
            visits: [Some(61), Some(10194), Some(53796), Some(634_758), Some(1_316_717)],
            visitors: [Some(61); 5],
            changed_ms: 0,
        }
    }

    #[test]
    fn counters_are_the_described_body_to_the_byte() {
        let page = PageShown { page: "/bai-viet/1.html", online: 2, views: Some([1, 1, 1, 1, 13]) };
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
        let some = Figures { views: [None, Some(2), None, None, Some(0)], ..Figures::default() };
        let body = counters(0, &some, None, true);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["views"], serde_json::json!({"week": 2, "all": 0}));
        assert!(body.get("visits").is_none() && body.get("visitors").is_none() && body.get("page").is_none());
        assert_eq!(body["stale"], true);
    }

    #[test]
    fn pages_keep_order_and_duplicates_and_escape_what_needs_it() {
        let texts = ["/b", "/a\"\\\u{1}\u{2028}é", "/b"];
        let shown = texts.iter().map(|page| PageShown {
            page,
            online: 1,
            views: (*page == "/b").then_some([1, 2, 3, 4, 5]),
        });
        let body = pages(&SHOWN, shown, false);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let items = body["pages"].as_array().unwrap();
        assert_eq!(items.iter().map(|item| item["page"].as_str().unwrap()).collect::<Vec<_>>(), texts);
        assert_eq!(items[0]["views"]["all"], 5);
        assert!(items[1].get("views").is_none());
        assert_eq!(body["buckets"]["week"], "2023-W37");
        assert!(body.get("online").is_none());
    }

    #[test]
    fn no_pages_are_an_empty_list() {
        let body: serde_json::Value = serde_json::from_slice(&pages(&SHOWN, [].into_iter(), false)).unwrap();
        assert_eq!(body["pages"], serde_json::json!([]));
    }
}
