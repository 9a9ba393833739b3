//! A URL becomes a page. The function is idempotent and has no other input.
//!
//! **Path.** Percent escapes are decoded, then the text is put into NFC. `.` and `..` are resolved as a
//! browser does (`%2e` is a dot, `\` is a slash), doubled slashes become one, and trailing slashes and index
//! files ([`INDEX_FILES`], in any letter case) are dropped. The root stays `/`.
//!
//! A server that keeps no cookie writes the session into the path. It is dropped, so that it is not stored and a page
//! stays one: parameters such as `;jsessionid=…`, and segments as ASP.NET has them, `/(S(…))/`.
//!
//! **Query.** The names that the site keeps are put in the site's order, the values of each stay in their own;
//! a name without `=` gets one, `+` becomes a space. Every other name, and the fragment, is dropped.
//!
//! **What stays, or becomes, `%XX`** (capitals), because decoded it would mean or show something else:
//!
//! - reserved ASCII that came as an escape: `: / ? # [ ] @ ! $ & ' ( ) * + , ; =` (RFC 3986, 2.2), `\`
//!   and `%`. The same character without an escape stays as it is: that is another page. (Only `'` is
//!   always plain in a query, because browsers escape it there.) A `%` that begins no escape becomes `%25`;
//! - control characters: C0, DEL, C1, U+2028, U+2029 and the bidirectional controls, and others that nobody sees, such as
//!   joiners and variation selectors: a page looks like no other. Those without any meaning in a URL, which come with
//!   copied text (zero-width spaces, soft hyphens, byte order marks), are dropped;
//! - bytes that are not UTF-8;
//! - a combining mark right after an escape or a query's `=`, which NFC would otherwise join to it.
//!
//! Every other character, a space too, is written as it is. So each `%` of a page begins an escape that stays,
//! and normalising twice changes nothing.
//!
//! **Case** is kept, or folded to lower case in path and query ([`PageCase::Fold`]).
//!
//! **Length.** A page over [`MAX_PAGE`] bytes is cut at a character, not inside an escape or a query's
//! name, and ended with `~` and 16 hex digits of SipHash-1-3 (key 0) of the whole.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;
use percent_encoding::{percent_decode_str, percent_encode_byte};
use siphasher::sip::SipHasher13;
use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::sites::{PageCase, PageRules, SiteId};

/// The longest page, bytes. A longer one is cut and ended with `~` and 16 hex digits.
pub const MAX_PAGE: usize = 512;

/// What stands for the pages of a site that find no room. No page is called so: pages begin with `/`.
pub const OTHER: &str = "(other)";

/// `~` and 16 hex digits.
const MARK: usize = 17;

/// Names and endings of the files that a web server shows for their directory.
const INDEX_FILES: [(&str, &[&str]); 2] = [
    ("index", &["html", "htm", "xhtml", "shtml", "php", "jsp", "asp", "aspx"]),
    ("default", &["html", "htm", "asp", "aspx"]),
];

/// Names of parameters of a segment that hold a session, in lower case.
const SESSIONS: [&str; 8] =
    ["jsessionid", "phpsessid", "sessionid", "session_id", "session", "sessid", "sid", "zenid"];

/// A normalised page of a site with the hash of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    text: Box<str>,
    key: u64,
}

impl Page {
    /// Makes the page of a path and query (what stands between host and `#`), which begins with `/`.
    pub fn normalise(site: SiteId, rules: &PageRules, path_and_query: &str) -> Page {
        match plain(rules, path_and_query) {
            Some(text) => Page::trusted(site, text),
            None => Page::trusted(site, &spelled_out(rules, path_and_query)),
        }
    }

    /// A page from text that is normalised already: read back from journal, outbox or store.
    pub fn trusted(site: SiteId, text: &str) -> Page {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        let mut hasher = SEED.build_hasher();
        hasher.write_u16(site.0);
        hasher.write(text.as_bytes());
        Page { text: text.into(), key: hasher.finish() }
    }

    /// The page as stored and shown.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A 64-bit hash of site and page, stable within one process only.
    pub fn key(&self) -> u64 {
        self.key
    }
}

