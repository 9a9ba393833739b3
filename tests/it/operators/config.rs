//! Configurations, good and bad: through [`Config::load`] and through the binary.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use footfall::config::{Config, DEFAULTS, LogFormat};
use footfall::ingest::ClientHeader;
use footfall::sites::{Identity, OriginCheck, PageCase};
use footfall::totals::Sync;

use crate::support::servers::NOBODY;

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(("footfall.toml", text)), env)
        .map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> Config {
    load(text, &[]).unwrap_or_else(|faults| panic!("{text}: {faults:#?}"))
}

/// A site with the key `a` and more lines.
fn site(lines: &str) -> String {
    format!("[[site]]\nkey = \"a\"\nhosts = [\"a.example\"]\n{lines}")
}

#[test]
fn without_any_source_the_defaults_hold() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config.serve.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.serve.admin_listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.serve.max_connections, 10_000);
    assert_eq!(config.serve.lists.proxies.header, ClientHeader::List("x-forwarded-for".parse().unwrap()));
    assert!(config.serve.lists.proxies.trusted.iter().all(|network| network.addr().is_loopback()));
    assert_eq!(config.public_url, "");
    assert_eq!(config.stop_timeout, Duration::from_secs(10));
    assert_eq!(config.sessions.online_window, Duration::from_secs(300));
    assert_eq!(config.sessions.visit_timeout, Duration::from_secs(1800));
    assert_eq!(config.totals.data_dir, Path::new("data"));
    assert_eq!(config.totals.journal.sync, Sync::EverySecond);
    assert_eq!(config.totals.journal.max_bytes, 1 << 30);
    assert_eq!(config.totals.outbox.retention, Duration::from_secs(72 * 3600));
    assert_eq!(config.totals.store.url, "embedded".parse().unwrap());
    assert_eq!(config.totals.store.flush_interval, Duration::from_secs(10));
    assert_eq!(config.totals.store.tls_ca_file, None);
    assert_eq!(config.totals.checkpoint_interval, Duration::from_secs(60));
    assert_eq!(config.log.format, LogFormat::Auto);
    let demo = config.sites.get("demo").unwrap();
    assert_eq!(demo.hosts, ["localhost", "127.0.0.1"]);
    assert_eq!(demo.calendar.zone.name(), "UTC");
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn every_default_is_explained() {
    let mut above = "";
    // The words of a second language mean what those of the first do.
    let (first, second) = DEFAULTS.split_once("[labels.vi]").unwrap();
    let rest = second.split_once("\n\n").unwrap().1;
    for line in first.lines().chain(rest.lines()) {
        let is_key = !line.starts_with(['#', '[']) && line.contains(" = ");
        assert!(!is_key || above.starts_with("# "), "{line}: say what it is");
        above = line;
    }
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let given = site("time_zone = \"Asia/Ho_Chi_Minh\"\npage_query = [\"id\"]\n");
    let text = format!("data_dir = 'a\"b'\n[http]\nmax_connections = 1_000\n{given}");
    let printed = good(&text).to_toml();
    let line = "time_zone = \"Asia/Ho_Chi_Minh\" # footfall.toml line 7";
    assert!(printed.contains(line), "{printed}");
    let plain = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(plain(&good(&printed).to_toml()), plain(&printed));
    // What follows from the store does so where the copy names another one.
    let copied = printed.replace("url = \"embedded\"", "url = \"redis://cache\"");
    assert_eq!(good(&copied).totals.store.flush_interval, Duration::from_secs(1), "{copied}");
}

#[test]
fn the_defaults_as_a_file_change_nothing() {
    let config = good(DEFAULTS);
    assert_eq!(config.to_toml(), Config::load(None, std::iter::empty()).unwrap().to_toml());
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn a_file_sets_every_kind_of_value() {
    let config = good(
        r#"
        listen = "[::]:9000"
        public_url = "https://stats.example.org/count/"
        trusted_proxies = ["10.1.2.3/8", "2001:db8::1"]
        client_header = "CF-Connecting-IP"
        journal = { sync = "always", max_bytes = "64 MiB" }
        [store]
        url = "rediss://:secret@cache:6380/2"
        tls_ca_file = "/etc/ca.pem"
        [log]
        level = "debug"
        [[site]]
        key = "lamdong"
        hosts = ["BaoLamDong.vn", "báo.vn", "::1", "baolamdong.vn", "*.LamDong.gov.vn"]
        origins = ["null", "amp.example", "Capacitor://localhost", "file://", "*.translate.goog"]
        time_zone = "Asia/Ho_Chi_Minh"
        week_start = "sunday"
        locale = "vi"
        identity = "browser"
        page_query = ["id"]
        page_case = "fold"
        origin_check = "strict"
        "#,
    );
    assert_eq!(config.public_url, "https://stats.example.org/count");
    let trusted: Vec<String> = config.serve.lists.proxies.trusted.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "2001:db8::1/128"]);
    assert_eq!(config.serve.lists.proxies.header, ClientHeader::List("cf-connecting-ip".parse().unwrap()));
    assert_eq!(config.totals.journal.sync, Sync::Always);
    assert_eq!(config.totals.journal.max_bytes, 64 << 20);
    assert_eq!(config.totals.store.flush_interval, Duration::from_secs(1));
    assert_eq!(config.totals.store.tls_ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert!(config.sites.get("demo").is_none(), "a site of the user's replaces the demo");
    let site = config.sites.get("lamdong").unwrap();
    assert_eq!(site.hosts, ["baolamdong.vn", "xn--bo-mia.vn", "[::1]", "*.lamdong.gov.vn"]);
    assert_eq!(site.origins, ["null", "amp.example", "capacitor://localhost", "file://", "*.translate.goog"]);
    assert_eq!(site.calendar.zone.name(), "Asia/Ho_Chi_Minh");
    assert_eq!(site.calendar.week_start, chrono::Weekday::Sun);
    assert_eq!((site.identity, site.pages.case), (Identity::Browser, PageCase::Fold));
    assert_eq!(
        (site.origin_check, site.pages.query.as_slice()),
        (OriginCheck::Strict, &["id".to_owned()][..])
    );
    assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    assert!(config.to_toml().contains("rediss://***@cache:6380/2"), "{config:?}");
}

