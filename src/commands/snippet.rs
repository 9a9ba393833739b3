//! `snippet`: what to paste into a site's pages.

use std::io::{self, Write};
use std::process::ExitCode;

use super::EXIT_CONFIG;
use crate::config::Config;
use crate::serve::{LATEST, Names, integrity};
use crate::sites::{Identity, Signal, Site};

/// Prints the script's line, the counters, what stands in for scripts, and the policy's lines. A site that
/// is not registered is named on the standard error with those that are.
pub fn run(config: &Config, key: &str, out: &mut impl Write) -> io::Result<ExitCode> {
    let Some(site) = config.sites.get(key) else {
        let keys: Vec<&str> = config.sites.iter().map(|site| site.key.as_str()).collect();
        writeln!(io::stderr(), "footfall: no site {key:?} is registered; there is {}", keys.join(", "))?;
        return Ok(EXIT_CONFIG.into());
    };
    let at = Address::of(config);
    let attributes = attributes(site, &config.serve.names);
    if config.public_url.is_empty() {
        writeln!(out, "<!-- public_url is not set: put the service's own URL for {} -->\n", at.base)?;
    }
    writeln!(out, "<!-- Into the head of every page: -->")?;
    if site.identity == Identity::Browser {
        writeln!(out, "{}", at.script("more.js", ""))?;
    }
    writeln!(out, "{}\n", at.script("js", &attributes))?;
    writeln!(
        out,
        "<!-- Where the counters are to stand; a figure that is not known yet shows as written here: -->"
    )?;
    out.write_all(counters(config, site).as_bytes())?;
    writeln!(out, "\n<!-- For readers without scripts, on each page with its own URL, percent-encoded: -->")?;
    writeln!(out, "{}\n", at.noscript(site))?;
    at.fixed(out, &attributes)?;
    at.policy(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Where browsers reach the service, and under which names.
struct Address<'a> {
    /// The URL without a slash at its end.
    base: String,
    names: &'a Names,
}

impl<'a> Address<'a> {
    fn of(config: &'a Config) -> Self {
        let base = match config.public_url.as_str() {
            "" => format!("http://{}", config.serve.listen),
            url => url.to_owned(),
        };
        Address { base, names: &config.serve.names }
    }

    /// The line of a file, named by what follows the script's name.
    fn script(&self, file: &str, attributes: &str) -> String {
        format!(r#"<script defer src="{}/{}.{file}"{attributes}></script>"#, self.base, self.names.script)
    }

    fn noscript(&self, site: &Site) -> String {
        let host = site.hosts.first().map_or("", String::as_str);
        format!(
            "<noscript><img width=\"1\" height=\"1\" alt=\"\"\n  src=\"{}/{}.gif?site={}&amp;url=https%3A%2F%2F{host}%2F\"></noscript>",
            self.base, self.names.beacon, site.key
        )
    }

    /// The version of today for ever, with its hashes.
    fn fixed(&self, out: &mut impl Write, attributes: &str) -> io::Result<()> {
        writeln!(
            out,
            "<!-- Or, for pages that pin what they load, this version for ever. The first line is for"
        )?;
        writeln!(out, "     pages with live counters, lists, foreign element names or opt-out buttons: -->")?;
        for (file, attributes) in [("more.js", ""), ("js", attributes)] {
            let file = format!("{LATEST}.{file}");
            let hash = integrity(&file).unwrap_or_default();
            let pinned = format!(" integrity=\"{hash}\" crossorigin=\"anonymous\"{attributes}");
            writeln!(out, "{}", self.script(&file, &pinned))?;
        }
        Ok(())
    }

    /// What a Content-Security-Policy must allow.
    fn policy(&self, out: &mut impl Write) -> io::Result<()> {
        let origin = url::Url::parse(&self.base)
            .map_or_else(|_| self.base.clone(), |url| url.origin().ascii_serialization());
        writeln!(out, "\n<!-- A Content-Security-Policy needs these sources beside its own:")?;
        for directive in ["script-src", "connect-src", "img-src"] {
            writeln!(out, "       {directive} {origin};")?;
        }
        writeln!(
            out,
            "     With nonces give each script line its nonce instead of the first. With Trusted Types, or"
        )?;
        writeln!(
            out,
            "     nonces without 'strict-dynamic', paste the line of {}.more.js too, first. -->",
            self.names.script
        )
    }
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

/// The counters in the words of the site's language.
fn counters(config: &Config, site: &Site) -> String {
    let Some(words) =
        config.serve.lists.languages.find(&site.locale).or_else(|| config.serve.lists.languages.find("en"))
    else {
        return String::new();
    };
    let line =
        |word: &str, name: &str| format!("  <li>{word}: <span data-footfall=\"{name}\">–</span></li>\n");
    let lines = [
        line(&words.online, "online"),
        line(&words.week, "visits.week"),
        line(&words.month, "visits.month"),
        line(&words.year, "visits.year"),
    ];
    format!(
        r#"<div lang="{}">
<p>{}: <span data-footfall="page.views.all">–</span></p>
<p>{}</p>
<ul>
  <li><span data-footfall="visits.all" data-footfall-pad="9">–</span></li>
{}</ul>
</div>
"#,
        words.tag,
        words.views,
        words.title,
        lines.concat()
    )
}