/// The bytes that the quick way skips: printable ASCII except `/`, `?`, `#`, `%`, `\`, `;`.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut b = 0x20;
    while b < 0x7f {
        plain[b] = !matches!(b as u8, b'/' | b'?' | b'#' | b'%' | b'\\' | b';');
        b += 1;
    }
    plain
};

/// The quick way: a path that is a page already, except for what is dropped at its end. None if there is more
/// to do, or if a query may have to be kept.
fn plain<'a>(rules: &PageRules, path_and_query: &'a str) -> Option<&'a str> {
    let bytes = path_and_query.as_bytes();
    let mut end = 0;
    loop {
        end += bytes.get(end..)?.iter().take_while(|b| PLAIN[usize::from(**b)]).count();
        match bytes.get(end..)? {
            [] | [b'#', ..] => break,
            [b'?', ..] if rules.query.is_empty() => break,
            // But not before another slash, or a segment that may be `.`, `..` or a session.
            [b'/', next, ..] if !matches!(next, b'/' | b'.' | b'(') => end += 1,
            [b'/'] => end += 1,
            _ => return None,
        }
    }
    let path = path_and_query.get(..end).filter(|path| path.starts_with('/'))?;
    if rules.case == PageCase::Fold && path.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let path = without_index(path);
    (path.len() <= MAX_PAGE).then_some(path)
}

/// A path without its trailing slashes and index files; `/` if nothing else is left.
fn without_index(mut path: &str) -> &str {
    // From the end, as a file's name is short.
    while let Some(slash) = path.bytes().rposition(|b| b == b'/') {
        let (directory, last) = (&path[..slash], &path[slash + 1..]);
        if !last.is_empty() && !is_index(last) {
            return path;
        }
        path = directory;
    }
    "/"
}

fn is_index(file: &str) -> bool {
    let Some((name, end)) = file.split_once('.') else { return false };
    let known = INDEX_FILES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.is_some_and(|(_, ends)| ends.iter().any(|known| known.eq_ignore_ascii_case(end)))
}

/// The long way: decodes the path, and what the site keeps of the query.
fn spelled_out(rules: &PageRules, path_and_query: &str) -> String {
    let whole = path_and_query.split_once('#').map_or(path_and_query, |(whole, _)| whole);
    let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
    let fold = rules.case == PageCase::Fold;
    let mut text = decoded_path(path, fold);
    let path_end = text.len();
    if !rules.query.is_empty() {
        keep(&mut text, query, &rules.query, fold);
    }
    if text.len() > path_end {
        text.replace_range(path_end..=path_end, "?");
    }
    if text.len() > MAX_PAGE { cut(&text, path_end) } else { text }
}

fn decoded_path(path: &str, fold: bool) -> String {
    let path = path.strip_prefix(['/', '\\']).unwrap_or(path);
    let mut text = String::with_capacity(path.len() + 1);
    for segment in path.split(['/', '\\']) {
        let begin = text.len();
        text.push('/');
        decode(&mut text, segment, fold, Part::Segment);
        drop_session(&mut text, begin);
        match &text[begin..] {
            "/." => text.truncate(begin),
            "/.." => {
                text.truncate(begin);
                text.truncate(text.rfind('/').unwrap_or(0));
            }
            _ => {}
        }
    }
    let mut before = '\0';
    text.retain(|c| std::mem::replace(&mut before, c) != '/' || c != '/');
    if text.is_empty() {
        text.push('/');
    }
    text.truncate(without_index(&text).len());
    text
}

/// Drops the session from the last segment of a path, which begins with its slash; all of it where it is nothing else.
fn drop_session(text: &mut String, begin: usize) {
    let mut at = begin;
    while let Some(from) = separator(text, at) {
        at = from + if text[from..].starts_with(';') { 1 } else { 3 };
        let end = separator(text, at).unwrap_or(text.len());
        let parameter = &text[at..end];
        let name = parameter.split_once('=').or_else(|| parameter.split_once("%3D")).map(|(name, _)| name);
        if name.is_some_and(|name| SESSIONS.iter().any(|session| session.eq_ignore_ascii_case(name))) {
            text.replace_range(from..end, "");
            at = from;
        }
    }
    if is_session_segment(&text[begin + 1..]) {
        text.truncate(begin);
    }
}