#[test]
fn a_variable_wins_over_the_file() {
    let env = [
        ("FOOTFALL_STORE__URL", "redis://cache"),
        ("FOOTFALL_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7"),
        ("FOOTFALL_HTTP__MAX_CONNECTIONS", "500"),
        ("FOOTFALL_SITE__0__TIME_ZONE", "Europe/Paris"),
        ("FOOTFALL_SITE__1__KEY", "b"),
        ("FOOTFALL_SITE__1__HOSTS", "b.example,www.b.example"),
        ("FOOTFALL_CONFIG", "elsewhere.toml"),
        ("FOOTFALL_LOG", "debug"),
        ("FOOTFALL_SERVICE_HOST", "10.96.0.7"),
        ("FOOTFALL_PORT", "tcp://10.96.0.7:8080"),
        ("FOOTFALL_ADMIN_PORT_8081_TCP_ADDR", "10.96.0.8"),
        ("PATH", "/bin"),
    ];
    let config = load(&site("[store]\nurl = \"embedded\""), &env).unwrap();
    assert_eq!(config.totals.store.url, "redis://cache".parse().unwrap());
    assert_eq!(config.serve.lists.proxies.trusted.len(), 2);
    assert_eq!(config.serve.max_connections, 500);
    assert_eq!(config.sites.get("a").unwrap().calendar.zone.name(), "Europe/Paris");
    assert_eq!(config.sites.get("b").unwrap().hosts, ["b.example", "www.b.example"]);
}

#[test]
fn a_variable_names_a_site_by_its_key_and_a_secret_never_goes_to_another_site() {
    let site =
        |key: &str| format!("[[site]]\nkey = \"{key}\"\nhosts = [\"{key}.example\"]\ntime_zone = \"UTC\"\n");
    let (main, first, second) = (site("tin"), site("lam-dong"), site("7"));
    let load = |files: &[&String], env: &[(&str, &str)]| {
        let files = files.iter().map(|text| ("a file", text.as_str()));
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(files, env)
    };
    let (name, token) = ("FOOTFALL_SITE__LAM_DONG__NEWSROOM_TOKEN", "0123456789abcdef");
    // Whatever stands before it, and as a secret in a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    for files in [vec![&first], vec![&main, &first], vec![&main, &second, &first]] {
        let in_file = format!("{name}_FILE");
        for env in [[(name, token)], [(in_file.as_str(), file.to_str().unwrap())]] {
            let config = load(&files, &env).unwrap_or_else(|faults| panic!("{faults}"));
            let with = config.sites.iter().filter(|site| site.newsroom_token.is_some());
            assert_eq!(with.map(|site| site.key.as_str()).collect::<Vec<_>>(), ["lam-dong"]);
        }
    }
    let config =
        load(&[&main, &first], &[("FOOTFALL_SITE__1__LOCALE", "vi"), ("FOOTFALL_SITE__TIN__LOCALE", "de")])
            .unwrap();
    assert_eq!(["tin", "lam-dong"].map(|key| config.sites.get(key).unwrap().locale.clone()), ["de", "vi"]);

    for (name, value) in [
        ("FOOTFALL_SITE__1__NEWSROOM_TOKEN", token),
        ("FOOTFALL_SITE__1__NEWSROOM_TOKEN_FILE", file.to_str().unwrap()),
        ("FOOTFALL_SITE__1__READ_TOKENS", "sha256:00"),
    ] {
        let told = load(&[&main, &first], &[(name, value)]).unwrap_err().to_string();
        let remedy = name.replace("__1__", "__LAM_DONG__");
        assert!(told.contains(&format!("name the site by its key: {remedy}")), "{told}");
        assert!(!told.contains(token), "{told}");
    }
    // Beside one file alone a number stays that of its site, and a site may be one of variables alone.
    let of_one = load(&[&main], &[("FOOTFALL_SITE__0__NEWSROOM_TOKEN", token)]).unwrap();
    assert!(of_one.sites.get("tin").unwrap().newsroom_token.is_some());
    let alone = [
        ("FOOTFALL_SITE__0__KEY", "a-b"),
        ("FOOTFALL_SITE__0__HOSTS", "a.example"),
        ("FOOTFALL_SITE__A_B__NEWSROOM_TOKEN", token),
    ];
    assert!(load(&[], &alone).unwrap().sites.get("a-b").unwrap().newsroom_token.is_some());
    let unknown = load(&[&main], &[("FOOTFALL_SITE__TINN__NEWSROOM_TOKEN", token)]).unwrap_err().to_string();
    assert!(
        unknown.contains("unknown key") && unknown.contains("by its key") && !unknown.contains(token),
        "{unknown}"
    );
}

#[test]
fn a_secret_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "redis://:secret@cache\n").unwrap();
    let path = path.to_str().unwrap();
    let config = load("", &[("FOOTFALL_STORE__URL_FILE", path)]).unwrap();
    assert_eq!(config.totals.store.url, "redis://:secret@cache".parse().unwrap());

    let both = [("FOOTFALL_STORE__URL_FILE", path), ("FOOTFALL_STORE__URL", "redis://:secret@other")];
    let faults = load("", &both).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].ends_with("FOOTFALL_STORE__URL is set too; set one of the two"), "{faults:?}");

    let missing = load("", &[("FOOTFALL_STORE__URL_FILE", "/nowhere/url")]).unwrap_err();
    assert!(
        missing[0].starts_with("FOOTFALL_STORE__URL_FILE = \"/nowhere/url\": cannot be read"),
        "{missing:?}"
    );
}

#[test]
fn each_fault_names_key_value_and_remedy() {
    for (text, fault) in [
        ("listen = \"localhost:80\"", "listen = \"localhost:80\": not an address with a port; write it like"),
        ("listen = 8080", "listen = 8080: not a text in quotes; write it like \"127.0.0.1:8080\""),
        ("admin_listen = \"0.0.0.0:8080\"", "admin_listen = \"0.0.0.0:8080\": its port is that of listen"),
        ("public_url = \"stats.example\"", "public_url = \"stats.example\": not an http or https URL"),
        ("public_url = \"ftp://x.example\"", "public_url = \"ftp://x.example\": not an http or https URL"),
        ("data_dir = \"\"", "data_dir = \"\": empty; name a directory"),
        (
            "trusted_proxies = [\"10.0.0.0/33\"]",
            "trusted_proxies = [\"10.0.0.0/33\"]: \"10.0.0.0/33\" is not",
        ),
        ("trusted_proxies = \"::1\"", "trusted_proxies = \"::1\": not a list of texts; write it like ["),
        ("trusted_proxies = [1]", "trusted_proxies = […]: not a list of texts"),
        ("client_header = \"x forwarded\"", "client_header = \"x forwarded\": not the name of a header"),
        ("stop_timeout = \"10\"", "stop_timeout = \"10\": not a duration with a unit; write it like"),
        ("stop_timeout = \"1h\"", "stop_timeout = \"1h\": out of range; choose a value from 1s to 10m"),
    ] {
        assert_one(text, fault);
    }
}

