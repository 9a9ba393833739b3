//! A page of figures for people: every site to operators, a single site to whoever has its token.
//!
//! The figures come from memory. The store is asked for the past of a site where it is not known or old, by
//! one reader for all. The page fetches its figures anew every few seconds and puts in what has changed.

pub mod health;
mod plots;

use chrono::NaiveDate;
use hyper::Uri;
use hyper::header::HeaderValue;
use url::form_urlencoded;

use self::plots::{bars, grouped};
use super::answer::{
    self, Response,
    html::{escaped, filled},
};
use super::parts::Parts;
use crate::calendar::CivilHour;
use crate::clock::Moment;
use crate::ingest::{Page, Reason};
use crate::random;
use crate::sites::Site;
use crate::totals::{Figures, Recent, Sums};

const PAGE: &str = include_str!("page.html");
const CSS: &str = include_str!("overview.css");
const JS: &str = include_str!("overview.js");

/// Whether the past of a site is not known, or is old.
pub fn is_due(parts: &Parts, site: &Site) -> bool {
    parts.totals.recent(site.id, parts.clock.now()).is_none_or(|(_, old)| old)
}

/// Asks the store where the past of a site is due.
pub async fn know(parts: &Parts, site: &Site) {
    if is_due(parts, site) {
        parts.totals.fetch_recent(site.id).await;
    }
}

/// Whether a request asks for the figures alone, as the page does to renew itself.
pub fn is_part(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "part" && value == "figures")
}

/// The whole page, or its figures alone, as `page` answers it on its listener.
pub fn answer(
    page: fn(String) -> Response,
    is_part: bool,
    [title, heading, figures, footer]: [&str; 4],
) -> Response {
    if is_part {
        return page(figures.to_owned());
    }
    let nonce = random::id() + &random::id();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let texts = [
        ("title", title),
        ("heading", heading),
        ("nonce", &nonce),
        ("css", CSS),
        ("js", JS),
        ("figures", figures),
        ("footer", footer),
    ];
    let policy = HeaderValue::try_from(policy).unwrap_or(answer::NO_SOURCES);
    answer::guarded(page(filled(PAGE, &texts)), policy)
}

pub fn section(parts: &Parts, site: &Site) -> String {
    let now = parts.clock.now();
    let figures = parts.totals.look(site.id, now).figures();
    let past = parts.totals.recent(site.id, now).map(|(past, _)| past);
    let key = &site.key;
    let home = site.hosts.first().map_or("", String::as_str);
    let time = site.calendar.rfc3339(now.unix_ms);
    let day = time.get(..10).unwrap_or_default();
    let mut html = format!(
        "<section class=\"site\" id=\"site-{key}\" aria-labelledby=\"name-{key}\">\
         <h2 id=\"name-{key}\">{key}</h2><p class=\"where\">{} · {day}, {}</p>",
        escaped(home),
        escaped(site.calendar.zone.name())
    );
    html += &tiles(parts.sessions.online(site.id, now), &figures, past.as_ref());
    if figures.views.all == Some(0) {
        let lines = parts.names.lines(&parts.base, site);
        html += "<p class=\"quiet\">No view has been counted yet. Put this into the head of every page:</p>";
        html += &format!("<pre>{}</pre>", escaped(&lines));
    }
    match &past {
        Some(past) => {
            html += &plots(key.as_str(), past);
            html += &most_read(parts, site, past, now, figures.views.day.is_some_and(|views| views > 0));
        }
        None => {
            html += "<p class=\"quiet\">The hours, days and pages of this site are not known yet: the store \
                has not told of them.</p>";
        }
    }
    html += &sums(&figures);
    html += &left_out(&figures);
    html + "</section>\n"
}

fn tile(label: &str, figure: Option<u64>, beside: &str) -> String {
    format!(
        "<div><dt>{label}</dt><dd><div class=\"n\">{}</div><div class=\"by\">{beside}</div></dd></div>",
        grouped(figure)
    )
}

/// Online now, and today against yesterday.
fn tiles(online: u64, figures: &Figures, past: Option<&Recent>) -> String {
    let beside = |of: fn(&Sums) -> u64| past.map_or(String::new(), |past| against(past, of));
    format!(
        "<dl class=\"tiles\">{}{}{}{}</dl>",
        tile("Online now", Some(online), ""),
        tile("Views today", figures.views.day, &beside(|sums| sums.views)),
        tile("Visits today", figures.visits.day, &beside(|sums| sums.visits)),
        tile("Visitors today", figures.visitors.day, about_visitors(figures)),
    )
}

