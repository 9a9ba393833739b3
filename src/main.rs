//! The door: arguments, settings, run, exit code.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use footfall::app::{self, Signals};
use footfall::commands::{self, Arguments, Command, Failure, Outcome};
use footfall::config::{Config, Log, LogFormat};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => commands::print(run(arguments)),
        // Help and version are such answers too.
        Err(answer) => match answer.print() {
            Err(fault) if !answer.use_stderr() => commands::not_printed(&fault),
            _ => ExitCode::from(if answer.use_stderr() { commands::EXIT_REFUSED } else { 0 }),
        },
    }
}

fn run(arguments: Arguments) -> Outcome {
    let command = arguments.command.unwrap_or(Command::Serve);
    // These commands need no configuration, and work beside a broken one.
    if let Some(done) = command.document() {
        return done;
    }
    if command == Command::Serve {
        // Before all else: until then a signal ends the process.
        return app::alone(async { serve(arguments.config, Signals::heed()?).await })?;
    }
    let config = Config::of_process(arguments.config.as_deref())?;
    let log = Log { format: LogFormat::Text, level: config.log.level.min(Level::WARN) };
    if command.is_order() {
        start_log(log)?;
    } else if command == Command::CheckConfig {
        filter(log)?;
    }
    command.run(&config)
}

async fn serve(file: Option<PathBuf>, signals: Signals) -> Outcome {
    let config = Config::of_process(file.as_deref())?;
    config.check_files()?;
    start_log(config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    app::run(config, file, signals).await.map(|()| String::new()).map_err(|fault| {
        tracing::error!("{fault}");
        // The log has said it.
        Failure::No(String::new())
    })
}

/// The parts of footfall that write to the log, and the crates in it that could.
const PARTS: [&str; 9] =
    ["app", "clock", "commands", "config", "ingest", "metrics", "serve", "sessions", "totals"];
const CRATES: [&str; 5] = ["hyper", "redb", "redis", "rustls", "tokio"];

/// What is written: as `FOOTFALL_LOG` says, else `RUST_LOG`, else as set. What they do not speak of is written as set.
fn filter(log: Log) -> Result<Targets, Failure> {
    let set = |name| std::env::var(name).ok().filter(|filter| !filter.trim().is_empty()).map(|f| (name, f));
    let Some((name, text)) = set("FOOTFALL_LOG").or_else(|| set("RUST_LOG")) else {
        return Ok(Targets::new().with_default(log.level));
    };
    let refused = |fault: &str| {
        Failure::Refused(format!("{name} = {text:?}: {fault}; write it like info,footfall::totals=debug"))
    };
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    // The other variable may have been set for other programs.
    for directive in directives.iter().filter(|_| name == "FOOTFALL_LOG") {
        let target = directive.split(['=', '[']).next().unwrap_or_default();
        let mut path = target.split("::");
        let is_known = match path.next() {
            Some("footfall") => path.next().is_none_or(|part| PARTS.contains(&part)),
            other => other.is_some_and(|other| CRATES.contains(&other)),
        };
        if !is_known && directive.parse::<LevelFilter>().is_err() {
            return Err(refused(&format!("{target:?} is no level and no part of footfall")));
        }
    }
    let filter: Targets =
        directives.join(",").parse().map_err(|fault: ParseError| refused(&fault.to_string()))?;
    Ok(match filter.default_level() {
        None => filter.with_default(log.level),
        Some(_) => filter,
    })
}

/// Sends the log, and what a panic says, to the standard error.
fn start_log(log: Log) -> Result<(), Failure> {
    let filter = filter(log)?;
    let (is_journal, is_terminal) = (commands::is_journal(), io::stderr().is_terminal());
    let json = log.format == LogFormat::Json || log.format == LogFormat::Auto && !is_terminal && !is_journal;
    let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    // A line that cannot be written (the log's disk is full) is lost. By default that would be reported on the
    // standard error, which is where it could not be written, and panic.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(thread = std::thread::current().name(), "a fault of footfall: {panic}");
    }));
    let log = tracing_subscriber::registry();
    match json {
        true => log.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
        false if is_journal => log.with(lines.event_format(ForTheJournal).with_filter(filter)).try_init(),
        false => log.with(lines.with_ansi(has_colours).with_filter(filter)).try_init(),
    }
    .map_err(|fault| Failure::Refused(fault.to_string()))
}

/// Writes each line with its priority, and without the time: the journal has one.
struct ForTheJournal;

impl<S, N> FormatEvent<S, N> for ForTheJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut text = String::new();
        let plain = format::format().without_time().with_level(false).with_ansi(false);
        plain.format_event(context, Writer::new(&mut text), event)?;
        text.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
    }
}
