//! `/demo`: an article of a newspaper that shows what the service can do, while the site `demo` is registered.
//! It is Vietnamese, as the first newspaper, or English: as `?lang=` says, else as the browser prefers where the
//! site's locale is not Vietnamese.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use url::form_urlencoded;

use super::context::{ReadRequest, Reply};
use super::{known::SiteRead, widget};
use crate::ingest;
use crate::serve::answer::{self, Fault, html};
use crate::serve::shown::figure::Figure;

/// The site of these pages.
pub const SITE: &str = "demo";

/// What is said where there is nothing, in Vietnamese and in English.
pub const NOTHING: [&str; 2] = [include_str!("demo/nothing.vi.html"), include_str!("demo/nothing.en.html")];

/// What a page may load: nothing from other hosts, and no script or style written into the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

const PAGE: &str = include_str!("demo/page.html");
const CSS: &str = include_str!("demo/demo.css");
const JS: &str = include_str!("demo/demo.js");

/// What the page says beside the articles, a text a line with its name before it.
const WORDS: [&str; 2] = [include_str!("demo/words.vi"), include_str!("demo/words.en")];

/// An article: its path, which is also its page in the figures; and in Vietnamese and in English its section, its title
/// and its text, the first two of one line each.
type Article = (&'static str, [&'static str; 2]);

/// The first is the page `/demo` itself.
const ARTICLES: [Article; 4] = [
    ("/demo", [include_str!("demo/suong-som.html"), include_str!("demo/suong-som.en.html")]),
    ("/demo/cho-phien", [include_str!("demo/cho-phien.html"), include_str!("demo/cho-phien.en.html")]),
    ("/demo/cau-treo", [include_str!("demo/cau-treo.html"), include_str!("demo/cau-treo.en.html")]),
    ("/demo/thu-vien", [include_str!("demo/thu-vien.html"), include_str!("demo/thu-vien.en.html")]),
];

/// Section, title and text of an article's file.
fn parts(file: &str) -> (&str, &str, &str) {
    let mut parts = file.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    (part(), part(), part())
}

/// `/`: to the demo.
pub fn entrance(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let ReadRequest { public, uri, headers, .. } = request;
    if public.parts.sites.load().get(SITE).is_none() {
        return Ok(Reply::Now(answer::refused_to(&headers, Fault::NotFound, NOTHING)));
    }
    // A relative location would need the slash that a browser may have left out behind the mount.
    let mount = if uri.path().ends_with('/') { String::new() } else { public.config.mount.clone() + "/" };
    let location = HeaderValue::try_from(mount + "demo").unwrap_or(HeaderValue::from_static("/demo"));
    Ok(Reply::Now(answer::redirect(StatusCode::FOUND, location)))
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
    let site = request.public.parts.sites.load().get(SITE).cloned();
    let (Some(site), Some(article)) = (site, ARTICLES.iter().find(|(known, _)| *known == path)) else {
        return Ok(Reply::Now(answer::refused_to(&request.headers, Fault::NotFound, NOTHING)));
    };
    let asked = form_urlencoded::parse(request.query().as_bytes()).find(|(name, _)| name == "lang");
    let asked = asked.map(|(_, lang)| lang);
    let of_site = Some(&*site.locale).filter(|locale| locale.starts_with("vi"));
    let lang = answer::language(&request.headers, asked.as_deref().or(of_site)).unwrap_or_default();
    // Who has chosen a language stays with it.
    let query = asked.map_or("", |_| ["?lang=vi", "?lang=en"][lang]);
    let page = ingest::read_page(&site, &path).ok();
    let (public, headers) = (request.public.clone(), request.headers);
    let read = SiteRead { public, site, page, headers, absent: Default::default() };
    Ok(read.once_known(move |read| {
        let html = filled(&read, article, root, lang, query);
        let response = answer::unless_held(read.headers, html.into(), answer::HTML, answer::NO_STORE);
        answer::guarded(response, POLICY)
    }))
}

/// The page of an article, from which `root` leads to where the service begins. Links to others have the `query`.
fn filled(read: &SiteRead, article: &Article, root: &str, lang: usize, query: &str) -> String {
    let words: Vec<_> = WORDS[lang].lines().filter_map(|line| line.split_once(": ")).collect();
    let word = |name| words.iter().find(|(known, _)| *known == name).map_or("", |(_, word)| *word);
    let current = read.current_figures();
    let lists = read.public.parts.lists.load();
    let labels = lists.languages.of(Some(word("lang")), &read.site.locale);
    let views = Figure::named("page.views.all").and_then(|figure| current.of(figure));
    let others: String = ARTICLES
        .iter()
        .filter(|(path, _)| *path != article.0)
        .map(|(path, files)| {
            let (section, title, _) = parts(files[lang]);
            let views = word("views");
            let here = path.strip_prefix('/').unwrap_or(path);
            format!(
                "<li><span class=\"section\">{section}</span> <a href=\"{root}{here}{query}\">{title}</a> \
                 <span class=\"views\">{views}: <span data-footfall-page=\"{path}\" \
                 data-footfall=\"page.views.all\"></span></span></li>\n"
            )
        })
        .collect();
    let (section, title, body) = parts(article.1[lang]);
    let texts = [
        ("body", body),
        ("others", &others),
        ("block", &widget::fragment(labels, &widget::lines(&current, labels))),
        ("title", title),
        ("section", section),
        ("path", article.0),
        ("count", &views.map_or(String::new(), |views| labels.grouped(views))),
        ("root", root),
        ("query", query),
    ];
    html::filled(PAGE, &[&texts, &*words].concat())
}
