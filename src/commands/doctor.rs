//! `doctor`: what is wrong, on one screen. It asks the running service and, given a page, does what a browser would:
//! fetches it, finds the line, and sends its beacon as a dry run, which is decided as any other and counts nothing.

mod html;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use self::html::Tag;
use super::healthcheck::reachable;
use super::http;
use super::outcome::{Failure, Outcome};
use crate::config::Config;
use crate::ingest::{BROWSERS, ClientHeader};
use crate::serve::{CONTROL_SOCKET, socket_at};

/// The most of an answer of the service that is read, bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Redirections that are followed.
const MAX_HOPS: usize = 5;

/// Less free space in data_dir is named.
const LOW_SPACE: u64 = 1 << 30;

/// The arguments of the command.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Doctor {
    /// A page of a site; without one, the service alone is looked at
    pub url: Option<Url>,
    /// Visit the page as this browser or robot
    #[arg(long, value_name = "TEXT", requires = "url")]
    pub user_agent: Option<String>,
    /// Send the beacon to the service itself, as a proxy on this machine does for a reader with this address
    #[arg(long, requires = "url")]
    pub address: Option<IpAddr>,
    /// The origin that the beacon names, in place of the page's
    #[arg(long, requires = "url")]
    pub origin: Option<String>,
}

/// What was found, a line each.
#[derive(Default)]
struct Findings {
    text: String,
    bad: usize,
}

impl Findings {
    fn good(&mut self, what: &str, found: impl Display) {
        self.text += &format!("[+]{what} {found}\n");
    }

    fn bad(&mut self, what: &str, found: impl Display) {
        self.bad += 1;
        self.text += &format!("[-]{what} {found}\n");
    }

    fn check(&mut self, what: &str, found: Result<impl Display, impl Display>) {
        match found {
            Ok(found) => self.good(what, found),
            Err(found) => self.bad(what, found),
        }
    }
}

/// Looks at everything: exit code 1 where something is wrong.
pub fn run(config: &Config, asked: &Doctor) -> Outcome {
    let mut findings = Findings::default();
    look_at_service(config, &mut findings);
    look_at_directory(&config.totals.data_dir, &mut findings);
    if let Some(url) = asked.url.clone()
        && let Err(why) = (Visit { config, asked, url }).look_at_page(&mut findings)
    {
        findings.bad("page", why);
    }
    let Findings { text, bad } = findings;
    match bad {
        0 => Ok(text + "nothing is wrong\n"),
        bad => Err(Failure::No(format!("{text}{bad} to look at: the lines that begin with [-]\n"))),
    }
}

/// What the service says of itself on the admin listener and through its socket.
fn look_at_service(config: &Config, findings: &mut Findings) {
    let admin = reachable(config.serve.admin_listen);
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let ready =
        TcpStream::connect(admin).and_then(|to| http::ask(to, &request("/readyz?verbose"), MAX_ANSWER));
    match ready {
        Ok((_, said)) => {
            for line in said.lines().filter(|line| line.starts_with('[')) {
                findings.bad += usize::from(line.starts_with("[-]"));
                findings.text += &format!("{line}\n");
            }
        }
        Err(why) => findings.bad(
            "service",
            format!("nobody answers at http://{admin} ({why}): is it started? systemctl status footfall, or its log"),
        ),
    }
    let dir = &config.totals.data_dir;
    let state = socket_at(dir, CONTROL_SOCKET, |path| UnixStream::connect(path))
        .and_then(|to| http::ask(to, &request("/state"), MAX_ANSWER))
        .and_then(|(_, said)| serde_json::from_str::<Value>(&said).map_err(Into::into));
    let state = match state {
        Ok(state) => state,
        Err(why) => {
            let socket = dir.join(CONTROL_SOCKET);
            let why = format!(
                "{} ({why}): run this as the service's user or root, with its settings",
                socket.display()
            );
            return findings.bad("socket", why);
        }
    };
    let text = |member: &str| state[member].as_str().unwrap_or_default();
    let (own, theirs) = (settings(&config.to_toml()), settings(text("settings")));
    let keys = own.keys().chain(theirs.keys()).filter(|key| own.get(*key) != theirs.get(*key));
    let differ: std::collections::BTreeSet<&String> = keys.collect();
    let value =
        |of: &BTreeMap<String, String>, key: &str| of.get(key).map_or("nothing".to_owned(), String::clone);
    for key in &differ {
        let (theirs, own) = (value(&theirs, key), value(&own, key));
        let why = format!(
            "{key}: the service runs with {theirs}, here it is {own}: restart or reload it, or give this command its settings"
        );
        findings.bad("settings", why);
    }
    if differ.is_empty() {
        findings.good(
            "settings",
            format!("in force: store {}, footfall {}", config.totals.store.url, text("version")),
        );
    }
    for (what, member) in [("refused", "refusals"), ("visitors", "concerns")] {
        for line in state[member].as_array().into_iter().flatten() {
            findings.bad(what, line.as_str().unwrap_or_default());
        }
    }
    if state["refusals"].as_array().is_some_and(Vec::is_empty) {
        findings.good("refused", "nothing in the last hour");
    }
    look_around(&state, findings);
    findings.good("clock", text("now"));
}

