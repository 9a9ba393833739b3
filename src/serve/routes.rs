//! Which path and method is whose: one line a route.

use hyper::Method;
use hyper::header::HeaderValue;

use super::admin::{self, AdminHandler};
use super::public::PublicHandler;
use super::{badge, demo, live, overview, page, read, widget};

/// The routes of the public listener.
pub(super) const PUBLIC: &[Route<PublicHandler>] = &[
    Route { path: "/api/v1/beacon", methods: POST, handler: PublicHandler::Beacon },
    Route { path: "/api/v1/beacon.gif", methods: GET, handler: PublicHandler::Gif },
    Route {
        path: "/api/v1/sites/{site}/counters",
        methods: READ,
        handler: PublicHandler::Read(read::counters),
    },
    // Without HEAD, too: it would have to end.
    Route { path: "/api/v1/sites/{site}/live", methods: GET, handler: PublicHandler::Read(live::live) },
    Route { path: "/footfall.{file}", methods: READ, handler: PublicHandler::Read(page::script) },
    Route { path: "/api/v1/sites/{site}/pages", methods: READ, handler: PublicHandler::Read(read::pages) },
    Route { path: "/widget/{site}", methods: READ, handler: PublicHandler::Read(widget::widget) },
    Route { path: "/widget.css", methods: READ, handler: PublicHandler::Read(widget::stylesheet) },
    Route { path: "/badge/{site}.svg", methods: READ, handler: PublicHandler::Read(badge::badge) },
    Route { path: "/newsroom/{site}", methods: READ, handler: PublicHandler::Read(overview::newsroom) },
    Route { path: "/", methods: READ, handler: PublicHandler::Read(demo::entrance) },
    Route { path: "/demo", methods: READ, handler: PublicHandler::Read(demo::lead) },
    Route { path: "/demo/{article}", methods: READ, handler: PublicHandler::Read(demo::article) },
    Route { path: "/demo.css", methods: READ, handler: PublicHandler::Read(demo::stylesheet) },
];

/// The routes of the admin listener.
pub(super) const ADMIN: &[Route<AdminHandler>] = &[
    Route { path: "/", methods: OPERATE, handler: AdminHandler::Overview },
    Route { path: "/livez", methods: OPERATE, handler: AdminHandler::Now(admin::livez) },
    Route { path: "/metrics", methods: OPERATE, handler: AdminHandler::Now(admin::metrics) },
    Route { path: "/readyz", methods: OPERATE, handler: AdminHandler::Now(admin::readyz) },
];

const POST: Methods = Methods { taken: &[Method::POST], allow: "POST, OPTIONS", preflight: true };
/// Without HEAD: asking for the head of a GIF must not count.
const GET: Methods = Methods { taken: &[Method::GET], allow: "GET, OPTIONS", preflight: true };
const READ: Methods =
    Methods { taken: &[Method::GET, Method::HEAD], allow: "GET, HEAD, OPTIONS", preflight: true };
const OPERATE: Methods =
    Methods { taken: &[Method::GET, Method::HEAD], allow: "GET, HEAD", preflight: false };

/// The methods of a path.
#[derive(Clone, Copy)]
pub(super) struct Methods {
    taken: &'static [Method],
    allow: &'static str,
    /// Whether OPTIONS is answered for pages of other origins.
    preflight: bool,
}

impl Methods {
    /// The value of `Allow`.
    pub(super) fn allow(self) -> HeaderValue {
        HeaderValue::from_static(self.allow)
    }
}

/// A path, its methods and who answers. A path has at most one name in braces.
pub(super) struct Route<H: 'static> {
    pub(super) path: &'static str,
    pub(super) methods: Methods,
    pub(super) handler: H,
}

/// What a path and a method lead to, and the place of the path in its table, which ends with what has none.
pub(super) struct Way<'p, H> {
    pub(super) route: usize,
    pub(super) found: Found<'p, H>,
}

/// What a path and a method lead to.
pub(super) enum Found<'p, H> {
    /// To a handler, with what stands in the path for the name in braces (empty without one).
    Handler(H, &'p str),
    /// To the answer to a preflight.
    Preflight(Methods),
    /// Nowhere: the path takes other methods.
    NotAllowed(H, Methods),
    /// Nowhere.
    Missing,
}

/// A table of routes, ready to be asked.
pub(super) struct Routes<H: 'static> {
    table: &'static [Route<H>],
    /// The path asked for most is found by looking, and not by the router.
    first: Option<&'static str>,
    /// Places in the table.
    router: matchit::Router<usize>,
}

impl<H: Copy> Routes<H> {
    /// Takes a table, whose first path is the one asked for most.
    ///
    /// # Panics
    /// If two of its paths are the same: a fault in the table, found by the first test that asks.
    pub(super) fn new(table: &'static [Route<H>]) -> Self {
        let mut router = matchit::Router::new();
        for (place, route) in table.iter().enumerate() {
            if let Err(fault) = router.insert(route.path, place) {
                panic!("route {}: {fault}", route.path);
            }
        }
        let first = table.first().map(|route| route.path).filter(|path| !path.contains('{'));
        Routes { table, first, router }
    }

    /// Finds who answers.
    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Way<'p, H> {
        let (place, name) = match self.first == Some(path) {
            true => (0, ""),
            false => self.router.at(path).map_or((self.table.len(), ""), |matched| {
                (*matched.value, matched.params.iter().next().map_or("", |(_, value)| value))
            }),
        };
        let found = match self.table.get(place) {
            None => Found::Missing,
            Some(route) if route.methods.taken.contains(method) => Found::Handler(route.handler, name),
            Some(route) if route.methods.preflight && method == Method::OPTIONS => {
                Found::Preflight(route.methods)
            }
            Some(route) => Found::NotAllowed(route.handler, route.methods),
        };
        Way { route: place, found }
    }

    /// The paths of the table.
    pub(super) fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.table.iter().map(|route| route.path)
    }
}
