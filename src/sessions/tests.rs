//! The table against a plain model that computes everything from the definitions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, Hand};
use crate::sites::Sites;

const SITES: u16 = 2;
const PAGES: u8 = 3;

fn table(window_s: u64, timeout_s: u64, max_sessions: usize, clock: &Clock) -> Sessions {
    let config = Config {
        online_window: Duration::from_secs(window_s),
        visit_timeout: Duration::from_secs(timeout_s),
        max_sessions,
        max_pages: 1000,
    };
    let metrics = Arc::new(Metrics::new(&Sites::default(), max_sessions).unwrap());
    Sessions::new(config, usize::from(SITES), metrics, clock.now())
}

/// Entries of the wheel of those online, of the wheel of ends, and of those leaving.
fn entries(of: &Sessions) -> [usize; 3] {
    let presence = of.presence();
    let held = |wheel: &presence::Wheel| wheel.slots.iter().map(Vec::len).sum();
    [held(&presence.online), held(&presence.ended), held(&presence.leaving)]
}

fn exported(of: &Sessions, now: Moment) -> Export {
    Export { sessions: of.export(now).flatten().collect(), pages: of.export_pages().flatten().collect() }
}

fn page_of(site: SiteId, page: u8) -> Page {
    Page::trusted(site, &format!("/{page}"))
}

fn visitor(today: u64, yesterday: Option<u64>) -> Option<Visitor> {
    Some(Visitor { today: VisitorId(today), beside: yesterday.map(VisitorId) })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    View,
    Ping,
    Leave,
}

#[derive(Clone, Debug)]
enum Step {
    Beacon { kind: Kind, who: u8, site: u16, page: u8, carries: bool },
    Pass { seconds: u32 },
    NextDay,
    Uncount { who: u8, site: u16 },
    Sweep { limit: usize },
    Restart { elapsed: u32 },
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![4 => Just(Kind::View), 2 => Just(Kind::Ping), 2 => Just(Kind::Leave)];
    let seconds = prop_oneof![0..3u32, 8..14u32, 25..35u32, 50..70u32, 280..320u32, 1790..1810u32];
    prop_oneof![
        12 => (kind, 0..6u8, 0..SITES, 0..PAGES, any::<bool>())
            .prop_map(|(kind, who, site, page, carries)| Step::Beacon { kind, who, site, page, carries }),
        6 => seconds.clone().prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::NextDay),
        1 => (0..6u8, 0..SITES).prop_map(|(who, site)| Step::Uncount { who, site }),
        3 => (1..3usize).prop_map(|limit| Step::Sweep { limit }),
        1 => seconds.prop_map(|elapsed| Step::Restart { elapsed }),
        4 => Just(Step::Look),
    ]
}

/// A visitor as the definitions see it.
#[derive(Clone, Debug)]
struct Seen {
    site: SiteId,
    page: u8,
    sign: u32,
    left: Option<u32>,
    begun: bool,
    counted: bool,
}

struct Model {
    seen: BTreeMap<u64, Seen>,
    window: u32,
    timeout: u32,
}

impl Model {
    fn is_online(&self, seen: &Seen, t: u32) -> bool {
        t - seen.sign < self.window && seen.left.is_none_or(|left| t - left < LEAVE_GRACE_S)
    }

    fn is_alive(&self, seen: &Seen, t: u32) -> bool {
        seen.begun && t - seen.sign <= self.timeout
    }

    fn online(&self, site: SiteId, page: Option<u8>, t: u32) -> u64 {
        let on = |s: &&Seen| s.site == site && page.is_none_or(|p| s.page == p) && self.is_online(s, t);
        self.seen.values().filter(on).count() as u64
    }

    /// A sign of life; whether it is a visit, were it a view.
    fn sign(&mut self, key: u64, site: SiteId, page: u8, is_view: bool, t: u32) -> bool {
        let alive = self.seen.get(&key).is_some_and(|seen| self.is_alive(seen, t));
        let seen = self.seen.entry(key).or_insert(Seen {
            site,
            page,
            sign: t,
            left: None,
            begun: false,
            counted: false,
        });
        let visit = !(alive && seen.counted);
        (seen.begun, seen.counted) = if is_view { (true, true) } else { (alive, alive && seen.counted) };
        (seen.page, seen.sign, seen.left) = (page, t, None);
        visit
    }
}