/// What the service says of who stands before it and beside it.
fn look_around(state: &Value, findings: &mut Findings) {
    let named = |member: &str| {
        let of = state[member].as_array().into_iter().flatten().filter_map(Value::as_str);
        of.collect::<Vec<_>>().join(", ")
    };
    match (state["ignored_headers"].as_u64(), named("ignored_proxies")) {
        (Some(ignored @ 1..), own) => findings.bad(
            "proxies",
            format!(
                "{ignored} requests named a client and came from no trusted proxy{}: if it is yours, add its network to trusted_proxies",
                if own.is_empty() { own } else { format!(" ({own})") }
            ),
        ),
        _ if named("proxies").is_empty() => findings.good("proxies", "no request named a client"),
        _ => findings.good("proxies", format!("{} named clients, and are trusted", named("proxies"))),
    }
    match state["instances"].as_u64() {
        Some(others @ 1..) => {
            findings.good("instances", format!("{others} beside this one count into the store"))
        }
        _ => findings.good("instances", "this one alone counts into the store"),
    }
}

/// The settings of a text as `print-config` prints it, each by its section and name, without where it is set.
fn settings(toml: &str) -> BTreeMap<String, String> {
    let (mut section, mut sites, mut found) = (String::new(), 0, BTreeMap::new());
    for line in toml.lines().map(|line| line.split(" # ").next().unwrap_or_default()) {
        if line == "[[site]]" {
            section = format!("site.{sites}.");
            sites += 1;
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((name, value)) = line.split_once(" = ") {
            found.insert(format!("{section}{name}"), value.to_owned());
        }
    }
    found
}

/// Room and owners of the files in `data_dir`.
fn look_at_directory(dir: &Path, findings: &mut Findings) {
    let shown = dir.display();
    let owner = match dir.metadata() {
        Ok(dir) => dir.uid(),
        Err(why) => {
            return findings.bad("data_dir", format!("{shown} ({why}): is it the service's configuration?"));
        }
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut foreign = entries.filter(|entry| entry.metadata().is_ok_and(|file| file.uid() != owner));
    findings.check(
        "data_dir",
        match foreign.next() {
            None => Ok(format!("{shown}, all of user {owner}")),
            Some(entry) => Err(format!(
                "{} is not of user {owner}, who cannot write it: chown -R --reference={shown} {shown}/*",
                entry.path().display()
            )),
        },
    );
    if let Ok(disk) = rustix::fs::statvfs(dir) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let said = format!("{} free at {shown}", bytesize::ByteSize(free));
        findings.check("disk", if free < LOW_SPACE { Err(said) } else { Ok(said) });
    }
}

/// A visit of a page, as a browser makes it.
struct Visit<'a> {
    config: &'a Config,
    asked: &'a Doctor,
    /// The page, once all redirections are followed.
    url: Url,
}

