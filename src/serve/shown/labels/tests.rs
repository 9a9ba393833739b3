use super::*;

pub fn labels(tag: &str, group: &str) -> Labels {
    let label = |name: &str| format!("{tag} {name}");
    Labels {
        tag: tag.to_owned(),
        title: label("title"),
        total: label("total"),
        online: label("online"),
        day: label("day"),
        week: label("week"),
        month: label("month"),
        year: label("year"),
        views: label("views"),
        group: group.to_owned(),
    }
}

#[test]
fn digits_stand_in_groups_of_three() {
    for (figure, shown) in [
        (0, "0"),
        (61, "61"),
        (999, "999"),
        (10_194, "10.194"),
        (634_758, "634.758"),
        (1_316_717, "1.316.717"),
        (u64::MAX, "18.446.744.073.709.551.615"),
    ] {
        assert_eq!(labels("vi", ".").grouped(figure), shown);
    }
    assert_eq!(labels("fr", "\u{202f}").grouped(1_234_567), "1\u{202f}234\u{202f}567");
    assert_eq!(labels("x", "").grouped(1_234_567), "1234567");
}

#[test]
fn a_tag_is_found_by_what_it_begins_with() {
    let known = vec![labels("en", ","), labels("vi", "."), labels("pt-BR", ".")];
    let languages = Languages { known, fallback: labels("en", ",") };
    let of = |asked, locale| languages.of(asked, locale).tag.as_str();
    assert_eq!(of(None, "vi-VN"), "vi");
    assert_eq!(of(None, "VI-x-lamdong"), "vi");
    assert_eq!(of(None, "pt-br"), "pt-BR");
    assert_eq!(of(None, "pt"), "en");
    assert_eq!(of(Some("en-GB"), "vi"), "en");
    assert_eq!(of(Some("de"), "vi"), "vi", "what is asked for and not known is the site's own");
    assert_eq!(of(Some("é-"), "de"), "en");
}
