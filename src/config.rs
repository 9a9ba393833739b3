//! One [`Config`] made of each part's own, from the defaults, a file and the environment.
//!
//! The defaults are the commented `config/footfall.toml`, compiled in and read like any file, so each default
//! is written once. Sources are parameters: a test hands in a text and a list. Every key is read before
//! anything is refused, so an operator sees all [`Faults`] at once.

mod conflicts;
mod faults;
mod files;
mod filters;
mod reader;
mod settings;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use faults::{Fault, Faults};

use crate::calendar::{Calendar, WEEKDAYS};
use crate::ingest::{Proxies, Rate};
use crate::sites::{Identity, OriginCheck, PageCase, PageRules, Signal, Site, SiteId, SiteLimits, Sites};
use crate::totals::{JournalConfig, OutboxConfig, StoreConfig, StoreUrl, Sync};
use crate::{serve, sessions, totals};
use faults::Complaint;
use reader::ConfigReader;
use settings::{AUTO, Settings, Value};

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../config/footfall.toml");

words! {
    /// How log lines are written.
    pub enum LogFormat {
        /// As text on a terminal and in the journal of systemd, else as JSON.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

/// Settings of the log.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// The least serious level that is written.
    pub level: tracing::Level,
}

/// Everything that can be set. Its `Debug` is [`Config::to_toml`]: secrets are hidden.
#[derive(Clone)]
pub struct Config {
    /// The listeners.
    pub serve: serve::Config,
    /// The session table.
    pub sessions: sessions::Config,
    /// The totals.
    pub totals: totals::Config,
    /// The registered sites; at least one.
    pub sites: Sites,
    /// The URL of the public listener as browsers see it, without a slash at its end; may be empty.
    pub public_url: String,
    /// How long a whole stop may take.
    pub stop_timeout: Duration,
    /// The log.
    pub log: Log,
    /// Settings that are allowed but probably a mistake: one sentence each.
    pub warnings: Vec<String>,
    settings: Settings,
}

impl Config {
    /// The URL of the public listener as browsers see it, or as this machine does where none is set.
    pub fn base(&self) -> String {
        let own = || format!("http://{}", self.serve.listen);
        if self.public_url.is_empty() { own() } else { self.public_url.clone() }
    }

    /// Reads a configuration: the defaults, over them files (each its name and text; those after the first
    /// add sites and nothing else), over them the variables whose names begin with `FOOTFALL_`. It is refused
    /// with every fault of every source.
    ///
    /// Except the files that `…_FILE` variables name, nothing else is read.
    pub fn load<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, Faults> {
        let (settings, faults) = Settings::gather(DEFAULTS, files, env);
        ConfigReader { settings, faults }.config()
    }

    /// Reads the configuration of this process: the named file, else the one that `FOOTFALL_CONFIG`
    /// names, else the first that is found, with the files of `sites.d` beside it (or where it would be); and its
    /// environment, over that of the file `environment` beside it, which a service manager gives the service.
    pub fn of_process(named: Option<&Path>) -> Result<Config, Faults> {
        // What is not Unicode is shown as such and refused by the key's own reader.
        let env = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let variable = std::env::var_os("FOOTFALL_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut files: Vec<(String, String)> =
            files::main(named.or(variable.as_deref()))?.into_iter().collect();
        let (mut left_out, mut beside) = (Vec::new(), BTreeMap::new());
        if let Some((main, _)) = files.first() {
            beside = files::environment_beside(Path::new(main))?;
            let paths;
            (paths, left_out) = files::sites_beside(Path::new(main))?;
            for path in paths {
                let text = files::read(&path)?;
                files.push((path.display().to_string(), text));
            }
        }
        let own: BTreeMap<String, String> = env.collect();
        // Of a secret and the name of its file the process has one.
        let both =
            |name: &str| [name.to_owned(), format!("{name}_FILE"), name.trim_end_matches("_FILE").to_owned()];
        beside.retain(|name, _| both(name).iter().all(|name| !own.contains_key(name)));
        let env = own.into_iter().chain(beside);
        let mut config = Config::load(files.iter().map(|(name, text)| (name.as_str(), text.as_str())), env)?;
        config.warnings.extend(left_out.iter().map(|path| {
            format!(
                "{} is not read: files of sites.d end in .toml and do not begin with a dot",
                path.display()
            )
        }));
        Ok(config)
    }

    /// Whether a source names a site; else the only one is that of the defaults.
    pub fn names_a_site(&self) -> bool {
        self.settings.is_given("site.0.key")
    }

    /// Checks that files which only a running service reads can be used.
    pub fn check_files(&self) -> Result<(), Faults> {
        totals::check_authorities(&self.totals.store).map_err(|problem| {
            let remedy = "name a file with the certificates of authorities in PEM, for rediss://".to_owned();
            Faults(vec![self.settings.fault("store.tls_ca_file", Complaint { problem, remedy })])
        })
    }

    /// What may be meant as it is, and is told to who asks: one sentence each.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        conflicts::without_www(&self.sites)
    }

    /// Everything in force as TOML, secrets hidden; a comment says where each value that is not the default
    /// is set.
    pub fn to_toml(&self) -> String {
        self.settings.to_toml()
    }

    /// What is in force, as TOML, once this configuration runs and another was read.
    pub fn reloaded_to(&self, fresh: &Config) -> String {
        fresh.settings.but_for(&self.fixed_differences(fresh), &self.settings).to_toml()
    }

    /// The keys whose values differ from another's and that a running service does not change.
    pub fn fixed_differences(&self, other: &Config) -> Vec<String> {
        let changes = |key: &str| {
            let lists = ["trusted_proxies", "client_header", "robots_add", "http.exempt_addresses"];
            let sections = ["site.", "labels.", "limits."];
            lists.contains(&key) || sections.iter().any(|section| key.starts_with(section))
        };
        let mut keys = self.settings.differences(&other.settings);
        keys.retain(|key| !changes(key));
        keys
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml())
    }
}

