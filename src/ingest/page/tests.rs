use proptest::prelude::*;
use unicode_normalization::is_nfc;

use super::*;

const SITE: SiteId = SiteId(3);

fn rules(query: &[&str], case: PageCase) -> PageRules {
    PageRules { query: query.iter().map(|name| (*name).to_owned()).collect(), case, ..PageRules::default() }
}

fn page(path_and_query: &str) -> String {
    Page::normalise(SITE, &rules(&["id", "trang"], PageCase::Keep), path_and_query).as_str().to_owned()
}

fn all_rules() -> Vec<PageRules> {
    let mut all = Vec::new();
    for case in [PageCase::Keep, PageCase::Fold] {
        for query in
            [&[][..], &["id"], &["trang", "id"], &["ID", "id", "a%41", "x=&+#y", "e\u{301}", "", "\u{0}"]]
        {
            all.push(rules(query, case));
        }
    }
    all
}

/// What holds for every page, whatever it was made of.
fn check(rules: &PageRules, input: &str) -> Result<(), TestCaseError> {
    let made = Page::normalise(SITE, rules, input);
    let text = made.as_str();
    let again = Page::normalise(SITE, rules, text);
    prop_assert_eq!(again.as_str(), text, "from {:?}", input);
    prop_assert_eq!(again.key(), made.key());
    prop_assert_eq!(&Page::trusted(SITE, text), &made);
    prop_assert!(text.starts_with('/') && text.len() <= MAX_PAGE);
    prop_assert!(!text.chars().any(is_control), "{:?}", text);
    prop_assert!(!text.contains('#'), "{:?}", text);
    prop_assert!(is_nfc(text), "{:?}", text);
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3).unwrap_or("");
        prop_assert!(digits.len() == 2 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')));
    }
    let path = text.split('?').next().unwrap_or("");
    prop_assert!(
        !path.contains("//") && !path.contains('\\') && (path == "/" || !path.ends_with('/')),
        "{:?}",
        text
    );
    prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{:?}", text);
    if rules.case == PageCase::Fold {
        prop_assert!(!path.split('%').next().unwrap_or("").chars().any(|c| c.to_lowercase().ne([c])));
    }
    if let Some(quick) = plain(rules, input) {
        prop_assert_eq!(spelled_out(rules, input), quick);
    }
    Ok(())
}

