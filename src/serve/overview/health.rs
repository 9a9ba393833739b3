//! Everything that is checked, and what is wrong with it.

use std::sync::atomic::Ordering;

use crate::serve::answer::html::escaped;
use crate::serve::parts::Parts;
use crate::totals::Health;

/// A thing that is checked, what is wrong with it, and whether no views can be kept then.
pub type Check<'a> = (&'static str, Option<&'a str>, bool);

/// Everything that is checked; clock, configuration, files and losses only where something is wrong with them. While the store is down views
/// are still kept.
pub fn checks(running: bool, health: &Health) -> impl Iterator<Item = Check<'_>> {
    let service = (!running).then_some("starting or stopping");
    let away = "unreachable: views are kept and applied later";
    let store = health.held.as_deref().or((!health.store_up).then_some(away));
    let files = health.failing.as_deref().map(|failing| ("data_dir", Some(failing), false));
    let losses = health.lost.as_deref().map(|lost| ("losses", Some(lost), false));
    let old = "not taken when it was last read, the old one stays in force; the log and `footfall check-config` say why";
    let configuration = health.not_reloaded.then_some(("configuration", Some(old), false));
    let clock = health.clock.as_deref().map(|wrong| ("clock", Some(wrong), true));
    [("service", service, true), ("journal", health.refusing, true), ("store", store, false)]
        .into_iter()
        .chain(clock)
        .chain(configuration)
        .chain(files)
        .chain(losses)
}

/// The checks as a list of HTML; for operators with a reload that failed, the sites whose data the store refuses, and its
/// settings that endanger counts.
pub fn list(parts: &Parts, for_operators: bool) -> String {
    let mut health = parts.totals.health();
    health.not_reloaded &= for_operators;
    let mut html = "<ul class=\"health\" id=\"health\" aria-label=\"Health\">".to_owned();
    for (check, fault, _) in checks(parts.ready.load(Ordering::Acquire), &health) {
        html += &match fault {
            None => format!("<li><b>{check}</b> ok</li>"),
            Some(fault) => format!("<li class=\"bad\"><b>{check}</b> {}</li>", escaped(fault)),
        };
    }
    for site in health.troubled.iter().filter(|_| for_operators) {
        html += &format!("<li class=\"bad\"><b>site</b> {}</li>", escaped(site));
    }
    for concern in health.concerns.iter().filter(|_| for_operators) {
        html += &format!("<li class=\"bad\"><b>store settings</b> {}</li>", escaped(concern));
    }
    for concern in parts.crowds.concerns().iter().filter(|_| for_operators) {
        html += &format!("<li class=\"bad\"><b>visitors</b> {}</li>", escaped(concern));
    }
    let refused = parts.refusals.of_last_hour(&parts.sites.load(), parts.clock.now());
    for line in refused.iter().filter(|_| for_operators) {
        html += &format!("<li class=\"bad\"><b>refused</b> {}</li>", escaped(line));
    }
    html + "</ul>\n"
}
