use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::calendar::Calendar;
use crate::clock::{Clock, Hand};
use crate::ingest::VisitorId;
use crate::sites::{SiteKey, SiteLimits};

fn site(id: u16, limits: SiteLimits) -> Site {
    Site {
        id: SiteId(id),
        key: SiteKey::new(&format!("s{id}")).unwrap(),
        hosts: vec!["a.vn".to_owned()],
        origins: vec![],
        calendar: Calendar::utc(),
        locale: "vi".to_owned(),
        identity: Default::default(),
        pages: Default::default(),
        origin_check: Default::default(),
        honour: Vec::new(),
        require_consent: false,
        filter: Default::default(),
        readers: Default::default(),
        limits,
        newsroom_token: None,
    }
}

struct World {
    limits: Limits,
    rates: Rates,
    site: Site,
    clock: Clock,
    hand: Hand,
}

/// Who sends what.
#[derive(Clone, Copy)]
struct By<'a> {
    kind: Kind,
    page: &'a str,
    visitor: u64,
    address: Option<&'a str>,
    is_dry: bool,
}

const VIEW: By<'static> =
    By { kind: Kind::View, page: "/a", visitor: 1, address: Some("198.51.100.1"), is_dry: false };

impl World {
    fn new(visitor: usize, address: usize, new_pages: usize, limits: SiteLimits) -> World {
        let (clock, hand) = Clock::by_hand(1_700_000_000_000);
        let rates = Rates {
            visitor: Rate::a_minute(visitor),
            address: Rate::a_minute(address),
            new_pages: Rate::a_minute(new_pages),
            site_pages: Rate::of_site(1000),
            exempt: Vec::new(),
        };
        World { limits: Limits::new(clock.now()), rates, site: site(0, limits), clock, hand }
    }

    fn judged(&self, by: By<'_>, knows: bool) -> Result<Admission, Refusal> {
        let page = Page::trusted(self.site.id, by.page);
        // As salted identities are: spread over all bits.
        let visitor = VisitorId(self.limits.key(Subject::Address, SiteId(9), by.visitor));
        let address = by.address.map(|text| text.parse::<IpAddr>().unwrap().to_canonical());
        let (visitor, now) = (Some(Visitor { today: visitor, beside: None }), self.clock.now());
        let By { kind, is_dry, .. } = by;
        let (site, page, knows) = (&self.site, &page, &|| knows);
        let asking =
            Asking { site, kind, page, visitor, address, now, is_dry, has_page: knows, is_repeated: knows };
        self.limits.judge(&self.rates, &asking)
    }

    /// The limit that refuses it, or `reload`.
    fn refused(&self, by: By<'_>) -> Option<String> {
        let refusal = self.judged(by, false).err()?;
        assert_eq!(refusal.site, Some(self.site.id));
        Some(refusal.cause.map_or(refusal.reason.word().to_owned(), |cause| cause.name))
    }

    fn taken(&self, times: u32, by: By<'_>) -> usize {
        (0..times).filter(|_| self.refused(by).is_none()).count()
    }

    /// Whether it is counted under its own name.
    fn is_named(&self, by: By<'_>) -> bool {
        self.judged(by, false).unwrap().page
    }

    fn pass(&self, ms: u64) {
        self.hand.advance(Duration::from_millis(ms));
    }
}

fn no_limits() -> SiteLimits {
    SiteLimits::default()
}

#[test]
fn a_visitor_has_what_a_minute_brings_and_takes_nothing_from_others_of_the_address() {
    let world = World::new(60, 600, 0, no_limits());
    for kind in [Kind::View, Kind::Ping, Kind::Leave] {
        assert_eq!(world.taken(20, By { kind, ..VIEW }), 20, "{kind:?}");
    }
    assert_eq!(world.refused(VIEW).as_deref(), Some("limits.visitor"));
    // Far more than the address may send.
    assert_eq!(world.taken(10_000, VIEW), 0);
    assert_eq!(world.taken(20, By { visitor: 2, ..VIEW }), 20);
    world.pass(999);
    assert_eq!(world.taken(2, VIEW), 0);
    world.pass(1);
    assert_eq!(world.taken(2, VIEW), 1);
    world.pass(3_600_000);
    assert_eq!(world.taken(100, VIEW), 60, "no more than a minute's are saved");
}

