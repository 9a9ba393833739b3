//! `/demo`: an article of a newspaper that shows what there is, while the site `demo` is registered. Its
//! text is Vietnamese, as the first newspaper's was.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use crate::ingest::{self, Page};
use crate::serve::answer::{self, Fault};
use crate::serve::public::context::{Asked, Reply};
use crate::serve::public::counters::{self, Ready};
use crate::serve::public::widget::{self, Figure, Known};
use crate::sites::Site;

/// The site whose pages these are.
pub const SITE: &str = "demo";

/// The language of the pages.
const LANG: &str = "vi";

/// What a page may load: nothing from elsewhere, and no script or style of its own text.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

const PAGE: &str = include_str!("demo/page.html");
const CSS: &str = include_str!("demo/demo.css");

struct Article {
    /// Its path, and its name in the site's figures.
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

/// `GET /`: to the demo.
pub fn entrance(asked: Asked<'_>) -> Reply {
    if asked.public.parts.sites.load().get(SITE).is_none() {
        return Reply::Now(answer::refused(Fault::NotFound));
    }
    // Below a path the browser may have left out the slash that a relative way needs.
    let mount =
        if asked.uri.path().ends_with('/') { String::new() } else { asked.public.mount.clone() + "/" };
    let location = HeaderValue::try_from(mount + "demo").unwrap_or(HeaderValue::from_static("/demo"));
    Reply::Now(answer::see(location))
}

/// `GET /demo`.
pub fn lead(asked: Asked<'_>) -> Reply {
    show(asked, "/demo", "")
}

/// `GET /demo/{article}`.
pub fn article(asked: Asked<'_>) -> Reply {
    let path = format!("/demo/{}", asked.name);
    show(asked, &path, "../")
}

/// `GET /demo.css`.
pub fn stylesheet(asked: Asked<'_>) -> Reply {
    Reply::Now(counters::unless_held(asked.headers, CSS.into(), answer::CSS, answer::AN_HOUR))
}

/// Shows an article; `root` leads from it to where the service begins.
fn show(asked: Asked<'_>, path: &str, root: &'static str) -> Reply {
    let site = asked.public.parts.sites.load().get(SITE).cloned();
    let article = ARTICLES.iter().find(|article| article.path == path);
    let (Some(site), Some(article)) = (site, article) else {
        return Reply::Now(answer::refused(Fault::NotFound));
    };
    let page = ingest::read_page(&site, path).ok();
    counters::once_known(asked, site, page, move |ready, site, page| {
        let html = filled(&ready, site, page, article, root);
        let mut response = counters::unless_held(ready.headers, html.into(), answer::HTML, answer::NO_STORE);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
        response
    })
}

fn filled(ready: &Ready, site: &Site, page: Option<&Page>, article: &Article, root: &str) -> String {
    let known = Known::now(&ready.public, site, page);
    let lists = ready.public.parts.lists.load();
    let words = lists.languages.of(Some(LANG), &site.locale);
    let views = Figure::named("page.views.all").and_then(|figure| known.of(figure));
    let views = views.map_or(String::new(), |views| words.grouped(views));
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
    let block = widget::fragment(words, &widget::lines(&known, words));
    let mut html = PAGE.to_owned();
    for (name, text) in [
        ("{body}", article.body),
        ("{others}", &others),
        ("{block}", &block),
        ("{title}", article.title),
        ("{section}", article.section),
        ("{path}", article.path),
        ("{views}", &views),
        ("{root}", root),
    ] {
        html = html.replace(name, text);
    }
    html
}
