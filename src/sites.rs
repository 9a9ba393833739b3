//! The registered sites, replaced as a whole on reload ([`Registry`]). A site keeps its [`SiteId`] as long as the
//! process runs, even after it was removed. The running civil hour of each is looked up in the zone's rules once an
//! hour and not once a request ([`Hours`]).

mod aliases;
mod readers;
mod shares;

pub use aliases::{Aliases, MAX_ERASED, MAX_MOVED, Moved};
pub use readers::{ReadKind, Readers, Token, TokenHash};
pub use shares::Shares;

use foldhash::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;

use crate::calendar::{Calendar, Span};

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

words! {
    /// How a site tells visitors apart.
    #[derive(Default)]
    pub enum Identity {
        /// Client address and user agent; nothing is stored in the browser.
        #[default]
        Address = "address",
        /// A random id that the page keeps; a beacon without one counts as with `Address`.
        Browser = "browser",
        /// Not at all: views are counted, visits, visitors and online are not.
        None = "none",
    }
}

words! {
    /// What happens to the letter case of a page.
    #[derive(Default)]
    pub enum PageCase {
        /// `/Tin` and `/tin` are two pages.
        #[default]
        Keep = "keep",
        /// They are one, in lower case.
        Fold = "fold",
    }
}

words! {
    /// Whether a beacon must say where it comes from.
    #[derive(Default)]
    pub enum OriginCheck {
        /// Refused only if `Origin` (or `Referer`) names a foreign host.
        #[default]
        Lenient = "lenient",
        /// Refused also without both.
        Strict = "strict",
    }
}

words! {
    /// A browser's wish not to be counted. If the site honours it, its pages send no beacon, unless it is counted
    /// without identity.
    pub enum Signal {
        /// Global Privacy Control.
        Gpc = "gpc",
        /// Do Not Track.
        Dnt = "dnt",
    }
}

words! {
    /// What becomes of a beacon that comes with a wish which its site honours.
    #[derive(Default)]
    pub enum Honour {
        /// It is not counted.
        #[default]
        LeaveOut = "leave-out",
        /// Its view is counted, and no visitor.
        WithoutIdentity = "without-identity",
    }
}

words! {
    /// What becomes of robots.
    #[derive(Default)]
    pub enum RobotRule {
        /// They are left out.
        #[default]
        Out = "out",
        /// They are counted as readers are, and among what is left out all the same.
        Shadow = "shadow",
        /// They are counted as readers are.
        Count = "count",
    }
}

/// Whom a site leaves out of its totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Robots.
    pub robots: RobotRule,
    /// Words of user agents that are no robots, such as the site's own application.
    pub robots_allow: Vec<String>,
    /// Networks, such as the newsroom's.
    pub addresses: Vec<IpNet>,
    /// Pages.
    pub pages: Vec<Excluded>,
    /// Readers with a wish that the site honours.
    pub honour_as: Honour,
}

/// Pages that a site leaves out: one by its name; with a `*` at the end, all that begin with what is before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded(pub String);

impl Excluded {
    /// Whether a page is among them. `/admin/*` is `/admin` too, as of that the slash is dropped.
    pub fn covers(&self, page: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(begin) => page.starts_with(begin) || begin.strip_suffix('/') == Some(page),
            None => page == self.0,
        }
    }
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a site's URLs become pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRules {
    /// Query names that belong to the page, in this order; all others are dropped.
    pub query: Vec<String>,
    /// Letter case.
    pub case: PageCase,
    /// Pages that are shown as others, as the store knows them; most sites have none.
    pub aliases: Arc<Aliases>,
}

/// What is counted of a site at most.
#[derive(Clone, Debug, Default)]
pub struct SiteLimits {
    /// Views a minute; 0: any number.
    pub views_per_minute: usize,
    /// A visitor's further views of a page are not counted for so long after one that was; zero: they are.
    pub reload_window: Duration,
}

/// A registered site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its place.
    pub id: SiteId,
    /// Its key.
    pub key: SiteKey,
    /// Its hosts in lower case, IDNA-encoded, without port; the first is its home. `*.` stands for one label or more.
    pub hosts: Vec<String>,
    /// Further hosts whose pages may send its beacons; `null` for sandboxed frames, `capacitor://localhost` for pages
    /// that are part of an app.
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
    /// Whom it leaves out.
    pub filter: Filter,
    /// Whether only readers who agreed are counted.
    pub require_consent: bool,
    /// Who may read it.
    pub readers: Readers,
    /// What is counted at most.
    pub limits: SiteLimits,
    /// Opens its newsroom page; none: there is no such page.
    pub newsroom_token: Option<Token>,
}

