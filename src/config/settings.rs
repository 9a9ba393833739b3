//! The sources of a configuration, each over the one before: defaults, files, the environment.
//!
//! Keys are flat here (`journal.sync`, `site.0.hosts`). The defaults say which keys there are and of which
//! type: there is no second list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::faults::{Complaint, Fault, nearest, without_password};
use super::files::{self, PREFIX};
use super::values::as_written;
use super::variables::is_made_for_a_service;
use crate::totals::{HIDDEN, without_secret};

/// Variables that are not keys: they are read elsewhere.
const NOT_KEYS: [&str; 2] = ["FOOTFALL_CONFIG", "FOOTFALL_LOG"];

/// Keys that hold secrets: never shown, and `…_FILE` may name a file that holds them.
const SECRETS: [&str; 3] = ["store.url", "site.0.newsroom_token", "site.0.read_tokens"];

/// The word for a value that follows from others.
pub(super) const AUTO: &str = "auto";

/// Languages whose labels are among the defaults.
const LANGUAGES: [&str; 2] = ["en", "vi"];

/// A section without keys, as a text.
const EMPTY: &str = "{…}";

/// Keys that each configured site must have.
const REQUIRED: [&str; 2] = ["key", "hosts"];

/// A value; no setting is of another type. It may be a secret, and has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<String>),
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &String| toml::Value::from(text.as_str());
        match self {
            Value::Text(value) => text(value).fmt(f),
            Value::Number(value) => value.fmt(f),
            Value::Flag(value) => value.fmt(f),
            Value::List(values) => toml::Value::Array(values.iter().map(text).collect()).fmt(f),
        }
    }
}

/// A value and where it is set.
#[derive(Clone)]
struct Entry {
    value: Value,
    /// `footfall.toml line 12`, a variable's name, or nothing: the defaults.
    place: String,
    /// The order in which it is shown.
    order: usize,
}

/// Everything in force.
#[derive(Clone)]
pub(super) struct Settings {
    entries: BTreeMap<String, Entry>,
    defaults: BTreeMap<String, Entry>,
    /// The number of sites.
    pub sites: usize,
    /// Variables that an orchestrator made.
    pub foreign: Vec<String>,
    /// Files that were to add sites, and add none.
    pub empty: Vec<String>,
    /// Whether there are files that add sites.
    has_further: bool,
}

