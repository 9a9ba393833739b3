//! `snippet`: what to paste into a site's pages.

use super::outcome::{Failure, Outcome};
use crate::config::Config;
use crate::serve::{LATEST, filled, integrity};
use crate::sites::{Identity, Site};

/// The script's line, the counters, what replaces scripts, and the policy's lines.
pub fn run(config: &Config, key: &str) -> Outcome {
    config.sites.configured(key).map(|site| text(config, site)).map_err(Failure::Refused)
}

fn text(config: &Config, site: &Site) -> String {
    let names = &config.serve.names;
    let (base, is_set) = (config.base(), !config.public_url.is_empty());
    let warning = format!("<!-- public_url is not set: put the service's own URL for {base} -->\n\n");
    let warning = if is_set { String::new() } else { warning };
    let pinned = |file: &str, attributes: &str| {
        let file = format!("{LATEST}.{file}");
        let hash = integrity(&file).unwrap_or_default();
        names.line(&base, &file, &format!(" integrity=\"{hash}\" crossorigin=\"anonymous\"{attributes}"))
    };
    let attributes = names.attributes(site);
    let is_browsers = site.identity == Identity::Browser;
    let identity = if is_browsers { pinned("rare.js", "") + "\n" } else { String::new() };
    let origin =
        url::Url::parse(&base).map_or_else(|_| base.clone(), |url| url.origin().ascii_serialization());
    let texts = [
        ("warning", &*warning),
        ("lines", &names.lines(&base, site)),
        ("counters", &counters(config, site)),
        ("base", &base),
        ("beacon", &names.beacon),
        ("key", site.key.as_str()),
        ("host", &site.home()),
        ("pinned_more", &pinned("more.js", "")),
        ("pinned_identity", &identity),
        ("pinned_line", &pinned("js", &attributes)),
        ("origin", &origin),
    ];
    filled(include_str!("snippet/page.html"), &texts)
}

/// The counters with the labels of the site's language.
fn counters(config: &Config, site: &Site) -> String {
    let languages = &config.serve.lists.languages;
    let Some(labels) = languages.find(&site.locale).or_else(|| languages.find("en")) else {
        return String::new();
    };
    let texts = [
        ("tag", &*labels.tag),
        ("views", &labels.views),
        ("title", &labels.title),
        ("online", &labels.online),
        ("week", &labels.week),
        ("month", &labels.month),
        ("year", &labels.year),
    ];
    filled(include_str!("snippet/counters.html"), &texts)
}
