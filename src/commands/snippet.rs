//! `snippet`: what to paste into a site's pages.

use std::io::{self, Write};
use std::process::ExitCode;

use super::EXIT_CONFIG;
use crate::config::Config;
use crate::serve::{LATEST, Names, integrity};
use crate::sites::{Identity, Signal, Site};

/// Prints the script's line, the counters, what replaces scripts, and the policy's lines. For a site that is not
/// registered, the standard error names those that are.
pub fn run(config: &Config, key: &str, out: &mut impl Write) -> io::Result<ExitCode> {
    let Some(site) = config.sites.get(key) else {
        let keys: Vec<&str> = config.sites.iter().map(|site| site.key.as_str()).collect();
        writeln!(io::stderr(), "footfall: no site {key:?} is registered; there is {}", keys.join(", "))?;
        return Ok(EXIT_CONFIG.into());
    };
    out.write_all(text(config, site).as_bytes())?;
    Ok(ExitCode::SUCCESS)
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
    let more = if site.identity == Identity::Browser { script("more.js", "") + "\n" } else { String::new() };
    let origin =
        url::Url::parse(&base).map_or_else(|_| base.clone(), |url| url.origin().ascii_serialization());
    format!(
        r#"{warning}<!-- Into the head of every page: -->
{more}{line}

<!-- Where the counters are to be shown; one that is not known yet stays as written here: -->
{counters}
<!-- For readers without scripts, on each page with its own URL, percent-encoded: -->
<noscript><img width="1" height="1" alt=""
  src="{base}/{beacon}.gif?site={key}&amp;url=https%3A%2F%2F{host}%2F"></noscript>

<!-- Or, for pages that pin what they load, this version for ever. The first line is for
     pages with live counters, lists, foreign element names or opt-out buttons: -->
{pinned_more}
{pinned_line}

<!-- A Content-Security-Policy needs these sources beside its own:
       script-src {origin};
       connect-src {origin};
       img-src {origin};
     With nonces give each script line its nonce instead of the first. With Trusted Types, or
     nonces without 'strict-dynamic', paste the line of {name}.more.js too, first. -->
"#,
        line = script("js", &attributes),
        counters = counters(config, site),
        beacon = names.beacon,
        key = site.key,
        host = site.hosts.first().map_or("", String::as_str),
        pinned_more = pinned("more.js", ""),
        pinned_line = pinned("js", &attributes),
        name = names.script,
    )
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
    format!(
        r#"<div lang="{}">
<p>{}: <span data-footfall="page.views.all">–</span></p>
<p>{}</p>
<ul>
  <li><span data-footfall="visits.all" data-footfall-pad="9">–</span></li>
  <li>{}: <span data-footfall="online">–</span></li>
  <li>{}: <span data-footfall="visits.week">–</span></li>
  <li>{}: <span data-footfall="visits.month">–</span></li>
  <li>{}: <span data-footfall="visits.year">–</span></li>
</ul>
</div>
"#,
        labels.tag, labels.views, labels.title, labels.online, labels.week, labels.month, labels.year
    )
}
