//! Which path and method is whose: one line a route.

use hyper::Method;
use hyper::header::HeaderValue;

use crate::serve::admin::{self, AdminHandler};
use crate::serve::public::context::PublicHandler;
use crate::serve::public::{badge, counters, demo, script, widget};
use crate::serve::{live, overview};

/// The routes of the public listener.
pub const PUBLIC: &[Route<PublicHandler>] = &[
    Route { path: "/api/v1/beacon", methods: POST, handler: PublicHandler::Beacon },
    Route { path: "/api/v1/beacon.gif", methods: GET, handler: PublicHandler::Gif },
    Route {
        path: "/api/v1/sites/{site}/counters",
        methods: READ,
        handler: PublicHandler::Read(counters::counters),
    },
    // Without HEAD, too: it would have to end.
    Route { path: "/api/v1/sites/{site}/live", methods: GET, handler: PublicHandler::Read(live::live) },
    Route { path: "/footfall.{file}", methods: READ, handler: PublicHandler::Read(script::script) },
    Route {
        path: "/api/v1/sites/{site}/pages",
        methods: READ,
        handler: PublicHandler::Read(counters::pages),
    },
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
pub const ADMIN: &[Route<AdminHandler>] = &[
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
pub struct Methods {
    taken: &'static [Method],
    allow: &'static str,
    /// Whether OPTIONS is answered for pages of other origins.
    preflight: bool,
}

impl Methods {
    /// The value of `Allow`.
    pub fn allow(self) -> HeaderValue {
        HeaderValue::from_static(self.allow)
    }
}

/// A path, its methods and who answers. A path has at most one name in braces.
pub struct Route<H: 'static> {
    pub path: &'static str,
    pub methods: Methods,
    pub handler: H,
}

/// What a path and a method lead to, and the place of the path in its table, which ends with what has none.
pub struct Way<'p, H> {
    pub route: usize,
    pub found: Found<'p, H>,
}

/// What a path and a method lead to.
pub enum Found<'p, H> {
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
pub struct Routes<H: 'static> {
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
    pub fn new(table: &'static [Route<H>]) -> Self {
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
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Way<'p, H> {
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
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.table.iter().map(|route| route.path)
    }
}
