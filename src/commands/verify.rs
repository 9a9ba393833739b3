//! `verify`: audits a store and prints each disagreement.

use std::fmt;

use super::order;
use super::outcome::{Failure, Outcome};
use crate::app;
use crate::config::Config;
use crate::totals::{self, Audit, Job, Order, UrlFault};

/// What to audit, and how to print it.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Verify {
    /// One site's totals alone
    #[arg(long, value_name = "KEY")]
    site: Option<String>,
    /// Another store than the configured one: `redis://…`, or `embedded:FILE`, such as a backup's totals.redb
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Print JSON: a list of sites with their disagreements
    #[arg(long)]
    json: bool,
}

/// What was found; where something disagrees, the answer is no.
pub fn run(config: &Config, asked: &Verify) -> Outcome {
    let audits = audit(config, asked)?;
    let text = match asked.json {
        true => serde_json::to_string(&audits).map_err(|error| error.to_string())? + "\n",
        false => audits.iter().map(|audit| Report(audit).to_string()).collect(),
    };
    let agrees = audits.iter().all(|audit| audit.disagreements.is_empty() && audit.untold == 0);
    if agrees { Ok(text) } else { Err(Failure::No(text)) }
}

/// Audits the store, or asks the service that has its file open.
fn audit(config: &Config, asked: &Verify) -> Result<Vec<Audit>, Failure> {
    let configured = &config.totals.store.url;
    let url = asked.store.as_ref().map_or_else(|| Ok(configured.clone()), |url| url.parse());
    let url = url.map_err(|fault: UrlFault| fault.to_string())?;
    if asked.store.is_none() && !totals::is_in_use(&config.totals.data_dir) {
        order::check_store(config)?;
    }
    let audits = app::alone(totals::audit_of(&config.totals, &url, asked.site.as_deref()))?;
    if let Some(audits) = audits.map_err(|error| error.to_string())? {
        return Ok(audits);
    }
    let answer = order::carry_out(config, &Order::Job(Job::Verify { site: asked.site.clone() }))?;
    Ok(serde_json::from_str(&answer).map_err(|error| format!("the service's answer: {error}"))?)
}

/// An audit as lines for people.
struct Report<'a>(&'a Audit);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { site, views, visits, buckets, pages, beside, disagreements, untold } = self.0;
        writeln!(f, "{site}: {views} views, {visits} visits, {buckets} buckets, {pages} pages")?;
        for (name, field, value) in beside {
            writeln!(f, "{site}: beside the sums stands {name} {field} {value}")?;
        }
        for disagreement in disagreements {
            writeln!(f, "{site}: {disagreement}")?;
        }
        if *untold > 0 {
            writeln!(f, "{site}: {untold} more are not listed")?;
        }
        if disagreements.is_empty() {
            writeln!(f, "{site}: everything agrees")?;
        }
        Ok(())
    }
}
