use proptest::prelude::*;

use super::*;

/// 2026-11-23T08:19:00+07:00.
const MORNING_MS: i64 = 1_795_396_740_000;

const COMBINED: &str = r#"113.161.72.19 - lan [23/Nov/2026:08:19:00 +0700] "GET /tin/1.html?id=7 HTTP/1.1" 200 41230 "https://baolamdong.vn/" "Mozilla/5.0 (X11) \"x\"""#;

fn read(text: &str) -> Line<'_> {
    Line::read(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
}

fn line<'a>(host: &'a str, agent: &'a str) -> Line<'a> {
    Line {
        at_ms: MORNING_MS,
        client: "113.161.72.19".parse().unwrap(),
        host: host.as_bytes().into(),
        is_get: true,
        target: b"/tin/1.html?id=7".into(),
        status: 200,
        agent: agent.as_bytes().into(),
    }
}

#[test]
fn each_format_tells_the_same() {
    let combined = line("", r#"Mozilla/5.0 (X11) \"x\""#);
    assert_eq!(read(COMBINED), combined);
    assert_eq!(read(&format!("\u{feff}{COMBINED}\r")), combined);
    let common = &COMBINED[..COMBINED.find(" \"https").unwrap()];
    assert_eq!(read(common), line("", ""));
    assert_eq!(read(&format!("{common} 0.003 TLSv1.3")), line("", ""));
    let with_host = format!("baolamdong.vn:443 {COMBINED}");
    assert_eq!(read(&with_host), Line { host: b"baolamdong.vn:443".into(), ..combined });

    let nginx = r#"{"time_local":"23/Nov/2026:01:19:00 +0000","remote_addr":"::ffff:113.161.72.19","request":"GET /tin/1.html?id=7 HTTP/2.0","uri":"/index.php","status":200,"http_user_agent":"a \"b\"","http_host":"baolamdong.vn","x":[{"y":null}]}"#;
    assert_eq!(read(nginx), line("baolamdong.vn", "a \"b\""));
    let nginx = r#"{ "msec": "1795396740.000", "remote_addr": "113.161.72.19", "request_method": "GET", "request_uri": "\/tin\/1.html?id=7", "request": "GET /other HTTP/2.0", "status": "200", "http_user_agent": "" }"#;
    assert_eq!(read(nginx), line("", ""));
    for ts in ["1795396740.0000001", "\"2026-11-23T01:19:00Z\"", "\"2026-11-23T08:19:00.000+07:00\""] {
        let caddy = format!(
            r#"{{"level":"info","ts":{ts},"request":{{"remote_ip":"10.0.0.1","client_ip":"113.161.72.19","method":"GET","host":"baolamdong.vn","uri":"/tin/1.html?id=7","headers":{{"Accept":["*/*"],"User-Agent":["a","b"]}},"tls":{{"resumed":false}}}},"status":200,"resp_headers":{{"Status":["9"]}}}}"#
        );
        assert_eq!(read(&caddy), line("baolamdong.vn", "a"), "{ts}");
    }
}

#[test]
fn requests_by_example() {
    let request = |request: &str| COMBINED.replace("GET /tin/1.html?id=7 HTTP/1.1", request);
    for (said, is_get, target) in [
        ("GET / HTTP/1.0", true, "/"),
        ("GET /a b HTTP/1.1", true, "/a b"),
        ("GET /a", true, "/a"),
        ("GET http://h.vn/a HTTP/1.1", true, "http://h.vn/a"),
        ("HEAD / HTTP/1.1", false, "/"),
        ("get / HTTP/1.1", false, "/"),
        ("-", false, ""),
        ("", false, ""),
        ("\\x16\\x03\\x01", false, ""),
    ] {
        let text = request(said);
        let line = read(&text);
        assert_eq!((line.is_get, &*line.target), (is_get, target.as_bytes()), "{said:?}");
    }
}

#[test]
fn what_is_malformed() {
    for (from, to) in [
        ("113.161.72.19", "-"),
        ("113.161.72.19 -", "a.vn b.vn"),
        (" [23", " 23"),
        ("23/Nov/2026", "31/Nov/2026"),
        ("23/Nov/2026", "23/nov/2026"),
        ("08:19:00", "25:19:00"),
        ("08:19:00", "08:1x:00"),
        (" +0700]", "]      "),
        (" +0700]", " *0700]"),
        ("\"GET /tin/1.html?id=7 HTTP/1.1\" 200 41230 \"https://baolamdong.vn/\" ", ""),
        (" 200 ", " - "),
        (" 200 ", " 99999 "),
    ] {
        let text = COMBINED.replace(from, to);
        assert_ne!(text, COMBINED, "{from}");
        assert_eq!(Line::read(text.as_bytes()), None, "{text}");
    }
    let json = r#"{"ts":1,"client":"1.2.3.4","request":"GET / HTTP/1.1","status":200}"#;
    assert!(Line::read(json.as_bytes()).is_some());
    for (from, to) in [
        ("\"ts\":1", "\"ts\":\"x\""),
        ("\"ts\":1", "\"ts\":null"),
        ("1.2.3.4", "a.vn"),
        ("200", "\"ok\""),
        ("}", ""),
        ("\"status\":200", "\"status"),
    ] {
        assert_eq!(Line::read(json.replace(from, to).as_bytes()), None, "{from} {to}");
    }
    for text in ["", " ", "GET / HTTP/1.1", "\0\0\0\0"] {
        assert!(Line::read(text.as_bytes()).is_none(), "{text:?}");
    }
}

#[test]
fn times_by_example() {
    for (text, expected) in [
        ("23/Nov/2026:08:19:00 +0700", Some(MORNING_MS)),
        ("22/Nov/2026:20:49:00 -0430", Some(MORNING_MS)),
        ("23/Nov/2026:01:18:60 +0000", Some(MORNING_MS - 1000)),
        ("29/Feb/2024:00:00:00 +0000", Some(1_709_164_800_000)),
        ("29/Feb/2023:00:00:00 +0000", None),
        ("2026-11-23T01:19:00.250Z", Some(MORNING_MS + 250)),
        ("2026-11-23 08:19:00", None),
        ("1795396740", Some(MORNING_MS)),
        ("1795396740.25", Some(MORNING_MS + 250)),
        ("", None),
    ] {
        assert_eq!(time_ms(text.as_bytes()), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, json: bool) {
        let _ = Line::read(&bytes);
        let _ = Line::read(&[if json { b"{" } else { &b"1.2.3.4 "[..] }, &bytes, b"}"].concat());
    }

    #[test]
    fn any_line_that_is_cut_or_spoiled_is_read_or_refused(at in 0..400usize, byte: u8, json: bool) {
        let whole = match json {
            true => r#"{"ts":1.5,"request":{"remote_ip":"10.0.0.1","uri":"/\u00e0?\"","headers":{"User-Agent":["a"]}},"status":200}"#,
            false => COMBINED,
        };
        let mut bytes = whole.as_bytes().to_vec();
        let at = at % bytes.len();
        let _ = Line::read(&bytes[..at]);
        bytes[at] = byte;
        let _ = Line::read(&bytes);
        bytes.insert(at, byte);
        let _ = Line::read(&bytes);
    }

    /// Every text comes through JSON as it was.
    #[test]
    fn any_text_comes_through_json(agent: String, target: String) {
        let json = serde_json::json!({
            "ts": 5, "client": "1.2.3.4", "status": 200, "headers": [{"a": target}], "method": "GET",
            "request_uri": format!("/{target}"), "http_user_agent": agent,
        }).to_string();
        let line = Line::read(json.as_bytes()).unwrap();
        let target = format!("/{target}");
        prop_assert_eq!(&*line.target, target.as_bytes());
        prop_assert_eq!(&*line.agent, agent.as_bytes());
    }
}