/// Text made of what URLs are made of, and of what is meant to break them.
fn urlish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9._~-]{1,12}",
        3 => Just("/".to_owned()),
        2 => any::<u8>().prop_map(|b| format!("%{b:02X}")),
        1 => any::<u8>().prop_map(|b| format!("%{b:02x}")),
        2 => any::<char>().prop_map(String::from),
        1 => any::<char>().prop_map(|c| c.to_string().bytes().map(|b| format!("%{b:02X}")).collect()),
        2 => proptest::sample::select(vec![
            "..", "/../", "/./", "//", "%2e", "%2F", "%5c", "\\", "?", "&", "=", "+", "#", "%", "%%", "%4", ";", " ",
            "index.html", "/index.PHP", "Default.aspx", "id=", "&id=", "?id=", "&trang=2", "utm_source=x", "ID=",
            "\u{301}", "\u{338}", "\u{323}", "\u{345}", "e\u{302}\u{301}", "%CC%81", "\u{130}", "\u{3a3}", "\u{212a}",
            ";jsessionid=1", "%3bSID=", ";sid", "%3D", "/(S(x1))", "(", ")", "%28", "%29", "X(1)", "/..;sid=1",
            "\u{1100}\u{1161}", "\u{11a8}", "\u{202e}", "\u{85}", "\u{2028}", "%E1%BB", "%BF", "\u{200b}", "%E2%81%A0", "\u{200d}",
            "\u{fe0f}",
        ]).prop_map(str::to_owned),
    ];
    prop_oneof![
        3 => proptest::collection::vec(piece.clone(), 0..24),
        1 => proptest::collection::vec(piece, 60..200),
    ]
    .prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn holds_for_what_looks_like_a_url(input in urlish(), which in 0..8_usize) {
        check(&all_rules()[which], &input)?;
    }

    #[test]
    fn holds_for_anything(input: String, which in 0..8_usize) {
        check(&all_rules()[which], &input)?;
    }

    #[test]
    fn holds_for_long_queries(
        values in proptest::collection::vec("[a-z%&=?+\u{1ec7}]{0,90}", 1..12),
        path in "(/[a-z\u{1ec7}]{0,99}){1,6}",
        which in 0..8_usize,
    ) {
        let query: Vec<_> = values.iter().map(|value| format!("id={value}&trang={value}")).collect();
        check(&all_rules()[which], &format!("{path}?{}", query.join("&")))?;
    }

    #[test]
    fn tracking_parameters_split_no_page(
        path in "(/[a-z0-9.\u{1ec7}-]{1,20}){1,4}",
        id in "[a-zA-Z0-9]{1,8}",
        tracking in "(utm_(source|medium)|fbclid|gclid|_|ref)=[a-zA-Z0-9%+.-]{0,30}",
    ) {
        prop_assert_eq!(page(&format!("{path}?{tracking}")), page(&path));
        let plain = page(&format!("{path}?id={id}"));
        prop_assert_eq!(&page(&format!("{path}?{tracking}&id={id}")), &plain);
        prop_assert_eq!(&page(&format!("{path}?id={id}&{tracking}#top")), &plain);
    }

    /// Encoded or not, composed or not: one page.
    #[test]
    fn spelling_does_not_split_a_page(text in "[a-zăâđêôơưàảãạằắẩẫậéèẻẽẹềếểễệíịóọốồổỗộớờởỡợúụứừửữựýỳỵ]{1,40}") {
        let encoded = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let (composed, decomposed): (String, String) = (text.nfc().collect(), text.nfd().collect());
        let one = page(&format!("/tin/{composed}.html?id={composed}"));
        prop_assert_eq!(&one, &format!("/tin/{composed}.html?id={composed}"));
        for other in [&decomposed, &encoded(&composed), &encoded(&decomposed)] {
            prop_assert_eq!(&page(&format!("/tin/{other}.html?id={other}")), &one);
        }
    }
}

#[test]
fn a_session_in_the_path_is_dropped() {
    for (written, made) in [
        ("/a;jsessionid=0A1B.node1", "/a"),
        ("/a;JSESSIONID=0A1B!-12!34?id=7", "/a?id=7"),
        ("/a.html;jsessionid=1#top", "/a.html"),
        ("/a;jsessionid=1/b;jsessionid=1", "/a/b"),
        ("/a;v=2;jsessionid=1;w=3", "/a;v=2;w=3"),
        ("/a;jsessionid=", "/a"),
        ("/a%3Bjsessionid%3D1", "/a"),
        ("/a%3bjsessionid=1%3bv=2", "/a%3Bv=2"),
        ("/a;j%73essionid=1", "/a"),
        ("/a;phpsessid=1;sid=2", "/a"),
        ("/;jsessionid=1", "/"),
        ("/tin/index.jsp;jsessionid=1", "/tin"),
        ("/a/b/..;jsessionid=1/c", "/a/c"),
        ("/(S(lit3py55t21z5v55vlm25s55))/tin/1.aspx", "/tin/1.aspx"),
        ("/bao/(s(lit3py55))/tin/", "/bao/tin"),
        ("/(X(1)S(lit3py55)F(a-b_c1))/tin", "/tin"),
        ("/%28S%28lit3py55%29%29/tin", "/tin"),
        ("/(lit3py55t21z5v55vlm25s55)/tin", "/tin"),
        ("/(S(lit3py55))", "/"),
        ("/(S(lit3py55));jsessionid=1/tin", "/tin"),
    ] {
        assert_eq!(page(written), made, "{written}");
        for rules in all_rules() {
            check(&rules, written).unwrap();
        }
    }
    // What only looks like one is the page's own.
    for own in [
        "/a;v=2",
        "/a;jsessionid",
        "/a;myjsessionid=1",
        "/a;sidebar=1",
        "/jsessionid=1",
        "/(a)",
        "/(a)/b",
        "/(S)",
        "/(S(x)",
        "/(Tin(nhanh))",
        "/x(S(y))",
        "/(S(x))y",
        "/()",
        "/(S(x)(y))",
    ] {
        assert_eq!(page(own), own);
    }
}