impl ConfigReader {
    fn config(mut self) -> Result<Config, Faults> {
        let public_url = self.text("public_url", values::public_url);
        let mut config = Config {
            serve: self.serve(&public_url),
            sessions: self.sessions(),
            totals: self.totals(),
            sites: Sites::new((0..self.settings.sites).map(|place| self.site(place)).collect()),
            public_url,
            stop_timeout: self.duration("stop_timeout", "1s", "10m"),
            log: self.log(),
            warnings: Vec::new(),
            settings: self.settings.clone(),
        };
        config.sessions.max_pages = config.totals.max_pages;
        config.serve.lists.limits.site_pages = Rate::of_site(config.totals.max_pages);
        self.check_listeners(&config.serve);
        self.check_sessions(&config.sessions);
        self.check_page_days(&config.totals);
        self.check_sites(&config.sites);
        if !self.faults.is_empty() {
            return Err(Faults(self.faults));
        }
        config.warnings = self.warnings(&config);
        Ok(config)
    }

    fn serve(&mut self, public_url: &str) -> serve::Config {
        serve::Config {
            listen: self.text("listen", values::listener),
            admin_listen: self.text("admin_listen", values::listener),
            admin_hosts: self.list("admin_hosts", values::admin_host),
            max_connections: self.number("http.max_connections", 10, 1_000_000),
            max_connections_per_address: self.number("http.max_connections_per_address", 1, 1_000_000),
            header_timeout: self.duration("http.header_timeout", "1s", "5m"),
            body_timeout: self.duration("http.body_timeout", "1s", "5m"),
            write_timeout: self.duration("http.write_timeout", "1s", "5m"),
            lists: serve::Lists {
                proxies: Proxies {
                    header: self.text("client_header", values::client_header),
                    trusted: self.list("trusted_proxies", values::network),
                },
                exempt: self.list("http.exempt_addresses", values::network),
                robots: self.read("robots_add", |value| match value {
                    Value::List(words) => filters::robots(words),
                    _ => Complaint::err("not a list", "put it in brackets"),
                }),
                languages: self.languages(),
                limits: self.limits(),
            },
            names: serve::Names {
                script: self.text("page.script", values::script_name),
                beacon: self.text("page.beacon", values::beacon_path),
            },
            live: serve::LiveConfig {
                max_readers: self.number("live.max_readers", 0, 1_000_000),
                max_readers_per_address: self.number("live.max_readers_per_address", 1, 1_000_000),
                heartbeat: self.duration("live.heartbeat", "1s", "5m"),
            },
            mount: Url::parse(public_url)
                .map_or(String::new(), |url| url.path().trim_end_matches('/').to_owned()),
        }
    }

    /// The labels of every configured language.
    fn languages(&mut self) -> serve::Languages {
        let tags = self.settings.languages();
        let mut known = BTreeMap::new();
        for tag in &tags {
            let complaint = match known.insert(tag.to_ascii_lowercase(), tag) {
                Some(other) => {
                    Complaint::err(format!("the same language as labels.{other}"), "write one of them")
                }
                None => values::locale(tag),
            };
            if let Err(complaint) = complaint {
                self.faults.push(Fault::new(format!("labels.{tag}"), complaint.problem, complaint.remedy));
            }
        }
        let known = tags.iter().map(|tag| self.labels(tag)).collect();
        let fallback = self.labels("en");
        serve::Languages { known, fallback }
    }

    fn labels(&mut self, tag: &str) -> serve::Labels {
        let mut label = |name: &str| {
            let key = self.settings.inherited(tag, name);
            self.text(&key, if name == "group" { values::group } else { values::label })
        };
        serve::Labels {
            title: label("title"),
            total: label("total"),
            online: label("online"),
            day: label("day"),
            week: label("week"),
            month: label("month"),
            year: label("year"),
            views: label("views"),
            group: label("group"),
            tag: tag.to_owned(),
        }
    }

