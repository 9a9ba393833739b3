//! The door: arguments, settings, run, exit code.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use footfall::app;
use footfall::commands::{Arguments, Command, EXIT_CONFIG};
use footfall::config::{Config, Log, LogFormat};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help and version are such answers too. If printing fails, nobody can be told.
            let _ = answer.print();
            return if answer.use_stderr() { EXIT_CONFIG.into() } else { ExitCode::SUCCESS };
        }
    };
    // These commands need no configuration, and work beside a broken one.
    let command = match arguments.command.unwrap_or(Command::Serve).document() {
        Ok(done) => return done.unwrap_or(ExitCode::FAILURE),
        Err(command) => command,
    };
    let config = match Config::of_process(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults.to_string()),
    };
    match command {
        Command::Serve => serve(config, arguments.config),
        command => {
            let log = Log { format: LogFormat::Text, level: config.log.level.min(Level::WARN) };
            match command.is_order().then(|| start_log(log)) {
                Some(Err(fault)) => refuse(&fault),
                _ => command.run(&config).unwrap_or(ExitCode::FAILURE),
            }
        }
    }
}

fn serve(config: Config, file: Option<PathBuf>) -> ExitCode {
    if let Err(faults) = config.check_files() {
        return refuse(&faults.to_string());
    }
    if let Err(fault) = start_log(config.log) {
        return refuse(&fault);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match app::run(config, move || Config::of_process(file.as_deref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(fault: &str) -> ExitCode {
    eprintln!("footfall: {fault}");
    EXIT_CONFIG.into()
}

/// Sends the log to the standard error, filtered by `FOOTFALL_LOG`, else `RUST_LOG`, else as set.
fn start_log(log: Log) -> Result<(), String> {
    let set = |name| std::env::var(name).ok().filter(|filter| !filter.trim().is_empty()).map(|f| (name, f));
    let filter: Targets = match set("FOOTFALL_LOG").or_else(|| set("RUST_LOG")) {
        None => Targets::new().with_default(log.level),
        Some((name, filter)) => filter
            .parse()
            .map_err(|fault| format!("{name} = {filter:?}: {fault}; write it like info,footfall=debug"))?,
    };
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    // A line that cannot be written (the log's disk is full) is lost. By default that would be reported on the
    // standard error, which is where it could not be written, and panic.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let log = tracing_subscriber::registry();
    match json {
        true => log.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
        false => log.with(lines.with_filter(filter)).try_init(),
    }
    .map_err(|fault| fault.to_string())
}
