//! HTML from texts and templates.

use std::borrow::Cow;

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

/// A template with a text in place of each name in braces. The texts themselves are not searched for names.
pub fn filled(template: &str, texts: &[(&str, &str)]) -> String {
    let length: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let mut html = String::with_capacity(template.len() + length);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        html.push_str(before);
        html.push_str(texts.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text));
        rest = after;
    }
    html + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_and_what_is_put_in_stays_as_it_is() {
        let html = filled("<b>{a}</b>{b}{a}{c}.", &[("a", "{b}"), ("b", "2")]);
        assert_eq!(html, "<b>{b}</b>2{b}.");
        assert_eq!(filled("plain", &[]), "plain");
    }
}