impl Site {
    /// Whether a host (lower case, without port) is the site's.
    pub fn has_host(&self, host: &str) -> bool {
        covers(&self.hosts, host)
    }

    /// Whether a host is one of those whose pages may send its beacons.
    pub fn takes_from(&self, host: &str) -> bool {
        self.has_host(host) || covers(&self.origins, host)
    }

    /// A host for its pages where none is named.
    pub fn home(&self) -> String {
        self.hosts.first().map_or(String::new(), |home| home.replacen('*', "www", 1))
    }
}

fn covers(hosts: &[String], host: &str) -> bool {
    hosts.iter().any(|known| match known.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => known == host,
    })
}

/// Places that are kept free for sites added by reloads.
const SPARE: usize = 256;

/// Sites whose keys are compared with one that nobody has.
const LOOKED_AT: usize = 100;

/// A reload names more sites than there are places. After the next start there is room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{SPARE} sites have been added since the start, and there is no place for more; start anew")]
pub struct NoPlace;

/// All registered sites, and those that were removed since the process began, whose last views may still be on
/// their way into the totals.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// By id. A place is none if the totals gave it to a site that was never registered here.
    places: Vec<Option<Arc<Site>>>,
    /// The registered ones, in order of their ids.
    registered: Vec<Arc<Site>>,
    by_key: HashMap<SiteKey, Arc<Site>>,
    /// `*.` is a dot alone here.
    by_host: HashMap<String, Vec<Arc<Site>>>,
    room: usize,
}

impl Sites {
    /// Takes sites whose `id` is their index in the list.
    pub fn new(list: Vec<Site>) -> Self {
        let room = (list.len() + SPARE).min(usize::from(u16::MAX));
        let mut sites = Sites { room, ..Sites::default() };
        list.into_iter().for_each(|site| sites.add(site));
        sites
    }

    /// These sites instead, if there is room. A known site keeps its id, its aliases, and its calendar, by which its
    /// days are cut already. `place` gives each site its place, and the same key always the same place.
    pub fn replaced_by(
        &self,
        wanted: &Sites,
        mut place: impl FnMut(&Site) -> usize,
    ) -> Result<Self, NoPlace> {
        let mut placed = |site: &Arc<Site>| {
            let known = self.known(&site.key).unwrap_or(site);
            let mut site = Site { calendar: known.calendar.clone(), ..Site::clone(site) };
            site.pages.aliases = known.pages.aliases.clone();
            let id = place(&site);
            (id < self.room).then_some(Site { id: SiteId(id as u16), ..site }).ok_or(NoPlace)
        };
        let mut list: Vec<Site> = wanted.iter().map(&mut placed).collect::<Result<_, _>>()?;
        list.sort_by_key(|site| site.id);
        let mut sites = Sites { places: self.places.clone(), room: self.room, ..Sites::default() };
        list.into_iter().for_each(|site| sites.add(site));
        Ok(sites)
    }

    /// The same with other aliases of a site.
    pub fn with_aliases(&self, key: &SiteKey, aliases: Aliases) -> Self {
        let mut sites = Sites { places: self.places.clone(), room: self.room, ..Sites::default() };
        let aliases = Arc::new(aliases);
        for site in self.iter() {
            let mut site = Site::clone(site);
            if site.key == *key {
                site.pages.aliases = aliases.clone();
            }
            sites.add(site);
        }
        sites
    }

    fn add(&mut self, site: Site) {
        let (index, site) = (site.id.index(), Arc::new(site));
        self.by_key.insert(site.key.clone(), site.clone());
        for host in &site.hosts {
            self.by_host.entry(host.trim_start_matches('*').to_owned()).or_default().push(site.clone());
        }
        self.registered.push(site.clone());
        self.places.resize(self.places.len().max(index + 1), None);
        self.places[index] = Some(site);
    }

    /// Every id, also of sites added later, is below this: the length of a table by site.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The site with a key.
    pub fn get(&self, key: &str) -> Option<&Arc<Site>> {
        self.by_key.get(key)
    }

    /// The site with a key that a person gave.
    ///
    /// # Errors
    /// There is none: which there are.
    pub fn configured(&self, key: &str) -> Result<&Arc<Site>, String> {
        let fault = || format!("site {key:?} is not configured: the sites are {}", self.keys());
        self.get(key).ok_or_else(fault)
    }