impl Settings {
    /// Puts the sources over the defaults. What cannot be taken is left out and becomes a fault.
    pub fn gather<'a>(
        defaults: &str,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        env: impl Iterator<Item = (String, String)>,
    ) -> (Settings, Vec<Fault>) {
        let mut faults = Vec::new();
        let defaults: BTreeMap<String, Entry> = leaves(("defaults", defaults), &mut faults)
            .into_iter()
            .filter_map(|(key, line, value)| {
                Some((key, Entry { value: value.ok()?, place: String::new(), order: line }))
            })
            .collect();
        debug_assert!(faults.is_empty(), "{faults:?}");
        let (foreign, empty) = Default::default();
        let mut settings =
            Settings { entries: BTreeMap::new(), defaults, sites: 0, foreign, empty, has_further: false };
        for (number, (name, text)) in files.into_iter().enumerate() {
            let before = settings.site_indices().len();
            settings.has_further |= number > 0;
            let leaves = leaves((name, text), &mut faults);
            if number > 0 && leaves.is_empty() {
                settings.empty.push(name.to_owned());
            }
            for (key, line, value) in leaves {
                let place = format!("{name} line {line}");
                // All of its keys may be commented out.
                let is_section = settings.is_section(&key)
                    || language(&format!("{key}.")).is_some_and(|(_, name)| name.is_empty());
                if number == 0 && value == Err(EMPTY.to_owned()) && is_section {
                    continue;
                }
                match if number == 0 { Some(key.clone()) } else { further_site(&key, before) } {
                    Some(key) => settings.take(&key, value, place, &mut faults),
                    None => faults.push(only_sites(key, place)),
                }
            }
        }
        let is_ours =
            |name: &str| name.get(..PREFIX.len()).is_some_and(|own| own.eq_ignore_ascii_case(PREFIX));
        let ours = |(name, _): &(String, String)| is_ours(name) && !NOT_KEYS.contains(&name.as_str());
        let env: BTreeMap<String, String> = env.filter(ours).collect();
        for (name, text) in &env {
            match is_made_for_a_service(name, text, &env) {
                true => settings.foreign.push(name.clone()),
                false => settings.take_variable(name, text.clone(), &mut faults),
            }
        }
        settings.complete(&mut faults);
        (settings, faults)
    }

    /// The value of a key; for a required one that is missing, the default.
    pub fn value(&self, key: &str) -> &Value {
        self.entries.get(key).map_or_else(|| self.default_value(key), |entry| &entry.value)
    }

    /// The default of a key.
    pub fn default_value(&self, key: &str) -> &Value {
        &self.defaults.get(&pattern(key)).expect("a key of the compiled-in defaults").value
    }

    /// Whether a source other than the defaults gave the key.
    pub fn is_given(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| !entry.place.is_empty())
    }

    /// Where a value is set: `footfall.toml line 12`, a variable; empty: the defaults.
    pub fn place(&self, key: &str) -> &str {
        self.entries.get(key).map(|entry| entry.place.as_str()).unwrap_or_default()
    }

    /// The keys whose values differ from another's.
    pub fn differences(&self, other: &Settings) -> Vec<String> {
        let value = |of: &Settings, key: &str| of.entries.get(key).map(|entry| entry.value.clone());
        let keys: BTreeSet<&String> = self.entries.keys().chain(other.entries.keys()).collect();
        keys.into_iter().filter(|key| value(self, key) != value(other, key)).cloned().collect()
    }

    /// The same with what another has for these keys.
    pub fn but_for(&self, keys: &[String], other: &Settings) -> Settings {
        let mut settings = self.clone();
        for key in keys {
            settings.entries.remove(key);
            settings.entries.extend(other.entries.get(key).map(|entry| (key.clone(), entry.clone())));
        }
        settings
    }

    /// Whether there are keys below this one, which is no site.
    fn is_section(&self, key: &str) -> bool {
        site_index(key).is_none()
            && self
                .defaults
                .keys()
                .any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    fn site_indices(&self) -> BTreeSet<usize> {
        self.entries.keys().filter_map(|key| site_index(key)).collect()
    }

    /// The tags of the languages that have labels.
    pub fn languages(&self) -> BTreeSet<String> {
        self.entries.keys().filter_map(|key| language(key)).map(|(tag, _)| tag.to_owned()).collect()
    }

    /// The key that gives a language's label: its own, or that of a language whose tag its own begins with
    /// (`pt` for `pt-BR`).
    pub fn inherited(&self, tag: &str, label: &str) -> String {
        let own = format!("labels.{tag}.{label}");
        let given = |key: &&String| {
            language(key).is_some_and(|(other, name)| {
                let rest = tag.get(other.len()..).filter(|rest| rest.is_empty() || rest.starts_with('-'));
                name == label && rest.is_some() && tag.to_lowercase().starts_with(&other.to_lowercase())
            })
        };
        self.entries.keys().filter(given).max_by_key(|key| key.len()).cloned().unwrap_or(own)
    }

    /// A fault of a value that was taken.
    pub fn fault(&self, key: &str, complaint: Complaint) -> Fault {
        let (value, place) = (Some(self.shown(key)), self.place(key).to_owned());
        Fault { value, place, ..Fault::new(key, complaint.problem, complaint.remedy) }
    }

    /// Whether a source other than the defaults gave the key another value.
    pub fn is_changed(&self, key: &str) -> bool {
        self.is_given(key) && self.value(key) != self.default_value(key)
    }

    /// Replaces the word `auto` by its meaning.
    pub fn resolve(&mut self, key: &str, meaning: &str) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.value == Value::Text(AUTO.to_owned())
        {
            *entry = Entry { value: Value::Text(meaning.to_owned()), place: AUTO.to_owned(), ..*entry };
        }
    }

    /// Everything in force as TOML, secrets hidden; what is not the default says where it is set.
    pub fn to_toml(&self) -> String {
        // Languages that are not among the defaults follow those that are, each in one piece.
        let added = |key| language(key).map(|(tag, _)| tag).filter(|tag| !LANGUAGES.contains(tag));
        let mut rows: Vec<(&str, usize, usize)> = self
            .entries
            .iter()
            .map(|(key, entry)| (key.as_str(), site_index(key).map_or(0, |i| i + 1), entry.order))
            .collect();
        rows.sort_by_key(|(key, site, order)| (*site, added(key), *order));
        let mut text = String::new();
        let mut open = "";
        for (key, ..) in rows {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
            if section != open {
                open = section;
                let header = if site_index(key).is_some() { "[site]" } else { section };
                text.push_str(&format!("\n[{header}]\n"));
            }
            let (value, entry) = (self.shown(key), self.entries.get(key));
            text.push_str(&match entry.filter(|_| self.is_changed(key)) {
                // A copy of the line means what this one does, under another store too.
                Some(entry) if entry.place == AUTO => format!("{name} = \"{AUTO}\" # {value}\n"),
                Some(entry) => format!("{name} = {value} # {}\n", entry.place),
                None => format!("{name} = {value}\n"),
            });
        }
        text
    }

    fn shown(&self, key: &str) -> String {
        match self.value(key) {
            Value::Text(url) if key == "store.url" => Value::Text(without_secret(url)).to_string(),
            Value::Text(secret) if is_secret(key) && !secret.is_empty() => format!("{HIDDEN:?}"),
            Value::Text(text) => Value::Text(without_password(text)).to_string(),
            Value::List(items) if is_secret(key) && !items.is_empty() => format!("[{HIDDEN:?}]"),
            Value::List(items) => {
                Value::List(items.iter().map(|item| without_password(item)).collect()).to_string()
            }
            Value::Number(_) | Value::Flag(_) => self.value(key).to_string(),
        }
    }

    /// Takes a value of a file, or adds the fault.
    fn take(&mut self, key: &str, value: Result<Value, String>, place: String, faults: &mut Vec<Fault>) {
        let Some(default) = self.defaults.get(&pattern(key)) else {
            return faults.push(self.unknown(key, key, place));
        };
        let (wanted, order) = (default.value.clone(), default.order);
        let value = match value {
            Ok(value) if std::mem::discriminant(&value) == std::mem::discriminant(&wanted) => value,
            other => {
                // A secret of the wrong type is hidden too.
                let value = (!is_secret(key)).then(|| other.map_or_else(|raw| raw, |v| v.to_string()));
                let remedy = format!("write it like {}", example(&wanted));
                let fault = Fault::new(key, format!("not {}", kind(&wanted)), remedy);
                faults.push(Fault { value, place: place.clone(), ..fault });
                wanted
            }
        };
        self.entries.insert(key.to_owned(), Entry { value, place, order });
    }

    /// Takes a variable, or adds the fault.
    fn take_variable(&mut self, name: &str, text: String, faults: &mut Vec<Fault>) {
        if name.bytes().any(|b| b.is_ascii_lowercase()) {
            let remedy = format!("write {}", name.to_ascii_uppercase());
            return faults.push(Fault::new(name, "not in capitals", remedy));
        }
        let key = name.strip_prefix(PREFIX).unwrap_or(name).replace("__", ".").to_lowercase();
        let key = self.numbered(key);
        if let Some(fault) = self.moving(name, &key) {
            return faults.push(fault);
        }
        if let Some(secret) = key.strip_suffix("_file").filter(|key| is_secret(key)) {
            return self.take_secret(secret, name, &text, faults);
        }
        let value = match self.defaults.get(&pattern(&key)).map(|entry| &entry.value) {
            None => return faults.push(self.unknown(name, &key, String::new())),
            Some(Value::Text(_)) => Ok(Value::Text(text)),
            Some(Value::Number(_)) => {
                as_written(text.trim()).map(Value::Number).ok_or_else(|| format!("{text:?}"))
            }
            Some(Value::Flag(_)) => text.trim().parse().map(Value::Flag).map_err(|_| format!("{text:?}")),
            Some(Value::List(_)) => Ok(Value::List(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            )),
        };
        self.take(&key, value, name.to_owned(), faults);
    }

    /// The key that a variable means, which may name a site by its key.
    fn numbered(&self, key: String) -> String {
        let named = key.strip_prefix("site.").and_then(|rest| rest.split_once('.'));
        let named = named.filter(|(site, _)| as_written::<usize>(site).is_none());
        let site = named.and_then(|(site, name)| {
            let is_it =
                |place: &usize| self.site_key(*place).is_some_and(|key| key.replace('-', "_") == site);
            Some((self.site_indices().into_iter().find(is_it)?, name))
        });
        site.map_or(key.clone(), |(place, name)| format!("site.{place}.{name}"))
    }

    /// The fault of a secret of a site that is told by its number, where that may be another site's tomorrow.
    fn moving(&self, variable: &str, key: &str) -> Option<Fault> {
        let is_numbered = variable.starts_with(&format!("{PREFIX}SITE__")) && self.has_further;
        let place = site_index(key).filter(|_| is_secret(key.trim_end_matches("_file")))?;
        let (_, name) = variable.split_once(&format!("SITE__{place}__")).filter(|_| is_numbered)?;
        let own = self.site_key(place).map_or("KEY".to_owned(), |key| key.replace('-', "_").to_uppercase());
        let remedy = format!("name the site by its key: {PREFIX}SITE__{own}__{name}");
        Some(Fault::new(
            variable,
            "a secret of a site whose number another file of sites.d may change",
            remedy,
        ))
    }

    /// The key of a site that a source has given.
    fn site_key(&self, place: usize) -> Option<&str> {
        match &self.entries.get(&format!("site.{place}.key"))?.value {
            Value::Text(key) => Some(key),
            _ => None,
        }
    }

    /// Reads a secret from the file that a variable names.
    fn take_secret(&mut self, key: &str, name: &str, path: &str, faults: &mut Vec<Fault>) {
        let mut refuse = |problem: String, remedy: &str| {
            // What is no path may be the secret itself.
            let value = path.starts_with(['/', '.']).then(|| format!("{path:?}"));
            faults.push(Fault { value, ..Fault::new(name, problem, remedy) });
        };
        let beside = self.place(key);
        if beside.starts_with(PREFIX) {
            return refuse(format!("{beside} is set too"), "set one of the two");
        }
        match files::text(Path::new(path)) {
            Ok(text) => self.take(key, Ok(Value::Text(text.trim().to_owned())), name.to_owned(), faults),
            Err(Complaint { problem, remedy }) => refuse(problem, &remedy),
        }
    }

    /// Fills in the defaults and checks that each site has what it must have.
    fn complete(&mut self, faults: &mut Vec<Fault>) {
        let indices = self.site_indices();
        self.sites = indices.len().max(1);
        if let Some(gap) = (0..indices.len()).find(|i| !indices.contains(i)) {
            faults.push(Fault::new(
                format!("site.{gap}"),
                "missing, while a later site is there",
                "number the sites from 0 without a gap",
            ));
        }
        let ours = indices.is_empty();
        for (key, default) in &self.defaults {
            let Some(name) = key.strip_prefix("site.0.") else {
                self.entries.entry(key.clone()).or_insert_with(|| default.clone());
                continue;
            };
            for site in 0..self.sites {
                let key = format!("site.{site}.{name}");
                if ours || !REQUIRED.contains(&name) {
                    self.entries.entry(key).or_insert_with(|| default.clone());
                } else if indices.contains(&site) && !self.entries.contains_key(&key) {
                    let remedy = format!("write it like {}", example(&default.value));
                    faults.push(Fault::new(key, "missing", remedy));
                }
            }
        }
        self.complete_languages(faults);
    }

    /// Checks that each language has all labels, of its own or of another.
    fn complete_languages(&self, faults: &mut Vec<Fault>) {
        for tag in self.languages() {
            let labels = self.defaults.keys().filter_map(|key| key.strip_prefix("labels.en."));
            let keys = labels.map(|label| self.inherited(&tag, label));
            for key in keys.filter(|key| !self.entries.contains_key(key) && !self.defaults.contains_key(key))
            {
                faults.push(Fault::new(key, "missing", "a language needs all the words of [labels.en]"));
            }
        }
    }

    /// Where a key belongs that stands in the wrong section, which the section before it may well be.
    fn sections_of(&self, key: &str) -> Option<String> {
        let (_, name) = key.rsplit_once('.').unwrap_or(("", key));
        let places =
            self.defaults.keys().filter_map(|known| match known.rsplit_once('.').unwrap_or(("", known)) {
                ("", known) if known == name => Some("above the first section".to_owned()),
                ("site.0", known) if known == name => Some("below [[site]]".to_owned()),
                (section, known) if known == name && !section.starts_with("labels.") => {
                    Some(format!("below [{section}]"))
                }
                _ => None,
            });
        let places: Vec<String> = places.collect();
        (!places.is_empty()).then(|| format!("{name} belongs {}: write it there", places.join(" or ")))
    }

    /// The fault of a key that is not known; its value is not shown, as it may be a secret.
    fn unknown(&self, shown: &str, key: &str, place: String) -> Fault {
        let is_variable = shown != key;
        let spelt = |key: &str| match is_variable {
            true => format!("{PREFIX}{}", key.replace('.', "__").to_uppercase()),
            false => key.to_owned(),
        };
        let remedy = if key == "site" || (key.starts_with("site.") && site_index(key).is_none()) {
            match is_variable {
                true => format!(
                    "number the sites from 0, like {PREFIX}SITE__0__KEY, or name one by its key, with \"_\" for \"-\""
                ),
                false => "write each site as a section [[site]], with two brackets".into(),
            }
        } else if site_index(key).is_some() && key.matches('.').count() == 1 {
            "give the site a key and hosts".into()
        } else if self.is_section(key) {
            format!("it is a section: write its keys under [{key}]")
        } else if let Some(sections) = self.sections_of(key).filter(|_| !is_variable) {
            sections
        } else {
            // A variable with one underscore instead of two is one long key.
            let flat = |key: &str| if is_variable { key.replace('.', "_") } else { pattern(key) };
            let known: BTreeMap<String, &String> = self.defaults.keys().map(|key| (flat(key), key)).collect();
            match nearest(&flat(key), known.keys().map(String::as_str)).and_then(|near| known.get(near)) {
                Some(near) => format!("did you mean {}?", spelt(&like(near, key))),
                None => "see config/footfall.toml for the keys there are".into(),
            }
        };
        Fault { place, ..Fault::new(shown, "unknown key", remedy) }
    }
}