    fn sessions(&mut self) -> sessions::Config {
        sessions::Config {
            online_window: self.text("sessions.online_window", |text| values::seconds(text, "10s", "1h")),
            visit_timeout: self.text("sessions.visit_timeout", |text| values::seconds(text, "10s", "3h")),
            max_sessions: self.number("sessions.max_sessions", 1000, 100_000_000),
            max_pages: 0,
        }
    }

    fn totals(&mut self) -> totals::Config {
        totals::Config {
            data_dir: PathBuf::from(self.text("data_dir", values::directory)),
            journal: JournalConfig {
                sync: self.choice("journal.sync", &Sync::WORDS),
                max_unsynced: self.duration("journal.max_unsynced", "2s", "5m"),
                max_bytes: self.size("journal.max_bytes", "16 MiB", "1 TiB"),
            },
            outbox: OutboxConfig {
                retention: self.duration("outbox.retention", "1s", "90days"),
                max_bytes: self.size("outbox.max_bytes", "16 MiB", "1 TiB"),
            },
            store: self.store(),
            max_pages: self.number("totals.max_pages", 10, 10_000_000),
            page_days: self.number("totals.page_days", 7, 36_500) as u64,
            fold_below: self.number("totals.fold_below", 0, 1000) as u64,
            max_ids: self.number("totals.max_ids", 1000, 100_000_000),
            checkpoint_interval: self.duration("totals.checkpoint_interval", "1s", "1h"),
        }
    }

    fn store(&mut self) -> StoreConfig {
        let url = self.text("store.url", values::store_url);
        let auto = if url == StoreUrl::Embedded { "10s" } else { "1s" };
        let flush_interval = self.text("store.flush_interval", |text| {
            values::duration(if text == AUTO { auto } else { text }, "100ms", "5m")
        });
        self.settings.resolve("store.flush_interval", auto);
        let ca_file = self.text("store.tls_ca_file", |text| Ok(text.to_owned()));
        StoreConfig {
            url,
            tls_ca_file: (!ca_file.is_empty()).then(|| PathBuf::from(ca_file)),
            flush_interval,
            timeout: self.duration("store.timeout", "100ms", "60s"),
        }
    }

    fn log(&mut self) -> Log {
        use tracing::Level;
        Log {
            format: self.choice("log.format", &LogFormat::WORDS),
            level: self.choice(
                "log.level",
                &[
                    ("error", Level::ERROR),
                    ("warn", Level::WARN),
                    ("info", Level::INFO),
                    ("debug", Level::DEBUG),
                    ("trace", Level::TRACE),
                ],
            ),
        }
    }

    fn site(&mut self, place: usize) -> Site {
        let name = |key: &str| format!("site.{place}.{key}");
        let mut hosts = self.list(&name("hosts"), values::site_host);
        values::dedup(&mut hosts);
        if hosts.is_empty() {
            self.complain(&name("hosts"), "no host is named", "name the site's hosts");
        }
        let mut query = self.list(&name("page_query"), values::query_name);
        values::dedup(&mut query);
        let pages = PageRules {
            query,
            case: self.choice(&name("page_case"), &PageCase::WORDS),
            ..PageRules::default()
        };
        Site {
            id: SiteId(u16::try_from(place).unwrap_or(u16::MAX)),
            key: self.text(&name("key"), values::site_key),
            hosts,
            origins: self.list(&name("origins"), values::origin),
            calendar: Calendar {
                zone: self.text(&name("time_zone"), values::zone),
                week_start: self.choice(&name("week_start"), &WEEKDAYS),
            },
            locale: self.text(&name("locale"), values::locale),
            identity: self.choice(&name("identity"), &Identity::WORDS),
            filter: self.filter(place, &pages),
            pages,
            origin_check: self.choice(&name("origin_check"), &OriginCheck::WORDS),
            honour: self.list(&name("honour"), |text| values::choice(text, &Signal::WORDS)),
            require_consent: self.flag(&name("require_consent")),
            readers: self.readers(place),
            limits: SiteLimits {
                views_per_minute: self.number(&name("views_per_minute"), 0, 10_000_000),
                reload_window: self.text(&name("reload_window"), |text| values::seconds(text, "0s", "24h")),
            },
            newsroom_token: self.text(&name("newsroom_token"), values::token),
        }
    }

    fn check_listeners(&mut self, serve: &serve::Config) {
        let (public, admin) = (serve.listen, serve.admin_listen);
        let overlap =
            public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
        if overlap && public.port() == admin.port() && public.port() != 0 {
            self.complain("admin_listen", "its port is that of listen", "choose another port");
        }
    }