/// Whether a character is one that normalising may change or join.
fn is_peculiar(c: char) -> bool {
    let sampled = !('\u{ac00}'..='\u{d7a3}').contains(&c) || (c as u32).is_multiple_of(97);
    c.is_ascii()
        || is_control(c)
        || canonical_combining_class(c) != 0
        || c.to_lowercase().ne([c])
        || (sampled && (is_nfc_quick([c].into_iter()) != IsNormalized::Yes || [c].into_iter().nfd().ne([c])))
}

/// Every such character alone, behind an escape, behind a letter and as a value.
#[test]
fn holds_for_every_peculiar_character() {
    for rules in [rules(&["id"], PageCase::Keep), rules(&["id"], PageCase::Fold)] {
        for c in ('\0'..=char::MAX).filter(|c| is_peculiar(*c)) {
            check(&rules, &format!("/{c}/a{c}/%2C{c}?id={c}")).unwrap();
        }
    }
}

#[test]
fn pages_by_example() {
    let cases = [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("/?utm_source=x", "/"),
        ("/index.html", "/"),
        ("/INDEX.PHP", "/"),
        ("/index.html/index.html/", "/"),
        ("/index.html5", "/index.html5"),
        ("/tin/index.php?id=3", "/tin?id=3"),
        ("/tin/default.aspx", "/tin"),
        ("/tin/", "/tin"),
        ("/tin//moi///", "/tin/moi"),
        ("/tin/./moi/../cu", "/tin/cu"),
        ("/tin/%2e%2E/cu", "/cu"),
        ("/a//../b", "/a/b"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/...", "/..."),
        ("/.well-known", "/.well-known"),
        ("/a\\b\\..\\c", "/a/c"),
        ("/a%5cb", "/a%5Cb"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
        ("/100%", "/100%25"),
        ("/100%25", "/100%25"),
        ("/%2541", "/%2541"),
        ("/%%41", "/%25A"),
        ("/%41%7e", "/A~"),
        ("/a%20b", "/a b"),
        ("/a+b", "/a+b"),
        ("/a%2Bb", "/a%2Bb"),
        ("/a,b(c)%28", "/a,b(c)%28"),
        ("/%00%1f%7F", "/%00%1F%7F"),
        ("/\u{0}\u{1f}\u{7f}", "/%00%1F%7F"),
        ("/\u{202e}\u{2028}\u{85}", "/%E2%80%AE%E2%80%A8%C2%85"),
        ("/tin\u{200b}", "/tin"),
        ("/%EF%BB%BFti%C2%ADn%E2%81%A0/", "/tin"),
        ("/e\u{200b}\u{301}", "/\u{e9}"),
        ("/%E1%BB\u{200b}%80", "/\u{1ec0}"),
        ("/a%E2%80%E2%80%8B%8Bb", "/ab"),
        ("/tin\u{200d}%EF%B8%8F\u{3164}\u{e0041}", "/tin%E2%80%8D%EF%B8%8F%E3%85%A4%F3%A0%81%81"),
        ("/%ff%c3(", "/%FF%C3("),
        ("/%c3%a9", "/\u{e9}"),
        ("/e%CC%81", "/\u{e9}"),
        ("/%2C%CC%81", "/%2C%CC%81"),
        ("/%2C\u{301}", "/%2C%CC%81"),
        ("/\u{301}", "/\u{301}"),
        ("/Tin", "/Tin"),
        ("/tin#id=1", "/tin"),
        ("/tin?id=1#id=2", "/tin?id=1"),
        ("/tin?trang=2&id=1", "/tin?id=1&trang=2"),
        ("/tin?id=2&x=1&id=1", "/tin?id=2&id=1"),
        ("/tin?trang=2&id=2&%74rang=1&&=3&id=1&", "/tin?id=2&id=1&trang=2&trang=1"),
        ("/tin?id", "/tin?id="),
        ("/tin?i%64=a+b%20c%2Bd%26e", "/tin?id=a b c%2Bd%26e"),
        ("/tin?id=a=b?c", "/tin?id=a=b?c"),
        ("/tin?id=\u{338}", "/tin?id=%CC%B8"),
        ("/tin?id='%27", "/tin?id=''"),
        ("/tin'%27", "/tin'%27"),
        ("/tin?ID=1", "/tin"),
        ("/tin?", "/tin"),
        ("tin", "/tin"),
    ];
    for (input, expected) in cases {
        assert_eq!(page(input), expected, "{input:?}");
        assert_eq!(page(expected), expected);
    }
}

#[test]
fn names_are_found_however_they_are_written() {
    let names = ["id", "Trang", "m\u{1ee5}c", "ID", "muc\u{323}", "\u{e5}", "k"];
    let said = [
        "id",
        "ID",
        "i%64",
        "trang",
        "Trang",
        "m%E1%BB%A5c",
        "mu\u{323}c",
        "\u{212b}",
        "\u{212a}",
        "%FF",
        "",
    ];
    let query: String = said.iter().enumerate().map(|(at, name)| format!("&{name}={at}")).collect();
    let page = |case| {
        let rules = rules(&names, case);
        Page::normalise(SITE, &rules, &format!("/?{query}")).as_str().to_owned()
    };
    assert_eq!(page(PageCase::Keep), "/?id=0&id=2&Trang=4&m\u{1ee5}c=5&m\u{1ee5}c=6&ID=1");
    let folded = "/?id=0&id=1&id=2&trang=3&trang=4&m\u{1ee5}c=5&m\u{1ee5}c=6&\u{e5}=7&k=8";
    assert_eq!(page(PageCase::Fold), folded);
}

#[test]
fn folding_makes_one_page_of_two_cases() {
    let fold = rules(&["ID"], PageCase::Fold);
    let page = |text| Page::normalise(SITE, &fold, text).as_str().to_owned();
    assert_eq!(page("/Tin/%C4%90%C3%80-L%E1%BA%A0T?Id=A%2fB"), "/tin/\u{111}\u{e0}-l\u{1ea1}t?id=a%2Fb");
    assert_eq!(page("/tin/đà-lạt?id=a%2Fb"), "/tin/đà-lạt?id=a%2Fb");
    assert_eq!(page("/tin"), page("/TIN"));
}

#[test]
fn a_long_page_is_cut_and_told_apart() {
    let long = |end: &str| page(&format!("/{}{end}", "ệ".repeat(400)));
    let (one, other) = (long("a"), long("b"));
    assert_ne!(one, other);
    assert!(one.len() <= MAX_PAGE && one.len() > MAX_PAGE - 4, "{}", one.len());
    let (kept, hash) = one.rsplit_once('~').unwrap();
    assert_eq!(kept, format!("/{}", "ệ".repeat(164)));
    assert_eq!(
        hash,
        format!("{:016x}", SipHasher13::new().hash(format!("/{}a", "ệ".repeat(400)).as_bytes()))
    );

    let path = "/".to_owned() + &"a".repeat(MAX_PAGE - 1);
    assert_eq!(page(&path), path, "the longest page is whole");
    let escapes = page(&format!("/{}", "%2C".repeat(300)));
    assert_eq!(escapes.rsplit_once('~').unwrap().0, format!("/{}", "%2C".repeat(164)));
    let in_a_name = page(&format!("/{}?id=1", "a".repeat(492)));
    assert_eq!(in_a_name, format!("/{}?id=1", "a".repeat(492)));
    let in_a_name = page(&format!("/{}?id=1&trang={}", "a".repeat(485), "2".repeat(40)));
    assert_eq!(in_a_name.rsplit_once('~').unwrap().0, format!("/{}?id=1", "a".repeat(485)));
    let in_the_first_name = page(&format!("/{}?id={}", "a".repeat(492), "2".repeat(40)));
    assert_eq!(in_the_first_name.rsplit_once('~').unwrap().0, format!("/{}", "a".repeat(492)));
}

/// The hash of a cut page is part of its name for good.
#[test]
fn the_hash_of_a_cut_page_is_the_same_everywhere() {
    let text = page(&format!("/{}", "a".repeat(600)));
    assert_eq!(text.rsplit_once('~').unwrap().1, "e6b6bc6ab703ef67");
}

#[test]
fn keys_tell_sites_and_pages_apart() {
    let rules = PageRules::default();
    let key = |site, text| Page::normalise(SiteId(site), &rules, text).key();
    assert_eq!(key(1, "/a/"), key(1, "/a"));
    assert_ne!(key(1, "/a"), key(2, "/a"));
    assert_ne!(key(1, "/a"), key(1, "/b"));
}
