//! The beacon's shape on the wire.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use super::reason::{Cause, Reason, Refusal};

/// The longest `id` and `visitor`, characters.
const MAX_NAME: usize = 64;

words! {
    /// What kind of sign a beacon is.
    #[derive(Default)]
    pub enum Kind {
        /// The page was shown.
        #[default]
        View = "view",
        /// It is still being read.
        Ping = "ping",
        /// It was left.
        Leave = "leave",
    }
}

/// What a beacon's sender said, before it is decided: the body of the POST or the query of the GIF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said<'a> {
    /// The site's key, if named.
    pub site: Option<Cow<'a, str>>,
    /// The page's URL or path.
    pub url: Cow<'a, str>,
    /// View where not said.
    pub kind: Kind,
    /// Names this page view; 1 to 64 characters (an empty one is none).
    pub id: Option<Cow<'a, str>>,
    /// The browser's id; 1 to 64 characters (an empty one is none).
    pub visitor: Option<Cow<'a, str>>,
    /// Whether it asks to be answered with the figures of the site and its page.
    pub counters: bool,
    /// Whether the reader agreed to be counted.
    pub consent: bool,
    /// Whether it asks what would become of it, and counts nothing.
    pub dry_run: bool,
}

/// The members of a beacon: name, whether it is a text (or else true or false), and what it must be.
const MEMBERS: [(&str, bool, &str); 8] = [
    ("site", true, "the key of a site, or left out"),
    ("url", true, "there, once: the URL of the page, or its path"),
    ("kind", true, "view, ping or leave"),
    ("id", true, "a text of at most 64 characters"),
    ("visitor", true, "a text of at most 64 characters"),
    ("answer", true, "counters, or left out"),
    ("consent", false, "true or false"),
    ("dry_run", false, "true or false"),
];

/// The refusal of a member that is not as it must be.
fn malformed(member: &str) -> Refusal {
    let must_be = MEMBERS.iter().find(|(name, ..)| *name == member).map(|(.., must_be)| must_be);
    let cause = Cause::named(member, |name| match must_be {
        Some(must_be) => format!("{name} must be {must_be}."),
        None => format!("The {name} must be one JSON object in UTF-8."),
    });
    Refusal { cause: Some(cause), ..Reason::Malformed.into() }
}

impl<'a> Said<'a> {
    /// Reads the JSON body of `POST /api/v1/beacon`. A member that is null counts as absent, unknown ones are
    /// ignored. `malformed`: not UTF-8, not a JSON object of these members and types, or a member twice.
    pub fn from_json(body: &'a [u8]) -> Result<Self, Refusal> {
        let body = std::str::from_utf8(body).map_err(|_| malformed(BODY))?;
        let members = Members::plain(body).or_else(|| Members::parsed(body));
        members.ok_or_else(|| malformed(wrong_member(body)))?.checked()
    }

    /// Reads the query of `GET /api/v1/beacon.gif`; always a view. `malformed`: no `url`, an `id` or `visitor`
    /// that is too long, a name twice, or text that is not UTF-8.
    pub fn from_query(query: &'a str) -> Result<Self, Refusal> {
        let mut members = Members::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (member, slot) = match form_decoded(name).as_deref() {
                Some("site") => ("site", &mut members.site),
                Some("url") => ("url", &mut members.url),
                Some("id") => ("id", &mut members.id),
                Some("visitor") => ("visitor", &mut members.visitor),
                Some("consent") => {
                    members.consent = Some(value == "true");
                    continue;
                }
                _ => continue,
            };
            let decoded = if name == "url" { url_decoded(value) } else { form_decoded(value) };
            let value = decoded.ok_or_else(|| malformed(member))?;
            if slot.replace(Text(value)).is_some() {
                return Err(malformed(member));
            }
        }
        members.checked()
    }
}

/// Decodes `application/x-www-form-urlencoded`; none if the result is not UTF-8.
fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(text.into());
    }
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(|decoded| decoded.into_owned().into())
}

/// Decodes the URL of a page, whose query and fragment need not be UTF-8: no page is made of such.
fn url_decoded(text: &str) -> Option<Cow<'_, str>> {
    let end = ["?", "#", "%3f", "%3F", "%23"].iter().filter_map(|mark| text.find(mark)).min();
    form_decoded(text).or_else(|| form_decoded(text.get(..end?)?))
}

