//! What cannot be started says why, in one line, and ends with the code for it: 64 where the configuration
//! must be changed, 1 where the same start may succeed later.

use std::net::TcpListener;
use std::path::Path;

use crate::operators::config::{footfall, text};

/// Starts the service with variables beside those that let it start; its exit code and what it says that is
/// an error, a line each.
#[track_caller]
fn start(variables: &[(&str, &str)]) -> (i32, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let mut all = vec![
        ("FOOTFALL_LISTEN", "127.0.0.1:0"),
        ("FOOTFALL_ADMIN_LISTEN", "127.0.0.1:0"),
        ("FOOTFALL_DATA_DIR", data.as_str()),
    ];
    all.extend(variables);
    let ended = footfall(&["serve"], &all);
    assert_eq!(text(&ended.stdout), "");
    let told = text(&ended.stderr).lines().filter(|line| !line.contains(r#""level":"INFO""#));
    (ended.status.code().expect("it ends by itself"), told.map(str::to_owned).collect())
}

/// A start that fails: code 1 and one line of the log.
#[track_caller]
fn fails(variables: &[(&str, &str)], says: &[&str]) {
    let (code, told) = start(variables);
    assert_eq!((code, told.len()), (1, 1), "{told:?}");
    let line: serde_json::Value =
        serde_json::from_str(&told[0]).expect("the log is JSON where no one watches");
    assert_eq!(line["level"], "ERROR");
    let message = line["message"].as_str().unwrap();
    assert!(says.iter().all(|part| message.contains(part)), "{message:?} does not say {says:?}");
}

/// A configuration that is refused: code 64, the number of faults, and a line for each; `check-config` says
/// the same.
#[track_caller]
fn is_refused(variables: &[(&str, &str)], says: &str) {
    let (code, told) = start(variables);
    assert_eq!(code, 64, "{told:?}");
    assert_eq!(told[0], "footfall: the configuration has 1 fault:");
    assert!(told.len() == 2 && told[1].trim_start().starts_with(says), "{told:?} and not {says:?}");
    let checked = footfall(&["check-config"], variables);
    assert_eq!(checked.status.code(), Some(64));
    assert_eq!(text(&checked.stderr).lines().collect::<Vec<_>>(), told);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_directory_that_others_lead_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let variables = [("FOOTFALL_DATA_DIR", &*shown(&data))];
    std::fs::create_dir_all(data.join("journal")).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fails(&variables, &["everybody may write to", &shown(&data), "chmod o-w"]);
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
    for name in ["salts", "journal/0000000000000001.seg"] {
        let link = data.join(name);
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        fails(&variables, &[&shown(&link), "is a link"]);
        assert!(!folder.path().join("elsewhere").exists());
        std::fs::remove_file(link).unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Not even root makes a directory below a file, or in /proc.
    for path in [file.join("data"), file, "/proc/footfall".into()] {
        let path = shown(&path);
        fails(&[("FOOTFALL_DATA_DIR", &path)], &["data_dir", &path, "cannot be used"]);
    }
}

#[test]
fn a_port_in_use_and_an_address_of_another_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (variable, key) in [("FOOTFALL_LISTEN", "(listen)"), ("FOOTFALL_ADMIN_LISTEN", "(admin_listen)")] {
        fails(&[(variable, &taken)], &["cannot listen on", &taken, "another process listens there", key]);
    }
    // Of the addresses that documents use.
    fails(&[("FOOTFALL_LISTEN", "192.0.2.1:8080")], &["192.0.2.1:8080", "does not have that address"]);
}

#[test]
fn a_certificate_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        shown(&path)
    };
    let no_base64 = "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n";
    let missing = shown(&folder.path().join("missing.pem"));
    for (path, why) in [
        (missing, "cannot be read (No such file"),
        (shown(folder.path()), "cannot be read (Is a directory"),
        (file("key.pem", "-----BEGIN PRIVATE KEY-----\n"), "holds no certificate in PEM"),
        (file("torn.pem", no_base64), "holds no certificate that can be used"),
    ] {
        let variables =
            [("FOOTFALL_STORE__URL", "rediss://127.0.0.1:1"), ("FOOTFALL_STORE__TLS_CA_FILE", &*path)];
        is_refused(&variables, &format!("store.tls_ca_file = \"{path}\": {why}"));
    }
    let plain = [("FOOTFALL_STORE__URL", "redis://127.0.0.1:1"), ("FOOTFALL_STORE__TLS_CA_FILE", "/ca.pem")];
    is_refused(&plain, "store.tls_ca_file = \"/ca.pem\": store.url is redis://, which is not encrypted");
}