#[test]
fn each_fault_of_a_section_names_the_section() {
    for (text, fault) in [
        ("http.max_connections = 0", "http.max_connections = 0: out of range; choose"),
        ("http.max_connections = -5", "http.max_connections = -5: out of range; choose"),
        ("http.max_connections = 1.5", "http.max_connections = 1.5: not a whole number; write it like 10000"),
        ("http.max_connections = \"9\"", "http.max_connections = \"9\": not a whole number"),
        (
            "journal.sync = \"sometimes\"",
            "journal.sync = \"sometimes\": not one of every-second, always, memory; choose one",
        ),
        (
            "journal.max_bytes = \"1024\"",
            "journal.max_bytes = \"1024\": not a size with a unit; write it like",
        ),
        (
            "outbox.max_bytes = \"1 MiB\"",
            "outbox.max_bytes = \"1 MiB\": out of range; choose a value from 16 MiB",
        ),
        ("outbox.retention = true", "outbox.retention = true: not a text in quotes; write it like \"72h\""),
        (
            "sessions.online_window = \"9s\"",
            "sessions.online_window = \"9s\": out of range; choose a value from 10s",
        ),
        (
            "sessions.online_window = \"auto\"",
            "sessions.online_window = \"auto\": not a duration with a unit",
        ),
        (
            "sessions.visit_timeout = \"1m\"",
            "sessions.visit_timeout = \"1m\": shorter than sessions.online_window",
        ),
        (
            "sessions.max_sessions = 999",
            "sessions.max_sessions = 999: out of range; choose a value from 1000",
        ),
        (
            "sessions.online_window = \"10999ms\"",
            "sessions.online_window = \"10999ms\": not whole seconds; write it like",
        ),
        ("sessions.visit_timeout = \"1h 500ms\"", "sessions.visit_timeout = \"1h 500ms\": not whole seconds"),
        (
            "totals.page_days = 11\noutbox.retention = \"10days\"",
            "totals.page_days = 11: not two days more than outbox.retention; give it at least 12, or shorten outbox.retention",
        ),
        ("log.level = \"loud\"", "log.level = \"loud\": not one of error, warn, info, debug, trace"),
    ] {
        assert_one(text, fault);
    }
}

#[test]
fn each_fault_of_who_is_left_out_names_what_to_write() {
    let of_site = |line: &str| format!("[[site]]\nkey = \"a\"\nhosts = [\"a.vn\"]\n{line}");
    for (text, fault) in [
        (
            "robots_add = [\"ab\"]".to_owned(),
            "robots_add = [\"ab\"]: \"ab\" is not 3 to 64 characters of a user agent; write a word",
        ),
        (
            "robots_add = [\"NewsReader\", \"gecko\"]".to_owned(),
            "robots_add = [\"NewsReader\", \"gecko\"]: \"gecko\" is in the user agents of browsers; write words that only",
        ),
        ("robots_add = \"NewsReader\"".to_owned(), "robots_add = \"NewsReader\": not a list of texts"),
        (of_site("robots = \"no\""), "site.0.robots = \"no\": not one of out, shadow, count; choose one"),
        (
            of_site("robots_allow = [\"\"]"),
            "site.0.robots_allow = [\"\"]: \"\" is not 3 to 64 characters of a user agent",
        ),
        (
            of_site("exclude_addresses = [\"203.0.113.0-255\"]"),
            "site.0.exclude_addresses = [\"203.0.113.0-255\"]: \"203.0.113.0-255\" is not a network; write it like",
        ),
        (
            of_site("exclude_pages = [\"/admin/*\", \"admin\"]"),
            "site.0.exclude_pages = [\"/admin/*\", \"admin\"]: \"admin\" is not a page, or one with a star at its end; \
             write a path, like \"/admin\"",
        ),
        (
            of_site("honour_as = \"views\""),
            "site.0.honour_as = \"views\": not one of leave-out, without-identity; choose one",
        ),
    ] {
        assert_one(&text, fault);
    }
}

#[test]
fn a_stores_fault_shows_no_secret() {
    for (text, fault) in [
        (
            "store.url = \"mysql://x\"",
            "store.url = \"mysql://x\": not the URL of a store; write \"embedded\"",
        ),
        (
            "store.url = \"redis://a/secret\"",
            "store.url = \"redis://a/***\": what stands after the host is not",
        ),
        ("store.url = \"redis://u:secret\"", "store.url = \"redis://***\": not the URL of a store"),
        ("store.url = \"redis://:secret:6379\"", "store.url = \"redis://***\": not the URL of a store"),
        ("store.url = \"secret\"", "store.url = \"***\": not the URL of a store"),
        ("public_url = \"https://u:secret@h\"", "public_url = \"https://***@h/\": not an http or https URL"),
        // As `print-config` shows it.
        (
            "store.url = \"redis://***@cache\"",
            "store.url = \"redis://***@cache\": *** stands where print-config",
        ),
        ("store.url = \"***\"", "store.url = \"***\": *** stands where print-config hides a secret"),
        (
            "store.url = \"redis+cluster://a\"",
            "store.url = \"redis+cluster://a\": redis+cluster is not supported yet",
        ),
        (
            "store.url = \"redis+sentinel://a\"",
            "store.url = \"redis+sentinel://a\": redis+sentinel is not supported",
        ),
        ("store.url = \"redis://u:secret@h:x\"", "store.url = \"redis://***\": not the URL of a store"),
        ("store.url = [\"redis://:secret@h\"]", "store.url: not a text in quotes"),
        (
            "store.flush_interval = \"10m\"",
            "store.flush_interval = \"10m\": out of range; choose a value from 100ms",
        ),
    ] {
        assert_one(text, fault);
    }
}

#[test]
fn a_key_that_is_not_known_is_refused_with_the_nearest() {
    for (text, fault) in [
        (
            "store.flushinterval = \"1s\"",
            "store.flushinterval: unknown key; did you mean store.flush_interval?",
        ),
        (
            "flush_interval = \"1s\"",
            "flush_interval: unknown key; flush_interval belongs below [store]: write",
        ),
        ("[http]\nlisten = \"x\"", "http.listen: unknown key; listen belongs above the first section: write"),
        (
            "[store]\nmax_bytes = \"x\"",
            "store.max_bytes: unknown key; max_bytes belongs below [journal] or below [outbox]",
        ),
        (
            "[http]\nlocale = \"vi\"",
            "http.locale: unknown key; locale belongs below [[site]]: write it there",
        ),
        ("store = \"embedded\"", "store: unknown key; it is a section: write its keys under [store]"),
        ("colour = \"red\"", "colour: unknown key; see config/footfall.toml"),
        ("[empty]", "empty: unknown key"),
        ("site = []", "site: unknown key; write each site as a section [[site]]"),
        ("[site]\nkey = \"a\"", "site.key: unknown key; write each site as a section [[site]]"),
        ("[[site]]\nkey = \"a\"", "site.0.hosts: missing; write it like [\"localhost\""),
        ("[[site]]\nhosts = [\"a.example\"]", "site.0.key: missing; write it like \"demo\""),
    ] {
        assert_one(text, fault);
    }
}

