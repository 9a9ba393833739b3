//! A page of figures for people: `/` of the admin listener shows every site, `/newsroom/{site}` of the
//! public one a single site to whoever has its token.
//!
//! The figures come from memory. The store is asked for the past of a site where it is not known or old, by
//! one reader for all. The page fetches itself anew every few seconds and puts in what has changed.

mod plots;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::Uri;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use url::form_urlencoded;

use self::plots::{Bar, bars};
use crate::calendar::CivilHour;
use crate::clock::Moment;
use crate::ingest::Page;
use crate::serve::Parts;
use crate::serve::admin::checks;
use crate::serve::answer::routes;
use crate::serve::answer::{self, Fault, Response};
use crate::serve::public::context::{Asked, Reply};
use crate::serve::public::widget::escaped;
use crate::sites::Site;
use crate::totals::{Figures, Past, Sums};

const PAGE: &str = include_str!("page.html");
const CSS: &str = include_str!("overview.css");
const JS: &str = include_str!("overview.js");

/// Most sites whose past is loaded for one reader of the page of all sites; the next reading loads more.
const LOADS: usize = 16;

/// `GET /newsroom/{site}?token=`.
pub fn newsroom(asked: Asked<'_>) -> Reply {
    let site = asked.public.parts.sites.load().get(asked.name).cloned();
    let Some((site, token)) = site.and_then(|site| Some((site.clone(), site.newsroom_token.clone()?))) else {
        return Reply::Now(answer::unlisted(answer::refused(Fault::NotFound)));
    };
    let query = asked.uri.query().unwrap_or_default();
    let said = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token");
    if !said.is_some_and(|(_, said)| token.is(&said)) {
        return Reply::Now(answer::unlisted(answer::refused(Fault::WrongToken)));
    }
    let (parts, is_part) = (asked.public.parts.clone(), wants_part(asked.uri));
    Reply::Later(Box::pin(async move {
        know(&parts, &site).await;
        let title = format!("{} newsroom", site.key);
        let figures = health(&parts, false) + &section(&parts, &site);
        if is_part { part(figures) } else { whole(&title, "Newsroom", &figures, "") }
    }))
}

/// `GET /` of the admin listener.
pub async fn all(parts: &Arc<Parts>, uri: &Uri) -> Response {
    let now = parts.clock.now();
    let due = |site: &&Arc<Site>| parts.totals.past(site.id, now).is_none_or(|(_, old)| old);
    let sites = parts.sites.load_full();
    for site in sites.iter().filter(due).take(LOADS) {
        know(parts, site).await;
    }
    let sections: String = sites.iter().map(|site| section(parts, site)).collect();
    let paths = routes::ADMIN.iter().filter(|route| route.path != "/");
    let links: String = paths.map(|route| format!(" · <a href=\"{0}\">{0}</a>", &route.path)).collect();
    let footer = format!("footfall {}{links}", env!("CARGO_PKG_VERSION"));
    let figures = health(parts, true) + &sections;
    if wants_part(uri) { part(figures) } else { whole("footfall overview", "Overview", &figures, &footer) }
}

/// Asks the store where the past of a site is not known, or is old.
async fn know(parts: &Parts, site: &Site) {
    if parts.totals.past(site.id, parts.clock.now()).is_none_or(|(_, old)| old) {
        parts.totals.load_past(site.id).await;
    }
}

/// Whether the page asks to be renewed: for the figures without what stands around them.
fn wants_part(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(name, said)| name == "part" && said == "figures")
}

/// What moves of a page.
fn part(figures: String) -> Response {
    answer::unlisted(answer::secluded(figures))
}