    /// The key that one which no site has was probably meant to be. Only so many are looked at.
    pub fn near(&self, key: &str) -> Option<&SiteKey> {
        let key = key.to_ascii_lowercase();
        let most = (key.len() / 3).max(1);
        let alike = |site: &&Arc<Site>| site.key.as_str().len().abs_diff(key.len()) <= most;
        let keys = self.iter().take(LOOKED_AT).filter(alike).map(|site| &site.key);
        let near = keys.map(|known| (strsim::osa_distance(known.as_str(), &key), known)).min();
        near.filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
    }

    /// The site at a place, registered or removed.
    pub fn at(&self, id: SiteId) -> Option<&Arc<Site>> {
        self.places.get(id.index())?.as_ref()
    }

    /// The one site that a host belongs to; none if it belongs to none or to several. A name counts for more than `*.`,
    /// and of those the longest.
    pub fn only_at_host(&self, host: &str) -> Option<&Arc<Site>> {
        let ends = || host.match_indices('.').find_map(|(at, _)| self.by_host.get(host.get(at..)?));
        match self.by_host.get(host).or_else(ends)?.as_slice() {
            [site] => Some(site),
            _ => None,
        }
    }

    /// The site that a URL names: by its key, or by a host that belongs to it alone (no key has a dot).
    pub fn named(&self, name: &str) -> Option<&Arc<Site>> {
        self.get(name).or_else(|| self.only_at_host(name))
    }

    /// Every site in order of its id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Site>> {
        self.registered.iter()
    }

    /// The site with a key, registered or removed.
    pub fn known(&self, key: &SiteKey) -> Option<&Arc<Site>> {
        self.all().find(|site| site.key == *key)
    }

    /// The keys of all sites, for people.
    pub fn keys(&self) -> String {
        let keys: Vec<&str> = self.iter().map(|site| site.key.as_str()).collect();
        keys.join(" ")
    }

    /// Every site, registered or removed, in order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.places.iter().flatten()
    }
}

/// The sites in force. Reading them takes no lock. A request loads them once, so that they do not change under it.
pub type Registry = ArcSwap<Sites>;

/// The running hour of each site, with what `T` makes of it. Reading it takes no lock. A site that a reload
/// replaced, or added beyond the table, is looked up again: only speed depends on the table.
#[derive(Debug)]
pub struct Hours<T = Span>(Vec<ArcSwapOption<SiteHour<T>>>);

/// One civil hour of a site.
#[derive(Debug)]
pub struct SiteHour<T> {
    /// The site whose calendar was asked. A site that a reload put in its place has its own.
    site: Arc<Site>,
    /// The hour and how long it lasts.
    pub span: Span,
    /// What is made of it once.
    pub made: T,
}

impl<T> SiteHour<T> {
    fn holds(&self, site: &Arc<Site>, unix_ms: i64) -> bool {
        Arc::ptr_eq(&self.site, site) && (self.span.from_ms..self.span.until_ms).contains(&unix_ms)
    }
}

impl<T: From<Span>> Hours<T> {
    /// An empty table with room for each site.
    pub fn new(sites: &Sites) -> Self {
        Hours((0..sites.room()).map(|_| ArcSwapOption::empty()).collect())
    }

    /// The hour of a site at an instant.
    pub fn at(&self, site: &Arc<Site>, unix_ms: i64) -> Arc<SiteHour<T>> {
        let place = self.0.get(site.id.index());
        let known = place.and_then(ArcSwapOption::load_full).filter(|hour| hour.holds(site, unix_ms));
        known.unwrap_or_else(|| {
            let span = site.calendar.span(unix_ms);
            let hour = Arc::new(SiteHour { site: site.clone(), span, made: span.into() });
            if let Some(place) = place {
                place.store(Some(hour.clone()));
            }
            hour
        })
    }

    /// The same without what is made of it, and without a count of references: for every beacon.
    pub fn span(&self, site: &Arc<Site>, unix_ms: i64) -> Span {
        let place = self.0.get(site.id.index()).map(ArcSwapOption::load);
        match place.as_ref().and_then(|place| place.as_deref()) {
            Some(hour) if hour.holds(site, unix_ms) => hour.span,
            _ => self.at(site, unix_ms).span,
        }
    }
}