#[test]
fn each_fault_of_a_site_names_the_site() {
    for (lines, fault) in [
        (
            "data_dir = \"x\"",
            "site.0.data_dir: unknown key; data_dir belongs above the first section: write it",
        ),
        ("url = \"redis://:secret@x\"", "site.0.url: unknown key; url belongs below [store]: write it there"),
        ("hostz = []", "site.0.hostz: unknown key; did you mean site.0.hosts?"),
        (
            "time_zone = \"Mars/Base\"",
            "site.0.time_zone = \"Mars/Base\": not a time zone of the IANA database",
        ),
        ("week_start = \"mon\"", "site.0.week_start = \"mon\": not one of monday, tuesday,"),
        (
            "require_consent = \"true\"",
            "site.0.require_consent = \"true\": not true or false; write it like false",
        ),
        ("locale = \"vietnamese\"", "site.0.locale = \"vietnamese\": not a BCP 47 language tag"),
        ("identity = \"cookie\"", "site.0.identity = \"cookie\": not one of address, browser, none"),
        ("page_query = [\"a&b\"]", "site.0.page_query = [\"a&b\"]: \"a&b\" is not a query's name"),
        ("page_query = [\"a%20b\"]", "site.0.page_query = [\"a%20b\"]: \"a%20b\" is not a query's name"),
        ("page_query = [\"a+b\"]", "site.0.page_query = [\"a+b\"]: \"a+b\" is not a query's name"),
        (
            "newsroom_token = \"***\"",
            "site.0.newsroom_token = \"***\": stands where print-config hides a secret",
        ),
        ("newsroom_token = \"0123456789abcdef+\"", "site.0.newsroom_token = \"***\": not 16 or more letters"),
        ("newsroom_token = \"0123456789abcdef&\"", "site.0.newsroom_token = \"***\": not 16 or more letters"),
        ("page_case = \"lower\"", "site.0.page_case = \"lower\": not one of keep, fold"),
        ("origin_check = \"no\"", "site.0.origin_check = \"no\": not one of lenient, strict"),
        (
            "origins = [\"https://x.example\"]",
            "site.0.origins = [\"https://x.example\"]: \"https://x.example\" has",
        ),
        ("[[site]]\nkey = \"a\"\nhosts = [\"b.example\"]", "site.1.key = \"a\": site.0 has the same key"),
        ("[[site]]", "site.1: unknown key; give the site a key and hosts"),
    ] {
        assert_one(&site(lines), fault);
    }
    for (key, hosts, fault) in [
        ("A", "a.example", "site.0.key = \"A\": not a site's key; use 1 to 32 of a-z, 0-9"),
        ("", "a.example", "site.0.key = \"\": not a site's key"),
        ("a", "a.example:80", "site.0.hosts = [\"a.example:80\"]: \"a.example:80\" has a port"),
        (
            "a",
            "https://u:secret@a.example",
            "site.0.hosts = [\"https://***@a.example/\"]: \"https://***@a.example/\" has",
        ),
        ("a", "http://a.example", "site.0.hosts = [\"http://a.example\"]: \"http://a.example\" has a scheme"),
        ("a", "*.example", "site.0.hosts = [\"*.example\"]: \"*.example\" is a pattern"),
        ("a", "*", "site.0.hosts = [\"*\"]: \"*\" is a pattern"),
        ("a", "www.*.example", "site.0.hosts = [\"www.*.example\"]: \"www.*.example\" is a pattern"),
        ("a", "*a.example.org", "site.0.hosts = [\"*a.example.org\"]: \"*a.example.org\" is a pattern"),
        ("a", "*.*.example.org", "site.0.hosts = [\"*.*.example.org\"]: \"*.example.org\" is a pattern"),
        ("a", "a b", "site.0.hosts = [\"a b\"]: \"a b\" is not a host"),
    ] {
        assert_one(&format!("[[site]]\nkey = \"{key}\"\nhosts = [\"{hosts}\"]"), fault);
    }
    assert_one("[[site]]\nkey = \"a\"\nhosts = []", "site.0.hosts = []: no host is named");
}

/// The configuration has one fault, whose line begins so.
fn assert_one(text: &str, fault: &str) {
    let faults = load(text, &[]).expect_err(text);
    assert_eq!(faults.len(), 1, "{text}: {faults:#?}");
    assert!(faults[0].starts_with(fault), "{text}\n  says   {}\n  wanted {fault}", faults[0]);
    assert!(!faults[0].replace("hides a secret", "").contains("secret"), "{}", faults[0]);
}

#[test]
fn faults_of_variables_name_the_variable() {
    for ((name, value), fault) in [
        (
            ("FOOTFALL_STORE_URL", "redis://:secret@x"),
            "FOOTFALL_STORE_URL: unknown key; did you mean FOOTFALL_STORE__URL?",
        ),
        (("FOOTFALL_LISTN", "x"), "FOOTFALL_LISTN: unknown key; did you mean FOOTFALL_LISTEN?"),
        (("FOOTFALL_LISTEN_FILE", "x"), "FOOTFALL_LISTEN_FILE: unknown key"),
        (
            ("FOOTFALL_JOURNAL__SYNC", "no"),
            "journal.sync = \"no\": not one of every-second, always, memory; choose one (FOOTFALL_JOURNAL__SYNC)",
        ),
        (
            ("FOOTFALL_TOTALS__MAX_IDS", "many"),
            "totals.max_ids = \"many\": not a whole number; write it like 1000000 (FOOTFALL_TOTALS__MAX_IDS)",
        ),
        (("FOOTFALL_SITE__1__TIME_ZONE", "UTC"), "site.0: missing, while a later site is there"),
    ] {
        let faults = load("", &[(name, value)]).unwrap_err();
        assert!(faults[0].starts_with(fault), "{name}: {faults:#?}");
        assert!(!faults.concat().contains("secret"), "{faults:?}");
    }
}

#[test]
fn syntax_faults_name_their_lines_and_show_no_secret() {
    let text = "listen = \"127.0.0.1:1\"\n[store]\nurl = \"redis://:secret@cache\nx = 1\n\n= 7\n";
    let faults = load(text, &[]).unwrap_err();
    assert!(faults[0].starts_with("footfall.toml: not TOML: "), "{faults:?}");
    assert!(faults[0].ends_with("(line 3)"), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.ends_with("(line 6)")), "{faults:?}");
    assert!(!faults.concat().contains("secret"), "{faults:?}");

    let twice = load("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n", &[]).unwrap_err();
    assert!(twice[0].ends_with("(line 2)"), "{twice:?}");
}