impl Visit<'_> {
    fn fetch(&self, url: &Url, method: &str, more: &str, body: &str) -> Result<http::Answer, String> {
        let agent = self.asked.user_agent.as_deref().unwrap_or(BROWSERS[0]);
        http::fetch(url, method, &format!("User-Agent: {agent}\r\n{more}"), body)
            .map_err(|why| format!("{url} cannot be fetched ({why})"))
    }

    fn look_at_page(mut self, findings: &mut Findings) -> Result<(), String> {
        let mut page = self.fetch(&self.url, "GET", "", "")?;
        for _ in 0..MAX_HOPS {
            let next = page.header("location").filter(|_| (300..400).contains(&page.status));
            let Some(next) = next.and_then(|next| self.url.join(next).ok()) else { break };
            self.url = next;
            page = self.fetch(&self.url, "GET", "", "")?;
        }
        if page.status != 200 {
            return Err(format!("{} answers {}", self.url, page.status));
        }
        findings.good("page", &self.url);
        let host = self.url.host_str().unwrap_or_default();
        let to_paste = match self.config.sites.only_at_host(host) {
            Some(site) => self.config.serve.names.lines(&self.config.base(), site),
            None => format!("that of its site: none here has the host {host}; add it to hosts"),
        };
        let tags = html::tags(&page.body);
        let name = format!("{}.", self.config.serve.names.script);
        let is_ours = |src: &str| src.rsplit('/').next().is_some_and(|file| file.starts_with(&name));
        let is_line = |tag: &&Tag<'_>| {
            tag.name == "script" && (tag.get("data-site").is_some() || tag.get("src").is_some_and(is_ours))
        };
        let before = findings.bad;
        match tags.iter().find(is_line) {
            Some(line) => self.look_at_line(line, &tags, findings)?,
            None => findings.bad("line", "none in the page's HTML, unless a script puts it there"),
        }
        if findings.bad > before {
            findings.text += &format!("   the line for this page is {to_paste}\n");
        }
        Ok(())
    }

    /// Does what the script of a line does, and reads back what the service decides.
    fn look_at_line(&self, line: &Tag<'_>, tags: &[Tag<'_>], findings: &mut Findings) -> Result<(), String> {
        findings.good("line", line.text);
        let src = joined(&self.url, line.get("src").unwrap_or("footfall.js"))?;
        self.look_at_script(line, &src, findings)?;
        let base = match line.get("data-service") {
            Some(service) => joined(&self.url, &format!("{service}/"))?,
            None => src,
        };
        let beacon = joined(&base, line.get("data-beacon").unwrap_or("api/v1/beacon"))?;
        let canonical = tags.iter().find(|tag| tag.name == "link" && tag.get("rel") == Some("canonical"));
        let canonical = canonical.and_then(|tag| self.url.join(tag.get("href")?).ok());
        let mut shown = self.url.clone();
        shown.set_fragment(None);
        let named = line.get("data-page").filter(|page| !page.is_empty()).map(str::to_owned);
        let named = named.or_else(|| Some(canonical?.to_string())).unwrap_or_else(|| shown.to_string());
        let mut told = self.dry_run(&beacon, line, &named)?;
        // Where the page as it is named is not the site's, the script sends its location.
        if told["outcome"] == "refused" && named != shown.as_str() {
            let located = self.dry_run(&beacon, line, shown.as_str())?;
            if located["outcome"] != "refused" {
                let why = format!("the page is named {named}, which is refused: {}", text(&told, "detail"));
                findings.bad("name", why);
                told = located;
            }
        }
        let members = ["site", "page", "kind", "identity", "client", "day"];
        let decided = members.map(|member| format!("{member} {}", text(&told, member))).join(", ");
        findings.check(
            "visit",
            match text(&told, "reason") {
                "-" => Ok(format!("would be {}: {decided}", text(&told, "outcome"))),
                reason => Err(format!(
                    "is {}, {reason}: {} ({decided})",
                    text(&told, "outcome"),
                    text(&told, "detail")
                )),
            },
        );
        let is_local = beacon.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127."));
        match text(&told, "client") {
            "ignored-header" => findings.bad("proxy", "it is not in trusted_proxies: all its readers are one visitor"),
            "proxy" if !is_local && self.asked.address.is_none() => findings.bad(
                "proxy",
                "it names no client, or another before it does not: all its readers are one visitor; see client_header",
            ),
            _ => {}
        }
        Ok(())
    }

    /// Whether the script comes, and when it sends nothing.
    fn look_at_script(&self, line: &Tag<'_>, src: &Url, findings: &mut Findings) -> Result<(), String> {
        let script = self.fetch(src, "GET", "", "")?;
        findings.check(
            "script",
            match (script.status, script.header("footfall")) {
                _ if src.scheme() == "http" && self.url.scheme() == "https" => {
                    Err(format!("{src} is http on a page of https: browsers load it not"))
                }
                (200, Some(_)) => Ok(src.to_string()),
                (status, _) => {
                    Err(format!("{src} answers {status}, not as footfall does: what stands before it?"))
                }
            },
        );
        let host = self.url.host_str().unwrap_or_default();
        if (host == "localhost" || host.starts_with("127.")) && line.get("data-localhost").is_none() {
            findings.bad("script", format!("sends nothing from {host}: the line needs data-localhost"));
        }
        let until = [
            ("data-consent", "until the page has called footfall.consent()"),
            ("data-auto", "until the page calls footfall.view()"),
            ("data-gpc", "for readers with Global Privacy Control"),
            ("data-dnt", "for readers with Do Not Track"),
        ];
        for (_, when) in until.iter().filter(|(attribute, _)| line.get(attribute).is_some()) {
            findings.good("script", format!("sends nothing {when}"));
        }
        Ok(())
    }

    /// Sends the beacon of a page as a dry run.
    fn dry_run(&self, beacon: &Url, line: &Tag<'_>, page: &str) -> Result<Value, String> {
        let (mut beacon, mut more) = (beacon.clone(), String::new());
        if let Some(address) = self.asked.address {
            let names = &self.config.serve.names;
            let direct = format!("http://{}/{}", reachable(self.config.serve.listen), names.beacon);
            beacon = Url::parse(&direct).map_err(|why| why.to_string())?;
            more = match &self.config.serve.lists.proxies.header {
                ClientHeader::List(name) => format!("{name}: {address}\r\n"),
                ClientHeader::Forwarded if address.is_ipv6() => format!("Forwarded: for=\"[{address}]\"\r\n"),
                ClientHeader::Forwarded => format!("Forwarded: for={address}\r\n"),
                ClientHeader::None => return Err("client_header is none: no address can be named".to_owned()),
            };
        }
        beacon.set_query(Some("dry_run"));
        let own = self.url.origin().ascii_serialization();
        more += &format!(
            "Origin: {}\r\nContent-Type: text/plain\r\n",
            self.asked.origin.as_ref().unwrap_or(&own)
        );
        let mut body = json!({ "url": page, "kind": "view", "consent": line.get("data-consent").is_some() });
        for (member, value) in [("site", line.get("data-site")), ("visitor", line.get("data-identity"))] {
            if let Some(value) = value {
                body[member] = value.into();
            }
        }
        let answer = self.fetch(&beacon, "POST", &more, &body.to_string())?;
        let told: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        match told["dry_run"] == true {
            true => Ok(told),
            false => Err(format!(
                "{beacon} answers {}, not as footfall does: what stands before it?",
                answer.status
            )),
        }
    }
}

fn joined(url: &Url, path: &str) -> Result<Url, String> {
    url.join(path).map_err(|why| format!("{path} is no URL ({why})"))
}

/// A member of an answer as a text; `-` where there is none.
fn text<'v>(told: &'v Value, member: &str) -> &'v str {
    told[member].as_str().unwrap_or("-")
}
