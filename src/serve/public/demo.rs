//! `/demo`: an article of a newspaper that shows what the service can do, while the site `demo` is registered.
//! Its text is Vietnamese, as that of the first newspaper.

use hyper::header::HeaderValue;

use super::context::{ReadRequest, Reply};
use super::{known::SiteRead, widget};
use crate::ingest;
use crate::serve::answer::{self, Fault, html};
use crate::serve::shown::figure::Figure;

/// The site of these pages.
pub const SITE: &str = "demo";

const LANG: &str = "vi";

/// What a page may load: nothing from other hosts, and no script or style written into the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

const PAGE: &str = include_str!("demo/page.html");
const CSS: &str = include_str!("demo/demo.css");
const JS: &str = include_str!("demo/demo.js");

/// An article: its path, which is also its page in the figures; and its section, its title and its text, the first
/// two of one line each.
type Article = (&'static str, &'static str);

/// The first is the page `/demo` itself.
const ARTICLES: [Article; 4] = [
    ("/demo", include_str!("demo/suong-som.html")),
    ("/demo/cho-phien", include_str!("demo/cho-phien.html")),
    ("/demo/cau-treo", include_str!("demo/cau-treo.html")),
    ("/demo/thu-vien", include_str!("demo/thu-vien.html")),
];

/// Section, title and text of an article's file.
fn parts(file: &str) -> (&str, &str, &str) {
    let mut parts = file.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    (part(), part(), part())
}

/// `/`: to the demo.
pub fn entrance(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let ReadRequest { public, uri, .. } = request;
    public.parts.sites.load().get(SITE).ok_or(Fault::NotFound)?;
    // A relative location would need the slash that a browser may have left out behind the mount.
    let mount = if uri.path().ends_with('/') { String::new() } else { public.config.mount.clone() + "/" };
    let location = HeaderValue::try_from(mount + "demo").unwrap_or(HeaderValue::from_static("/demo"));
    Ok(Reply::Now(answer::redirect(location)))
}

pub fn stylesheet(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    Ok(Reply::Now(answer::unless_held(request.headers, CSS.into(), answer::CSS, answer::AN_HOUR)))
}

pub fn script(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    Ok(Reply::Now(answer::unless_held(request.headers, JS.into(), answer::JAVASCRIPT, answer::AN_HOUR)))
}

/// Shows an article.
pub fn article(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let (path, root) = match request.name {
        "" => ("/demo".to_owned(), ""),
        name => (format!("/demo/{name}"), "../"),
    };
    let site = request.public.parts.sites.load().get(SITE).cloned().ok_or(Fault::NotFound)?;
    let article = ARTICLES.iter().find(|(known, _)| *known == path).ok_or(Fault::NotFound)?;
    let page = ingest::read_page(&site, &path).ok();
    let (public, headers) = (request.public.clone(), request.headers);
    let read = SiteRead { public, site, page, headers, absent: Default::default() };
    Ok(read.once_known(move |read| {
        let html = filled(&read, article, root);
        let response = answer::unless_held(read.headers, html.into(), answer::HTML, answer::NO_STORE);
        answer::guarded(response, POLICY)
    }))
}

/// The page of an article, from which `root` leads to where the service begins.
fn filled(read: &SiteRead, article: &Article, root: &str) -> String {
    let current = read.current_figures();
    let lists = read.public.parts.lists.load();
    let labels = lists.languages.of(Some(LANG), &read.site.locale);
    let views = Figure::named("page.views.all").and_then(|figure| current.of(figure));
    let others: String = ARTICLES
        .iter()
        .filter(|(path, _)| *path != article.0)
        .map(|(path, file)| {
            let (section, title, _) = parts(file);
            let here = path.strip_prefix('/').unwrap_or(path);
            format!(
                "<li><span class=\"section\">{section}</span> <a href=\"{root}{here}\">{title}</a> \
                 <span class=\"views\">Lượt xem: <span data-footfall-page=\"{path}\" \
                 data-footfall=\"page.views.all\"></span></span></li>\n"
            )
        })
        .collect();
    let (section, title, body) = parts(article.1);
    html::filled(
        PAGE,
        &[
            ("body", body),
            ("others", &others),
            ("block", &widget::fragment(labels, &widget::lines(&current, labels))),
            ("title", title),
            ("section", section),
            ("path", article.0),
            ("views", &views.map_or(String::new(), |views| labels.grouped(views))),
            ("root", root),
        ],
    )
}