impl std::borrow::Borrow<str> for SiteKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Zone;

    fn site(key: &str, host: &str) -> Site {
        Site {
            id: SiteId(0),
            key: SiteKey::new(key).unwrap(),
            hosts: vec![host.to_owned()],
            origins: Vec::new(),
            calendar: Calendar::utc(),
            locale: "vi".to_owned(),
            identity: Identity::default(),
            pages: PageRules::default(),
            origin_check: OriginCheck::default(),
            honour: Vec::new(),
            filter: Filter::default(),
            require_consent: false,
            readers: Default::default(),
            limits: Default::default(),
            newsroom_token: None,
        }
    }

    fn sites(list: &[(&str, &str)]) -> Sites {
        let numbered = list.iter().enumerate();
        Sites::new(
            numbered.map(|(n, (key, host))| Site { id: SiteId(n as u16), ..site(key, host) }).collect(),
        )
    }

    /// Gives places as the tally does: to each key the same, and place 2 to no site.
    fn places() -> impl FnMut(&Site) -> usize {
        let mut keys = vec!["a".to_owned(), "b".to_owned(), "(taken)".to_owned()];
        move |site| {
            let known = keys.iter().position(|key| *key == site.key.as_str());
            known.unwrap_or_else(|| {
                keys.push(site.key.to_string());
                keys.len() - 1
            })
        }
    }

    #[test]
    fn a_star_stands_for_labels() {
        let named =
            [("all", "*.gov.vn"), ("own", "thi.gov.vn"), ("more", "*.bao.gov.vn"), ("twin", "*.gov.vn")];
        let one = sites(&named[..3]);
        for (host, key) in [
            ("www.gov.vn", Some("all")),
            ("a.b.gov.vn", Some("all")),
            ("thi.gov.vn", Some("own")),
            ("bao.gov.vn", Some("all")),
            ("www.bao.gov.vn", Some("more")),
            ("gov.vn", None),
            ("xgov.vn", None),
            ("www.gov.vn.example", None),
            ("", None),
        ] {
            assert_eq!(one.only_at_host(host).map(|site| site.key.as_str()), key, "{host}");
        }
        assert!(sites(&named).only_at_host("www.gov.vn").is_none(), "it belongs to two");
        let all = one.get("all").unwrap();
        let own = ["www.gov.vn", "thi.gov.vn", "gov.vn", ".gov.vn", "xgov.vn"].map(|host| all.has_host(host));
        assert_eq!(own, [true, true, false, false, false]);
        assert_eq!((all.home(), one.get("own").unwrap().home()), ("www.gov.vn".into(), "thi.gov.vn".into()));
    }

    #[test]
    fn ids_outlive_removal_and_order() {
        let (start, mut place) = (sites(&[("a", "a.vn"), ("b", "b.vn")]), places());
        let later = start.replaced_by(&sites(&[("c", "b.vn"), ("b", "b.vn")]), &mut place).unwrap();
        let ids =
            |sites: &Sites| sites.iter().map(|site| (site.key.to_string(), site.id.0)).collect::<Vec<_>>();
        assert_eq!(ids(&later), [("b".to_owned(), 1), ("c".to_owned(), 3)]);
        assert!(later.get("a").is_none() && later.only_at_host("a.vn").is_none());
        assert!(later.only_at_host("b.vn").is_none(), "it is shared now");
        assert_eq!(later.at(SiteId(0)).unwrap().key.as_str(), "a", "for the views that it had");
        assert!(later.at(SiteId(2)).is_none());
        let back = later.replaced_by(&sites(&[("a", "a.vn")]), &mut place).unwrap();
        assert_eq!((ids(&back), back.all().count()), (vec![("a".to_owned(), 0)], 3));
    }

    #[test]
    fn days_go_on_being_cut_as_they_were() {
        let (start, mut place) = (sites(&[("a", "a.vn")]), places());
        let zone = Zone::named("Asia/Tokyo").unwrap();
        let wish = Site { calendar: Calendar { zone, ..Calendar::utc() }, ..site("a", "other.vn") };
        let later = start.replaced_by(&Sites::new(vec![wish]), &mut place).unwrap();
        assert_eq!(later.get("a").unwrap().calendar, Calendar::utc());
        assert_eq!(later.get("a").unwrap().hosts, ["other.vn"]);
    }

    #[test]
    fn there_is_a_last_place() {
        let start = sites(&[("a", "a.vn")]);
        let last = start.room() - 1;
        let placed = |at: usize| start.replaced_by(&sites(&[("z", "z.vn")]), |_| at);
        assert_eq!(placed(last).unwrap().get("z").unwrap().id.index(), last);
        assert_eq!(placed(last + 1).unwrap_err(), NoPlace);
    }
}
