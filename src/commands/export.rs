//! `export`: all totals as rows that `import` reads.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::order;
use super::outcome::Outcome;
use crate::config::Config;
use crate::totals::{Format, Job, Order};

/// What to export, and where to.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Export {
    /// The file; without one, the standard output
    file: Option<PathBuf>,
    /// One site's totals alone
    #[arg(long, value_name = "KEY")]
    site: Option<String>,
    /// CSV, or JSON with an object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Has the service write the rows where it may write, and moves them to where they shall be.
pub fn run(config: &Config, asked: Export) -> Outcome {
    let Export { file, site, format } = asked;
    site.as_ref().map(|key| config.sites.configured(key)).transpose()?;
    let into = std::path::absolute(config.totals.data_dir.join("export"))?;
    order::check_dir(&config.totals.data_dir)?;
    let held = File::options().write(true).create(true).truncate(false).mode(0o600).open(&into)?;
    held.try_lock().map_err(|_| "another export is being made; wait for its end".to_owned())?;
    let told = order::carry_out(config, &Order::Job(Job::Export { site, format, into: into.clone() }));
    let copied = told.and_then(|told| {
        let mut rows = File::open(&into)?;
        match &file {
            None => io::copy(&mut rows, &mut io::stdout().lock())?,
            Some(path) => io::copy(&mut rows, &mut File::create(path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?,
        };
        Ok(file.map(|_| format!("{}\n", told.trim_end())).unwrap_or_default())
    });
    fs::remove_file(&into)?;
    copied
}
