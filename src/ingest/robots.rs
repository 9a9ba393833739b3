//! Tells robots from readers by their user agent, and by the client hints beside it.
//!
//! A robot is who says so, and who is no browser: its user agent has not the form of one, names no engine, or a
//! version that no page of today works in, or its hints name another version. The words were chosen in November 2026
//! on one half of the user agents that the npm packages `crawler-user-agents` (robots), `user-agents`,
//! `top-user-agents` and PyPI's `fake-useragent` (browsers) hold; on the other half, 98.3 % of the robots are found
//! and 0.11 % of the browsers are taken for one.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use foldhash::fast::RandomState;

/// What no browser says of itself.
const WORDS: [&str; 41] = [
    ".com",
    "-google",
    "-user/",
    "agent",
    "archiv",
    "bot",
    "chatgpt",
    "claude",
    "crawl",
    "cypress",
    "facebookexternalhit",
    "favicon",
    "fetch",
    "google-",
    "headless",
    "http:",
    "https:",
    "inspect",
    "lighthouse",
    "mailto:",
    "meta-external",
    "monitor",
    "nutch",
    "optimizer",
    "perplexity",
    "phantomjs",
    "pingdom",
    "playwright",
    "preview",
    "ptst",
    "puppeteer",
    "scan",
    "scrap",
    "selenium",
    "slurp",
    "spider",
    "synthetic",
    "uptime",
    "validator",
    "verify",
    "www.",
];

/// Has the letters of one of the words, and is a reader's: a brand of telephones.
const INNOCENT: [&str; 1] = ["cubot"];

/// Of these a browser names one.
const ENGINES: [&str; 4] = ["applewebkit/", "gecko/", "presto/", "trident/"];

/// Browsers, and the first version of each that may be somebody's.
const VERSIONS: [(&str, u32); 3] = [("chrome/", 35), ("firefox/", 40), ("msie ", 10)];

/// How a browser's user agent begins.
const FORMS: [&[u8]; 2] = [b"Mozilla/5.0 (", b"Opera/9"];

/// User agents of browsers; no word may make robots of them.
pub const BROWSERS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Linux; Android 13; SM-A536E; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
];

/// The most words of an operator.
const MAX_WORDS: usize = 200;

/// User agents that are remembered with what they were found to be.
const REMEMBERED: usize = 4096;

/// What is remembered of a user agent: its hash, of which these bits are the number of its mark, 0 for none.
const NUMBER: u64 = (1 << 10) - 1;
const NO_FORM: u64 = 1;
const NO_ENGINE: u64 = 2;
const HINTS: u64 = 3;
/// From here on the number of a pattern.
const PATTERN: u64 = 4;

