use super::sites::Totals;
use super::*;
use crate::sites::{Site, SiteId, SiteKey};

fn site(number: u16) -> Site {
    Site {
        id: SiteId(number),
        key: SiteKey::new(&format!("s{number}")).unwrap(),
        hosts: vec![format!("s{number}.example")],
        origins: vec![],
        calendar: crate::calendar::Calendar::utc(),
        locale: "vi".to_owned(),
        identity: Default::default(),
        pages: Default::default(),
        origin_check: Default::default(),
        honour: Vec::new(),
        filter: Default::default(),
        require_consent: false,
        readers: Default::default(),
        limits: Default::default(),
        newsroom_token: None,
    }
}

fn shown(site: &Site, online: u64, views: Totals) -> Shown<'_> {
    Shown { site, online, views, visits: [Some(1); 5], visitors: [None; 5] }
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

#[test]
fn sites_beyond_the_limit_share_a_label_and_add_up() {
    let sites = Sites::new((0..253).map(site).collect());
    let metrics = Metrics::new(&sites, 1).unwrap();
    sites.iter().for_each(|site| metrics.sites.counted(site.id, 2, 1, 0));
    metrics.sites.show(sites.iter().map(|site| shown(site, 3, [Some(10); 5])));
    let text = text(&metrics);
    for line in [
        "footfall_views_total{site=\"s249\"} 2",
        "footfall_views_total{site=\"(others)\"} 6",
        "footfall_visits_total{site=\"(others)\"} 3",
        "footfall_online_visitors{site=\"s0\"} 3",
        "footfall_online_visitors{site=\"(others)\"} 9",
        "footfall_period_views{period=\"day\",site=\"(others)\"} 30",
        "footfall_period_visits{period=\"all\",site=\"s7\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
    }
    assert!(!text.contains("s250"), "no label of its own");
}

#[test]
fn what_is_not_known_is_not_shown() {
    let sites = Sites::new(vec![site(0)]);
    let metrics = Metrics::new(&sites, 1).unwrap();
    let shows = |views: Option<u64>| {
        metrics.sites.show(sites.iter().map(|site| shown(site, 0, [views; 5])));
        text(&metrics).lines().filter(|line| line.starts_with("footfall_period_views{")).count()
    };
    assert_eq!([shows(None), shows(Some(0)), shows(None)], [0, 5, 0]);
}

#[test]
fn a_sum_of_which_a_part_is_not_known_is_not_shown() {
    let sites = Sites::new((0..253).map(site).collect());
    let metrics = Metrics::new(&sites, 1).unwrap();
    let shows = |unknown: usize| {
        let views =
            |site: &Site| [Some(10), (site.id.index() != unknown).then_some(10), None, Some(1), Some(2)];
        metrics.sites.show(sites.iter().map(|site| shown(site, 0, views(site))));
        let text = text(&metrics);
        let others = text
            .lines()
            .filter(|line| line.starts_with("footfall_period_views{") && line.contains("(others)"));
        others
            .map(|line| line.split(['"', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum())
            .collect::<Vec<u64>>()
    };
    // In order of their labels: all, day, week, year.
    assert_eq!(shows(0), [6, 30, 30, 3]);
    assert_eq!(shows(251), [6, 30, 3], "the week of one of them is not known");
}

#[test]
fn answers_are_counted_by_route_and_kind_and_timed() {
    let metrics = Metrics::new(&Sites::default(), 1).unwrap();
    let requests = metrics.requests.of("public", ["/a", "/b"].into_iter());
    for (route, status, micros) in [(0, 204, 40), (0, 503, 90), (1, 304, 400), (2, 404, 10), (3, 200, 10)] {
        requests.answered(route, status, std::time::Duration::from_micros(micros));
    }
    requests.answered(0, 101, std::time::Duration::from_micros(10));
    let text = text(&metrics);
    for line in [
        "requests_total{code=\"2xx\",listener=\"public\",route=\"/a\"} 1",
        "requests_total{code=\"5xx\",listener=\"public\",route=\"/a\"} 1",
        "requests_total{code=\"3xx\",listener=\"public\",route=\"/b\"} 1",
        "requests_total{code=\"2xx\",listener=\"public\",route=\"/b\"} 0",
        "requests_total{code=\"4xx\",listener=\"public\",route=\"(none)\"} 1",
        "request_duration_seconds_bucket{listener=\"public\",route=\"/b\",le=\"0.00025\"} 0",
        "request_duration_seconds_bucket{listener=\"public\",route=\"/b\",le=\"0.0005\"} 1",
        "request_duration_seconds_count{listener=\"public\",route=\"/a\"} 3",
    ] {
        assert!(text.contains(&format!("footfall_http_{line}\n")), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn operations_of_the_store_are_counted_and_timed() {
    let metrics = Metrics::new(&Sites::default(), 1).unwrap();
    let store = &metrics.store;
    assert_eq!(store.watch(Operation::Read, async { Ok::<_, ()>(3) }).await, Ok(3));
    assert_eq!(store.watch(Operation::Apply, async { Err::<(), _>("away") }).await, Err("away"));
    let text = text(&metrics);
    for line in [
        "operations_total{operation=\"read\",outcome=\"ok\"} 1",
        "operations_total{operation=\"apply\",outcome=\"error\"} 1",
        "operations_total{operation=\"salt\",outcome=\"ok\"} 0",
        "operation_duration_seconds_count{operation=\"read\"} 1",
        "operation_duration_seconds_count{operation=\"apply\"} 0",
    ] {
        assert!(text.contains(&format!("footfall_store_{line}\n")), "{line} is not in {text}");
    }
}