/// Where the next parameter of a segment begins.
fn separator(text: &str, from: usize) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    // In one go: a path may be of nothing but them.
    (from..)
        .zip(0..rest.len())
        .find(|(_, at)| rest[*at] == b';' || rest[*at..].starts_with(b"%3B"))
        .map(|(at, _)| at)
}

/// Whether a segment is what ASP.NET holds a session in: `(S(…))`, also with others of its tickets beside it, or as
/// its first version has it.
fn is_session_segment(segment: &str) -> bool {
    if !segment.starts_with(['(', '%']) {
        return false;
    }
    let segment = segment.replace("%28", "(").replace("%29", ")");
    let Some(inner) = segment.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else { return false };
    let is_ticket = |ticket: &str| {
        ticket.split_once('(').is_some_and(|(kind, value)| {
            ["A", "F", "S", "X"].iter().any(|known| known.eq_ignore_ascii_case(kind)) && !value.contains('(')
        })
    };
    (inner.len() == 24 && inner.bytes().all(|b| b.is_ascii_alphanumeric()))
        || inner.strip_suffix(')').is_some_and(|tickets| tickets.split(')').all(is_ticket))
}

/// Appends `&name=value` for each value that the query gives one of the names. Each name of the query is read once,
/// however many are kept, as a query may be of nothing but names.
fn keep(text: &mut String, query: &str, names: &[String], fold: bool) {
    let canonical_names: Vec<Cow<str>> = names.iter().map(|name| canonical(name, fold)).collect();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let kept = pairs.filter_map(|(said, value)| {
        let said = spaces(said);
        let said = percent_decode_str(&said).decode_utf8().ok().filter(|said| !said.is_empty())?;
        // Of names that mean the same the first counts, or its values would double.
        let said = canonical(&said, fold);
        Some((canonical_names.iter().position(|name| *name == said)?, value))
    });
    let mut kept: Vec<(usize, &str)> = kept.collect();
    kept.sort_by_key(|(name, _)| *name);
    for of_one in kept.chunk_by(|one, next| one.0 == next.0) {
        let mut written = String::from("&");
        if let Some(name) = of_one.first().and_then(|(name, _)| names.get(*name)) {
            write_name(&mut written, name, fold);
        }
        for (_, value) in of_one {
            text.push_str(&written);
            text.push('=');
            decode(text, &spaces(value), fold, Part::Value);
        }
    }
}

/// `+` stands for a space in a query.
fn spaces(value: &str) -> Cow<'_, str> {
    if value.contains('+') { value.replace('+', " ").into() } else { value.into() }
}

/// A name as all that mean the same are compared.
fn canonical(name: &str, fold: bool) -> Cow<'_, str> {
    let is_ready = match name.is_ascii() {
        true => !fold || !name.bytes().any(|b| b.is_ascii_uppercase()),
        false => !fold && is_nfc_quick(name.chars()) == IsNormalized::Yes,
    };
    match is_ready {
        true => name.into(),
        false if fold => folded(name).into(),
        false => name.nfc().collect::<String>().into(),
    }
}

/// Writes a kept name so that it is read back as itself.
fn write_name(text: &mut String, name: &str, fold: bool) {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '%' | '&' | '=' | '+' | '#' | '\\' => escape(&mut escaped, &[c as u8]),
            c => escaped.push(c),
        }
    }
    decode(text, &escaped, fold, Part::Value);
}

/// Which part of a page a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Between two slashes.
    Segment,
    /// After a query's `&` or `=`.
    Value,
}

/// Decodes a segment, or a name or value of a query.
fn decode(text: &mut String, encoded: &str, fold: bool, part: Part) {
    let bytes = encoded.as_bytes();
    let mut run = Vec::with_capacity(bytes.len());
    let (mut at, mut joined) = (0, part == Part::Value);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte != b'%' {
            run.push(byte);
            continue;
        }
        let decoded = hex_pair(bytes.get(at..at + 2));
        at += if decoded.is_some() { 2 } else { 0 };
        match decoded {
            Some(byte) if !is_reserved(byte, part) => run.push(byte),
            _ => {
                write_run(text, &run, fold, joined);
                run.clear();
                escape(text, &[decoded.unwrap_or(b'%')]);
                joined = true;
            }
        }
    }
    write_run(text, &run, fold, joined);
}

