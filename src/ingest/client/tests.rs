use hyper::header::HeaderValue;

use super::*;

/// Header values (each its own header), as they come; the expected client, and whether the header
/// was ignored.
struct Row(&'static str, &'static [&'static [u8]], &'static str, bool);

fn check(header: ClientHeader, rows: &[Row]) {
    let name = match &header {
        ClientHeader::List(name) => name.clone(),
        _ => FORWARDED,
    };
    let trusted = ["127.0.0.0/8", "10.0.0.0/8", "::1/128", "fd00::/8"].map(|net| net.parse().unwrap());
    let proxies = Proxies { header, trusted: trusted.to_vec() };
    for Row(peer, values, client, ignored_header) in rows {
        let mut headers = HeaderMap::new();
        for value in *values {
            headers.append(&name, HeaderValue::from_bytes(value).unwrap());
        }
        let found = proxies.client(peer.parse().unwrap(), &headers);
        let expected = Client { address: client.parse().unwrap(), ignored_header: *ignored_header };
        let shown: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
        assert_eq!(found, expected, "{peer} {shown:?}");
    }
}

#[test]
fn lists() {
    check(
        ClientHeader::List(HeaderName::from_static("x-forwarded-for")),
        &[
            // No header, or a peer that is not trusted.
            Row("127.0.0.1", &[], "127.0.0.1", false),
            Row("203.0.113.9", &[], "203.0.113.9", false),
            Row("203.0.113.9", &[b"1.2.3.4"], "203.0.113.9", true),
            Row("203.0.113.9", &[b""], "203.0.113.9", true),
            Row("2001:db8::9", &[b"1.2.3.4"], "2001:db8::9", true),
            // Mapped addresses, the peer's too.
            Row("::ffff:127.0.0.1", &[b"1.2.3.4"], "1.2.3.4", false),
            Row("::ffff:203.0.113.9", &[b"1.2.3.4"], "203.0.113.9", true),
            Row("127.0.0.1", &[b"::ffff:1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"[::ffff:1.2.3.4]:80"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4, ::ffff:10.0.0.1"], "1.2.3.4", false),
            // Every way to write an address.
            Row("127.0.0.1", &[b"1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4:567"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"2001:db8::1"], "2001:db8::1", false),
            Row("127.0.0.1", &[b"[2001:db8::1]"], "2001:db8::1", false),
            Row("127.0.0.1", &[b"[2001:db8::1]:80"], "2001:db8::1", false),
            Row("127.0.0.1", &[b" \t1.2.3.4 \t"], "1.2.3.4", false),
            Row("::1", &[b"1.2.3.4"], "1.2.3.4", false),
            Row("fd12::1", &[b"1.2.3.4"], "1.2.3.4", false),
            // The rightmost that is not trusted; the client's own claims are further left.
            Row("127.0.0.1", &[b"6.6.6.6, 1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"6.6.6.6,1.2.3.4,10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"127.0.0.1, 1.2.3.4, 10.0.0.1, 10.0.0.2"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"nonsense, 1.2.3.4, 10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"\xff\xfe, 1.2.3.4"], "1.2.3.4", false),
            // Several headers are one list.
            Row("127.0.0.1", &[b"6.6.6.6", b"1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"6.6.6.6, 1.2.3.4", b"10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4", b"10.0.0.1, 10.0.0.2"], "1.2.3.4", false),
            // All trusted: the leftmost.
            Row("127.0.0.1", &[b"10.0.0.3, 10.0.0.2, 10.0.0.1"], "10.0.0.3", false),
            Row("127.0.0.1", &[b"10.0.0.3", b"fd00::1"], "10.0.0.3", false),
            // What cannot be read stops the walk.
            Row("127.0.0.1", &[b"1.2.3.4, unknown, 10.0.0.1"], "10.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.4, unknown"], "127.0.0.1", false),
            // Elements without anything in them are none.
            Row("127.0.0.1", &[b"1.2.3.4,"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4", b""], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4, ,\t, 10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b",, "], "127.0.0.1", false),
            Row("127.0.0.1", &[b"\xff"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.256"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"01.2.3.4"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.4:"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.4:99999"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.4:+80"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"[1.2.3.4]:80"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"[::1"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"[2001:db8::1]80"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"[2001:db8::1]:"], "127.0.0.1", false),
            // Zones are dropped.
            Row("127.0.0.1", &[b"fe80::1%eth0"], "fe80::1", false),
            Row("127.0.0.1", &[b"fe80::1%25eth0"], "fe80::1", false),
            Row("127.0.0.1", &[b"[fe80::1%eth0]:80"], "fe80::1", false),
            Row("127.0.0.1", &[b"1.2.3.4, fd00::1%2"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"1.2.3.4%eth0"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"1.2.3.4 5.6.7.8"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"example.org"], "127.0.0.1", false),
        ],
    );
}

#[test]
fn forwarded() {
    check(
        ClientHeader::Forwarded,
        &[
            Row("203.0.113.9", &[b"for=1.2.3.4"], "203.0.113.9", true),
            Row("127.0.0.1", &[b"for=1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"For=\"1.2.3.4:567\""], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=\"1.2.3.4:_hidden\""], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=\"[2001:db8::1]\""], "2001:db8::1", false),
            Row("127.0.0.1", &[b"for=\"[fe80::1%eth0]\""], "fe80::1", false),
            Row("127.0.0.1", &[b"for=1.2.3.4,, ,for=10.0.0.1,"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"by=10.0.0.1;FOR=\"[2001:db8::1]:4711\";proto=https"], "2001:db8::1", false),
            Row("127.0.0.1", &[b"for=6.6.6.6, for=1.2.3.4;host=h, for=10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=1.2.3.4", b"for=10.0.0.1"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=1.2.3.4;host=\"a,b\""], "1.2.3.4", false),
            Row("127.0.0.1", &[b"host=\"for=6.6.6.6, x\";for=1.2.3.4"], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=\"6.6.6.6, for=1.2.3.4"], "1.2.3.4", false),
            Row(
                "127.0.0.1",
                &[b"\"\", for=\"x, for=1.2.3.4\"; for=6.6.6.6, for=10.0.0.1"],
                "10.0.0.1",
                false,
            ),
            Row("127.0.0.1", &[b"for=1.2.3.4, for=unknown"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"for=1.2.3.4, for=_hidden, for=10.0.0.1"], "10.0.0.1", false),
            Row("127.0.0.1", &[b"for=1.2.3.4, proto=https"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"for=1.2.3.4;for=5.6.7.8"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"for=\"1.2.3.4\\\""], "127.0.0.1", false),
            Row("127.0.0.1", &[b" for=1.2.3.4 ; proto=https; "], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for=1.2.3.4;host=\"x;for=6.6.6.6\""], "1.2.3.4", false),
            Row("127.0.0.1", &[b"for"], "127.0.0.1", false),
            Row("127.0.0.1", &[b"for=10.0.0.2, for=10.0.0.1"], "10.0.0.2", false),
        ],
    );
}

#[test]
fn no_header_at_all() {
    check(
        ClientHeader::None,
        &[
            Row("127.0.0.1", &[b"for=1.2.3.4"], "127.0.0.1", false),
            Row("203.0.113.9", &[b"for=1.2.3.4"], "203.0.113.9", false),
            Row("::ffff:203.0.113.9", &[], "203.0.113.9", false),
        ],
    );
}