#[test]
fn all_faults_are_told_at_once() {
    let text =
        "listn = \"x\"\n[journal]\nsync = \"no\"\n[[site]]\nkey = \"A\"\nhosts = [\"a:1\"]\nlocale = 7\n";
    let faults = load(text, &[("FOOTFALL_NONSENSE", "1"), ("FOOTFALL_STORE__TIMEOUT", "2")]).unwrap_err();
    let keys: Vec<&str> = faults.iter().map(|f| f.split([' ', ':']).next().unwrap_or_default()).collect();
    for key in [
        "listn",
        "site.0.locale",
        "FOOTFALL_NONSENSE",
        "journal.sync",
        "store.timeout",
        "site.0.hosts",
        "site.0.key",
    ] {
        assert!(keys.contains(&key), "{key} is not in {faults:#?}");
    }
    assert_eq!(keys.len(), 7, "{faults:#?}");
}

#[test]
fn ipv4_networks_in_ipv6_form_are_those_of_ipv4() {
    for (written, network) in [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0a01:0203", "10.1.2.3/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2001:db8::7/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ] {
        let trusted = good(&format!("trusted_proxies = [\"{written}\"]")).serve.lists.proxies.trusted;
        assert_eq!(trusted, [network.parse().unwrap()], "{written}");
    }
    for written in ["010.0.0.0/8", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/", "10/8"] {
        let network = format!("trusted_proxies = [\"{written}\"]");
        assert_one(&network, &format!("{network}: \"{written}\" is not a network"));
    }
}

#[test]
fn each_variable_is_used_refused_or_named() {
    for ((name, value), fault) in [
        (("FOOTFALL_SITE__00__KEY", "a"), "FOOTFALL_SITE__00__KEY: unknown key; number the sites from 0"),
        (("FOOTFALL_SITE__+0__KEY", "a"), "FOOTFALL_SITE__+0__KEY: unknown key; number the sites from 0"),
        (("FOOTFALL_HTTP__MAX_CONNECTIONS", "0500"), "http.max_connections = \"0500\": not a whole number"),
        (
            ("FOOTFALL_SITE__0__REQUIRE_CONSENT", "yes"),
            "site.0.require_consent = \"yes\": not true or false; write it like false",
        ),
        (("FOOTFALL_HTTP__MAX_CONNECTIONS", "+500"), "http.max_connections = \"+500\": not a whole number"),
        (("FOOTFALL_listen", "127.0.0.1:1"), "FOOTFALL_listen: not in capitals; write FOOTFALL_LISTEN"),
        (("footfall_listen", "127.0.0.1:1"), "footfall_listen: not in capitals; write FOOTFALL_LISTEN"),
        (("Footfall_Config", "x.toml"), "Footfall_Config: not in capitals; write FOOTFALL_CONFIG"),
        // As an orchestrator names its own, but not with its values, or not all of them.
        (("FOOTFALL_LISTEN_PORT", "8080"), "FOOTFALL_LISTEN_PORT: unknown key"),
        (("FOOTFALL_PORT", "8080"), "FOOTFALL_PORT: unknown key"),
        (("FOOTFALL_ADMIN_PORT", "8081"), "FOOTFALL_ADMIN_PORT: unknown key"),
        (("FOOTFALL_SERVICE_HOST", "stats.example"), "FOOTFALL_SERVICE_HOST: unknown key"),
        (("FOOTFALL_SERVICE_PORT", "8080"), "FOOTFALL_SERVICE_PORT: unknown key"),
        (("FOOTFALL_PORT_RANGE", "tcp://10.0.0.1:80"), "FOOTFALL_PORT_RANGE: unknown key"),
        (("FOOTFALL_STORE_PORT_6379", "tcp://10.0.0.1:80"), "FOOTFALL_STORE_PORT_6379: unknown key"),
    ] {
        let faults = load("", &[(name, value)]).expect_err(name);
        assert!(faults[0].starts_with(fault), "{name}: {faults:#?}");
    }
    let made = [
        ("FOOTFALL_WEB_PORT", "tcp://10.96.0.7:8080"),
        ("FOOTFALL_WEB_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("FOOTFALL_WEB_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("FOOTFALL_WEB_PORT_8080_TCP_PORT", "8080"),
        ("FOOTFALL_WEB_PORT_8080_TCP_PROTO", "tcp"),
        ("FOOTFALL_WEB_SERVICE_HOST", "10.96.0.7"),
        ("FOOTFALL_WEB_SERVICE_PORT", "8080"),
        ("FOOTFALL_WEB_SERVICE_PORT_HTTP", "8080"),
    ];
    let warnings = load("", &made).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(made.iter().all(|(name, _)| warnings[0].contains(name)), "{warnings:?}");
}

#[test]
fn a_section_whose_keys_are_commented_out_changes_nothing() {
    let bare: String = DEFAULTS
        .lines()
        .filter(|line| line.starts_with('[') && *line != "[[site]]")
        .collect::<Vec<_>>()
        .join("\n#\n");
    assert!(bare.contains("[journal]") && bare.contains("[labels.vi]"), "{bare}");
    assert_eq!(good(&bare).to_toml(), good("").to_toml());
    assert_one("[[site]]\n# key = \"a\"", "site.0: unknown key; give the site a key and hosts");
    assert_eq!(good("[labels.fr]\n# title = \"Visites\"").to_toml(), good("").to_toml());
    assert_one("[store.url]", "store.url: not a text in quotes");
}

#[test]
fn a_language_is_written_once_and_by_its_tag() {
    assert_one("[labels.EN]\ntitle = \"x\"", "labels.");
    let faults = load("[labels.english_]\ntitle = \"x\"", &[]).unwrap_err();
    assert!(faults.iter().any(|fault| fault.starts_with("labels.english_: not a BCP 47")), "{faults:?}");
}

#[test]
fn an_editors_files_among_those_of_sites_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("sites.d")).unwrap();
    write("footfall.toml", "");
    write("sites.d/a.toml", &site("time_zone = \"UTC\""));
    for stray in [".a.toml.swp", "a.toml~", "#a.toml#", ".hidden.toml", "a.toml.bak"] {
        write(&format!("sites.d/{stray}"), "not [ TOML");
    }
    write("sites.d/README", "sites");
    std::os::unix::fs::symlink("nobody@nowhere.1", folder.path().join("sites.d/.#a.toml")).unwrap();
    let path = folder.path().join("footfall.toml");
    let checked = footfall(&["check-config", "--config", path.to_str().unwrap()], &[]);
    let told = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(0), "{told}{}", text(&checked.stderr));
    for stray in ["/.a.toml.swp", "/a.toml~", "/#a.toml#", "/.hidden.toml", "/a.toml.bak", "/.#a.toml"] {
        assert!(told.contains(&format!("sites.d{stray} is not read")), "{stray}: {told}");
    }
    assert_eq!(told.lines().count(), 7, "{told}");
    // Nor is anything else passed over in silence.
    let others = ["lam.tml", "lam.conf", "lam", "lam.json"];
    others.iter().for_each(|other| write(&format!("sites.d/{other}"), &site("")));
    ["x.toml", "y.toml"].iter().for_each(|empty| write(&format!("sites.d/{empty}"), "# [[site]]\n"));
    write("sites.d/README.md", "sites");
    write("sites.d/.gitkeep", "");
    let checked = footfall(&["check-config", "--config", path.to_str().unwrap()], &[]);
    let told = text(&checked.stdout);
    for other in others {
        assert!(told.contains(&format!("sites.d/{other} is not read")), "{other}: {told}");
    }
    assert_eq!(told.matches(".toml has no [[site]]: it adds nothing").count(), 2, "{told}");
    assert_eq!(told.lines().count(), 7 + others.len() + 2, "{told}");
    write("sites.d/b.toml", "not [ TOML");
    let bad = footfall(&["check-config", "--config", path.to_str().unwrap()], &[]);
    assert_eq!(bad.status.code(), Some(64), "one of their own is refused");
}

