//! The registered sites. Replaced as a whole on reload; a site keeps its [`SiteId`] while the
//! process lives.

use foldhash::HashMap;
use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::calendar::Calendar;

/// The key of a site: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteKey(Arc<str>);

impl SiteKey {
    /// Checks and takes a key.
    pub fn new(key: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ((1..=32).contains(&key.len()) && key.bytes().all(legal)).then(|| SiteKey(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of a site in [`Sites`]: an index that outlives reloads, never written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

impl SiteId {
    /// As an index into a per-site table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How a site tells visitors apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Client address and user agent; nothing is stored in the browser.
    #[default]
    Address,
    /// A random id that the page keeps; without one, as `Address`.
    Browser,
    /// Not at all: views are counted, visits, visitors and online are not.
    None,
}

/// What becomes of the letter case of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCase {
    /// `/Tin` and `/tin` are two pages.
    #[default]
    Keep,
    /// They are one, in lower case.
    Fold,
}

/// Whether a beacon must say where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginCheck {
    /// Refused only if `Origin` (or `Referer`) names a foreign host.
    #[default]
    Lenient,
    /// Refused also if neither is there.
    Strict,
}

/// A wish that a browser tells pages, which a site may honour: no beacon is sent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Global Privacy Control.
    Gpc,
    /// Do Not Track.
    Dnt,
}

/// How a site's URLs become pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRules {
    /// Query names that belong to the page, in this order; all others are dropped.
    pub query: Vec<String>,
    /// Letter case.
    pub case: PageCase,
}

/// A secret that opens a page. It is never shown, nor compared in a time that tells of it.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// The fewest characters that nobody guesses.
    pub const SHORTEST: usize = 16;

    /// Takes a secret of visible ASCII characters.
    pub fn new(secret: &str) -> Option<Self> {
        let legal = secret.len() >= Self::SHORTEST && secret.bytes().all(|b| b.is_ascii_graphic());
        legal.then(|| Token(secret.into()))
    }

    /// Whether this is what somebody says.
    pub fn is(&self, said: &str) -> bool {
        self.0.as_bytes().ct_eq(said.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A registered site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its place.
    pub id: SiteId,
    /// Its key.
    pub key: SiteKey,
    /// Its hosts in lower case, IDNA-encoded, without port; the first is its home.
    pub hosts: Vec<String>,
    /// Further hosts whose pages may send its beacons; `null` for sandboxed frames.
    pub origins: Vec<String>,
    /// Zone and week.
    pub calendar: Calendar,
    /// BCP 47 language of its pages.
    pub locale: String,
    /// How it tells visitors apart.
    pub identity: Identity,
    /// How its URLs become pages.
    pub pages: PageRules,
    /// Whether a beacon must say where it comes from.
    pub origin_check: OriginCheck,
    /// The wishes that its pages honour.
    pub honour: Vec<Signal>,
    /// Opens its newsroom page; none: there is no such page.
    pub newsroom_token: Option<Token>,
}

impl Site {
    /// Whether a host (lower case, without port) is the site's.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|h| h == host)
    }
}

/// All registered sites.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    list: Vec<Arc<Site>>,
    by_key: HashMap<SiteKey, SiteId>,
    by_host: HashMap<String, Vec<SiteId>>,
}

impl Sites {
    /// Takes sites whose `id` equals their place in the list.
    pub fn new(list: Vec<Site>) -> Self {
        let mut sites = Sites::default();
        for site in list {
            debug_assert_eq!(site.id.index(), sites.list.len());
            sites.by_key.insert(site.key.clone(), site.id);
            for host in &site.hosts {
                sites.by_host.entry(host.clone()).or_default().push(site.id);
            }
            sites.list.push(Arc::new(site));
        }
        sites
    }

    /// The site with a key.
    pub fn get(&self, key: &str) -> Option<&Arc<Site>> {
        let id = *self.by_key.get(key)?;
        self.list.get(id.index())
    }

    /// The site at a place.
    pub fn at(&self, id: SiteId) -> Option<&Arc<Site>> {
        self.list.get(id.index())
    }

    /// The one site that a host belongs to; none where it is nobody's or shared.
    pub fn only_at_host(&self, host: &str) -> Option<&Arc<Site>> {
        match self.by_host.get(host)?.as_slice() {
            [id] => self.list.get(id.index()),
            _ => None,
        }
    }

    /// The site that a URL names: by its key, or by a host that belongs to it alone (no key has a dot).
    pub fn named(&self, name: &str) -> Option<&Arc<Site>> {
        self.get(name).or_else(|| self.only_at_host(name))
    }

    /// Every site in order of its id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Site>> {
        self.list.iter()
    }
}

impl std::borrow::Borrow<str> for SiteKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
