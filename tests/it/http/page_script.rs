//! The page script as it is served: what it carries, its names, and that what was released stays.

use std::process::Command;

use crate::support::harness::{Setup, TestApp};
use crate::support::http::{self, request};

/// Every released file and its hash. A line here is never changed and never goes: pages hold the hashes.
const RELEASED: [(&str, &str); 4] = [
    ("v1.debug.js", "sha384-A52cquJiyilmsHxMgOPoDmDLVVq1byTk8iokX8dgbTiD6H6CSO1OR84HY3qUMzrY"),
    ("v1.js", "sha384-h1AyjEKI2ewjIkZYXFjJNGxyf8tnAR30ZhRw/Npz5jtZWpNYxeCRQJTqg/gd2+Ni"),
    ("v1.more.js", "sha384-/7Yfx3bdoVvmaB1KYUSZhRWei4atZFGvlVg3PN3GWZlajNGuV0Wpl/V1EQUGif94"),
    ("v1.rare.js", "sha384-j7EnOiGPOARlhUzVJ2jzeIQ1+e1osV4VkL/kuuyTuioyD2kfOC2CATKxrybqyPYT"),
];

#[test]
fn what_was_released_stays_byte_for_byte() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/public/script/released");
    let listed = std::fs::read_to_string(file.join("integrity")).unwrap();
    let frozen: Vec<String> = RELEASED.iter().map(|(file, hash)| format!("{file} {hash}")).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), frozen);
    for (name, _) in RELEASED {
        let app = TestApp::start(Setup::default());
        let served = app.get(&format!("/footfall.{name}"));
        assert_eq!(served.body, std::fs::read(file.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn any_page_may_load_it_and_versions_are_kept_for_ever() {
    let app = TestApp::start(Setup::default());
    for (path, cache) in [
        ("/footfall.js", "public, max-age=3600"),
        ("/footfall.more.js", "public, max-age=3600"),
        ("/footfall.rare.js", "public, max-age=3600"),
        ("/footfall.debug.js", "public, max-age=3600"),
        ("/footfall.v1.js", "public, max-age=31536000, immutable"),
        ("/footfall.v1.more.js", "public, max-age=31536000, immutable"),
        ("/footfall.v1.rare.js", "public, max-age=31536000, immutable"),
        ("/footfall.v1.debug.js", "public, max-age=31536000, immutable"),
    ] {
        let answer = app.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("set-cookie").is_none());
        let tag = answer.header("etag").unwrap();
        let again = http::ask(app.public(), request("GET", path, &[("if-none-match", tag)], b""));
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
    for missing in ["/footfall.v0.js", "/footfall.v99.js", "/footfall.", "/footfall.integrity", "/footfall"] {
        assert_eq!(app.get(missing).outcome(), (404, "not-found".to_owned()), "{missing}");
    }
}

#[test]
fn script_and_beacon_have_further_names_and_keep_the_first() {
    let app = TestApp::start(Setup::default().set("page.script", "stats").set("page.beacon", "collect/it"));
    assert_eq!(app.get("/stats.js").body, app.get("/footfall.js").body);
    assert_eq!(app.get("/stats.v1.more.js").status, 200);
    let body = br#"{"site":"lamdong","url":"/a"}"#;
    for path in ["/collect/it", "/api/v1/beacon"] {
        assert_eq!(http::ask(app.public(), request("POST", path, &[], body)).status, 204, "{path}");
        app.note("lamdong", "/a", None);
    }
    assert_eq!(app.get("/collect/it.gif?site=lamdong&url=/a").status, 200);
    app.note("lamdong", "/a", None);
}

#[test]
fn counters_are_also_found_by_a_host_of_one_site() {
    let app = TestApp::start(Setup::default());
    let by_host = app.get("/api/v1/sites/www.baolamdong.vn/counters");
    assert_eq!(by_host.body, app.get("/api/v1/sites/lamdong/counters").body);
    assert_eq!(app.get("/api/v1/sites/elsewhere.vn/counters").outcome().0, 404);
}

/// What `footfall snippet` says of a site, with settings as variables: exit code, output, complaint.
fn snippet(site: &str, settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(["snippet", site])
        .current_dir(folder.path())
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code(), text(run.stdout), text(run.stderr))
}

#[test]
fn the_snippet_is_what_the_site_has_configured() {
    let (code, said, _) = snippet("demo", &[("FOOTFALL_PUBLIC_URL", "https://bao.example/thong-ke/")]);
    assert_eq!(code, Some(0));
    for line in [
        r#"<script defer src="https://bao.example/thong-ke/footfall.js" data-site="demo" data-localhost></script>"#,
        "script-src https://bao.example;",
        "connect-src https://bao.example;",
        "https://bao.example/thong-ke/api/v1/beacon.gif?site=demo&amp;url=",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let hash = RELEASED[1].1;
    assert!(said.contains(&format!(
        r#"footfall.v1.js" integrity="{hash}" crossorigin="anonymous" data-site="demo" data-localhost"#
    )));

    let (_, said, _) = snippet(
        "demo",
        &[
            ("FOOTFALL_PAGE__SCRIPT", "stats"),
            ("FOOTFALL_PAGE__BEACON", "collect"),
            ("FOOTFALL_SITE__0__KEY", "demo"),
            ("FOOTFALL_SITE__0__HOSTS", "a.example"),
            ("FOOTFALL_SITE__0__IDENTITY", "browser"),
            ("FOOTFALL_SITE__0__HONOUR", "gpc,dnt"),
            ("FOOTFALL_SITE__0__REQUIRE_CONSENT", "true"),
        ],
    );
    assert!(
        said.contains(
            r#"/stats.js" data-site="demo" data-gpc="globalPrivacyControl" data-dnt="doNotTrack" data-consent="required" data-identity="browser" data-beacon="collect" data-more="stats.v1.more.js"></script>"#
        ),
        "{said}"
    );
    // The file that makes the id comes before it.
    for line in [r#"/stats.rare.js"></script>"#, r#"/stats.v1.rare.js" integrity="#] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("public_url is not set"), "{said}");

    let (code, said, complaint) = snippet("nobody", &[]);
    assert_eq!((code, said.as_str()), (Some(64), ""));
    assert!(complaint.contains("demo"), "{complaint}");
}

#[test]
fn names_that_cannot_be_served_are_refused() {
    for (key, value) in [
        ("FOOTFALL_PAGE__SCRIPT", "a/b"),
        ("FOOTFALL_PAGE__SCRIPT", ""),
        ("FOOTFALL_PAGE__BEACON", "/collect"),
        ("FOOTFALL_PAGE__BEACON", "api/v1/sites"),
        ("FOOTFALL_PAGE__BEACON", "a b"),
        ("FOOTFALL_SITE__0__HONOUR", "cookies"),
    ] {
        let (code, _, complaint) = snippet("demo", &[(key, value)]);
        assert_eq!(code, Some(64), "{key} {value}");
        assert!(!complaint.is_empty());
    }
}