#[test]
fn sites_in_files_of_their_own_need_no_main_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("config/sites.d")).unwrap();
    std::fs::write(folder.path().join("config/sites.d/a.toml"), site("time_zone = \"UTC\"")).unwrap();
    let found = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .arg("print-config")
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    let printed = text(&found.stdout);
    assert!(printed.contains("key = \"a\" # config/sites.d/a.toml line 2"), "{printed}");
    assert!(!printed.contains("\"demo\""), "{printed}");
}

#[test]
fn a_filter_of_the_log_that_means_nothing_is_refused_and_none_silences_what_it_does_not_name() {
    let refused = |variable: &str, wrong: &str| {
        for command in ["check-config", "serve", "verify"] {
            let said = footfall(&[command], &[(variable, wrong)]);
            assert_eq!(said.status.code(), Some(64), "{command} with {variable}={wrong}");
            assert!(text(&said.stderr).contains(variable), "{}", text(&said.stderr));
        }
    };
    for wrong in [
        "warning",
        "debugg",
        "info,footfal::totals=debug",
        "footfall::totls=debug",
        "footfallx=info",
        "footfall=loud",
        "info,other",
    ] {
        refused("FOOTFALL_LOG", wrong);
    }
    refused("RUST_LOG", "footfall=loud");
    let lib = include_str!("../../../src/lib.rs");
    let parts = ["app", "clock", "commands", "config", "ingest", "metrics", "serve", "sessions", "totals"];
    for part in parts {
        assert!(lib.contains(&format!("pub mod {part};")), "{part}");
        let filter = format!("Info, footfall::{part}=debug,");
        assert_eq!(
            footfall(&["check-config"], &[("FOOTFALL_LOG", &filter)]).status.code(),
            Some(0),
            "{filter}"
        );
    }
    for filter in ["footfall", "off", "info,hyper=warn"] {
        assert_eq!(footfall(&["check-config"], &[("RUST_LOG", filter)]).status.code(), Some(0), "{filter}");
    }
    // The second is set for other programs.
    for (variable, filter) in [("FOOTFALL_LOG", "footfall::totals=debug"), ("RUST_LOG", "warning,sqlx=info")]
    {
        let log = log_of("exec \"$FOOTFALL\"", &[(variable, filter)]);
        assert!(log.contains("\"ERROR\"") && log.contains("\"WARN\""), "{log}");
    }
}

#[test]
fn the_client_header_may_be_named_by_its_cdn() {
    for (name, header) in [
        ("cloudflare", "cf-connecting-ip"),
        ("Fastly", "fastly-client-ip"),
        ("akamai", "true-client-ip"),
        ("azure", "x-azure-clientip"),
        ("X-Real-IP", "x-real-ip"),
    ] {
        let config = good(&format!("client_header = \"{name}\""));
        assert_eq!(config.serve.lists.proxies.header, ClientHeader::List(header.parse().unwrap()), "{name}");
    }
}

#[test]
fn an_apex_without_its_www_is_noted() {
    let noted = |hosts: &str| {
        let config = good(&format!("[[site]]\nkey = \"a\"\nhosts = [{hosts}]\ntime_zone = \"UTC\"\n"));
        assert_eq!(config.warnings, [""; 0], "{hosts}");
        config.notes().collect::<Vec<_>>()
    };
    for hosts in [r#""bao.vn""#, r#""bao.com.vn", "m.bao.com.vn""#, r#""www.x.vn", "bao.vn""#] {
        let notes = noted(hosts);
        assert!(notes.len() == 1 && notes[0].contains("add it to hosts"), "{hosts}: {notes:?}");
    }
    for hosts in [
        r#""bao.vn", "www.bao.vn""#,
        r#""bao.vn", "*.bao.vn""#,
        r#""www.bao.vn""#,
        r#""tin.lamdong.gov.vn""#,
        r#""localhost", "127.0.0.1", "[::1]", "*.x.vn", "a.example""#,
    ] {
        assert_eq!(noted(hosts), [""; 0], "{hosts}");
    }
    let said =
        footfall(&["check-config"], &[("FOOTFALL_SITE__0__KEY", "a"), ("FOOTFALL_SITE__0__HOSTS", "bao.vn")]);
    assert!(text(&said.stdout).contains("note: site a has the host bao.vn and not www.bao.vn"), "{said:?}");
}