/// The whole page.
fn whole(title: &str, heading: &str, figures: &str, footer: &str) -> Response {
    let mut bytes = [0; 16];
    // Without a nonce the page stands without style and script: plain, and as safe.
    let drawn = getrandom::fill(&mut bytes).is_ok();
    let nonce: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let allowed = if drawn { format!("'nonce-{nonce}'") } else { "'none'".to_owned() };
    let policy = format!(
        "default-src 'none'; script-src {allowed}; style-src {allowed}; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut html = String::with_capacity(PAGE.len() + CSS.len() + JS.len() + figures.len());
    // In one pass: what is put in is never looked through for names.
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        html.push_str(before);
        html.push_str(match name {
            "title" => title,
            "heading" => heading,
            "nonce" => &nonce,
            "css" => CSS,
            "js" => JS,
            "figures" => figures,
            _ => footer,
        });
        rest = after;
    }
    html.push_str(rest);
    let mut response = answer::unlisted(answer::secluded(html));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// What is looked at and what is wrong with it; to operators also what endangers counts.
fn health(parts: &Parts, concerns: bool) -> String {
    let health = parts.totals.health();
    let mut html = "<ul class=\"health\" id=\"health\" aria-label=\"Health\">".to_owned();
    for (check, fault, _) in checks(parts.ready.load(Ordering::Acquire), &health) {
        html += &match fault {
            // What is not lost is no news.
            None if check == "losses" => String::new(),
            None => format!("<li><b>{check}</b> ok</li>"),
            Some(fault) => format!("<li class=\"bad\"><b>{check}</b> {}</li>", escaped(fault)),
        };
    }
    for concern in health.concerns.iter().filter(|_| concerns) {
        html += &format!("<li class=\"bad\"><b>store settings</b> {}</li>", escaped(concern));
    }
    html + "</ul>\n"
}

/// A figure with its digits in groups; a dash where it is not known.
fn grouped(figure: Option<u64>) -> String {
    let Some(figure) = figure else { return "–".to_owned() };
    let digits = figure.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// All that is shown of a site.
fn section(parts: &Parts, site: &Site) -> String {
    let now = parts.clock.now();
    let figures = parts.totals.figures(site.id, now);
    let past = parts.totals.past(site.id, now).map(|(past, _)| past);
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
    match &past {
        Some(past) => {
            html += &plots(key.as_str(), past);
            html += &most_read(parts, site, past, now, figures.views[0].is_some_and(|views| views > 0));
        }
        None => {
            html += "<p class=\"quiet\">The hours, days and pages of this site are not known yet: the store \
                has not told of them.</p>";
        }
    }
    html += &sums(&figures);
    html + "</section>\n"
}

fn tile(label: &str, figure: Option<u64>, beside: &str) -> String {
    format!(
        "<div><dt>{label}</dt><dd><div class=\"n\">{}</div><div class=\"by\">{beside}</div></dd></div>",
        grouped(figure)
    )
}

/// Online now, and today against yesterday.
fn tiles(online: u64, figures: &Figures, past: Option<&Past>) -> String {
    let beside = |of: fn(&Sums) -> u64| past.map_or(String::new(), |past| against(past, of));
    format!(
        "<dl class=\"tiles\">{}{}{}{}</dl>",
        tile("Online now", Some(online), ""),
        tile("Views today", figures.views[0], &beside(|sums| sums.views)),
        tile("Visits today", figures.visits[0], &beside(|sums| sums.visits)),
        tile("Visitors today", figures.visitors[0], "an estimate"),
    )
}

/// The hours that are over of today beside the same hours of yesterday, and all of yesterday.
fn against(past: &Past, of: fn(&Sums) -> u64) -> String {
    let Some((running, _)) = past.hours.last() else { return String::new() };
    let yesterday = past.days.iter().rev().nth(1).map_or(0, |(_, sums)| of(sums));
    let yesterday = format!("yesterday {}", grouped(Some(yesterday)));
    let over = |today: bool| -> u64 {
        let hours = past.hours.iter().filter(|(hour, _)| (hour.day == running.day) == today);
        hours.filter(|(hour, _)| hour.hour < running.hour).map(|(_, sums)| of(sums)).sum()
    };
    if running.hour == 0 {
        return yesterday;
    }
    let (now, before) = (over(true), over(false));
    let change = change(now, before);
    let (now, before) = (grouped(Some(now)), grouped(Some(before)));
    format!("{change}{now} by {:02}:00<br>yesterday {before} by then<br>{yesterday} in all", running.hour)
}

/// By how much of the second figure the first is more or less; nothing where that says nothing.
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
    format!("<span class=\"{class}\">{sign}{}\u{a0}%</span><br>", grouped(Some(percent.abs() as u64)))
}

/// The last 24 hours and 30 days.
fn plots(key: &str, past: &Past) -> String {
    let named = |hour: &CivilHour| format!("{} {:02}:00", hour.day.format("%-d %b"), hour.hour);
    let from = past.hours.len().saturating_sub(24);
    let hours: Vec<Bar> = past.hours.iter().skip(from).map(|(hour, sums)| bar(named(hour), sums)).collect();
    let days: Vec<Bar> =
        past.days.iter().map(|(day, sums)| bar(day.format("%a %-d %b").to_string(), sums)).collect();
    format!(
        "<div class=\"plots\">{}{}</div>",
        bars(&format!("hours-{key}"), "Last 24 hours", "Hour", &hours),
        bars(&format!("days-{key}"), "Last 30 days", "Day", &days)
    )
}

fn bar(name: String, sums: &Sums) -> Bar {
    Bar { name, views: sums.views, visits: sums.visits }
}

/// The pages that were read most today, with their figures of now. Which they are comes from the store: later
/// than that there `are_any`.
fn most_read(parts: &Parts, site: &Site, past: &Past, now: Moment, are_any: bool) -> String {
    let mut look = parts.totals.look(site.id, now);
    let pages = past.most_read.iter().map(|text| Page::trusted(site.id, text));
    let known = pages.filter_map(|page| look.page(&page).map(|[today, ..]| (page, today)));
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
        let online = if online > 0 { format!("{} online", grouped(Some(online))) } else { String::new() };
        let (page, views) = (escaped(page.as_str()), grouped(Some(views)));
        html += &format!(
            "<li><bdi class=\"p\">{page}</bdi> <span class=\"o\">{online}</span> <b>{views}</b></li>"
        );
    }
    html + "</ol></div>"
}

/// Visits of the longer periods.
fn sums(figures: &Figures) -> String {
    let mut html = "<p class=\"sums\">".to_owned();
    for (place, label) in ["this week", "this month", "this year", "since the beginning"].iter().enumerate() {
        let visits = grouped(figures.visits.get(place + 1).copied().flatten());
        html += &format!("<span><b>{visits}</b> visits {label}</span> ");
    }
    html + "</p>"
}