#[test]
fn an_address_has_many_visitors_and_a_limit_of_its_own() {
    let of = |visitor, address| By { visitor, address: Some(address), ..VIEW };
    for same in
        [["198.51.100.1", "::ffff:198.51.100.1"], ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"]]
    {
        let world = World::new(60, 600, 0, no_limits());
        let taken = (0..2000).filter(|n| world.refused(of(*n, same[*n as usize % 2])).is_none()).count();
        assert_eq!(taken, 600, "{same:?}");
        assert_eq!(world.refused(of(5000, same[0])).as_deref(), Some("limits.address"));
        for other in ["198.51.100.2", "2001:db8:1:3::1"] {
            assert_eq!(world.refused(of(5000, other)), None, "{other}");
        }
    }
}

#[test]
fn a_machine_with_many_addresses_of_ipv6_has_the_limit_of_some() {
    let world = World::new(0, 60, 0, no_limits());
    let address = |n: u64| format!("2001:db8:1:{n:x}::1");
    let taken = |n: u64| world.taken(10, By { visitor: n, address: Some(&address(n)), ..VIEW });
    assert_eq!((0..1000).map(taken).sum::<usize>(), 1200);
    assert_eq!(world.refused(By { address: Some("2001:db8:2::1"), ..VIEW }), None);
}

#[test]
fn what_is_not_limited_is_taken_however_often() {
    let off = World::new(0, 0, 0, no_limits());
    assert_eq!(off.taken(10_000, VIEW), 10_000);
    let world = World::new(1, 1, 1, no_limits());
    let exempt = By { address: None, ..VIEW };
    assert_eq!(world.taken(10_000, exempt), 10_000);
    assert!((0..1000).all(|n| world.is_named(By { page: &format!("/{n}"), ..exempt })));
}

#[test]
fn a_question_uses_up_nothing() {
    let limits = SiteLimits { views_per_minute: 3, reload_window: Duration::from_secs(60) };
    let world = World::new(3, 3, 3, limits);
    let asks = By { is_dry: true, ..VIEW };
    assert_eq!(world.taken(100, asks), 100);
    for n in 0..3 {
        let page = &*format!("/{n}");
        assert!(world.is_named(By { page, ..asks }) && world.is_named(By { page, ..VIEW }));
        assert_eq!(world.refused(By { page, address: None, ..asks }).as_deref(), Some("reload"));
    }
    assert_eq!(world.refused(By { page: "/9", ..asks }).as_deref(), Some("limits.visitor"));
}

#[test]
fn a_site_has_a_limit_only_where_it_is_set_and_only_for_views() {
    let world = World::new(0, 0, 0, SiteLimits { views_per_minute: 120, ..no_limits() });
    let of = |visitor, kind| By { visitor, kind, address: None, ..VIEW };
    assert_eq!((0..500).filter(|n| world.refused(of(*n, Kind::View)).is_none()).count(), 120);
    assert_eq!(world.refused(of(1, Kind::View)).as_deref(), Some("views_per_minute"));
    assert_eq!(world.refused(of(1, Kind::Ping)), None);
    world.pass(500);
    assert_eq!((0..500).filter(|n| world.refused(of(*n, Kind::View)).is_none()).count(), 1);
}

#[test]
fn a_page_counts_once_in_the_window_for_each_visitor_and_a_view_that_was_not_kept_is_no_reload() {
    let window = SiteLimits { reload_window: Duration::from_secs(1800), ..no_limits() };
    let world = World::new(0, 0, 0, window);
    let other = [By { visitor: 2, ..VIEW }, By { page: "/b", ..VIEW }];
    assert_eq!(world.refused(VIEW), None);
    assert_eq!(world.refused(VIEW).as_deref(), Some("reload"));
    assert!(other.iter().all(|by| world.refused(*by).is_none()));
    assert_eq!(world.refused(By { kind: Kind::Ping, ..VIEW }), None);
    assert_eq!(world.judged(VIEW, true).map(|admission| admission.noted), Ok(None), "sent again");
    // From the view that counted, not from the last one.
    world.pass(1_799_000);
    assert_eq!(world.refused(VIEW).as_deref(), Some("reload"));
    world.pass(1_000);
    let again = world.judged(VIEW, false).unwrap();
    assert_eq!(world.refused(VIEW).as_deref(), Some("reload"));
    world.limits.forget(again.noted);
    assert_eq!(world.refused(VIEW), None);
    assert!(other.iter().all(|by| world.refused(*by).is_none()), "after the window");
}

#[test]
fn made_up_pages_of_one_network_do_not_keep_out_what_several_read() {
    let world = World::new(0, 0, 60, no_limits());
    let mut named = 0;
    for n in 0..100_000 {
        named += usize::from(world.is_named(By { page: &format!("/made-up/{n}"), ..VIEW }));
        if n % 1000 == 0 {
            // A page that is in the news.
            let page = &*format!("/real/{n}");
            let readers =
                ["203.0.113.7", "2001:db8:7::1"].map(|from| By { page, address: Some(from), ..VIEW });
            assert!(readers.iter().all(|by| world.is_named(*by)), "{n}");
            // And one that the maker of pages reads first.
            let page = &*format!("/both/{n}");
            named += usize::from(world.is_named(By { page, ..VIEW }));
            assert!(world.is_named(By { page, address: Some("203.0.113.8"), ..VIEW }), "{n}");
            assert!(world.is_named(By { page, ..VIEW }), "{n}: it is one of the site's now");
        }
        world.pass(1);
    }
    // Of its own 60, and one a second.
    assert!((100..=162).contains(&named), "{named}");
}

#[test]
fn pages_come_at_the_rate_of_the_site_from_however_many_networks() {
    let world = World::new(0, 0, 60, no_limits());
    let address = |n: u32| IpAddr::from(n.to_be_bytes()).to_string();
    let asked = |n: u32, page: &str| world.is_named(By { page, address: Some(&address(n)), ..VIEW });
    let named = (0..20_000).filter(|n| asked(*n, &format!("/{n}"))).count();
    assert_eq!(named, 500, "half of the room for pages");
    world.pass(60_000);
    assert_eq!((20_000..40_000).filter(|n| asked(*n, &format!("/{n}"))).count(), 50);
    assert!(!asked(50_000, "/news") && asked(50_001, "/news") && asked(50_000, "/news"));
    // One machine of IPv6 has many addresses, and is one network.
    let v6 = |n: u32| format!("2001:db8:1:{n:x}::1");
    assert!((0..100).all(|n| !world.is_named(By { page: "/x", address: Some(&v6(n)), ..VIEW })));
    assert!(world.is_named(By { page: "/x", address: Some("2001:db8:2::1"), ..VIEW }));
}

#[test]
fn pages_that_are_in_memory_are_admitted_and_pings_and_leaves_bring_none() {
    let world = World::new(0, 0, 1, no_limits());
    for kind in [Kind::Ping, Kind::Leave] {
        assert!(!world.is_named(By { kind, ..VIEW }));
        assert!(!world.is_named(By { kind, address: Some("203.0.113.7"), ..VIEW }));
    }
    assert!(world.is_named(VIEW) && world.is_named(By { kind: Kind::Ping, ..VIEW }));
    assert!(!world.is_named(By { page: "/b", ..VIEW }));
    let known = |n: u32| world.judged(By { page: &format!("/known/{n}"), ..VIEW }, true).unwrap().page;
    assert!((0..1000).all(known));
    assert!(world.is_named(By { page: OTHER, ..VIEW }), "an erased page is no new one");
}

#[test]
fn a_flood_of_clients_takes_no_limit_off_who_is_far_beyond_it() {
    let world = World::new(60, 600, 60, no_limits());
    assert_eq!(world.taken(1000, VIEW), 60);
    for n in 0..300_000_u32 {
        let address = IpAddr::from(n.to_be_bytes()).to_string();
        assert_eq!(world.refused(By { visitor: u64::from(n) + 10, address: Some(&address), ..VIEW }), None);
    }
    assert_eq!(world.taken(1000, VIEW), 0);
}

proptest! {
    /// However beacons come, a bucket gives what a plain model of it gives.
    #[test]
    fn a_bucket_is_what_the_definition_says(
        rate in 1_usize..500,
        steps in prop::collection::vec((0_u64..3, 0_u64..4000), 0..400),
    ) {
        let world = World::new(rate, 0, 0, no_limits());
        let each = 60_000_000 / rate as u64;
        // When each visitor's bucket is full again, microseconds.
        let mut full: HashMap<u64, u64> = HashMap::new();
        let mut now = 0;
        for (visitor, ms) in steps {
            world.pass(ms);
            now += ms * 1000;
            let until = full.get(&visitor).copied().unwrap_or(0).max(now) + each;
            let has_one = until <= now + 60_000_000;
            if has_one {
                full.insert(visitor, until);
            }
            prop_assert_eq!(world.refused(By { visitor, ..VIEW }).is_none(), has_one);
        }
    }
}