/// Today's complete hours beside the same hours of yesterday, and all of yesterday.
fn against(past: &Recent, of: fn(&Sums) -> u64) -> String {
    let Some((running, _)) = past.hours.last() else { return String::new() };
    let yesterday = past.days.iter().rev().nth(1).map_or(0, |(_, sums)| of(sums));
    let yesterday = format!("yesterday {}", grouped(yesterday));
    let over = |today: bool| -> u64 {
        let hours = past.hours.iter().filter(|(hour, _)| (hour.day == running.day) == today);
        hours.filter(|(hour, _)| hour.hour < running.hour).map(|(_, sums)| of(sums)).sum()
    };
    if running.hour == 0 {
        return yesterday;
    }
    let (now, before) = (over(true), over(false));
    let change = change(now, before);
    let (now, before) = (grouped(now), grouped(before));
    format!("{change}{now} by {:02}:00<br>yesterday {before} by then<br>{yesterday} in all", running.hour)
}

/// The change from `before` to `now` in percent; nothing where there was nothing before.
fn change(now: u64, before: u64) -> String {
    if before == 0 {
        return String::new();
    }
    let percent = ((now as f64 / before as f64 - 1.0) * 100.0).round();
    let (class, sign) = match percent {
        more if more > 0.0 => ("up", "+"),
        less if less < 0.0 => ("down", "−"),
        _ => ("same", "±"),
    };
    format!("<span class=\"{class}\">{sign}{}\u{a0}%</span><br>", grouped(percent.abs() as u64))
}

/// The last 24 hours and 30 days.
fn plots(key: &str, past: &Recent) -> String {
    let named = |hour: &CivilHour| format!("{} {:02}:00", hour.day.format("%-d %b"), hour.hour);
    let from = past.hours.len().saturating_sub(24);
    let hours: Vec<_> = past.hours.iter().skip(from).map(|(hour, sums)| (named(hour), sums)).collect();
    let named = |day: &NaiveDate| day.format("%a %-d %b").to_string();
    let days: Vec<_> = past.days.iter().map(|(day, sums)| (named(day), sums)).collect();
    format!(
        "<div class=\"plots\">{}{}</div>",
        bars(&format!("hours-{key}"), "Last 24 hours", "Hour", &hours),
        bars(&format!("days-{key}"), "Last 30 days", "Day", &days)
    )
}

/// The pages that were read most today, with their figures of now. The store tells which they are; it may not
/// have them yet though there `are_any`.
fn most_read(parts: &Parts, site: &Site, past: &Recent, now: Moment, are_any: bool) -> String {
    let mut look = parts.totals.look(site.id, now);
    let pages = past.most_read.iter().map(|text| Page::trusted(site.id, text));
    let known = pages.filter_map(|page| look.page(&page).map(|views| (page, views.day)));
    let mut rows: Vec<(Page, u64)> = known.collect();
    drop(look);
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_str().cmp(b.0.as_str())));
    let mut html = "<div class=\"most\"><h3>Most read today</h3>".to_owned();
    if rows.is_empty() {
        let why = match are_any {
            true => "Today's pages follow once the store has them.",
            false => "No page has been read yet.",
        };
        return html + &format!("<p class=\"quiet\">{why}</p></div>");
    }
    html += "<ol>";
    for (page, views) in rows {
        let online = parts.sessions.page_online(&page, now);
        let online = if online > 0 { format!("{} online", grouped(online)) } else { String::new() };
        let (page, views) = (escaped(page.as_str()), grouped(views));
        html += &format!(
            "<li><bdi class=\"p\">{page}</bdi> <span class=\"o\">{online}</span> <b>{views}</b></li>"
        );
    }
    html + "</ol></div>"
}

/// What stands beside the visitors of the day; where there are more of them than visits, why.
fn about_visitors(figures: &Figures) -> &'static str {
    match figures.visitors.day > figures.visits.day {
        true => "an estimate; with visits begun before midnight, or without room among the sessions",
        false => "an estimate",
    }
}

/// Visits of the longer periods.
fn sums(figures: &Figures) -> String {
    let visits = &figures.visits;
    let sum = |visits, label| format!("<span><b>{}</b> visits {label}</span> ", grouped(visits));
    format!(
        "<p class=\"sums\">{}{}{}{}</p>",
        sum(visits.week, "this week"),
        sum(visits.month, "this month"),
        sum(visits.year, "this year"),
        sum(visits.all, "since the beginning")
    )
}

/// Views of today that were left out, by reason; nothing where there are none.
fn left_out(figures: &Figures) -> String {
    let reasons = Reason::FILTERED.into_iter().zip(figures.filtered).filter(|(_, views)| *views > 0);
    let each =
        |(reason, views): (Reason, u64)| format!("<span><b>{}</b> {}</span> ", grouped(views), reason.word());
    let reasons: String = reasons.map(each).collect();
    if reasons.is_empty() { reasons } else { format!("<p class=\"sums\">Left out today: {reasons}</p>") }
}
