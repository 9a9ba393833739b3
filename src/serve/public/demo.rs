//! `/demo`: an article of a newspaper that shows what the service can do, while the site `demo` is registered.
//! Its text is Vietnamese, as that of the first newspaper.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

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

struct Article {
    /// Its path, which is also its page in the figures.
    path: &'static str,
    title: &'static str,
    section: &'static str,
    body: &'static str,
}

/// The first is the page `/demo` itself.
const ARTICLES: [Article; 4] = [
    Article {
        path: "/demo",
        title: "Sương sớm giữ chân người trồng hoa ở thung lũng Đạ Sương",
        section: "Đời sống",
        body: include_str!("demo/suong-som.html"),
    },
    Article {
        path: "/demo/cho-phien",
        title: "Chợ phiên họp lại sau ba năm, bà con mang theo cả tiếng khèn",
        section: "Văn hóa",
        body: include_str!("demo/cho-phien.html"),
    },
    Article {
        path: "/demo/cau-treo",
        title: "Cây cầu treo mới rút ngắn đường đến trường còn mười phút",
        section: "Xã hội",
        body: include_str!("demo/cau-treo.html"),
    },
    Article {
        path: "/demo/thu-vien",
        title: "Thư viện trên xe buýt: hai nghìn cuốn sách đi qua mười một xã",
        section: "Giáo dục",
        body: include_str!("demo/thu-vien.html"),
    },
];

/// `/`: to the demo.
pub fn entrance(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let ReadRequest { public, uri, .. } = request;
    public.parts.sites.load().get(SITE).ok_or(Fault::NotFound)?;
    // A relative location would need the slash that a browser may have left out behind the mount.
    let mount = if uri.path().ends_with('/') { String::new() } else { public.mount.clone() + "/" };
    let location = HeaderValue::try_from(mount + "demo").unwrap_or(HeaderValue::from_static("/demo"));
    Ok(Reply::Now(answer::redirect(location)))
}

pub fn lead(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    show(request, "/demo", "")
}

pub fn article(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let path = format!("/demo/{}", request.name);
    show(request, &path, "../")
}

pub fn stylesheet(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    Ok(Reply::Now(answer::unless_held(request.headers, CSS.into(), answer::CSS, answer::AN_HOUR)))
}

/// Shows an article; `root` leads from it to where the service begins.
fn show(request: ReadRequest<'_>, path: &str, root: &'static str) -> Result<Reply, Fault> {
    let site = request.public.parts.sites.load().get(SITE).cloned().ok_or(Fault::NotFound)?;
    let article = ARTICLES.iter().find(|article| article.path == path).ok_or(Fault::NotFound)?;
    let page = ingest::read_page(&site, path).ok();
    let read = SiteRead { public: request.public.clone(), site, page, headers: request.headers };
    Ok(read.once_known(move |read| {
        let html = filled(&read, article, root);
        let mut response = answer::unless_held(read.headers, html.into(), answer::HTML, answer::NO_STORE);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
        response
    }))
}

fn filled(read: &SiteRead, article: &Article, root: &str) -> String {
    let current = read.current_figures();
    let lists = read.public.parts.lists.load();
    let labels = lists.languages.of(Some(LANG), &read.site.locale);
    let views = Figure::named("page.views.all").and_then(|figure| current.of(figure));
    let others: String = ARTICLES
        .iter()
        .filter(|other| other.path != article.path)
        .map(|Article { path, title, section, .. }| {
            let here = path.strip_prefix('/').unwrap_or(path);
            format!(
                "<li><span class=\"section\">{section}</span> <a href=\"{root}{here}\">{title}</a> \
                 <span class=\"views\">Lượt xem: <span data-footfall-page=\"{path}\" \
                 data-footfall=\"page.views.all\"></span></span></li>\n"
            )
        })
        .collect();
    html::filled(
        PAGE,
        &[
            ("body", article.body),
            ("others", &others),
            ("block", &widget::fragment(labels, &widget::lines(&current, labels))),
            ("title", article.title),
            ("section", article.section),
            ("path", article.path),
            ("views", &views.map_or(String::new(), |views| labels.grouped(views))),
            ("root", root),
        ],
    )
}
