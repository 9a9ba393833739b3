//! Which store a setting, a command or an order names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "***";

/// The name of the embedded store's file in a `data_dir`.
const FILE: &str = "totals.redb";

/// The URL of a store. It may hold a password, which neither `Display` nor `Debug` shows; as JSON it is written
/// in full.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreUrl {
    /// `embedded`: the file in `data_dir`.
    Embedded,
    /// `embedded:PATH`: a file elsewhere.
    EmbeddedFile(PathBuf),
    /// `redis://…` or `rediss://…`, in full.
    Redis(Arc<str>),
}

/// Why a text names no store. It does not repeat the text, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct UrlFault {
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub remedy: &'static str,
}

impl StoreUrl {
    /// What kind of store it is, in a word.
    pub fn kind(&self) -> &'static str {
        if matches!(self, StoreUrl::Redis(_)) { "redis" } else { "embedded" }
    }

    /// The file, if it names an embedded store.
    pub fn file(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            StoreUrl::Embedded => Some(data_dir.join(FILE)),
            StoreUrl::EmbeddedFile(path) => Some(path.clone()),
            StoreUrl::Redis(_) => None,
        }
    }

    /// What is meant by it, for people, without a password.
    pub fn place(&self, data_dir: &Path) -> String {
        self.file(data_dir).map_or_else(|| self.to_string(), |file| file.display().to_string())
    }

    /// Whether it names a Redis that is reached through TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, StoreUrl::Redis(url) if url.split(':').next().is_some_and(|s| s.eq_ignore_ascii_case("rediss")))
    }

    /// In full, with the password.
    pub fn reveal(&self) -> String {
        match self {
            StoreUrl::Embedded => "embedded".to_owned(),
            StoreUrl::EmbeddedFile(path) => format!("embedded:{}", path.display()),
            StoreUrl::Redis(url) => (**url).to_owned(),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<Self, UrlFault> {
        if text == "embedded" {
            return Ok(StoreUrl::Embedded);
        }
        if let Some(path) = text.strip_prefix("embedded:") {
            return Ok(StoreUrl::EmbeddedFile(path.into()));
        }
        let fault = |problem: String| Err(UrlFault { problem, remedy: REMEDY });
        if text.contains(HIDDEN) {
            return fault(format!("{HIDDEN} stands where print-config hides a secret"));
        }
        let scheme = text.split("://").next().unwrap_or_default();
        if matches!(scheme, "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel") {
            let remedy =
                r#"name one server as "redis://host:6379" or "rediss://host:6379", or write "embedded""#;
            return Err(UrlFault { problem: format!("{scheme} is not supported yet"), remedy });
        }
        let url = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") => url,
            Ok(_) => return Err(UrlFault::not_a_store()),
            Err(why) => return fault(format!("not the URL of a store ({why})")),
        };
        if !url.has_host() || url.fragment().is_some() {
            return fault("not the URL of one server".to_owned());
        }
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return fault("what stands after the host is not the number of a database".to_owned());
        }
        Ok(StoreUrl::Redis(text.into()))
    }
}

const REMEDY: &str = r#"write "embedded", "redis://[user:password@]host:6379[/database]" or the same with rediss://; in a password, write what is neither letter nor digit as %XX"#;

impl UrlFault {
    /// Something else.
    pub fn not_a_store() -> Self {
        UrlFault { problem: "not the URL of a store".to_owned(), remedy: REMEDY }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = UrlFault;

    fn try_from(text: String) -> Result<Self, UrlFault> {
        text.parse()
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> String {
        url.reveal()
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Redis(url) => f.write_str(&without_secret(url)),
            _ => f.write_str(&self.reveal()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL with everything hidden that may be a secret: the user, the password, the query, what stands where a database
/// of Redis belongs; all of one that does not parse.
pub fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // A misspelt URL may hold a password, or be one.
        let is_bare = url == "embedded" || url.starts_with("embedded:");
        return if is_bare || url.is_empty() { url.to_owned() } else { HIDDEN.to_owned() };
    };
    let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
    let hidden = format!("{}://{HIDDEN}", if is_scheme { scheme } else { HIDDEN });
    match Url::parse(url) {
        Ok(parsed) if is_scheme => {
            let signed = !parsed.username().is_empty() || parsed.password().is_some();
            // An `@` that does not end a user name: a password with a bare `/` or `#` in it.
            if rest.contains('@') != signed {
                return hidden;
            }
            let user = if signed { &format!("{HIDDEN}@") } else { "" };
            let host = parsed.host_str().unwrap_or_default();
            let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
            let query = if parsed.query().is_some() { &format!("?{HIDDEN}") } else { "" };
            let is_database = |path: &str| path.bytes().all(|b| b.is_ascii_digit());
            let path = match parsed.path().strip_prefix('/') {
                Some(path) if matches!(scheme, "redis" | "rediss") && !is_database(path) => {
                    &format!("/{HIDDEN}")
                }
                _ => parsed.path(),
            };
            format!("{scheme}://{user}{host}{port}{path}{query}")
        }
        _ => hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_url_is_shown_without_its_secret() {
        for (url, shown) in [
            ("embedded", "embedded"),
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://user:secret@cache:6379/2", "redis://***@cache:6379/2"),
            ("rediss://:secret@cache", "rediss://***@cache"),
            ("rediss://:secret@cache?password=secret", "rediss://***@cache?***"),
            ("redis+unix:///run/redis.sock?pass=secret", "redis+unix:///run/redis.sock?***"),
            ("redis://secret@cache", "redis://***@cache"),
            ("redis://:sec/secret@cache", "redis://***"),
            ("redis://u:12/secret@cache", "redis://***"),
            ("redis://:se#secret@cache", "redis://***"),
            ("redis+cluster://:secret@a:7000,b:7000", "redis+cluster://***"),
            ("redis:/:secret@cache", "***"),
            (":secret@cache", "***"),
            // Without the host, or with a sign that does not belong there.
            ("redis://user:secret", "redis://***"),
            ("redis://:secret", "redis://***"),
            ("redis://[secret", "redis://***"),
            ("redis://cache:6379:secret", "redis://***"),
            ("redis://cache/secret", "redis://cache/***"),
            ("sec ret://cache", "***://***"),
            ("secret", "***"),
            ("", ""),
        ] {
            assert_eq!(without_secret(url), shown, "{url}");
        }
    }

    #[test]
    fn a_text_that_names_no_store_is_refused_and_not_repeated() {
        for text in
            ["", "mysql://user:hunter2@db", "redis:/x", "redis://:hunter2@:0:0", "redis://:hunter2@h/x"]
        {
            let fault = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(fault.contains("URL") || fault.contains("database"), "{text}: {fault}");
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn what_is_read_is_written_in_full_and_shown_without_a_password() {
        for (text, kind, shown) in [
            ("embedded", "embedded", "embedded"),
            ("embedded:/a/b.redb", "embedded", "embedded:/a/b.redb"),
            ("redis://:hunter2@cache", "redis", "redis://***@cache"),
            ("rediss://cache:1/2", "redis", "rediss://cache:1/2"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.kind(), &*url.to_string(), &*format!("{url:?}")), (kind, shown, shown));
            let json = serde_json::to_string(&url).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<StoreUrl>(&json).unwrap(), url);
        }
        assert!(serde_json::from_str::<StoreUrl>("\"mysql://:hunter2@db\"").is_err());
    }
}
