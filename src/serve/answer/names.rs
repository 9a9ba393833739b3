//! The names that the page script and the beacon are served under.

use std::borrow::Cow;

use crate::sites::{Honour, Identity, Signal, Site};

/// The latest version of the page script.
pub const LATEST: &str = "v1";

/// Names of the page script and of the beacon that a deployment has chosen. The standard ones stay valid, so
/// that pages with the old snippet go on counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What stands for `footfall` in `/footfall.js` and in the names of the other scripts.
    pub script: String,
    /// The path of the beacon without its first slash: stands for `api/v1/beacon`.
    pub beacon: String,
}

impl Names {
    /// What stands for the script where nothing is chosen.
    pub const SCRIPT: &str = "footfall";
    /// The beacon's path where nothing is chosen.
    pub const BEACON: &str = "api/v1/beacon";

    /// The standard path for the path of a request.
    pub fn standard<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let rest = |name: &str| path.strip_prefix('/')?.strip_prefix(name);
        if self.beacon != Names::BEACON
            && let Some(rest @ ("" | ".gif")) = rest(&self.beacon)
        {
            return format!("/{}{rest}", Names::BEACON).into();
        }
        if self.script != Names::SCRIPT
            && let Some(rest) =
                rest(&self.script).filter(|rest| rest.starts_with('.') && rest.ends_with(".js"))
        {
            return format!("/{}{rest}", Names::SCRIPT).into();
        }
        path.into()
    }

    /// The attributes by which the script knows the site and what it has configured.
    pub fn attributes(&self, site: &Site) -> String {
        let mut text = format!(r#" data-site="{}""#, site.key);
        let sends_nothing = site.filter.honour_as == Honour::LeaveOut;
        for signal in site.honour.iter().filter(|_| sends_nothing) {
            text.push_str(match signal {
                Signal::Gpc => r#" data-gpc="globalPrivacyControl""#,
                Signal::Dnt => r#" data-dnt="doNotTrack""#,
            });
        }
        // On the author's own machine the script counts only where it is told to.
        let is_loopback = |host: &String| host == "localhost" || host.starts_with("127.");
        if site.hosts.iter().all(is_loopback) {
            text.push_str(" data-localhost");
        }
        if site.require_consent {
            text.push_str(r#" data-consent="required""#);
        }
        if site.identity == Identity::Browser {
            text.push_str(r#" data-identity="browser""#);
        }
        if self.beacon != Names::BEACON {
            text.push_str(&format!(r#" data-beacon="{}""#, self.beacon));
        }
        if self.script != Names::SCRIPT {
            text.push_str(&format!(r#" data-more="{}.{LATEST}.more.js""#, self.script));
        }
        text
    }

    /// The line that loads a file of the script from the service at `base`.
    pub fn line(&self, base: &str, file: &str, attributes: &str) -> String {
        format!(r#"<script defer src="{base}/{}.{file}"{attributes}></script>"#, self.script)
    }

    /// The lines for a site's pages.
    pub fn lines(&self, base: &str, site: &Site) -> String {
        let line = self.line(base, "js", &self.attributes(site));
        if site.identity == Identity::Browser { self.line(base, "rare.js", "") + "\n" + &line } else { line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_names_lead_to_the_standard_paths_and_those_stay() {
        let names = Names { script: "stats".into(), beacon: "collect/page".into() };
        for (path, standard) in [
            ("/stats.js", "/footfall.js"),
            ("/stats.v1.more.js", "/footfall.v1.more.js"),
            ("/footfall.js", "/footfall.js"),
            ("/collect/page", "/api/v1/beacon"),
            ("/collect/page.gif", "/api/v1/beacon.gif"),
            ("/api/v1/beacon", "/api/v1/beacon"),
            ("/collect/pages", "/collect/pages"),
            ("/statsx.js", "/statsx.js"),
            ("/stats.css", "/stats.css"),
            ("/x/stats.js", "/x/stats.js"),
            ("", ""),
        ] {
            assert_eq!(names.standard(path), standard);
        }
        let unchanged = Names { script: Names::SCRIPT.into(), beacon: Names::BEACON.into() };
        assert!(matches!(unchanged.standard("/api/v1/beacon"), Cow::Borrowed("/api/v1/beacon")));
    }
}
