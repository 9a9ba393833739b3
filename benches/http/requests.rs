//! The requests: number `k` has the same bytes whenever and to whomever it is sent.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;

/// The host of the site, as in footfall's configuration.
pub const HOST: &str = "bench.example";

/// Writes request number `k` into a buffer that it finds empty.
pub type Requests = Rc<dyn Fn(u64, &mut Vec<u8>)>;

/// Which page a view is of.
pub enum Pages {
    /// Any of so many, each as often.
    Uniform(u64),
    /// By rank: the n-th most read is read 1/n times as often as the first. Cumulated shares, and the number
    /// of the first.
    Zipf(Vec<f64>, u64),
}

impl Pages {
    /// Zipf's law with exponent 1 over `pages` pages.
    pub fn zipf(pages: u32) -> Pages {
        let weights = (1..=pages).map(|rank| 1.0 / f64::from(rank));
        let sums: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let whole = sums.last().copied().unwrap_or(1.0);
        Pages::Zipf(sums.into_iter().map(|sum| sum / whole).collect(), 0)
    }

    /// The same from another page on.
    pub fn from(self, first: u64) -> Pages {
        match self {
            Pages::Zipf(shares, _) => Pages::Zipf(shares, first),
            uniform @ Pages::Uniform(_) => uniform,
        }
    }

    fn pick(&self, random: u64) -> u64 {
        match self {
            Pages::Uniform(pages) => random % pages,
            Pages::Zipf(shares, first) => {
                let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
                first + shares.partition_point(|&upto| upto < share) as u64
            }
        }
    }
}

/// Whom a view is from.
pub enum Visitors {
    /// Any of so many.
    Among(u64),
    /// A new one each.
    Distinct,
    /// A new one for every so many in a row.
    EachFor(u64),
}

/// How a beacon is dressed.
#[derive(Clone, Copy)]
pub enum Headers {
    /// What a proxy must pass on, and what tells visitors apart.
    Few,
    /// All that a browser sends.
    Browser,
}

/// Beacons.
pub struct Views {
    /// From whom.
    pub visitors: Visitors,
    /// Of what.
    pub pages: Pages,
    /// How dressed.
    pub headers: Headers,
    /// Whether each is named by an `id` of its own.
    pub ids: bool,
}

/// What of the headers does not change from one browser to the next, Chrome's order and spelling.
const BROWSER_HEADERS: &str = "sec-ch-ua-platform: \"Windows\"\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n\
    sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Dest: empty\r\nSec-Fetch-Storage-Access: active\r\n\
    Referer: https://bench.example/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: vi-VN,vi;q=0.9,en-US;q=0.8,en;q=0.7\r\nCache-Control: no-cache\r\n\
    X-Forwarded-Proto: https\r\n";

const USER_AGENTS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
];

impl Views {
    /// The requests.
    pub fn requests(self) -> Requests {
        let body = RefCell::new(Vec::with_capacity(256));
        Rc::new(move |k, out| self.write(k, &mut body.borrow_mut(), out))
    }

    fn write(&self, k: u64, body: &mut Vec<u8>, out: &mut Vec<u8>) {
        let visitor = match self.visitors {
            Visitors::Among(visitors) => mix(k) % visitors,
            Visitors::Distinct => k,
            Visitors::EachFor(views) => k / views,
        };
        let page = Page(self.pages.pick(mix(!k)));
        body.clear();
        let _ = write!(body, r#"{{"site":"bench","url":"https://{HOST}{page}","kind":"view""#);
        if self.ids {
            let _ = write!(body, r#","id":"{:016x}""#, mix(k));
        }
        body.push(b'}');
        post(visitor, body, self.headers, out);
    }
}

/// Pings of the visitors of a page.
pub fn pings(visitors: u64) -> Requests {
    Rc::new(move |k, out| {
        let body = format!(r#"{{"site":"bench","url":"https://{HOST}{}","kind":"ping"}}"#, Page(0));
        post(mix(k) % visitors, body.as_bytes(), Headers::Browser, out);
    })
}

/// A view of a page that nobody else reads, from one address, by a program that tells another user agent each time.
pub fn made_up(k: u64, out: &mut Vec<u8>) {
    let body = format!(r#"{{"site":"bench","url":"https://{HOST}/made-up/{k}","kind":"view"}}"#);
    let length = body.len();
    let _ = write!(
        out,
        "POST /api/v1/beacon HTTP/1.1\r\nHost: stats.bench.example\r\nX-Forwarded-For: 198.51.100.1\r\n\
         User-Agent: {k}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

/// Views that ask for the counters of their page, each followed by the reader's ping if there are to be some.
pub fn told(visitors: u64, pages: u64, pings: bool) -> Requests {
    Rc::new(move |k, out| {
        let (view, kind) = match pings {
            true => (k / 2, if k.is_multiple_of(2) { "view" } else { "ping" }),
            false => (k, "view"),
        };
        let (page, id) = (Page(mix(!view) % pages), mix(view));
        let body = format!(
            r#"{{"site":"bench","url":"https://{HOST}{page}","kind":"{kind}","id":"{id:016x}","answer":"counters"}}"#
        );
        post(id % visitors, body.as_bytes(), Headers::Few, out);
    })
}

/// Writes a beacon of a visitor.
fn post(visitor: u64, body: &[u8], headers: Headers, out: &mut Vec<u8>) {
    // 10.0.0.0/8 has room for sixteen million visitors.
    let [_, a, b, c] = (visitor as u32).to_be_bytes();
    let agent = USER_AGENTS[visitor as usize % USER_AGENTS.len()];
    let length = body.len();
    let _ = write!(
        out,
        "POST /api/v1/beacon HTTP/1.1\r\nHost: stats.bench.example\r\nX-Forwarded-For: 10.{a}.{b}.{c}\r\n\
         User-Agent: {agent}\r\nOrigin: https://{HOST}\r\nContent-Type: text/plain;charset=UTF-8\r\n\
         Content-Length: {length}\r\n"
    );
    if let Headers::Browser = headers {
        out.extend_from_slice(BROWSER_HEADERS.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// Reads of the counters of any of `pages` pages, each as often.
pub fn reads(pages: u64) -> Requests {
    Rc::new(move |k, out| {
        let target = counters(mix(!k) % pages);
        let agent = USER_AGENTS[0];
        let _ = write!(
            out,
            "GET {target} HTTP/1.1\r\nHost: stats.bench.example\r\nX-Forwarded-For: 10.0.0.1\r\n\
             User-Agent: {agent}\r\nAccept: */*\r\nOrigin: https://{HOST}\r\n\r\n"
        );
    })
}

/// The target that reads the counters with those of page number `page`.
pub fn counters(page: u64) -> String {
    format!("/api/v1/sites/bench/counters?page={}", Page(page))
}

/// The path of a page by number.
struct Page(u64);

impl std::fmt::Display for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/thoi-su/202611/bai-viet-{}.html", self.0)
    }
}

/// SplitMix64's output function: random access to an even sequence; one to one, so ids are unique.
pub fn mix(k: u64) -> u64 {
    let z = k.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
