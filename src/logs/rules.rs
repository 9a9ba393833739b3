//! Which lines are views of pages: what of a request makes a beacon, which [`accept`] then decides.

use chrono::NaiveDate;
use hyper::HeaderMap;
use hyper::header::{HeaderValue, USER_AGENT};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::line::Line;
use crate::clock::Moment;
use crate::ingest::{BROWSERS, Beacon, Client, Context, Robots, Said, SaltTable, SiteSalts, Spans, accept};
use crate::sites::{OriginCheck, Site, SiteId, Sites};

/// What no browser sends as it is, beside what is not ASCII.
const NOT_SENT: &AsciiSet = &CONTROLS.add(b' ');

words! {
    /// Why a line is not counted that became no beacon, or one of a day that is not counted. (Why a beacon is
    /// refused is a [`Reason`](crate::ingest::Reason).)
    pub enum LeftOut {
        /// Not a line of an access log.
        MalformedLine = "malformed-line",
        /// Its time is before the web's, in the future, or a leap that the next line takes back.
        AbsurdTime = "absurd-time",
        /// Answered otherwise than with 200 or 304.
        OtherStatus = "other-status",
        /// Not GET.
        OtherMethod = "other-method",
        /// A file that pages load.
        Asset = "asset",
        /// It goes back to a day that is closed.
        OutOfOrder = "out-of-order",
        /// No later line follows its day.
        DayNotClosed = "day-not-closed",
        /// Its day is after the last one that is wanted.
        AfterUntil = "after-until",
    }
}

/// Decides which lines are views.
pub(super) struct Rules {
    pub sites: Sites,
    pub site: Site,
    spans: Spans,
    salts: SaltTable,
    robots: Robots,
    headers: HeaderMap,
    url: String,
}

impl Rules {
    pub fn new(site: &Site, robots: Robots, salt: [u8; 16]) -> Rules {
        // Of a view in a log, the referer is the page before it, which says nothing of who sent it.
        let site = Site {
            id: SiteId(0),
            origin_check: OriginCheck::Lenient,
            // Whether they are entered is for the operator to decide.
            require_consent: false,
            ..site.clone()
        };
        let sites = Sites::new(vec![site.clone()]);
        // Each day without a salt takes that of the nearest: all of them this one.
        let salts = SiteSalts { days: vec![(NaiveDate::default(), salt)] };
        Rules {
            spans: Spans::new(&sites),
            sites,
            site,
            salts: SaltTable { sites: vec![salts], id_key: salt },
            robots,
            headers: HeaderMap::new(),
            url: String::new(),
        }
    }

    /// The view that a line is, or the word for why it is none.
    pub fn decide(&mut self, line: &Line<'_>) -> Result<Beacon, &'static str> {
        if !matches!(line.status, 200 | 304) {
            return Err(LeftOut::OtherStatus.word());
        }
        if !line.is_get {
            return Err(LeftOut::OtherMethod.word());
        }
        if is_asset(&line.target) {
            return Err(LeftOut::Asset.word());
        }
        self.url.clear();
        if line.target.starts_with(b"/") {
            let home = self.site.home();
            let host = if matches!(*line.host, [] | [b'-']) { home.as_bytes() } else { &*line.host };
            self.url.extend(["http://"].into_iter().chain(percent_encode(host, NOT_SENT)));
        }
        self.url.extend(percent_encode(&line.target, NOT_SENT));
        // So nginx and Apache spell what is not ASCII.
        if self.url.contains("\\x") {
            self.url = self.url.replace("\\x", "%");
        }
        // A log without user agents tells nothing of robots.
        let agent = if line.agent.is_empty() { BROWSERS[0].as_bytes() } else { &*line.agent };
        // What cannot stand in a header is in no beacon.
        let agent = HeaderValue::from_bytes(agent).unwrap_or(HeaderValue::from_static(""));
        self.headers.insert(USER_AGENT, agent);
        let (site, url) = (Some(self.site.key.as_str().into()), self.url.as_str().into());
        let said = Said { site, url, ..Said::default() };
        let context = Context {
            sites: &self.sites,
            spans: &self.spans,
            salts: &self.salts,
            robots: &self.robots,
            headers: &self.headers,
            client: Client { address: line.client, ignored_header: false },
            // The log's clock is the only one that went on from day to day.
            now: Moment { unix_ms: line.at_ms, uptime_ms: line.at_ms as u64 },
        };
        accept(&said, &context).map_err(|refusal| refusal.reason.word())
    }
}

/// Whether a path ends like a file that pages load, or that programs read.
fn is_asset(target: &[u8]) -> bool {
    let path = target.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let Some(dot) = name.iter().rposition(|b| *b == b'.') else { return false };
    ASSETS.iter().any(|ending| ending.eq_ignore_ascii_case(&name[dot + 1..]))
}

/// Endings of such files.
const ASSETS: [&[u8]; 61] = [
    b"7z", b"aac", b"apk", b"atom", b"avi", b"avif", b"bmp", b"css", b"csv", b"dmg", b"doc", b"docx", b"eot",
    b"exe", b"flac", b"gif", b"gz", b"heic", b"ico", b"jfif", b"jpeg", b"jpg", b"js", b"json", b"m3u8",
    b"m4a", b"m4v", b"map", b"mjs", b"mov", b"mp3", b"mp4", b"mpd", b"ogg", b"ogv", b"otf", b"pdf", b"png",
    b"ppt", b"pptx", b"rar", b"rss", b"svg", b"svgz", b"swf", b"tif", b"tiff", b"ts", b"ttf", b"txt", b"vtt",
    b"wasm", b"wav", b"webm", b"webp", b"woff", b"woff2", b"xls", b"xlsx", b"xml", b"zip",
];
