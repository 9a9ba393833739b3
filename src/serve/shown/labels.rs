//! The labels of the footer block by language, and how a language writes its figures. Which labels and
//! languages there are is configuration: `[labels.*]` of `config/footfall.toml`.

/// The labels of a language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
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

/// A number with its digits in groups of three: 10194 as `10.194`.
pub fn grouped(number: u64, group: &str) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * group.len());
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push_str(group);
        }
        text.push(digit);
    }
    text
}

impl Labels {
    /// A figure as the language writes it.
    pub fn grouped(&self, figure: u64) -> String {
        grouped(figure, &self.group)
    }
}

/// The labels of every language.
#[derive(Clone, Debug)]
pub struct Languages {
    /// Of some languages.
    pub known: Vec<Labels>,
    /// Of every other language.
    pub fallback: Labels,
}

impl Languages {
    /// The labels of a language, or of what its tag begins with: `vi-VN` is `vi`.
    pub fn find(&self, locale: &str) -> Option<&Labels> {
        let mut tag = locale;
        loop {
            let found = self.known.iter().find(|labels| labels.tag.eq_ignore_ascii_case(tag));
            match (found, tag.rfind('-')) {
                (Some(labels), _) => return Some(labels),
                (None, Some(end)) => tag = tag.get(..end)?,
                (None, None) => return None,
            }
        }
    }

    /// The labels of the language asked for, else of the site's, else the fallback's.
    pub fn of(&self, asked: Option<&str>, locale: &str) -> &Labels {
        asked.and_then(|asked| self.find(asked)).or_else(|| self.find(locale)).unwrap_or(&self.fallback)
    }
}

#[cfg(test)]
pub mod tests;
