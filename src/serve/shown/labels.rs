//! The words of the footer block by language, and how a language writes its figures. Which words and
//! languages there are is configuration: `[labels.*]` of `config/footfall.toml`.

/// The words of a language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The language, a BCP 47 tag.
    pub tag: String,
    /// Stands above the block.
    pub title: String,
    /// Visits of all time: read aloud and on badges, the block shows their number alone.
    pub total: String,
    /// Visitors online.
    pub online: String,
    /// Of today.
    pub day: String,
    /// Of this week.
    pub week: String,
    /// Of this month.
    pub month: String,
    /// Of this year.
    pub year: String,
    /// Views of a page.
    pub views: String,
    /// Stands between groups of three digits; may be empty.
    pub group: String,
}

impl Words {
    /// A figure with its digits in groups: 10194 as `10.194`.
    pub fn grouped(&self, figure: u64) -> String {
        let digits = figure.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3 * self.group.len());
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push_str(&self.group);
            }
            text.push(digit);
        }
        text
    }
}

/// The words of every language.
#[derive(Clone, Debug)]
pub struct Languages {
    known: Vec<Words>,
    fallback: Words,
}

impl Languages {
    /// Takes the words of some languages, and those to be used where a language is not among them.
    pub fn new(known: Vec<Words>, fallback: Words) -> Self {
        Languages { known, fallback }
    }

    /// The words of a language, or of what its tag begins with: `vi-VN` is `vi`.
    pub fn find(&self, locale: &str) -> Option<&Words> {
        let mut tag = locale;
        loop {
            let found = self.known.iter().find(|words| words.tag.eq_ignore_ascii_case(tag));
            match (found, tag.rfind('-')) {
                (Some(words), _) => return Some(words),
                (None, Some(end)) => tag = tag.get(..end)?,
                (None, None) => return None,
            }
        }
    }

    /// The words of the language asked for, else of the site's, else the fallback's.
    pub fn of(&self, asked: Option<&str>, locale: &str) -> &Words {
        asked.and_then(|asked| self.find(asked)).or_else(|| self.find(locale)).unwrap_or(&self.fallback)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn words(tag: &str, group: &str) -> Words {
        let word = |name: &str| format!("{tag} {name}");
        Words {
            tag: tag.to_owned(),
            title: word("title"),
            total: word("total"),
            online: word("online"),
            day: word("day"),
            week: word("week"),
            month: word("month"),
            year: word("year"),
            views: word("views"),
            group: group.to_owned(),
        }
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (figure, shown) in [
            (0, "0"),
            (61, "61"),
            (999, "999"),
            (10_194, "10.194"),
            (634_758, "634.758"),
            (1_316_717, "1.316.717"),
            (u64::MAX, "18.446.744.073.709.551.615"),
        ] {
            assert_eq!(words("vi", ".").grouped(figure), shown);
        }
        assert_eq!(words("fr", "\u{202f}").grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(words("x", "").grouped(1_234_567), "1234567");
    }

    #[test]
    fn a_tag_is_found_by_what_it_begins_with() {
        let languages =
            Languages::new(vec![words("en", ","), words("vi", "."), words("pt-BR", ".")], words("en", ","));
        let of = |asked, locale| languages.of(asked, locale).tag.as_str();
        assert_eq!(of(None, "vi-VN"), "vi");
        assert_eq!(of(None, "VI-x-lamdong"), "vi");
        assert_eq!(of(None, "pt-br"), "pt-BR");
        assert_eq!(of(None, "pt"), "en");
        assert_eq!(of(Some("en-GB"), "vi"), "en");
        assert_eq!(of(Some("de"), "vi"), "vi", "what is asked for and not known is the site's own");
        assert_eq!(of(Some("é-"), "de"), "en");
    }
}