/// Whether a key holds a secret.
fn is_secret(key: &str) -> bool {
    SECRETS.contains(&pattern(key).as_str())
}

/// What a value of the default's type is called.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "a text in quotes",
        Value::Number(_) => "a whole number",
        Value::Flag(_) => "true or false",
        Value::List(_) => "a list of texts",
    }
}

/// A value as it might be written.
fn example(default: &Value) -> String {
    match default {
        Value::List(items) if items.is_empty() => r#"["one", "two"]"#.into(),
        value => value.to_string(),
    }
}

/// The key of the defaults that is like this one: each site is like the first, each language like English.
fn pattern(key: &str) -> String {
    match (site_key(key), language(key)) {
        (Some((..=0xffff, Some(name))), _) => format!("site.0.{name}"),
        (_, Some((tag, word))) if !LANGUAGES.contains(&tag) => format!("labels.en.{word}"),
        _ => key.to_owned(),
    }
}

/// Language and name of a label's key.
fn language(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("labels.")?.split_once('.')
}

/// A default's key with the site of another key.
fn like(default: &str, key: &str) -> String {
    match (default.strip_prefix("site.0."), site_index(key)) {
        (Some(name), Some(site)) => format!("site.{site}.{name}"),
        _ => default.to_owned(),
    }
}

