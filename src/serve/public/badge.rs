//! `/badge/{site}.svg`: one figure as an image, for pages that take no more than that.
//!
//! `?total=` (`visits`, `views`, `visitors`, `online`) and `period=` choose the figure, `page=` that of a
//! page (`views` and `online`), `label=` what stands beside it, `lang=` the language.

use std::sync::Arc;

use url::form_urlencoded;

use super::context::{ReadRequest, Reply};
use super::known::SiteRead;
use crate::calendar::Period;
use crate::ingest::Reason;
use crate::serve::answer::{self, Fault, Response, html::escaped};
use crate::serve::shown::{figure::Figure, labels::Labels};
use crate::sites::Site;

/// Most characters of a label; a longer one is cut.
const MAX_LABEL: usize = 64;

/// Space beside a text, pixels.
const MARGIN: usize = 7;

#[derive(Debug, PartialEq, Eq)]
struct BadgeRequest {
    figure: Figure,
    label: Option<String>,
    lang: Option<String>,
}

impl BadgeRequest {
    fn read(query: &str, of_page: bool) -> Result<BadgeRequest, Reason> {
        let (mut total, mut period) = (if of_page { "views" } else { "visits" }.to_owned(), "all".to_owned());
        let (mut label, mut lang) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "total" => total = value.into_owned(),
                "period" => period = value.into_owned(),
                "label" => label = Some(value.chars().take(MAX_LABEL).collect()),
                "lang" => lang = Some(value.into_owned()),
                _ => {}
            }
        }
        let page = if of_page { "page." } else { "" };
        let name =
            if total == "online" { format!("{page}online") } else { format!("{page}{total}.{period}") };
        let figure = Figure::named(&name).filter(|_| !total.contains('.')).ok_or(Reason::Malformed)?;
        Ok(BadgeRequest { figure, label, lang })
    }

    /// What stands beside the figure: the label asked for, else what the block would call it.
    fn label<'a>(&'a self, labels: &'a Labels) -> &'a str {
        if let Some(label) = &self.label {
            return label;
        }
        match self.figure {
            Figure::Online | Figure::PageOnline => &labels.online,
            Figure::Views(Period::All) | Figure::PageViews(Period::All) => &labels.views,
            Figure::Views(of) | Figure::Visits(of) | Figure::Visitors(of) | Figure::PageViews(of) => match of
            {
                Period::Day => &labels.day,
                Period::Week => &labels.week,
                Period::Month => &labels.month,
                Period::Year => &labels.year,
                Period::Hour | Period::All => &labels.total,
            },
        }
    }
}

pub fn badge(request: ReadRequest<'_>, site: &Arc<Site>) -> Result<Reply, Fault> {
    let query = request.query();
    let read = SiteRead::of(request, site)?;
    let asked = BadgeRequest::read(query, read.page.is_some())?;
    Ok(read.once_known(move |read| show(read, &asked)))
}

fn show(read: SiteRead, asked: &BadgeRequest) -> Response {
    let current = read.current_figures();
    let lists = read.public.parts.lists.load();
    let labels = lists.languages.of(asked.lang.as_deref(), &read.site.locale);
    let figure = current.of(asked.figure);
    // A figure that is not known is a dash, so that the image keeps its place.
    let text = figure.map_or_else(|| "–".to_owned(), |figure| labels.grouped(figure));
    let image = drawn(asked.label(labels), &text, &labels.tag);
    let cache = if current.stale || figure.is_none() { answer::NO_STORE } else { answer::HALF_A_MINUTE };
    let response = answer::unless_held(read.headers, image.into(), answer::SVG, cache);
    // Opened by itself an image is a document.
    answer::shared(answer::guarded(response, answer::NO_SOURCES))
}

/// The image: the label on grey, the figure on green, in white letters with enough contrast on both.
fn drawn(label: &str, shown: &str, lang: &str) -> String {
    let (left, right) = (width(label), width(shown));
    let (label_width, shown_width) = (left + 2 * MARGIN, right + 2 * MARGIN);
    let all = label_width + shown_width;
    let (label, shown, lang) = (escaped(label), escaped(shown), escaped(lang));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" role=\"img\" xml:lang=\"{lang}\" \
         aria-label=\"{label}: {shown}\"><title>{label}: {shown}</title>\
         <rect width=\"{all}\" height=\"20\" rx=\"3\" fill=\"#1a7046\"/>\
         <path d=\"M3 0h{edge}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z\" fill=\"#4a4a4a\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{label_at}\" y=\"14\">{label}</text>\
         <text x=\"{shown_at}\" y=\"14\">{shown}</text></g></svg>\n",
        edge = label_width.saturating_sub(3),
        label_at = label_width / 2,
        shown_at = label_width + shown_width / 2,
    )
}

/// About the width of a text in the badge's letters, pixels. It is drawn in the middle of that, as wide as it is.
fn width(text: &str) -> usize {
    let tenths = text.chars().map(|c| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | 'I' | ' ' => 38,
        'm' | 'w' | 'M' | 'W' => 98,
        'A'..='Z' => 75,
        // Accents on the letter before.
        '\u{300}'..='\u{36f}' => 0,
        '\u{1100}'.. if !('\u{1e00}'..='\u{2fff}').contains(&c) => 110,
        _ => 67,
    });
    tenths.sum::<usize>().div_ceil(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::shown::labels::tests::labels;

    #[test]
    fn a_figure_is_chosen_by_total_and_period() {
        let figure = |query, of_page| BadgeRequest::read(query, of_page).map(|asked| asked.figure);
        let named = |name| Ok(Figure::named(name).unwrap());
        assert_eq!(figure("", false), named("visits.all"));
        assert_eq!(figure("total=online&period=day", false), named("online"));
        assert_eq!(figure("total=views&period=week", false), named("views.week"));
        assert_eq!(figure("page=/a", true), named("page.views.all"));
        assert_eq!(figure("total=online", true), named("page.online"));
        for (wrong, of_page) in [
            ("total=hits", false),
            ("period=hour", false),
            ("total=page.views", false),
            ("total=visits", true),
        ] {
            assert_eq!(figure(wrong, of_page), Err(Reason::Malformed), "{wrong}");
        }
    }

    #[test]
    fn its_label_is_bounded_and_stays_text() {
        let asked = BadgeRequest::read(&format!("label={}", "x".repeat(1000)), false).unwrap();
        assert_eq!(asked.label(&labels("en", ",")).len(), MAX_LABEL);
        let image = drawn("</title><script>alert(1)</script>\" onload=\"x", "1", "en");
        assert!(!image.contains("<script") && !image.contains("\" onload"), "{image}");
        assert!(image.contains("aria-label=\"&lt;/title&gt;&lt;script&gt;"), "{image}");
    }

    #[test]
    fn it_says_what_it_shows() {
        let image = drawn("Tổng lượt truy cập", "1.316.717", "vi");
        assert!(image.contains("role=\"img\""));
        assert!(image.contains("<title>Tổng lượt truy cập: 1.316.717</title>"));
        assert!(
            !image.contains("textLength") && image.contains("text-anchor=\"middle\""),
            "no letter is stretched"
        );
        assert_eq!(width("T\u{1ed5}ng"), width("To\u{302}\u{309}ng"), "however its marks are written");
    }
}