/// The members as they were sent.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    site: Option<Text<'a>>,
    url: Option<Text<'a>>,
    kind: Option<Text<'a>>,
    id: Option<Text<'a>>,
    visitor: Option<Text<'a>>,
    answer: Option<Text<'a>>,
    consent: Option<bool>,
    dry_run: Option<bool>,
}

/// What is malformed where no member is.
const BODY: &str = "body";

/// Which member of a body that is not read is not as it must be.
fn wrong_member(body: &str) -> &'static str {
    let fault = serde_json::from_str::<Members<'_>>(body).map_err(|fault| fault.to_string()).err();
    let is_twice =
        |name: &str| fault.as_ref().is_some_and(|f| f.starts_with(&format!("duplicate field `{name}`")));
    let said: serde_json::Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
    let is_wrong = |name: &str, is_text: bool| match said.get(name) {
        None | Some(Value::Null) => false,
        Some(value) => !(if is_text { value.is_string() } else { value.is_boolean() }),
    };
    let mut members = MEMBERS.into_iter();
    members
        .find(|(name, is_text, _)| is_twice(name) || is_wrong(name, *is_text))
        .map_or(BODY, |(name, ..)| name)
}

/// A string, borrowed from the body unless it has escapes. (Serde borrows a `Cow` only as a field, not inside
/// an `Option`.)
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Members<'a> {
    /// By the JSON parser, which refuses a member that comes twice. It would take an array for an object.
    fn parsed(body: &'a str) -> Option<Self> {
        body.trim_start().starts_with('{').then(|| serde_json::from_str(body).ok())?
    }

    /// The quick way for nearly every beacon: known members, each a string without escapes (or the consent, `true`),
    /// and no white space between them. None if it may be any other JSON.
    fn plain(body: &'a str) -> Option<Self> {
        // Without an early exit, the compiler makes this a few vector instructions.
        if body.bytes().fold(false, |odd, b| odd | (b < b' ') | (b == b'\\')) {
            return None;
        }
        let mut members = Members::default();
        let mut rest = body.strip_prefix('{')?;
        loop {
            let (name, value) = plain_string(rest)?;
            let value = value.strip_prefix(':')?;
            let after = if name == "consent" {
                let is_new = members.consent.replace(true).is_none();
                value.strip_prefix("true").filter(|_| is_new)?
            } else {
                let slot = match name {
                    "site" => &mut members.site,
                    "url" => &mut members.url,
                    "kind" => &mut members.kind,
                    "id" => &mut members.id,
                    "visitor" => &mut members.visitor,
                    "answer" => &mut members.answer,
                    _ => return None,
                };
                let (value, after) = plain_string(value)?;
                if slot.replace(Text(value.into())).is_some() {
                    return None;
                }
                after
            };
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => return (after == "}").then_some(members),
            }
        }
    }

    fn checked(self) -> Result<Said<'a>, Refusal> {
        let text = |member: Option<Text<'a>>| member.map(|text| text.0);
        let kind = text(self.kind).unwrap_or_else(|| Kind::View.word().into());
        let (_, kind) =
            Kind::WORDS.into_iter().find(|(word, _)| *word == kind).ok_or_else(|| malformed("kind"))?;
        let answer = text(self.answer);
        if answer.as_ref().is_some_and(|answer| answer != "counters") {
            return Err(malformed("answer"));
        }
        Ok(Said {
            site: text(self.site).filter(|site| !site.is_empty()),
            url: text(self.url).ok_or_else(|| malformed("url"))?,
            kind,
            id: named("id", text(self.id))?,
            visitor: named("visitor", text(self.visitor))?,
            counters: answer.is_some(),
            consent: self.consent == Some(true),
            dry_run: self.dry_run == Some(true),
        })
    }
}

/// A string without escapes at the start of a text, and what follows it.
fn plain_string(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let (string, rest) = text.split_at_checked(text.bytes().position(|b| b == b'"')?)?;
    Some((string, rest.strip_prefix('"')?))
}

