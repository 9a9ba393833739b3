//! `/` of the admin listener: the page of figures of every site.

use std::sync::Arc;

use hyper::Uri;

use crate::serve::answer::Response;
use crate::serve::overview;
use crate::serve::parts::Parts;
use crate::sites::Site;

/// Most sites whose past is loaded for one reader; the next reading loads more.
const LOADS: usize = 16;

/// `GET /`, with links to the `others` of the listener's paths.
pub async fn overview(parts: &Parts, uri: &Uri, others: impl Iterator<Item = &str>) -> Response {
    let sites = parts.sites.load_full();
    let to_load: Vec<&Arc<Site>> =
        sites.iter().filter(|site| overview::is_due(parts, site)).take(LOADS).collect();
    for site in to_load {
        overview::know(parts, site).await;
    }
    let sections: String = sites.iter().map(|site| overview::section(parts, site)).collect();
    let links: String = others.map(|path| format!(" · <a href=\"{path}\">{path}</a>")).collect();
    let footer = format!("footfall {}{links}", env!("CARGO_PKG_VERSION"));
    let figures = overview::health::list(parts, true) + &sections;
    overview::answer(overview::is_part(uri), "footfall overview", "Overview", &figures, &footer)
}