/// By what a user agent is known as a robot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// It contains a word.
    Word(&'a str),
    /// It names an old version of a browser.
    Old(&'a str),
    /// It names no engine of a browser.
    NoEngine,
    /// It does not begin as a browser's does.
    NoForm,
    /// The hints beside it are not its own.
    Hints,
}

/// Knows robots by their user agents.
#[derive(Clone)]
pub struct Robots {
    /// The innocent, then engines, versions, and words with those of the operator.
    patterns: AhoCorasick,
    own: Arc<[String]>,
    hasher: RandomState,
    seen: Arc<[AtomicU64]>,
}

impl Robots {
    /// Knows robots by these words too, in any letter case.
    ///
    /// # Errors
    /// The words are too many, or browsers have one of them: what is wrong.
    pub fn new(own: &[String]) -> Result<Self, String> {
        if own.len() > MAX_WORDS {
            return Err(format!("more than {MAX_WORDS} words"));
        }
        let versions = VERSIONS.iter().map(|(browser, _)| *browser);
        let ours = INNOCENT.into_iter().chain(ENGINES).chain(versions).chain(WORDS);
        let patterns = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(ours.chain(own.iter().map(String::as_str)))
            .map_err(|error| error.to_string())?;
        let seen = (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        let robots = Robots { patterns, own: own.into(), hasher: RandomState::default(), seen };
        match BROWSERS.iter().find_map(|browser| robots.mark(browser.as_bytes(), b"")) {
            Some(Mark::Word(word)) => Err(format!("{word:?} is in the user agents of browsers")),
            _ => Ok(robots),
        }
    }

    /// By what a user agent is a robot's, or the brands that the hints beside it name (`Sec-CH-UA`, which Chrome's kin
    /// alone sends); none where they are a reader's.
    pub fn mark(&self, user_agent: &[u8], brands: &[u8]) -> Option<Mark<'_>> {
        let hash = self.hasher.hash_one((user_agent, brands));
        let place = self.seen.get((hash >> NUMBER.count_ones()) as usize % REMEMBERED);
        let known = place.map_or(0, |place| place.load(Ordering::Relaxed));
        if known & !NUMBER == hash & !NUMBER {
            return self.named(known & NUMBER);
        }
        let number = self.judge(user_agent, brands);
        if let Some(place) = place {
            place.store(hash & !NUMBER | number, Ordering::Relaxed);
        }
        self.named(number)
    }

    fn judge(&self, user_agent: &[u8], brands: &[u8]) -> u64 {
        const OF_ENGINES: usize = INNOCENT.len();
        const OF_VERSIONS: usize = OF_ENGINES + ENGINES.len();
        const OF_WORDS: usize = OF_VERSIONS + VERSIONS.len();
        let mut has_engine = false;
        for found in self.patterns.find_iter(user_agent) {
            let pattern = found.pattern().as_usize();
            let is_robots = match pattern {
                ..OF_ENGINES => continue,
                OF_ENGINES..OF_VERSIONS => false,
                OF_VERSIONS..OF_WORDS => {
                    number(&user_agent[found.end()..]) < VERSIONS[pattern - OF_VERSIONS].1
                }
                OF_WORDS.. => true,
            };
            if is_robots {
                return PATTERN + pattern as u64;
            }
            // Some browsers name Chrome and no engine.
            has_engine = true;
        }
        match FORMS.iter().any(|form| user_agent.starts_with(form)) {
            false => NO_FORM,
            true if !has_engine => NO_ENGINE,
            true if contradicts(brands, user_agent) => HINTS,
            true => 0,
        }
    }

    fn named(&self, number: u64) -> Option<Mark<'_>> {
        let pattern = match number {
            0 => return None,
            NO_FORM => return Some(Mark::NoForm),
            NO_ENGINE => return Some(Mark::NoEngine),
            HINTS => return Some(Mark::Hints),
            pattern => (pattern - PATTERN) as usize - INNOCENT.len() - ENGINES.len(),
        };
        if let Some((browser, _)) = VERSIONS.get(pattern) {
            return Some(Mark::Old(browser.trim_end_matches(['/', ' '])));
        }
        let word = pattern - VERSIONS.len();
        let own = || self.own.get(word - WORDS.len()).map_or("", String::as_str);
        Some(Mark::Word(WORDS.get(word).copied().unwrap_or_else(own)))
    }
}

impl fmt::Debug for Robots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Robots").field("own", &self.own).finish()
    }
}

/// Whether brands (`"Chromium";v="142", "Google Chrome";v="142"`) are not those of a user agent.
fn contradicts(brands: &[u8], user_agent: &[u8]) -> bool {
    let (brands, user_agent) = (String::from_utf8_lossy(brands), String::from_utf8_lossy(user_agent));
    let version = |text: &str, name: &str| Some(number(text.split_once(name)?.1.as_bytes()));
    let hinted = version(&brands, "\"Chromium\";v=\"");
    brands.contains("Headless") || hinted.is_some() && hinted != version(&user_agent, "Chrome/")
}