#[test]
fn a_secret_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("missing"), folder.path().to_owned()] {
        let path = shown(&path);
        let says = format!("FOOTFALL_STORE__URL_FILE = \"{path}\": cannot be read");
        is_refused(&[("FOOTFALL_STORE__URL_FILE", &path)], &says);
    }
    // The secret in place of its file.
    let says = "FOOTFALL_STORE__URL_FILE: cannot be read";
    is_refused(&[("FOOTFALL_STORE__URL_FILE", "redis://:secret@cache")], says);
    let file = folder.path().join("url");
    std::fs::write(&file, utf_16("redis://:secret@cache")).unwrap();
    let says = format!("FOOTFALL_STORE__URL_FILE = \"{}\": is UTF-16", shown(&file));
    is_refused(&[("FOOTFALL_STORE__URL_FILE", &shown(&file))], &says);
}

#[test]
fn a_file_that_is_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("footfall.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\nlisten\n").unwrap();
    let config = shown(&path);
    is_refused(&[("FOOTFALL_CONFIG", &config)], &format!("{config}: not TOML"));
    std::fs::write(&path, b"listen = \"x\"\ndata_dir = \"\xff\"").unwrap();
    is_refused(
        &[("FOOTFALL_CONFIG", &config)],
        &format!("{config}: is not UTF-8 (line 2); save it as UTF-8"),
    );
    let good = "stop_timeout = \"9s\"\n";
    let without_mark = utf_16(good).split_off(2);
    for saved in
        [utf_16(good), without_mark, utf_16(good).chunks(2).flat_map(|two| [two[1], two[0]]).collect()]
    {
        std::fs::write(&path, saved).unwrap();
        is_refused(
            &[("FOOTFALL_CONFIG", &config)],
            &format!("{config}: is UTF-16, and not UTF-8; save it as UTF-8"),
        );
    }
    std::fs::write(&path, format!("\u{feff}{good}")).unwrap();
    let read = footfall(&["print-config"], &[("FOOTFALL_CONFIG", &config)]);
    assert!(text(&read.stdout).contains("stop_timeout = \"9s\""), "{}", text(&read.stderr));
}

/// As an editor of Windows saves it.
fn utf_16(text: &str) -> Vec<u8> {
    "\u{feff}".chars().chain(text.chars()).flat_map(|c| (c as u16).to_le_bytes()).collect()
}

#[test]
fn a_directory_of_somebody_else() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    if std::fs::metadata(folder.path()).unwrap().uid() != 0 {
        return; // Who is not root cannot make one.
    }
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(1234), Some(1234)).unwrap();
    let path = shown(&data);
    fails(&[("FOOTFALL_DATA_DIR", &path)], &[&path, "root would make files", "user 1234's", "chown -R 0"]);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing is made in it");

    // Another user, and one whose directory has files of root.
    let program = folder.path().join("footfall");
    std::fs::copy(env!("CARGO_BIN_EXE_footfall"), &program).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let start = |user: u32, data: &Path| {
        let mut command = std::process::Command::new(&program);
        command.env_clear().env("FOOTFALL_DATA_DIR", data).uid(user).gid(user).current_dir(folder.path());
        let ended =
            command.envs([("FOOTFALL_LISTEN", "127.0.0.1:0"), ("FOOTFALL_ADMIN_LISTEN", "127.0.0.1:0")]);
        let ended = ended.output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        text(&ended.stderr).to_owned()
    };
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    let told = start(1235, &data);
    assert!(told.contains("it is user 1234's") && told.contains(&format!("chown -R 1235 {path}")), "{told}");
    std::fs::write(data.join("LOCK"), "").unwrap();
    std::fs::set_permissions(data.join("LOCK"), PermissionsExt::from_mode(0o600)).unwrap();
    let told = start(1234, &data);
    assert!(told.contains(&format!("must be user 1234's: chown -R 1234 {path}")), "{told}");
    let told = start(1234, &folder.path().join("new"));
    assert!(told.contains("install -d -m 700 -o 1234"), "{told}");

    // Variables that root alone may read were given to what systemd starts, and to nothing else.
    let config = folder.path().join("footfall.toml");
    std::fs::write(&config, "").unwrap();
    std::fs::write(folder.path().join("environment"), "FOOTFALL_LISTEN=127.0.0.1:1\n").unwrap();
    std::fs::set_permissions(folder.path().join("environment"), PermissionsExt::from_mode(0o600)).unwrap();
    let check = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(&program);
        command.arg("check-config").env_clear().env("FOOTFALL_CONFIG", &config).uid(1234).gid(1234);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let refused = check(&[]);
    let told = text(&refused.stderr);
    let says = "environment: cannot be read (Permission denied (os error 13)); let this user read it, or run this as root";
    assert!(refused.status.code() == Some(64) && told.contains(says), "{told}");
    assert_eq!(check(&[("INVOCATION_ID", "0123")]).status.code(), Some(0));
}

#[test]
fn a_directory_in_use_names_who_uses_it() {
    let service = crate::support::service::Service::start(crate::support::harness::Setup::default());
    let (path, pid) = (shown(&service.data_dir()), service.pid().to_string());
    fails(&[("FOOTFALL_DATA_DIR", &path)], &[&path, "another footfall uses it", &pid]);
}