    fn check_sessions(&mut self, sessions: &sessions::Config) {
        if sessions.visit_timeout < sessions.online_window {
            self.complain(
                "sessions.visit_timeout",
                "shorter than sessions.online_window",
                "choose a value that is at least as long",
            );
        }
    }

    fn check_sites(&mut self, sites: &Sites) {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, site) in sites.iter().enumerate() {
            let before = *first.entry(site.key.as_str()).or_insert(place);
            // A required key that is missing has its own fault and reads as the default.
            if before != place && self.settings.is_given(&format!("site.{place}.key")) {
                let first = self.settings.place(&format!("site.{before}.key"));
                self.complain(
                    &format!("site.{place}.key"),
                    &format!("site.{before} has the same key ({first})"),
                    "give each site a key of its own",
                );
            }
        }
        if sites.iter().len() > usize::from(u16::MAX) {
            self.complain("site.0.key", "more than 65535 sites", "register fewer");
        }
    }

    /// What the outbox may still bring to a day must find it there.
    fn check_page_days(&mut self, totals: &totals::Config) {
        let least = totals.outbox.retention.as_secs().div_ceil(24 * 3600) + 2;
        if totals.page_days < least {
            let remedy = format!("give it at least {least}, or shorten outbox.retention");
            self.complain("totals.page_days", "not two days more than outbox.retention", &remedy);
        }
    }

    fn warnings(&self, config: &Config) -> Vec<String> {
        let Config { serve, totals, sites, .. } = config;
        let changed = |key: &str| self.settings.is_changed(key);
        let embedded = totals.store.url == StoreUrl::Embedded;
        let in_memory = totals.journal.sync == Sync::Memory;
        let suspicious = [
            (
                in_memory,
                "journal.sync = \"memory\": an end of the process loses the views since the last flush, though \
                 they were answered 204",
            ),
            (
                in_memory && (changed("journal.max_unsynced") || changed("journal.max_bytes")),
                "journal.max_unsynced and journal.max_bytes have no effect while journal.sync is \"memory\"",
            ),
            (
                serve.live.max_readers == 0 && changed("live.heartbeat"),
                "live.heartbeat has no effect while live.max_readers is 0",
            ),
            (
                totals.store.tls_ca_file.is_some() && embedded,
                "store.tls_ca_file has no effect while store.url is \"embedded\"",
            ),
            (
                embedded && changed("store.timeout"),
                "store.timeout has no effect while store.url is \"embedded\": that takes as long as the disk does",
            ),
        ];
        let parts = conflicts::Parts { serve, sessions: &config.sessions, totals };
        let found = suspicious
            .into_iter()
            .chain(conflicts::of_addresses(serve, changed))
            .chain(conflicts::contradictions(&parts, config.stop_timeout))
            .filter(|(is_so, _)| *is_so);
        let found = found.map(|(_, warning)| warning.to_owned());
        let foreign = self.settings.foreign.join(", ");
        let foreign = (!foreign.is_empty()).then(|| {
            format!(
                "{foreign}: not settings, but what an orchestrator tells of a service (enableServiceLinks: false \
                 in Kubernetes leaves it out)"
            )
        });
        let empty = self.settings.empty.iter().map(|name| format!("{name} has no [[site]]: it adds nothing"));
        found
            .chain(foreign)
            .chain(empty)
            .chain(conflicts::without_parts(&parts, sites.iter().len()))
            .chain(self.site_warnings(sites, &serve.lists.languages))
            .collect()
    }

    fn site_warnings(&self, sites: &Sites, languages: &serve::Languages) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut owner: BTreeMap<&str, &Site> = BTreeMap::new();
        for (place, site) in sites.iter().enumerate() {
            if languages.find(&site.locale).is_none() {
                warnings.push(format!(
                    "site {} has the locale {}, of which there are no words: its footer block is English; add \
                     [labels.{}]",
                    site.key, site.locale, site.locale
                ));
            }
            if site.identity == Identity::None && !site.limits.reload_window.is_zero() {
                warnings.push(format!(
                    "site {} tells no visitors apart: its reload_window has no effect",
                    site.key
                ));
            }
            let given = |name: &str| self.settings.is_given(&format!("site.{place}.{name}"));
            if given("key") && !given("time_zone") {
                warnings.push(format!(
                    "site {} names no time_zone and its days are cut in UTC; closed days are never cut \
                     anew, so set it before the first view (or write \"UTC\")",
                    site.key
                ));
            }
            warnings.extend(conflicts::of_readers(site));
            for host in &site.hosts {
                let first = *owner.entry(host).or_insert(site);
                if first.id != site.id {
                    warnings.push(format!(
                        "host {host} belongs to the sites {} and {}: a beacon from it must name its site",
                        first.key, site.key
                    ));
                }
            }
        }
        warnings
    }
}