/// An `id` or `visitor`: an empty one is none, a long one is refused.
fn named<'a>(member: &str, text: Option<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Refusal> {
    match text {
        Some(text) if text.len() > MAX_NAME && text.chars().count() > MAX_NAME => Err(malformed(member)),
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str) -> Result<(), TestCaseError> {
        if let Some(quick) = Members::plain(body) {
            prop_assert_eq!(Some(quick), Members::parsed(body), "{}", body);
        }
        Ok(())
    }

    fn said(body: &str) -> Result<Said<'_>, Refusal> {
        Said::from_json(body.as_bytes())
    }

    #[test]
    fn a_whole_beacon_is_borrowed() {
        let body = r#" {"site":"demo","url":"https://h/a","kind":"ping","id":"x1","visitor":"v","w":[{}]} "#;
        let said = said(body).unwrap();
        assert_eq!(said.site.as_deref(), Some("demo"));
        assert_eq!(said.kind, Kind::Ping);
        assert_eq!(said.id.as_deref(), Some("x1"));
        assert_eq!(said.visitor.as_deref(), Some("v"));
        assert!(matches!(said.url, Cow::Borrowed("https://h/a")));
    }

    #[test]
    fn what_may_be_left_out() {
        let bare = Said { url: "/a".into(), ..Said::default() };
        for body in [
            r#"{"url":"/a"}"#,
            r#"{"url":"\/\u0061","site":null,"kind":null,"id":null,"visitor":null}"#,
            r#"{"url":"/a","site":"","id":"","visitor":""}"#,
            r#"{"url":"/a","unknown":1,"unknown":{"url":"/b"}}"#,
            r#"{"url":"/a","answer":null,"consent":null}"#,
            r#"{"url":"/a","consent":false}"#,
        ] {
            assert_eq!(said(body).unwrap(), bare, "{body}");
        }
        assert_eq!(said(r#"{"url":"/a","kind":"leave"}"#).unwrap().kind, Kind::Leave);
        assert!(said(r#"{"url":"/a","answer":"counters"}"#).unwrap().counters);
        for body in [r#"{"consent":true,"url":"/a"}"#, r#"{"url":"/a", "consent": true}"#] {
            assert!(said(body).unwrap().consent, "{body}");
        }
    }

    #[test]
    fn what_is_malformed() {
        let long = format!(r#"{{"url":"/","id":"{}"}}"#, "é".repeat(65));
        let long_visitor = format!(r#"{{"url":"/","visitor":"{}"}}"#, "x".repeat(65));
        for (body, member) in [
            ("", "body"),
            ("null", "body"),
            ("[]", "body"),
            (r#"["demo","/a"]"#, "body"),
            (r#""/a""#, "body"),
            ("{}", "url"),
            (r#"{"url":null}"#, "url"),
            (r#"{"url":1}"#, "url"),
            (r#"{"url":["/a"]}"#, "url"),
            (r#"{"url":"/a","site":7}"#, "site"),
            (r#"{"url":"/a","kind":"View"}"#, "kind"),
            (r#"{"url":"/a","kind":""}"#, "kind"),
            (r#"{"url":"/a","kind":0}"#, "kind"),
            (r#"{"url":"/a","answer":"figures"}"#, "answer"),
            (r#"{"url":"/a","answer":true}"#, "answer"),
            (r#"{"url":"/a","consent":"true"}"#, "consent"),
            (r#"{"url":"/a","consent":1}"#, "consent"),
            (r#"{"url":"/a","consent":true,"consent":true}"#, "consent"),
            (r#"{"url":"/a","dry_run":"yes"}"#, "dry_run"),
            (r#"{"url":"/a","id":1}"#, "id"),
            (r#"{"url":"/a","visitor":{}}"#, "visitor"),
            (r#"{"url":"/a","url":"/a"}"#, "url"),
            (r#"{"url":"/a","id":null,"id":"x"}"#, "id"),
            (r#"{"url":"/a"} x"#, "body"),
            (r#"{"url":"/a",}"#, "body"),
            (r#"{"url":"\ud800"}"#, "body"),
            ("{'url':'/a'}", "body"),
            ("\u{feff}{\"url\":\"/a\"}", "body"),
            (&long, "id"),
            (&long_visitor, "visitor"),
        ] {
            assert_eq!(said(body), Err(malformed(member)), "{body}");
        }
        assert_eq!(Said::from_json(b"{\"url\":\"/\xff\"}"), Err(malformed("body")));
        assert_eq!(Said::from_json(b"{\"url\":\"/\",\"x\":\"\xff\"}"), Err(malformed("body")));
        let remedy = |member| malformed(member).cause.unwrap().remedy;
        assert_eq!(remedy("kind"), "kind must be view, ping or leave.");
        assert_eq!(remedy("body"), "The body must be one JSON object in UTF-8.");
    }

    #[test]
    fn an_id_of_64_characters_is_not_too_long() {
        let id = "é".repeat(64);
        let body = format!(r#"{{"url":"/","id":"{id}","visitor":"{id}"}}"#);
        let said = said(&body).unwrap();
        assert_eq!((said.id.as_deref(), said.visitor.as_deref()), (Some(id.as_str()), Some(id.as_str())));
    }

    #[test]
    fn the_query_of_the_gif() {
        let said = Said::from_query(
            "v=3&s%69te=demo&url=https%3A%2F%2Fh%2Fti%E1%BB%87n+ng%2B&id=7&visitor=v&kind=ping",
        );
        let said = said.unwrap();
        assert_eq!(said.site.as_deref(), Some("demo"));
        assert_eq!(said.url, "https://h/tiện ng+");
        assert_eq!((said.kind, said.id.as_deref()), (Kind::View, Some("7")));
        assert_eq!(said.visitor.as_deref(), Some("v"));
        let long = format!("url=/&id={}", "x".repeat(65));
        let long_visitor = format!("url=/&visitor={}", "x".repeat(65));
        for (query, member) in [
            ("", "url"),
            ("site=demo", "url"),
            ("url=/a&url=/b", "url"),
            ("url=%ff", "url"),
            ("url=/&id=%c3", "id"),
            ("url=/&site=%80", "site"),
            (&long, "id"),
            (&long_visitor, "visitor"),
        ] {
            assert_eq!(Said::from_query(query), Err(malformed(member)), "{query}");
        }
        assert!(Said::from_query("url=/a&_=%ff&x=1&x=2&").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_comes_through(url: String, id in proptest::option::of("\\PC{1,64}")) {
            let body = serde_json::json!({"url": url, "id": id}).to_string();
            let said = said(&body).unwrap();
            prop_assert_eq!(said.url.as_ref(), url.as_str());
            prop_assert_eq!(said.id.as_deref(), id.as_deref());
        }

        /// Wherever the quick way answers, it answers as the parser does.
        #[test]
        fn the_quick_way_is_the_parsers(
            open in "[{ ]?\\{?",
            pairs in prop::collection::vec(
                ("\"?(site|url|kind|id|visitor|answer|consent|x)\"?", "[:, ]{1,2}", "\"?(\\PC|[ \"\\\\/\t]|view|ping|counters){0,6}\"?", "[,} ]{0,2}"),
                0..4,
            ),
            close in "\\}? ?",
        ) {
            let pairs: String = pairs.into_iter().map(|(a, b, c, d)| a + &b + &c + &d).collect();
            check(&format!("{open}{pairs}{close}"))?;
        }

        #[test]
        fn a_plain_beacon_is_read_quickly(url in "[^\\p{Cc}\"\\\\]{0,40}", id in "[a-z0-9é]{0,9}", order: bool) {
            let (first, last) = (format!(r#""url":"{url}""#), format!(r#""id":"{id}""#));
            let body = if order { format!("{{{first},{last}}}") } else { format!("{{{last},{first}}}") };
            prop_assert!(Members::plain(&body).is_some(), "{}", body);
            check(&body)?;
        }

        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = Said::from_json(&body);
        }

        #[test]
        fn any_query_decodes_as_url_does(url in "\\PC{1,40}", id in "\\PC{0,40}") {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("url", &url)
                .append_pair("id", &id)
                .finish();
            let said = Said::from_query(&query).unwrap();
            prop_assert_eq!(said.url.as_ref(), url.as_str());
            prop_assert_eq!(said.id.as_deref().unwrap_or(""), id.as_str());
        }
    }
}
