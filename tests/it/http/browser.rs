//! The page script in a real browser: the tests in `tests/browser`, run by Node on this very binary.

use crate::store::entries::{PAST, are_those_of_the_seed_on, visits_of};
use crate::support::harness::{Setup, TestApp, view};
use crate::support::node::run_in_a_browser;
use crate::support::service::my_turn;

#[test]
fn pages_count_and_are_filled_in_a_real_browser() {
    let _turn = my_turn();
    let of_the_page =
        ["page.test.mjs", "more.test.mjs", "any_page.test.mjs", "libraries.test.mjs", "firefox.test.mjs"];
    run_in_a_browser(&of_the_page, &[]);
    run_in_a_browser(&["demo.test.mjs", "overview.test.mjs", "robots.test.mjs"], &[]);
}

#[test]
fn the_seed_is_rendered_in_a_browser() {
    let _turn = my_turn();
    let demo = "[[site]]\nkey = \"demo\"\nhosts = [\"127.0.0.1\"]\ntime_zone = \"Asia/Ho_Chi_Minh\"\nlocale = \"vi\"\n\
                robots_allow = [\"HeadlessChrome\"]\n";
    let mut app = TestApp::start(Setup::default().sites(demo));
    app.compares_pages = false;
    let past =
        PAST.replace("lamdong,", "demo,").replace("https://www.baolamdong.vn/bai-viet/1.html", "/demo");
    let file = app.write("past.csv", &past);
    app.ordered(&["import", &file]);
    assert_eq!(visits_of(&app, "demo"), [1_316_656, 0, 10_133, 53_735, 634_697]);
    for reader in 0..60 {
        app.take(&view("/").with("site", "demo").from(&format!("113.160.1.{reader}")));
    }
    // The last one reads the article.
    app.note("demo", "/demo", None);
    run_in_a_browser(&["seed.test.mjs"], &[("FOOTFALL_URL", &format!("http://{}", app.public()))]);
    are_those_of_the_seed_on(&app, "demo", "/demo");
}