struct Run {
    real: Sessions,
    model: Model,
    clock: Clock,
    hand: Hand,
    day: u64,
    max: usize,
}

impl Run {
    fn new(window: u32, timeout: u32, max: usize) -> Run {
        let (clock, hand) = Clock::by_hand(1_700_000_000_000);
        let real = table(window.into(), timeout.into(), max, &clock);
        Run { real, model: Model { seen: BTreeMap::new(), window, timeout }, clock, hand, day: 1, max }
    }

    fn key(&self, who: u8, site: u16, day: u64) -> u64 {
        u64::from(who) * 10 + u64::from(site) + day * 1000
    }

    fn holds(&self, key: u64) -> bool {
        self.real.map.contains_key(&key.into())
    }

    fn step(&mut self, step: &Step) {
        let now = self.clock.now();
        match *step {
            Step::Beacon { kind, who, site, page, carries } => self.beacon(kind, who, site, page, carries),
            Step::Pass { seconds } => self.hand.advance(Duration::from_secs(seconds.into())),
            Step::NextDay => self.day += 1,
            Step::Uncount { who, site } => {
                let key = self.key(who, site, self.day);
                self.real.uncount(VisitorId(key));
                if let Some(seen) = self.model.seen.get_mut(&key) {
                    seen.counted = false;
                }
            }
            Step::Sweep { limit } => {
                self.real.sweep(now, limit);
            }
            Step::Restart { elapsed } => {
                let export = exported(&self.real, now);
                self.hand.advance(Duration::from_secs(elapsed.into()));
                let (window, timeout) = (self.model.window.into(), self.model.timeout.into());
                self.real = table(window, timeout, self.max, &self.clock);
                self.real.restore(&export, elapsed, self.clock.now());
            }
            Step::Look => self.look(),
        }
        assert!(self.real.held() <= self.max);
        assert_eq!(self.real.held(), self.real.map.len());
        let guests = self.real.map.iter().filter(|session| !session.is(BEGUN)).count();
        assert_eq!(self.real.guests(), guests);
    }

    fn beacon(&mut self, kind: Kind, who: u8, site: u16, page: u8, carries: bool) {
        let (now, t) = (self.clock.now(), self.clock.now().uptime_s());
        let today = self.key(who, site, self.day);
        let yesterday = carries.then(|| self.key(who, site, self.day - 1));
        let (site, who) = (SiteId(site), visitor(today, yesterday));
        if let Kind::Leave = kind {
            let known = [Some(today), yesterday].into_iter().flatten().find(|key| self.holds(*key));
            self.real.leave(who, &page_of(site, page), now);
            let seen = known.and_then(|key| self.model.seen.get_mut(&key));
            if let Some(seen) = seen.filter(|seen| seen.page == page) {
                seen.left.get_or_insert(t);
            }
            return;
        }
        if !self.holds(today) {
            // What is not held any more must be over.
            let gone = self.model.seen.remove(&today);
            assert!(gone.is_none_or(|s| !self.model.is_alive(&s, t) && !self.model.is_online(&s, t)));
            if let Some(key) = yesterday.filter(|key| self.holds(*key)) {
                let moved = self.model.seen.remove(&key).unwrap();
                self.model.seen.insert(today, moved);
            } else if self.real.held() >= self.max
                || matches!(kind, Kind::Ping) && self.real.guests() >= most_guests(self.max)
            {
                match kind {
                    Kind::View => {
                        let seen = self.real.observe(who, site, &page_of(site, page), now);
                        assert_eq!(seen, Sighting::Full);
                    }
                    _ => {
                        let seen = self.real.ping(who, site, &page_of(site, page), now);
                        assert_eq!(seen, Sighting::Full);
                    }
                }
                assert!(!self.holds(today));
                return;
            }
        }
        if let Kind::View = kind {
            let seen = self.real.observe(who, site, &page_of(site, page), now);
            let visit = self.model.sign(today, site, page, true, t);
            assert_eq!(seen, if visit { Sighting::Visit } else { Sighting::Known });
        } else {
            let seen = self.real.ping(who, site, &page_of(site, page), now);
            self.model.sign(today, site, page, false, t);
            let goes_on = self.model.seen.get(&today).is_some_and(|session| session.counted);
            assert_eq!(seen, if goes_on { Sighting::Known } else { Sighting::NoSession });
        }
        assert!(self.holds(today));
    }