fn hex_pair(digits: Option<&[u8]>) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    match digits? {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// ASCII that means one thing as an escape and another as a plain character.
fn is_reserved(byte: u8, part: Part) -> bool {
    match byte {
        // In a query, browsers escape it always.
        b'\'' => part == Part::Segment,
        b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'\\' | b'%' => true,
        b'!' | b'$' | b'&' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
        _ => false,
    }
}

/// C0, DEL, C1, line and paragraph separator, all that changes the direction of text, and whatever else is not seen
/// (Default_Ignorable_Code_Point of Unicode).
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Zero-width space, word joiner, byte order mark, soft hyphen.
const DROPPED: [&str; 4] = ["\u{200b}", "\u{2060}", "\u{feff}", "\u{ad}"];

/// Decoded bytes without what is dropped. What stood around it may be one of them too, and broken UTF-8 be whole.
fn without_dropped(run: &[u8]) -> Cow<'_, [u8]> {
    if run.is_ascii() {
        return run.into();
    }
    let mut kept = Vec::with_capacity(run.len());
    for byte in run {
        kept.push(*byte);
        if let Some(dropped) = DROPPED.iter().find(|dropped| kept.ends_with(dropped.as_bytes())) {
            kept.truncate(kept.len() - dropped.len());
        }
    }
    kept.into()
}

/// Writes decoded bytes: characters in NFC, controls and broken UTF-8 as escapes. Returns whether the last one
/// is an escape.
fn write_run(text: &mut String, run: &[u8], fold: bool, mut joined: bool) -> bool {
    for chunk in without_dropped(run).utf8_chunks() {
        for piece in chunk.valid().split_inclusive(is_control) {
            let control = piece.chars().next_back().filter(|c| is_control(*c));
            let characters = &piece[..piece.len() - control.map_or(0, char::len_utf8)];
            joined = write_characters(text, characters, fold, joined);
            if let Some(control) = control {
                escape(text, control.encode_utf8(&mut [0; 4]).as_bytes());
                joined = true;
            }
        }
        if !chunk.invalid().is_empty() {
            escape(text, chunk.invalid());
            joined = true;
        }
    }
    joined
}

fn write_characters(text: &mut String, characters: &str, fold: bool, joined: bool) -> bool {
    if characters.is_ascii() {
        let begin = text.len();
        text.push_str(characters);
        if fold {
            text[begin..].make_ascii_lowercase();
        }
        return joined && characters.is_empty();
    }
    let normal: Cow<str> = match is_nfc_quick(characters.chars()) {
        _ if fold => folded(characters).into(),
        IsNormalized::Yes => characters.into(),
        _ => characters.nfc().collect::<String>().into(),
    };
    let stands =
        if joined { normal.find(|c| canonical_combining_class(c) == 0).unwrap_or(normal.len()) } else { 0 };
    let (marks, rest) = normal.split_at(stands);
    escape(text, marks.as_bytes());
    text.push_str(rest);
    rest.is_empty()
}

/// Lower case in NFC, character by character, so that a final sigma does not depend on what follows it.
fn folded(characters: &str) -> String {
    characters.nfc().flat_map(char::to_lowercase).nfc().collect()
}

fn escape(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().map(|byte| percent_encode_byte(*byte)));
}

/// Cuts a page that is too long. A query is cut inside a value only: half a name would be dropped when the
/// page is normalised again.
fn cut(text: &str, path_end: usize) -> String {
    let mut end = text.floor_char_boundary(MAX_PAGE - MARK);
    if let Some(escape) = text[..end].rfind('%').filter(|at| at + 3 > end) {
        end = escape;
    }
    if end > path_end {
        let pair = path_end + text[path_end..end].rfind('&').unwrap_or(0);
        if !text[pair..end].contains('=') {
            end = pair;
        }
    }
    let hash = SipHasher13::new().hash(text.as_bytes());
    format!("{}~{hash:016x}", &text[..end])
}

#[cfg(test)]
mod tests;
