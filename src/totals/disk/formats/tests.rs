//! A newer file of each kind stops the start, is named, and is left as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_newer_file_is_named_and_what_is_not_ours_is_left_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    check(dir.path()).unwrap();
    put("journal/0000000000000001.seg", b"footfallj\x01\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    put("outbox/0000000000000001.seg", b"footfallo\x01");
    put("outbox/0000000000000002.seg", b"");
    put("checkpoint", b"damaged");
    check(dir.path()).unwrap();
    put("checkpoint", b"footfallc\x01");
    put("writer", b"writer 0000000000000001\n");
    put("salts", b"format 1\n");
    check(dir.path()).unwrap();
    for (name, newer, found) in [
        ("journal/0000000000000002.seg", &b"footfallj\x03rest"[..], "3"),
        ("outbox/0000000000000003.seg", b"footfallo\x07", "7"),
        ("outbox/held-tin/0000000000000001.seg", b"footfallo\x07", "7"),
        ("checkpoint", b"footfallc\x03", "3"),
        ("writer", b"format 2\nwriter 0000000000000001\n", "2"),
        ("salts", b"format two\n", "two"),
    ] {
        let before = fs::read(dir.path().join(name)).ok();
        put(name, newer);
        let all = files(dir.path());
        let error = check(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&dir.path().join(name).display().to_string()), "{error}");
        assert!(error.contains(&format!("of format {found}, this version of footfall")), "{error}");
        let known = if ["writer", "salts"].contains(&name) { 1 } else { 2 };
        assert!(error.ends_with(&format!("reads format {known}; it is left as it is")), "{error}");
        assert_eq!(files(dir.path()), all);
        match before {
            Some(bytes) => put(name, &bytes),
            None => fs::remove_file(dir.path().join(name)).unwrap(),
        }
    }
    check(dir.path()).unwrap();
}
