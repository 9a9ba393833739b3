//! One line of an access log: common or combined, also with the host before them (`vhost_combined`), or JSON as
//! Caddy writes it and as nginx does with its usual names.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::{DateTime, NaiveDate};

/// What a line tells of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was, Unix milliseconds.
    pub at_ms: i64,
    pub client: IpAddr,
    /// The host, with or without a port; empty where the line does not tell it.
    pub host: Cow<'a, [u8]>,
    pub is_get: bool,
    /// The path with its query, or a URL.
    pub target: Cow<'a, [u8]>,
    pub status: u16,
    /// The user agent, spelled as in the log.
    pub agent: Cow<'a, [u8]>,
}

impl<'a> Line<'a> {
    /// Reads a line without its end; none where it is malformed.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii();
        if text.starts_with(b"{") { Self::of_members(text) } else { Self::of_fields(text) }
    }

    /// `[host[:port]] client ident user [time] "request" status bytes ["referer" "agent"]`
    fn of_fields(text: &'a [u8]) -> Option<Self> {
        let (first, rest) = word(text);
        let (host, client) = match address(first) {
            Some(client) => (&b""[..], client),
            None => (first, address(word(rest).0)?),
        };
        let time = |at: usize| {
            let (time, after) = rest.get(at + 1..)?.split_first_chunk()?;
            Some((log_time_ms(time)?, after))
        };
        // The name of a user may hold a bracket too.
        let (at_ms, rest) = (0..rest.len()).filter(|at| rest[*at] == b'[').find_map(time)?;
        let (request, rest) = quoted(rest)?;
        let (status, rest) = word(rest.trim_ascii_start());
        let agent =
            quoted(rest).and_then(|(_referer, rest)| quoted(rest)).map_or(&b""[..], |(agent, _)| agent);
        let (is_get, target, status) =
            (is_get(request), target(request).into(), text_of(status).parse().ok()?);
        Some(Line { at_ms, client, host: host.into(), is_get, target, status, agent: agent.into() })
    }

    /// Of two members with the same meaning the later one holds: Caddy names the client behind a proxy last.
    fn of_members(text: &'a [u8]) -> Option<Self> {
        let mut found = [&b""[..]; 9];
        members(text, |name, value| {
            let place = match name {
                b"time" | b"time_iso8601" | b"time_local" | b"timestamp" | b"@timestamp" | b"ts"
                | b"msec" => 0,
                b"client" | b"remote_addr" | b"remote_ip" | b"client_ip" => 1,
                b"host" | b"http_host" => 2,
                b"method" | b"request_method" => 3,
                b"request" => 4,
                b"request_uri" => 5,
                b"uri" | b"url" | b"path" => 6,
                b"status" => 7,
                b"agent" | b"http_user_agent" | b"user_agent" | b"User-Agent" => 8,
                _ => return,
            };
            found[place] = value;
        })?;
        let [time, client, host, method, request, sent, uri, status, agent] = found;
        let request = unescaped(request);
        // As it was sent, rather than as the server rewrote it.
        let target = match &request {
            _ if !sent.is_empty() => unescaped(sent),
            Cow::Borrowed(b"") => unescaped(uri),
            Cow::Borrowed(request) => target(request).into(),
            Cow::Owned(request) => target(request).to_vec().into(),
        };
        let is_get = method == b"GET" || is_get(&request);
        let (at_ms, client, status) =
            (time_ms(&unescaped(time))?, address(client)?, text_of(status).parse().ok()?);
        Some(Line { at_ms, client, host: unescaped(host), is_get, target, status, agent: unescaped(agent) })
    }
}

/// A text up to its first space, and what follows that.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    (&text[..end], text.get(end + 1..).unwrap_or_default())
}

/// What stands in the next quotes of a text, and what follows them.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let begin = text.iter().position(|b| *b == b'"')? + 1;
    let text = text.get(begin..)?;
    let mut end = 0;
    loop {
        end += text.get(end..)?.iter().position(|b| *b == b'"')?;
        let escapes = text[..end].iter().rev().take_while(|b| **b == b'\\').count();
        if escapes % 2 == 0 {
            return Some((&text[..end], &text[end + 1..]));
        }
        end += 1;
    }
}

fn is_get(request: &[u8]) -> bool {
    request.starts_with(b"GET ")
}

/// What is asked for between the method and the protocol.
fn target(request: &[u8]) -> &[u8] {
    let (_method, rest) = word(request);
    let end = rest.iter().rposition(|b| *b == b' ').filter(|end| rest[*end..].starts_with(b" HTTP/"));
    &rest[..end.unwrap_or(rest.len())]
}

/// Bytes as a text; an empty one if they are none.
fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn address(text: &[u8]) -> Option<IpAddr> {
    text_of(text).parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Unix milliseconds of `10/Oct/2000:13:55:36 -0700`, of RFC 3339, or of Unix seconds.
fn time_ms(text: &[u8]) -> Option<i64> {
    let spelled = text_of(text);
    let seconds = || Some((spelled.parse::<f64>().ok()? * 1000.0).round() as i64);
    let rfc3339 = || Some(DateTime::parse_from_rfc3339(spelled).ok()?.timestamp_millis());
    text.first_chunk().and_then(log_time_ms).or_else(seconds).or_else(rfc3339)
}

fn log_time_ms(text: &[u8; 26]) -> Option<i64> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let number = |from: usize, to: usize| -> Option<u32> {
        text[from..to].iter().try_fold(0, |sum, b| Some(sum * 10 + char::from(*b).to_digit(10)?))
    };
    if [2, 6, 11, 14, 17, 20].map(|at: usize| text[at]) != *b"//::: " {
        return None;
    }
    let month = MONTHS.chunks(3).zip(1..).find(|(name, _)| *name == &text[3..6])?.1;
    let day = NaiveDate::from_ymd_opt(number(7, 11)? as i32, month, number(0, 2)?)?;
    // A leap second is the one before it.
    let time = day.and_hms_opt(number(12, 14)?, number(15, 17)?, number(18, 20)?.min(59))?;
    let east_s = i64::from(number(22, 24)? * 3600 + number(24, 26)? * 60);
    let sign = [b'-', b'+'].iter().position(|sign| *sign == text[21])? as i64 * 2 - 1;
    Some((time.and_utc().timestamp() - sign * east_s) * 1000)
}

/// Finds name and value of each member of a JSON object, also of those in it: a text as it stands between its
/// quotes, and of a list its first element. None where the object is cut off.
fn members<'a>(text: &'a [u8], mut found: impl FnMut(&[u8], &'a [u8])) -> Option<()> {
    let (mut name, mut rest) = (&b""[..], text.strip_suffix(b"}")?);
    loop {
        rest = rest.trim_ascii_start();
        let is_text = match rest.first() {
            None => return Some(()),
            Some(b'{' | b'[' | b'}' | b']' | b',' | b':') => {
                rest = &rest[1..];
                continue;
            }
            first => first == Some(&b'"'),
        };
        let end = |rest: &[u8]| {
            rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ')).unwrap_or(rest.len())
        };
        let (value, after) = if is_text { quoted(rest)? } else { rest.split_at(end(rest)) };
        rest = after.trim_ascii_start();
        if is_text && rest.starts_with(b":") {
            name = value;
        } else {
            found(std::mem::take(&mut name), value);
        }
    }
}

/// A JSON text without its escapes; empty where they are none.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    let unescaped = || serde_json::from_slice::<String>(&[b"\"", text, b"\""].concat()).unwrap_or_default();
    if text.contains(&b'\\') { unescaped().into_bytes().into() } else { text.into() }
}

#[cfg(test)]
mod tests;