#[test]
fn contradictions_are_warned_about() {
    let zone = "time_zone = \"UTC\"\n";
    for (text, warning) in [
        (
            "listen = \"0.0.0.0:80\"\ntrusted_proxies = [\"0.0.0.0/0\"]".to_owned(),
            "trusted_proxies holds a network of strangers",
        ),
        // A proxy on this machine passes on what a client made up.
        ("trusted_proxies = [\"0.0.0.0/0\"]".to_owned(), "trusted_proxies holds a network of strangers"),
        (
            "trusted_proxies = [\"0.0.0.0/1\", \"128.0.0.0/1\"]".to_owned(),
            "trusted_proxies holds a network of",
        ),
        ("trusted_proxies = [\"::ffff:0:0/96\"]".to_owned(), "trusted_proxies holds a network of strangers"),
        ("trusted_proxies = [\"2000::/3\"]".to_owned(), "trusted_proxies holds a network of strangers"),
        (
            "client_header = \"none\"\ntrusted_proxies = [\"10.0.0.0/8\"]".to_owned(),
            "trusted_proxies has no effect",
        ),
        (
            "client_header = \"x-real-ip\"\ntrusted_proxies = []".to_owned(),
            "client_header has no effect while trusted_proxies is empty",
        ),
        ("trusted_proxies = [\"::ffff:0:0/90\"]".to_owned(), "trusted_proxies has a network of IPv6 around"),
        ("public_url = \"https://x.vn/demo\"".to_owned(), "the path of public_url begins like a path"),
        ("public_url = \"https://x.vn/widget/\"".to_owned(), "the path of public_url begins like a path"),
        ("live.max_readers = 1".to_owned(), "live.max_readers is below two for each site"),
        ("journal.sync = \"memory\"".to_owned(), "journal.sync = \"memory\": "),
        ("store.tls_ca_file = \"/ca.pem\"".to_owned(), "store.tls_ca_file has no effect"),
        ("store.timeout = \"3s\"".to_owned(), "store.timeout has no effect"),
        ("outbox.max_bytes = \"512 MiB\"".to_owned(), "outbox.max_bytes is below journal.max_bytes"),
        ("journal.max_bytes = \"3 GiB\"".to_owned(), "outbox.max_bytes is below journal.max_bytes"),
        ("outbox.retention = \"5s\"".to_owned(), "outbox.retention is shorter than store.flush_interval"),
        ("http.max_connections = 5000".to_owned(), "live.max_readers is not below http.max_connections"),
        ("live.max_readers = 10000".to_owned(), "live.max_readers is not below http.max_connections"),
        ("live = { max_readers = 0, heartbeat = \"9s\" }".to_owned(), "live.heartbeat has no effect"),
        ("totals.max_ids = 300000".to_owned(), "totals.max_ids is too small"),
        ("sessions.max_sessions = 4000000".to_owned(), "totals.max_ids is too small"),
        ("stop_timeout = \"4s\"".to_owned(), "stop_timeout is shorter than http.body_timeout"),
        (
            "stop_timeout = \"20s\"\nstore = { url = \"redis://a\", timeout = \"20s\" }".to_owned(),
            "stop_timeout is not longer than store.timeout",
        ),
        (site(""), "site a names no time_zone"),
        (
            format!("{}[[site]]\nkey = \"b\"\nhosts = [\"a.example\"]\n{zone}", site(zone)),
            "host a.example belongs to the sites a and b",
        ),
    ] {
        let warnings = good(&text).warnings;
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
        assert!(warnings[0].starts_with(warning), "{text}: {warnings:?}");
    }
    for quiet in [
        "trusted_proxies = []",
        "trusted_proxies = [\"10.0.0.0/8\", \"fc00::/7\", \"::ffff:10.0.0.0/104\"]",
        "public_url = \"https://x.vn/api\"",
        "public_url = \"https://x.vn/stats\"\npage = { script = \"stats\", beacon = \"stats\" }",
    ] {
        assert_eq!(good(quiet).warnings, [""; 0], "{quiet}");
    }
    let sites = |number: usize| {
        let site = |at| format!("[[site]]\nkey = \"s{at}\"\nhosts = [\"s{at}.example\"]\n{zone}");
        (0..number).map(site).collect::<String>()
    };
    let small = "sessions.max_sessions = 1000\ntotals.max_ids = 1000\nlive.max_readers = 1000\n";
    assert_eq!(good(&(small.to_owned() + &sites(500))).warnings, [""; 0]);
    let warnings = good(&(small.to_owned() + &sites(501))).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for bound in ["sessions.max_sessions", "totals.max_ids", "live.max_readers"] {
        assert!(warnings.iter().any(|warning| warning.starts_with(bound)), "{bound}: {warnings:?}");
    }
}

/// The binary, in an empty directory, with no variables but these.
pub fn footfall(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_config_says_ok_or_all_faults() {
    let good = footfall(&["check-config"], &[("FOOTFALL_STORE__URL", "redis://:secret@cache")]);
    assert_eq!(text(&good.stdout), "ok: 1 site, store redis://***@cache, data in data\n");
    assert_eq!(good.status.code(), Some(0));

    let bad = footfall(&["check-config"], &[("FOOTFALL_LISTEN", "x"), ("FOOTFALL_LOG__LEVEL", "y")]);
    assert_eq!(bad.status.code(), Some(64));
    let told = text(&bad.stderr);
    assert!(
        told.contains("2 faults") && told.contains("listen = \"x\"") && told.contains("log.level = \"y\"")
    );
    assert_eq!(text(&bad.stdout), "");
}

#[test]
fn the_file_is_the_named_one_then_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, host: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("data_dir = \"{host}\"\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (named, variable) = (file("named.toml", "named"), file("variable.toml", "variable"));
    let env = [("FOOTFALL_CONFIG", variable.as_str())];
    let by_variable = footfall(&["print-config"], &env);
    assert!(text(&by_variable.stdout).contains("data_dir = \"variable\""));
    let by_name = footfall(&["print-config", "--config", &named], &env);
    assert!(text(&by_name.stdout).contains("data_dir = \"named\""));

    let commented = footfall(&["print-config", "--defaults"], &[("FOOTFALL_LISTEN", "beside a broken one")]);
    assert_eq!(text(&commented.stdout), DEFAULTS);

    let unset = footfall(&["print-config"], &[("FOOTFALL_CONFIG", "")]);
    assert!(text(&unset.stdout).contains("data_dir = \"data\""));

    let missing = footfall(&["--config", "missing.toml", "check-config"], &env);
    assert_eq!(missing.status.code(), Some(64));
    assert!(text(&missing.stderr).contains("missing.toml: cannot be read"));

    let home = folder.path().join("config");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("footfall.toml"), "data_dir = \"home\"\n").unwrap();
    let found = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .arg("print-config")
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(text(&found.stdout).contains("data_dir = \"home\" # config/footfall.toml line 1"));
}

#[test]
fn what_cannot_be_printed_is_said_and_fails() {
    for asked in ["print-config", "--help", "--version", "man", "completions bash", "check-config"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_footfall"))
            .args(asked.split(' '))
            .current_dir(std::env::temp_dir())
            .env_clear()
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{asked}");
        let told = text(&output.stderr);
        assert!(told.contains("cannot write to the standard output (No space left"), "{asked}: {told}");
    }
}

#[test]
fn arguments_that_are_refused_exit_with_64_and_help_with_0() {
    assert_eq!(footfall(&["--nonsense"], &[]).status.code(), Some(64));
    assert_eq!(footfall(&["serve"], &[("FOOTFALL_LISTEN", "x")]).status.code(), Some(64));
    assert_eq!(footfall(&["serve"], &[("FOOTFALL_LOG", "footfall=loud")]).status.code(), Some(64));
    let help = footfall(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Examples:"));
}

#[test]
fn what_is_printed_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let printed = footfall(
        &["print-config"],
        &[
            ("FOOTFALL_STORE__URL", "redis://footfall:hunter2hunter2@cache:6379/1"),
            ("FOOTFALL_SITE__0__KEY", "tin"),
            ("FOOTFALL_SITE__0__HOSTS", "tin.vn"),
            ("FOOTFALL_SITE__0__NEWSROOM_TOKEN_FILE", secret.to_str().unwrap()),
        ],
    );
    let told = format!("{}{}", text(&printed.stdout), text(&printed.stderr));
    assert_eq!(printed.status.code(), Some(0), "{told}");
    assert!(told.contains("url = \"redis://***@cache:6379/1\" # FOOTFALL_STORE__URL"), "{told}");
    assert!(told.contains("newsroom_token = \"***\" # FOOTFALL_SITE__0__NEWSROOM_TOKEN_FILE"), "{told}");
    assert!(!told.contains("hunter2") && !told.contains("0123456789abcdef"), "{told}");
}

