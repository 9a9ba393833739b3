//! `/newsroom/{site}?token=`: the page of figures of one site, for whoever has its token.

use url::form_urlencoded;

use super::context::{ReadRequest, Reply};
use crate::serve::answer::Fault;
use crate::serve::{answer, overview};

/// What whoever has another link is told.
const CLOSED: [&str; 2] = [include_str!("newsroom/closed.vi.html"), include_str!("newsroom/closed.en.html")];

pub fn newsroom(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let headers = &request.headers;
    let refused = |fault| Ok(Reply::Now(answer::unlisted(answer::refused_to(headers, fault, CLOSED))));
    let site = request.public.parts.sites.load().get(request.name).cloned();
    let Some((site, token)) = site.and_then(|site| Some((site.clone(), site.newsroom_token.clone()?))) else {
        return refused(Fault::NotFound);
    };
    let given = form_urlencoded::parse(request.query().as_bytes()).find(|(name, _)| name == "token");
    if !given.is_some_and(|(_, given)| token.is(&given)) {
        return refused(Fault::WrongToken);
    }
    let (parts, is_part) = (request.public.parts.clone(), overview::is_part(request.uri));
    Ok(Reply::Later(Box::pin(async move {
        overview::know(&parts, &site).await;
        let title = format!("{} newsroom", site.key);
        let figures = overview::health::list(&parts, false) + &overview::section(&parts, &site);
        overview::answer(answer::unlisted_page, is_part, [&title, "Newsroom", &figures, ""])
    })))
}