/// The key of a file that adds sites, numbered after those that are there; none if it is not a site's.
fn further_site(key: &str, before: usize) -> Option<String> {
    let (index, name) = site_key(key)?;
    Some(format!("site.{}{}", before + index, name.map(|name| format!(".{name}")).unwrap_or_default()))
}

/// The fault of another key in a file that may only add sites.
fn only_sites(key: String, place: String) -> Fault {
    let remedy = "a file of sites.d has [[site]] sections alone; write other keys into the main file";
    Fault { place, ..Fault::new(key, "not a key of a site", remedy) }
}

/// The index in a site's key, and what follows it.
fn site_key(key: &str) -> Option<(usize, Option<&str>)> {
    let rest = key.strip_prefix("site.")?;
    let (index, name) = rest.split_once('.').map_or((rest, None), |(index, name)| (index, Some(name)));
    Some((as_written(index)?, name))
}

fn site_index(key: &str) -> Option<usize> {
    site_key(key).map(|(index, _)| index)
}

/// A leaf of a TOML text: key, line (first its place), and the value, or its text if it is of no known type.
type Leaf = (String, usize, Result<Value, String>);

fn leaves((name, text): (&str, &str), faults: &mut Vec<Fault>) -> Vec<Leaf> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    faults.extend(errors.iter().map(|error| Fault {
        place: error.span().map(|span| format!("line {}", line(span.start))).unwrap_or_default(),
        ..Fault::new(name, format!("not TOML: {}", error.message().replace('\n', ", ")), "correct the syntax")
    }));
    let mut found = Vec::new();
    if errors.is_empty() {
        for (key, value) in table.get_ref() {
            walk(key.get_ref().to_string(), key.span().start, value.get_ref(), &mut found);
        }
    }
    let leaves = found.into_iter().map(|(key, at, value)| (key, line(at), value));
    let mut leaves: Vec<Leaf> = leaves.collect();
    leaves.sort_by_key(|(_, line, _)| *line);
    leaves
}

