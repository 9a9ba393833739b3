//! `snippet`: what to paste into a site's pages.

use super::outcome::{Failure, Outcome};
use crate::config::Config;
use crate::serve::{LATEST, Names, filled, integrity};
use crate::sites::{Identity, Signal, Site};

/// The script's line, the counters, what replaces scripts, and the policy's lines.
pub fn run(config: &Config, key: &str) -> Outcome {
    config.sites.configured(key).map(|site| text(config, site)).map_err(Failure::Refused)
}

fn text(config: &Config, site: &Site) -> String {
    let names = &config.serve.names;
    let (base, warning) = match config.public_url.as_str() {
        "" => {
            let base = format!("http://{}", config.serve.listen);
            let warning = format!("<!-- public_url is not set: put the service's own URL for {base} -->\n\n");
            (base, warning)
        }
        url => (url.to_owned(), String::new()),
    };
    let script = |file: &str, attributes: &str| {
        format!(r#"<script defer src="{base}/{}.{file}"{attributes}></script>"#, names.script)
    };
    let pinned = |file: &str, attributes: &str| {
        let file = format!("{LATEST}.{file}");
        let hash = integrity(&file).unwrap_or_default();
        script(&file, &format!(" integrity=\"{hash}\" crossorigin=\"anonymous\"{attributes}"))
    };
    let attributes = attributes(site, names);
    let identity =
        |line: String| if site.identity == Identity::Browser { line + "\n" } else { String::new() };
    let origin =
        url::Url::parse(&base).map_or_else(|_| base.clone(), |url| url.origin().ascii_serialization());
    let texts = [
        ("warning", &*warning),
        ("identity", &identity(script("rare.js", ""))),
        ("line", &script("js", &attributes)),
        ("counters", &counters(config, site)),
        ("base", &base),
        ("beacon", &names.beacon),
        ("key", site.key.as_str()),
        ("host", &site.home()),
        ("pinned_more", &pinned("more.js", "")),
        ("pinned_identity", &identity(pinned("rare.js", ""))),
        ("pinned_line", &pinned("js", &attributes)),
        ("origin", &origin),
    ];
    filled(include_str!("snippet/page.html"), &texts)
}

/// The attributes by which the script knows the site and what it has configured.
fn attributes(site: &Site, names: &Names) -> String {
    let mut text = format!(r#" data-site="{}""#, site.key);
    for signal in &site.honour {
        text.push_str(match signal {
            Signal::Gpc => r#" data-gpc="globalPrivacyControl""#,
            Signal::Dnt => r#" data-dnt="doNotTrack""#,
        });
    }
    if site.require_consent {
        text.push_str(r#" data-consent="required""#);
    }
    if site.identity == Identity::Browser {
        text.push_str(r#" data-identity="browser""#);
    }
    if names.beacon != Names::BEACON {
        text.push_str(&format!(r#" data-beacon="{}""#, names.beacon));
    }
    if names.script != Names::SCRIPT {
        text.push_str(&format!(r#" data-more="{}.{LATEST}.more.js""#, names.script));
    }
    text
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
