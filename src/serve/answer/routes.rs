//! Tables of routes: which path and method leads to which handler.

use hyper::Method;
use hyper::header::HeaderValue;

/// Of a beacon.
pub const POST: Methods = Methods { taken: &[Method::POST], allow: "POST, OPTIONS", preflight: true };
/// Of what pages read; of a beacon's GIF too, whose head counts nothing.
pub const READ: Methods =
    Methods { taken: &[Method::GET, Method::HEAD], allow: "GET, HEAD, OPTIONS", preflight: true };
/// Of what operators read: not for pages of other origins.
pub const OPERATE: Methods =
    Methods { taken: &[Method::GET, Method::HEAD], allow: "GET, HEAD", preflight: false };

#[derive(Clone, Copy)]
pub struct Methods {
    taken: &'static [Method],
    allow: &'static str,
    /// Whether OPTIONS is answered for pages of other origins.
    preflight: bool,
}

impl Methods {
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

/// What a path and a method lead to.
pub enum Target<'p, H> {
    /// A handler, with what is in the path in place of the name in braces (empty without one).
    Handler(H, &'p str),
    /// The answer to a preflight.
    Preflight(Methods),
    /// A refusal: the path takes other methods.
    NotAllowed(H, Methods),
    /// A refusal: there is no such path.
    Missing,
}

pub struct Routes<H: 'static> {
    table: &'static [Route<H>],
    /// The path asked for most, which is compared before the router is asked.
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

    /// What a path and a method lead to, and the place of the path in the table; the table's length for a
    /// path that is not in it.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> (usize, Target<'p, H>) {
        let (place, name) = match self.first == Some(path) {
            true => (0, ""),
            false => self.router.at(path).map_or((self.table.len(), ""), |matched| {
                (*matched.value, matched.params.iter().next().map_or("", |(_, value)| value))
            }),
        };
        let target = match self.table.get(place) {
            None => Target::Missing,
            Some(route) if route.methods.taken.contains(method) => Target::Handler(route.handler, name),
            Some(route) if route.methods.preflight && method == Method::OPTIONS => {
                Target::Preflight(route.methods)
            }
            Some(route) => Target::NotAllowed(route.handler, route.methods),
        };
        (place, target)
    }

    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.table.iter().map(|route| route.path)
    }
}