/// Finds the leaves of a value. Each bears the place of its key, or of its item in a list.
fn walk(path: String, at: usize, value: &DeValue<'_>, found: &mut Vec<Leaf>) {
    match value {
        DeValue::Table(inner) if !inner.is_empty() => inner.iter().for_each(|(key, value)| {
            walk(format!("{path}.{}", key.get_ref()), key.span().start, value.get_ref(), found);
        }),
        DeValue::Array(items) if !items.is_empty() && items.iter().all(|item| item.get_ref().is_table()) => {
            for (i, item) in items.iter().enumerate() {
                walk(format!("{path}.{i}"), item.span().start, item.get_ref(), found);
            }
        }
        leaf => found.push((path, at, scalar(leaf))),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<Value, String> {
    let other = || match value {
        DeValue::Float(value) => value.as_str().to_owned(),
        DeValue::Integer(value) => value.as_str().to_owned(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Table(_) => EMPTY.to_owned(),
        DeValue::Array(_) | DeValue::Boolean(_) | DeValue::String(_) => "[…]".to_owned(),
    };
    match value {
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Boolean(value) => Ok(Value::Flag(*value)),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map(Value::Number).map_err(|_| other())
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .map(Value::List)
            .ok_or_else(other),
        _ => Err(other()),
    }
}
