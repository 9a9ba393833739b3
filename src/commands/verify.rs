//! `verify`: audits a store and prints each disagreement.

use std::io::{self, Write};
use std::process::ExitCode;

use super::order;
use crate::app;
use crate::config::Config;
use crate::totals::{Audit, Job, Order, UrlFault};

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

/// Prints what was found; exits with 1 where something disagrees.
pub fn run(config: &Config, asked: &Verify, out: &mut impl Write) -> io::Result<ExitCode> {
    let audits = match audit(config, asked) {
        Ok(audits) => audits,
        Err(why) => {
            eprintln!("footfall: {}", why.trim_end());
            return Ok(ExitCode::FAILURE);
        }
    };
    if asked.json {
        serde_json::to_writer(&mut *out, &audits)?;
        writeln!(out)?;
    } else {
        audits.iter().try_for_each(|audit| print(audit, out))?;
    }
    let agrees = audits.iter().all(|audit| audit.disagreements.is_empty() && audit.untold == 0);
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Audits the store, or asks the service that has its file open.
fn audit(config: &Config, asked: &Verify) -> Result<Vec<Audit>, String> {
    let configured = &config.totals.store.url;
    let url = asked.store.as_ref().map_or_else(|| Ok(configured.clone()), |url| url.parse());
    let url = url.map_err(|fault: UrlFault| fault.to_string())?;
    if let Some(audits) = app::audit(config, &url, asked.site.as_deref())? {
        return Ok(audits);
    }
    let answer = order::carry_out(config, &Order::Job(Job::Verify { site: asked.site.clone() }))?;
    serde_json::from_str(&answer).map_err(|error| format!("the service's answer: {error}"))
}

fn print(audit: &Audit, out: &mut impl Write) -> io::Result<()> {
    let Audit { site, views, visits, buckets, pages, beside, disagreements, untold } = audit;
    writeln!(out, "{site}: {views} views, {visits} visits, {buckets} buckets, {pages} pages")?;
    for (name, field, value) in beside {
        writeln!(out, "{site}: beside the sums stands {name} {field} {value}")?;
    }
    for disagreement in disagreements {
        writeln!(out, "{site}: {disagreement}")?;
    }
    if *untold > 0 {
        writeln!(out, "{site}: {untold} more are not listed")?;
    }
    if disagreements.is_empty() {
        writeln!(out, "{site}: everything agrees")?;
    }
    Ok(())
}
