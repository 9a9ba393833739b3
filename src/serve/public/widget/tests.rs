use super::*;
use crate::calendar::PerPeriod;
use crate::serve::shown::labels::tests::labels;
use crate::totals::Figures;

fn vi() -> Labels {
    Labels {
        tag: "vi".into(),
        title: "Thống kê truy cập".into(),
        total: "Tổng lượt truy cập".into(),
        online: "Đang online".into(),
        week: "Trong tuần".into(),
        month: "Trong tháng".into(),
        year: "Trong năm".into(),
        ..labels("vi", ".")
    }
}

/// What the footer of the newspaper showed on 15 September 2023.
fn current() -> CurrentFigures {
    let visits = PerPeriod::from([Some(61), Some(10_194), Some(53_796), Some(634_758), Some(1_316_717)]);
    let sixty_one = PerPeriod::from([Some(61); 5]);
    let figures = Figures { visits, views: sixty_one, visitors: sixty_one, ..Figures::default() };
    let views = PerPeriod::from([1, 1, 1, 1, 13]);
    CurrentFigures { figures, online: 61, page: Some((2, Some(views))), stale: false }
}

fn asked(query: &str) -> WidgetRequest {
    WidgetRequest::read(query).unwrap_or_else(|reason| panic!("{query}: {reason:?}"))
}

fn as_text(current: &CurrentFigures, labels: &Labels, query: &str) -> String {
    text(current, labels, &lines(current, labels), &asked(query))
}

const BLOCK: &str = "Thống kê truy cập
  • 001316717
  • Đang online: 61
  • Trong tuần: 10.194
  • Trong tháng: 53.796
  • Trong năm: 634.758
";

#[test]
fn the_block_is_that_of_the_newspaper_to_the_character() {
    assert_eq!(as_text(&current(), &vi(), "format=text"), BLOCK);
}

/// Tags taken off, as a reader sees it.
fn seen(html: &str) -> String {
    let text: String =
        html.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text)).collect();
    text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_fragment_shows_the_same_and_reads_the_total_without_its_zeros() {
    let html = fragment(&vi(), &lines(&current(), &vi()));
    assert_eq!(seen(&html), BLOCK.replace("  • ", "").trim_end());
    assert!(html.contains("aria-label=\"Tổng lượt truy cập: 1.316.717\""), "{html}");
    assert!(html.contains("<span data-footfall=\"visits.week\">10.194</span>"), "{html}");
    assert!(html.contains("data-footfall=\"visits.all\" data-footfall-pad=\"9\""), "{html}");
}

#[test]
fn figures_that_are_not_known_are_left_out_and_never_zero() {
    let mut current = current();
    current.figures.visits = [None, Some(7), None, None, None].into();
    let shown = as_text(&current, &vi(), "format=text");
    assert_eq!(shown, "Thống kê truy cập\n  • Đang online: 61\n  • Trong tuần: 7\n");
    assert_eq!(as_text(&current, &vi(), "format=text&figure=visits.all"), "");
}

#[test]
fn one_figure_is_written_alone() {
    for (query, shown) in [
        ("figure=online", "61"),
        ("figure=visits.year", "634.758"),
        ("figure=visits.all&pad=9", "001316717"),
        ("figure=visits.all&pad=3", "1316717"),
        ("figure=page.views.all", "13"),
        ("figure=page.online", "2"),
        ("figure=visitors.day", "61"),
    ] {
        assert_eq!(as_text(&current(), &vi(), &format!("format=text&{query}")), shown, "{query}");
    }
    for wrong in [
        "format=xml",
        "format=text&figure=visits",
        "format=text&figure=visits.hour",
        "format=text&figure=page.visits.all",
        "format=text&figure=online&pad=21",
        "format=text&figure=online&pad=-1",
        "theme=pink",
        "figure=online",
    ] {
        assert_eq!(WidgetRequest::read(wrong).err(), Some(Reason::Malformed), "{wrong}");
    }
}

#[test]
fn labels_are_shown_as_text_whatever_they_hold() {
    let evil = "</script><script>alert('1')</script>\"&\u{7}";
    let labels =
        Labels { title: evil.into(), online: evil.into(), total: evil.into(), group: "<".into(), ..vi() };
    let html = fragment(&labels, &lines(&current(), &labels));
    assert!(!html.contains("<script") && !html.contains("alert('"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"), "{html}");
    assert!(!html.contains('\u{7}'));
    assert!(html.contains(">10&lt;194<"), "{html}");
}

#[test]
fn only_the_sites_pages_may_frame_it() {
    let policy = policy(&["baolamdong.vn", "127.0.0.1", "[::1]"].map(str::to_owned));
    let policy = policy.to_str().unwrap();
    let ancestors = policy.split("frame-ancestors").nth(1).unwrap();
    assert_eq!(
        ancestors,
        " 'self' https://baolamdong.vn:* http://baolamdong.vn:* https://127.0.0.1:* http://127.0.0.1:*"
    );
    assert!(!policy.contains("unsafe"));
}