/// The log of a start that fails for want of a directory, run by a shell command.
fn log_of(shell: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let said = Command::new("sh")
        .args(["-c", shell])
        .current_dir(folder.path())
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("FOOTFALL", env!("CARGO_BIN_EXE_footfall"))])
        .envs([("FOOTFALL_LISTEN", "127.0.0.1:0"), ("FOOTFALL_ADMIN_LISTEN", "127.0.0.1:0")])
        .env("FOOTFALL_DATA_DIR", "/dev/null/data")
        .env("FOOTFALL_SITE__0__KEY", "tin")
        .env("FOOTFALL_SITE__0__HOSTS", "tin.vn")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    format!("{}{}", text(&said.stdout), text(&said.stderr))
}

#[test]
fn the_log_is_text_on_a_terminal_and_json_elsewhere_and_as_loud_as_the_environment_says() {
    let (piped, terminal) = ("exec \"$FOOTFALL\"", "script -qec \"$FOOTFALL\" /dev/null");
    // A site without a zone is warned about, and then the start fails.
    let levels = |log: &str| {
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
        lines.map(|line| line["level"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(levels(&log_of(piped, &[])), ["WARN", "ERROR"]);
    for variable in ["FOOTFALL_LOG", "RUST_LOG", "FOOTFALL_LOG__LEVEL"] {
        assert_eq!(levels(&log_of(piped, &[(variable, "error")])), ["ERROR"], "{variable}");
    }
    assert_eq!(levels(&log_of(piped, &[("FOOTFALL_LOG", "error"), ("RUST_LOG", "warn")])), ["ERROR"]);
    let shown = log_of(terminal, &[]);
    assert!(shown.contains("WARN") && shown.contains("ERROR") && !shown.contains('{'), "{shown}");
    assert_eq!(levels(&log_of(terminal, &[("FOOTFALL_LOG__FORMAT", "json")])), ["WARN", "ERROR"]);
}

#[test]
fn colours_are_for_terminals_and_the_journal_is_given_priorities() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("log"), folder.path().join("other"));
    std::fs::write(&other, "").unwrap();
    let (into_file, terminal) =
        (format!("exec \"$FOOTFALL\" 2> {}", file.display()), "script -qec \"$FOOTFALL\" /dev/null");
    let written = |variables: &[(&str, &str)]| {
        std::fs::write(&file, "").unwrap();
        log_of(&into_file, variables);
        std::fs::read_to_string(&file).unwrap()
    };
    let stream = |file: &Path| {
        let file = std::fs::metadata(file).unwrap();
        format!("{}:{}", file.dev(), file.ino())
    };
    let as_text = ("FOOTFALL_LOG__FORMAT", "text");
    std::fs::write(&file, "").unwrap();
    let (own, others) = (stream(&file), stream(&other));
    let told = written(&[as_text]);
    assert!(told.contains(" WARN ") && told.contains("ERROR ") && !told.contains('\u{1b}'), "{told:?}");
    let colours = log_of(terminal, &[as_text]);
    assert!(colours.contains('\u{1b}'), "{colours:?}");
    assert!(log_of(terminal, &[("NO_COLOR", "")]).contains('\u{1b}'));
    assert!(!log_of(terminal, &[("NO_COLOR", "1")]).contains('\u{1b}'));

    for format in ["auto", "text"] {
        let told = written(&[("JOURNAL_STREAM", &own), ("FOOTFALL_LOG__FORMAT", format)]);
        let begin: Vec<&str> = told.lines().map(|line| &line[..12]).collect();
        assert_eq!(begin, ["<4>footfall:", "<3>footfall:"], "{told:?}");
    }
    let refused = written(&[("JOURNAL_STREAM", &own), ("FOOTFALL_LISTEN", "x")]);
    assert!(refused.lines().count() == 2 && refused.lines().all(|line| line.starts_with("<3>")), "{refused}");
    // Asked for, or inherited by what writes elsewhere.
    assert!(written(&[("JOURNAL_STREAM", &own), ("FOOTFALL_LOG__FORMAT", "json")]).starts_with('{'));
    assert!(written(&[("JOURNAL_STREAM", &others)]).starts_with('{'));
}

/// Answers one request with the given bytes and hands back what was asked.
fn answer_once(listener: TcpListener, answer: &'static [u8]) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut asked = [0; 512];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(answer).unwrap();
        text(&asked[..length]).to_owned()
    })
}

#[test]
fn healthcheck_asks_readyz_and_says_so_in_one_line() {
    for (answer, code, line) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], 0, "ready: http://127.0.0.1:"),
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\njournal-full\n"[..], 1, "not ready: "),
        (&b"SSH-2.0-x\r\n"[..], 1, "not ready: "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = answer_once(listener, answer);
        let admin = format!("0.0.0.0:{port}");
        let output = footfall(&["healthcheck"], &[("FOOTFALL_ADMIN_LISTEN", &admin)]);
        assert!(asked.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        assert_eq!(output.status.code(), Some(code));
        let told = text(&output.stdout);
        assert!(told.starts_with(line) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn healthcheck_fails_where_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap().to_string();
    // Connected by the kernel and never answered: the limit of two seconds ends it.
    let silent = footfall(&["healthcheck"], &[("FOOTFALL_ADMIN_LISTEN", &admin)]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(text(&silent.stdout).contains("timed out"), "{}", text(&silent.stdout));
    let gone = footfall(&["healthcheck"], &[("FOOTFALL_ADMIN_LISTEN", NOBODY)]);
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn words_are_the_languages_own_or_of_what_its_tag_begins_with() {
    let own = good(&("[labels.vi-x-a]\nweek = \"Tuần này\"\n".to_owned() + &site("locale = \"vi-x-a\"\n")));
    let words = own.serve.lists.languages.find("vi-x-a").unwrap();
    assert_eq!((words.week.as_str(), words.title.as_str()), ("Tuần này", "Thống kê truy cập"));
    let printed = own.to_toml();
    assert_eq!(good(&printed).serve.lists.languages.find("vi-x-a"), Some(words), "{printed}");
    let faults = load("[labels.fr]\ntitle = \"Visites\"\ngroup = \"12\"\n", &[]).unwrap_err();
    let missing = faults.iter().filter(|fault| fault.contains("missing; a language needs all")).count();
    assert_eq!(missing, 7, "{faults:?}");
    assert!(
        faults.iter().any(|fault| fault.starts_with("labels.fr.group = \"12\": not one sign")),
        "{faults:?}"
    );
    let none = good(&site("locale = \"de\"\n"));
    assert!(none.warnings.iter().any(|warning| warning.contains("no words")), "{:?}", none.warnings);
}
