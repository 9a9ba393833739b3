//! The files that a configuration is read from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::faults::{Complaint, Fault, Faults};

/// The files to look for when none is named, in this order.
const FILES: [&str; 2] = ["config/footfall.toml", "/etc/footfall/footfall.toml"];

/// Begins the name of every variable that is a key.
pub const PREFIX: &str = "FOOTFALL_";

/// The file of variables beside the configuration file.
const ENVIRONMENT: &str = "environment";

/// The directory beside the configuration file whose files add sites.
const SITES_FOLDER: &str = "sites.d";

/// Name and text of the configuration file, if there is one; no text where only `sites.d` is there.
pub fn main(named: Option<&Path>) -> Result<Option<(String, String)>, Faults> {
    let candidates = match named {
        Some(path) => vec![path],
        None => FILES.iter().map(Path::new).collect(),
    };
    for path in candidates {
        if named.is_some() || path.try_exists().unwrap_or(true) {
            return Ok(Some((path.display().to_string(), read(path)?)));
        }
    }
    // Without it there may be sites in files of their own.
    let beside = FILES.iter().find(|file| Path::new(file).with_file_name(SITES_FOLDER).is_dir());
    Ok(beside.filter(|_| named.is_none()).map(|file| ((*file).to_owned(), String::new())))
}

/// The files that add sites, in order of their names; and those that somebody may take for such, as an editor's
/// copies.
pub fn sites_beside(main: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Faults> {
    let folder = main.with_file_name(SITES_FOLDER);
    let listed = std::fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut paths: Vec<PathBuf> = match listed {
        Ok(paths) => paths,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(fault) => return Err(refused(&folder, unreadable(&fault))),
    };
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Hidden files that are no editor's copies are those of whatever made the directory.
    let is_other = |name: &str| {
        name.starts_with("README") || name.starts_with('.') && !name.to_ascii_lowercase().contains(".toml")
    };
    paths.retain(|path| !is_other(&name(path)));
    paths.sort();
    Ok(paths.into_iter().partition(|path| name(path).ends_with(".toml") && !name(path).starts_with('.')))
}

/// The variables in the file that a service manager gives the service, as systemd writes them (`EnvironmentFile=`).
pub fn environment_beside(main: &Path) -> Result<BTreeMap<String, String>, Faults> {
    let path = main.with_file_name(ENVIRONMENT);
    // What systemd starts has been given them, and need not be able to read a file of secrets.
    let is_given = std::env::var_os("INVOCATION_ID").is_some();
    match std::fs::File::open(&path).map_err(|fault| fault.kind()) {
        Err(io::ErrorKind::NotFound) => return Ok(BTreeMap::new()),
        Err(io::ErrorKind::PermissionDenied) if is_given => return Ok(BTreeMap::new()),
        _ => {}
    }
    let text = read(&path)?;
    let mut variables = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let Some((name, value)) = text.trim().split_once('=').filter(|(name, _)| name.starts_with(PREFIX))
        else {
            continue;
        };
        let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        if value.contains(['"', '\'', '\\']) {
            let problem = format!("line {line}: a value with quotes in it, or that goes on in the next line");
            let remedy = "write NAME=VALUE, in quotes or not".to_owned();
            return Err(refused(&path, Complaint { problem, remedy }));
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, Faults> {
    text(path).map_err(|complaint| refused(path, complaint))
}

/// The text of a file, or what is wrong with it. Editors of Windows save as UTF-16, or put a mark of byte order before
/// the text.
pub fn text(path: &Path) -> Result<String, Complaint> {
    let bytes = std::fs::read(path).map_err(|fault| unreadable(&fault))?;
    let is_utf_16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0);
    if is_utf_16 {
        let remedy = "save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8";
        return Complaint::err("is UTF-16, and not UTF-8", remedy);
    }
    String::from_utf8(bytes).map(|text| text.trim_start_matches('\u{feff}').to_owned()).or_else(|fault| {
        let good = fault.as_bytes().iter().take(fault.utf8_error().valid_up_to());
        let line = good.filter(|b| **b == b'\n').count() + 1;
        Complaint::err(format!("is not UTF-8 (line {line})"), "save it as UTF-8")
    })
}

fn unreadable(fault: &io::Error) -> Complaint {
    let remedy = match fault.kind() {
        io::ErrorKind::PermissionDenied => "let this user read it, or run this as root",
        _ => "name one that can be read",
    };
    Complaint { problem: format!("cannot be read ({fault})"), remedy: remedy.to_owned() }
}

fn refused(path: &Path, Complaint { problem, remedy }: Complaint) -> Faults {
    Faults(vec![Fault::new(path.display().to_string(), problem, remedy)])
}