/// The digits that a text begins with; 0 where there are none.
fn number(text: &[u8]) -> u32 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).take(9);
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Vietnam's readers: applications that show pages in a view of their own, and the browser made there.
    const READERS: [&str; 12] = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) coc_coc_browser/137.0.298 Chrome/131.0.6778.298 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
        "Mozilla/5.0 (Linux; Android 13; SM-A536E Build/TP1A.220624.014; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/119.0.6045.66 Mobile Safari/537.36 Zalo android/12100702 ZaloTheme/light ZaloLanguage/vi",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Zalo iOS/689 ZaloTheme/dark ZaloLanguage/vn",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/21G93 [FBAN/FBIOS;FBAV/487.0.0.40.111;FBBV/657866733;FBDV/iPhone14,5;FBMD/iPhone;FBSN/iOS;FBSV/17.6.1;FBSS/3;FBID/phone;FBLC/vi_VN;FBOP/5]",
        "Mozilla/5.0 (Linux; Android 14; SM-S918B; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/130.0.6723.58 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/487.0.0.58.77;IABMV/1;]",
        "Mozilla/5.0 (Linux; Android 9; CUBOT P30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/91.0.4472.114 Mobile Safari/537.36",
        "Mozilla/5.0 (Linux; U; Android 13; vi-VN; CPH2387 Build/TP1A.220905.001) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.58 UCBrowser/13.7.2.1315 Mobile Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
        "Opera/9.80 (Android; Opera Mini/7.5.33361/31.1543; U; en) Presto/2.8.119 Version/11.1010",
    ];

    const PROGRAMS: [(&str, Mark<'_>); 12] = [
        ("", Mark::NoForm),
        ("-", Mark::NoForm),
        ("Mozilla/5.0", Mark::NoForm),
        ("Mozilla/5.0 (X11; Linux x86_64)", Mark::NoEngine),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Mark::Word("bot")),
        ("facebookexternalhit/1.1 (+x)", Mark::Word("facebookexternalhit")),
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36",
            Mark::Word("headless"),
        ),
        ("curl/8.11.1", Mark::NoForm),
        ("python-requests/2.32.5", Mark::NoForm),
        ("Go-http-client/1.1", Mark::NoForm),
        ("node", Mark::NoForm),
        ("Mozilla/5.0 (Windows NT 5.1; rv:14.0) Gecko/20100101 Firefox/14.0.1", Mark::Old("firefox")),
    ];

    #[test]
    fn readers_are_told_from_programs_also_the_second_time() {
        let robots = Robots::new(&[]).unwrap();
        for _ in 0..2 {
            for reader in READERS {
                assert_eq!(robots.mark(reader.as_bytes(), b""), None, "{reader}");
            }
            for (program, mark) in PROGRAMS {
                assert_eq!(robots.mark(program.as_bytes(), b""), Some(mark), "{program}");
            }
        }
    }

    #[test]
    fn the_operators_words_count_in_any_case_unless_browsers_have_them() {
        let own = Robots::new(&["x-other".to_owned(), "NewsReader".to_owned()]).unwrap();
        let agent = format!("{} newsreader/2", READERS[0]);
        assert_eq!(own.mark(agent.as_bytes(), b""), Some(Mark::Word("NewsReader")));
        assert_eq!(own.mark(READERS[0].as_bytes(), b""), None);
        assert_eq!(Robots::new(&[]).unwrap().mark(agent.as_bytes(), b""), None);
        for word in ["gecko", "Mozilla", "MOBILE"] {
            let fault = Robots::new(&["other".to_owned(), word.to_owned()]).unwrap_err();
            assert_eq!(fault, format!("{word:?} is in the user agents of browsers"));
        }
        assert!(Robots::new(&vec!["word".to_owned(); MAX_WORDS]).is_ok());
        assert!(Robots::new(&vec!["word".to_owned(); MAX_WORDS + 1]).is_err());
    }

    #[test]
    fn hints_must_be_those_of_the_user_agent() {
        let robots = Robots::new(&[]).unwrap();
        let (chrome, firefox) = (READERS[0].as_bytes(), READERS[2].as_bytes());
        for (agent, brands, is_robots) in [
            (chrome, r#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#, false),
            (chrome, r#""Not_A Brand";v="8", "Chromium";v="142.0.7444.60", "Opera";v="126""#, false),
            (chrome, r#""Not=A?Brand";v="24""#, false),
            (chrome, r#""Chromium";v="96", "Google Chrome";v="96""#, true),
            (chrome, r#""Chromium";v="142", "HeadlessChrome";v="142""#, true),
            (firefox, r#""Chromium";v="142", "Google Chrome";v="142""#, true),
            (firefox, "", false),
        ] {
            let mark = is_robots.then_some(Mark::Hints);
            assert_eq!(robots.mark(agent, brands.as_bytes()), mark, "{brands}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_remembered_is_what_was_found(agents in proptest::collection::vec("[a-zA-Z/ ;.(0-9]{0,40}", 0..60)) {
            let robots = Robots::new(&[]).unwrap();
            for agent in agents.iter().chain(&agents) {
                let agent = agent.as_bytes();
                let found = robots.judge(agent, b"");
                proptest::prop_assert_eq!(robots.mark(agent, b""), robots.named(found));
            }
        }
    }
}
