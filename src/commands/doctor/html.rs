//! The lines of the page script in the HTML of a page.

use std::collections::BTreeMap;

/// A tag of a page.
pub struct Tag<'a> {
    /// As it is written.
    pub text: &'a str,
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

impl Tag<'_> {
    pub fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }
}

/// The tags of a page that begin an element, but for what stands in comments and scripts.
pub fn tags(html: &str) -> Vec<Tag<'_>> {
    let (mut found, mut rest) = (Vec::new(), html);
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        if rest.starts_with("<!--") {
            rest = rest.find("-->").map_or("", |end| &rest[end..]);
        } else if let Some((tag, after)) = tag(rest) {
            rest =
                if tag.name == "script" { after.find("</").map_or("", |end| &after[end..]) } else { after };
            found.push(tag);
        } else {
            rest = &rest[1..];
        }
    }
    found
}

/// The tag that a text begins with, and what follows it.
fn tag(text: &str) -> Option<(Tag<'_>, &str)> {
    let is_end = |c: char| c.is_ascii_whitespace() || c == '/' || c == '>';
    let name_end = text
        .find(is_end)
        .filter(|end| *end > 1 && text[1..].starts_with(|c: char| c.is_ascii_alphabetic()))?;
    let name = text[1..name_end].to_ascii_lowercase();
    let (mut attributes, mut rest) = (BTreeMap::new(), &text[name_end..]);
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return Some((Tag { text: &text[..text.len() - after.len()], name, attributes }, after));
        }
        let end = rest.find(|c: char| is_end(c) || c == '=')?;
        let (name, after) = rest.split_at(end.max(1));
        let after_name = after.trim_start();
        let (value, after) = match after_name.strip_prefix('=').map(str::trim_start) {
            None => ("", after),
            Some(value) => match value.chars().next().filter(|quote| matches!(quote, '"' | '\'')) {
                Some(quote) => value[1..].split_once(quote)?,
                None => value.split_at(value.find(|c: char| c.is_ascii_whitespace() || c == '>')?),
            },
        };
        attributes.entry(name.to_ascii_lowercase()).or_insert_with(|| value.replace("&amp;", "&"));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_found_as_browsers_find_them() {
        let html = "<!-- <script src=no></script> --><HEAD><link rel='canonical' href=/a?x=1&amp;y=2>\
            <script>if (a<b) document.write('<script src=no>')</script>\
            <script defer src=\"https://s/footfall.js\"\n data-site = demo data-localhost></script>a < b <i/>";
        let found: Vec<String> = tags(html)
            .iter()
            .map(|tag| {
                let pairs = tag.attributes.iter().map(|(name, value)| format!(" {name}={value}"));
                tag.name.clone() + &pairs.collect::<String>()
            })
            .collect();
        let line = "script data-localhost= data-site=demo defer= src=https://s/footfall.js";
        assert_eq!(found, ["head", "link href=/a?x=1&y=2 rel=canonical", "script", line, "i"]);
    }

    proptest! {
        #[test]
        fn anything_is_read(html in "[<>/!a= \"'đ-]{0,60}") {
            let _ = tags(&html);
        }
    }
}
