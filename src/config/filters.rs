//! Reads who is left out of a site's totals, who is limited, and who may read them.

use super::faults::Complaint;
use super::reader::ConfigReader;
use super::values::{self, Read, or_complaint, text_if};
use crate::ingest::{MAX_PAGE, Page, Rate, Rates, Robots};
use crate::sites::{Excluded, Filter, Honour, PageRules, ReadKind, Readers, RobotRule, SiteId};

impl ConfigReader {
    /// How often a client is taken.
    pub(super) fn limits(&mut self) -> Rates {
        let mut rate = |key| Rate::a_minute(self.number(key, 0, 1_000_000));
        Rates {
            visitor: rate("limits.visitor"),
            address: rate("limits.address"),
            new_pages: rate("limits.new_pages"),
            site_pages: Rate::of_site(0),
            exempt: self.list("limits.exempt", values::network),
        }
    }

    /// Whom a site leaves out.
    pub(super) fn filter(&mut self, place: usize, pages: &PageRules) -> Filter {
        let name = |key: &str| format!("site.{place}.{key}");
        Filter {
            robots: self.choice(&name("robots"), &RobotRule::WORDS),
            robots_allow: self.list(&name("robots_allow"), agent_word),
            addresses: self.list(&name("exclude_addresses"), values::network),
            pages: self.list(&name("exclude_pages"), |text| excluded(text, pages)),
            honour_as: self.choice(&name("honour_as"), &Honour::WORDS),
        }
    }

    /// Who may read a site.
    pub(super) fn readers(&mut self, place: usize) -> Readers {
        let name = |key: &str| format!("site.{place}.{key}");
        let public = self.list(&name("public"), |text| values::choice(text, &ReadKind::WORDS));
        let kept = ReadKind::WORDS.map(|(_, kind)| kind).into_iter().filter(|kind| !public.contains(kind));
        Readers { kept: kept.collect(), tokens: self.list(&name("read_tokens"), values::token_hash) }
    }
}

/// A word of user agents: long enough to mean somebody.
pub(super) fn agent_word(text: &str) -> Read<String> {
    let good = (3..=64).contains(&text.len()) && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    let remedy = r#"write a word of the user agent, like "MyApp/""#;
    text_if(text, good, format!("{text:?} is not 3 to 64 characters of a user agent"), remedy)
}

/// Words by which robots are known, besides those of this service.
pub(super) fn robots(words: &[String]) -> Read<Robots> {
    words.iter().try_for_each(|word| agent_word(word).map(drop))?;
    Robots::new(words).or_else(|problem| Complaint::err(problem, "write words that only robots have"))
}

/// Pages that a site leaves out, as it names them.
pub(super) fn excluded(text: &str, rules: &PageRules) -> Read<Excluded> {
    let (begin, star) = text.strip_suffix('*').map_or((text, ""), |begin| (begin, "*"));
    // With a letter at its end, what is before the star keeps its slash.
    let letter = if star.is_empty() { "" } else { "x" };
    let page = Page::normalise(SiteId(0), rules, &format!("{begin}{letter}"));
    let named = page.as_str().strip_suffix(letter).filter(|_| begin.starts_with('/') && !begin.contains('*'));
    let short = named.filter(|_| begin.len() < MAX_PAGE / 3);
    let remedy = r#"write a path, like "/admin" or, for all that begin so, "/admin/*""#;
    let problem = format!("{text:?} is not a page, or one with a star at its end");
    or_complaint(short.map(|named| Excluded(format!("{named}{star}"))), problem, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluded_pages_are_named_as_pages_are() {
        let rules = PageRules { case: crate::sites::PageCase::Fold, ..PageRules::default() };
        for (written, covered, not) in [
            ("/admin/*", "/admin", "/administration"),
            ("/admin/*", "/admin/a/b", "/"),
            ("/Admin//x/*", "/admin/x/y", "/admin/y"),
            ("/tin-*", "/tin-1/2", "/tin/1"),
            ("/xem/", "/xem", "/xem/1"),
            ("/qu%E1%BA%A3n-tr%E1%BB%8B", "/quản-trị", "/quản-trị/1"),
            ("/*", "/a", "(other)"),
            ("/*", "/", "(other)"),
            ("/", "/", "/a"),
        ] {
            let excluded = excluded(written, &rules).unwrap();
            assert!(excluded.covers(covered) && !excluded.covers(not), "{written}: {excluded}");
        }
        for wrong in ["", "admin", "*", "/*/a", "/a**", "https://bao.vn/a", &format!("/{}", "a".repeat(200))]
        {
            assert!(excluded(wrong, &rules).is_err(), "{wrong}");
        }
    }
}