    fn look(&self) {
        let now = self.clock.now();
        let t = now.uptime_s();
        for site in (0..SITES).map(SiteId) {
            assert_eq!(self.real.online(site, now), self.model.online(site, None, t), "site {site:?}");
            for page in 0..PAGES {
                let shown = self.real.page_online(&page_of(site, page), now);
                assert_eq!(shown, self.model.online(site, Some(page), t), "{site:?} page {page}");
            }
        }
        for (key, seen) in &self.model.seen {
            let lives = self.model.is_online(seen, t) || self.model.is_alive(seen, t);
            assert!(!lives || self.holds(*key), "{key} is not over and not held");
        }
    }

    /// At the end nobody is left, in the table or in a wheel.
    fn end(&self) {
        for seconds in [LEAVE_GRACE_S, self.model.window, self.model.timeout, self.model.timeout + 2] {
            self.hand.advance(Duration::from_secs(u64::from(seconds) + 1));
            for _ in 0..100_000 {
                if !self.real.sweep(self.clock.now(), 1) {
                    break;
                }
            }
            assert!(!self.real.sweep(self.clock.now(), 1), "a sweep never ends");
        }
        assert!(self.real.held() == 0, "{} are left", self.real.held());
        assert_eq!(entries(&self.real), [0, 0, 0]);
        assert!(self.real.presence().pages(0, usize::MAX).iter().all(|(_, text)| text.is_empty()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn sessions_are_what_the_definitions_say(
        (window, timeout) in prop_oneof![Just((10, 10)), Just((60, 300)), Just((300, 1800))],
        max in prop_oneof![Just(3usize), Just(1000)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(window, timeout, max);
        for step in &steps {
            run.step(step);
        }
        run.look();
        run.end();
    }
}

#[test]
fn the_wheels_hold_two_entries_a_session_however_often_it_gives_a_sign() {
    let (clock, hand) = Clock::by_hand(0);
    let real = table(300, 1800, 1000, &clock);
    let page = page_of(SiteId(0), 0);
    for second in 0..4000u64 {
        hand.advance(Duration::from_secs(1));
        let now = clock.now();
        for who in 0..20 {
            match (second + who) % 3 {
                0 => _ = real.observe(visitor(who, None), SiteId(0), &page, now),
                1 => _ = real.ping(visitor(who, None), SiteId(0), &page, now),
                _ => real.leave(visitor(who, None), &page, now),
            }
        }
        while real.sweep(now, 7) {}
        let [online, ended, leaving] = entries(&real);
        assert!(online <= 20 && ended <= 20, "{online} and {ended} entries after {second} s");
        assert!(leaving <= 20, "{leaving} entries of those who left after {second} s");
        assert_eq!(real.online(SiteId(0), now), if second == 0 { 14 } else { 20 });
    }
}

#[test]
fn a_sweep_in_small_steps_ends_although_visitors_come_back_a_whole_turn_later() {
    let (clock, hand) = Clock::by_hand(0);
    let real = table(10, 10, 1000, &clock);
    let page = page_of(SiteId(0), 0);
    let observe =
        || (1..=3).for_each(|who| _ = real.observe(visitor(who, None), SiteId(0), &page, clock.now()));
    observe();
    // The expiry comes two seconds late, and the next deadline is one turn of the wheel after the first.
    hand.advance(Duration::from_secs(12));
    observe();
    let steps = (0..1000).take_while(|_| real.sweep(clock.now(), 1)).count();
    assert!(steps < 1000, "it goes round and round");
    assert_eq!(real.online(SiteId(0), clock.now()), 3);
}

#[test]
fn a_visit_that_was_undone_is_counted_with_the_next_view() {
    let (clock, _hand) = Clock::by_hand(0);
    let real = table(300, 1800, 10, &clock);
    let page = page_of(SiteId(0), 0);
    let observe = || real.observe(visitor(1, None), SiteId(0), &page, clock.now());
    assert_eq!((observe(), observe()), (Sighting::Visit, Sighting::Known));
    real.uncount(VisitorId(1));
    assert_eq!((observe(), observe()), (Sighting::Visit, Sighting::Known));
    assert_eq!(real.observe(None, SiteId(0), &page, clock.now()), Sighting::Anonymous);
}

#[test]
fn threads_lose_no_visitor_and_leave_none_behind() {
    let (clock, hand) = Clock::by_hand(0);
    let real = table(10, 20, 100_000, &clock);
    std::thread::scope(|scope| {
        let (real, clock, hand) = (&real, &clock, &hand);
        for lane in 0..2u64 {
            scope.spawn(move || {
                for n in 0..3000 {
                    let (who, page) =
                        (visitor(lane * 1000 + n % 500, None), page_of(SiteId(0), (n % 3) as u8));
                    match n % 5 {
                        4 => real.leave(who, &page, clock.now()),
                        3 => _ = real.ping(who, SiteId(0), &page, clock.now()),
                        _ => _ = real.observe(who, SiteId(0), &page, clock.now()),
                    }
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..200 {
                hand.advance(Duration::from_secs(1));
                real.sweep(clock.now(), 50);
                real.online(SiteId(0), clock.now());
                exported(real, clock.now());
            }
        });
    });
    real.observe(visitor(1, None), SiteId(0), &page_of(SiteId(0), 0), clock.now());
    assert!(real.online(SiteId(0), clock.now()) >= 1);
    // Who goes offline at the end of a long gap ends with the next second.
    for seconds in [60, 1] {
        hand.advance(Duration::from_secs(seconds));
        while real.sweep(clock.now(), 50) {}
    }
    assert_eq!((real.online(SiteId(0), clock.now()), real.held()), (0, 0));
}

#[test]
fn looking_ahead_sees_who_stays_on_a_page_and_changes_nothing() {
    let (clock, _hand) = Clock::by_hand(0);
    let (site, now) = (SiteId(0), clock.now());
    let table = table(300, 1800, 1000, &clock);
    let pages = [page_of(site, 0), page_of(site, 1)];
    for who in 0..100 {
        table.observe(visitor(who, None), site, &pages[who as usize % 2], now);
    }
    let before = exported(&table, now);
    let ahead = |who: std::ops::Range<u64>| {
        let views: Vec<_> = who.map(|who| (visitor(who, None), &pages[0])).collect();
        table.look_ahead(views.into_iter())
    };
    assert_eq!(ahead(0..1000), 50, "every other one of those that are known");
    assert_eq!(ahead(100..1100), 0);
    assert_eq!(ahead(0..1), 0, "one view is looked up when it is observed");
    assert_eq!(exported(&table, now), before);
}

#[test]
fn a_site_that_fills_the_table_leaves_others_their_part_and_gets_no_room_back_before_time() {
    let (clock, hand) = Clock::by_hand(0);
    let real = table(10, 10, 100, &clock);
    real.share_among(2);
    let views = |site: u16, from: u64, readers: u64| {
        let page = page_of(SiteId(site), 0);
        let view = |who: &u64| real.observe(visitor(*who, None), SiteId(site), &page, clock.now());
        (from..from + readers).filter(|who| view(who) == Sighting::Visit).count()
    };
    assert_eq!((views(0, 1, 100), views(1, 1001, 100), real.held()), (75, 25, 100));
    assert_eq!(real.metrics_of_bounds(), 25.0 + 75.0);
    hand.advance(Duration::from_secs(12));
    while real.sweep(clock.now(), 7) {}
    assert_eq!((real.held(), views(1, 2001, 100), views(0, 3001, 100)), (0, 75, 25));
}

#[test]
fn pings_alone_take_a_quarter_of_the_table_and_a_view_needs_no_more_room_than_they_took() {
    let (clock, hand) = Clock::by_hand(0);
    let real = table(10, 10, 100, &clock);
    let page = page_of(SiteId(0), 0);
    let sign = |who: u64, is_view: bool| match is_view {
        true => real.observe(visitor(who, None), SiteId(0), &page, clock.now()),
        false => real.ping(visitor(who, None), SiteId(0), &page, clock.now()),
    };
    let shed = (1..=1500).filter(|who| sign(*who, false) == Sighting::Full).count();
    assert_eq!((shed, real.held(), real.guests()), (1475, 25, 25));
    assert_eq!((1001..=1200).filter(|who| sign(*who, true) == Sighting::Visit).count(), 75);
    assert_eq!(sign(1, true), Sighting::Visit, "it has its room");
    assert_eq!((real.held(), real.guests(), sign(2000, false)), (100, 24, Sighting::Full));
    assert_eq!(real.metrics_of_bounds(), 1475.0 + 125.0 + 1.0);
    hand.advance(Duration::from_secs(12));
    while real.sweep(clock.now(), 7) {}
    assert_eq!((real.held(), real.guests(), sign(2000, false)), (0, 0, Sighting::NoSession));
}

#[test]
fn sessions_are_taken_back_whatever_room_is_left() {
    let (clock, _hand) = Clock::by_hand(0);
    let real = table(10, 10, 100, &clock);
    let page = page_of(SiteId(0), 0);
    for who in 1..=100 {
        real.observe(visitor(who, None), SiteId(0), &page, clock.now());
    }
    // Other sites have come, and the bound is lower.
    let later = table(10, 10, 50, &clock);
    later.share_among(4);
    later.restore(&exported(&real, clock.now()), 1, clock.now());
    let view = |who| later.observe(visitor(who, None), SiteId(0), &page, clock.now());
    assert!((1..=100).all(|who| view(who) == Sighting::Known));
    assert_eq!((later.held(), view(101)), (100, Sighting::Full));
}

#[test]
fn pages_beyond_the_bound_of_all_sites_are_one_page_and_take_no_memory() {
    let (clock, hand) = Clock::by_hand(0);
    let config = Config {
        online_window: Duration::from_secs(60),
        visit_timeout: Duration::from_secs(60),
        max_sessions: 1000,
        max_pages: 4,
    };
    let metrics = Arc::new(Metrics::new(&Sites::default(), 1000).unwrap());
    let real = Sessions::new(config.clone(), usize::from(SITES), metrics, clock.now());
    real.share_among(2);
    let observe = |who: u64, site: u16, page: u8| {
        real.observe(visitor(who, None), SiteId(site), &page_of(SiteId(site), page), clock.now())
    };
    for who in 0..20u8 {
        observe(who.into(), 0, who);
    }
    observe(100, 1, 0);
    let now = clock.now();
    let online = |page| real.page_online(&page_of(SiteId(0), page), now);
    assert_eq!((online(0), online(2), online(3), real.online(SiteId(0), now)), (1, 1, 0, 20));
    let kept = |real: &Sessions| {
        real.presence().pages(0, usize::MAX).iter().filter(|(_, text)| !text.is_empty()).count()
    };
    // One is kept for the other site.
    assert_eq!(kept(&real), 3 + 1 + 1);
    observe(101, 1, 1);
    assert_eq!(kept(&real), 3 + 1 + 1 + 1, "all share one bound");
    assert_eq!(real.metrics_of_bounds(), 18.0);
    // Who is on a page without a place stays there, and can leave it.
    observe(19, 0, 19);
    assert_eq!(real.metrics_of_bounds(), 18.0);
    real.leave(visitor(19, None), &page_of(SiteId(0), 19), now);
    // Who left another one has not left.
    real.leave(visitor(18, None), &page_of(SiteId(0), 0), now);
    // Pages without a place are told apart by a byte of their keys, which some share.
    let on = page_of(SiteId(0), 17);
    let other = (0..16).map(|page| page_of(SiteId(0), page)).find(|page| mark(page) != mark(&on));
    real.leave(visitor(17, None), &other.unwrap(), now);
    hand.advance(Duration::from_secs(31));
    assert_eq!(real.online(SiteId(0), clock.now()), 19);
    hand.advance(Duration::from_secs(60));
    while real.sweep(clock.now(), 7) {}
    assert_eq!((real.online(SiteId(0), clock.now()), kept(&real)), (0, 0));
    // All of the room is there again.
    for who in 0..4 {
        observe(who.into(), u16::from(who == 3), who);
    }
    assert_eq!((kept(&real), real.metrics_of_bounds()), (4, 18.0));
    // Pages that are taken back take their room, and `(other)` takes none.
    let saved = exported(&real, clock.now());
    let later = Sessions::new(config, usize::from(SITES), real.metrics.clone(), clock.now());
    later.share_among(2);
    later.restore(&saved, 1, clock.now());
    assert_eq!((kept(&later), real.metrics_of_bounds()), (4, 18.0));
    hand.advance(Duration::from_secs(200));
    while later.sweep(clock.now(), 7) {}
    assert_eq!(kept(&later), 0);
}

impl Sessions {
    /// How often a bound rejected something.
    fn metrics_of_bounds(&self) -> f64 {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        let bounds = text.lines().filter(|line| line.starts_with("footfall_bounds_reached_total"));
        bounds.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}
