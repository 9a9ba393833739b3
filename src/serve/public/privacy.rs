//! `/privacy`: what is kept of readers, where and for how long, under the settings in force. It is for programs, and for
//! whoever has to answer for it.

use serde_json::{Value, json};

use super::context::{ReadRequest, Reply};
use crate::serve::answer::{self, Fault};
use crate::serve::parts::Kept;
use crate::sites::{Identity, ReadKind, Signal, Site};

pub fn privacy(request: ReadRequest<'_>) -> Result<Reply, Fault> {
    let parts = &request.public.parts;
    let sites: Vec<Value> = parts.sites.load().iter().map(|site| of_site(site)).collect();
    let statement = json!({
        "service": concat!("footfall ", env!("CARGO_PKG_VERSION")),
        "address_stored": false,
        "user_agent_stored": false,
        "referrer_stored": false,
        "cookies_for_readers": false,
        "in_memory_only": [
            "address and user agent of a request, until it is answered; hashed with a salt they tell visitors apart",
            "addresses of open connections and of live readers, as long as they are open",
            "hashes of addresses and visitors, under a key of this process, for limits",
            "addresses of proxies, and of machines without a public address that name a client",
        ],
        "stored": stored(&parts.kept),
        "sites": sites,
    });
    let text = format!("{statement:#}\n");
    Ok(Reply::Now(answer::unless_held(request.headers, text.into(), answer::JSON, answer::FRESH)))
}

/// Everything that outlives a request, by the place where it rests.
fn stored(kept: &Kept) -> Vec<Value> {
    let row = |data: &str, place: &str, fields: &[&str], seconds: Option<u64>, until: String| json!({"data": data, "where": place, "fields": fields, "seconds": seconds, "until": until});
    let visitor = "visitor: a salted hash, good for one civil day of one site";
    let store = match kept.store {
        "redis" => "Redis",
        _ => "totals.redb in data_dir",
    };
    let views = ["site", "page", "time", visitor, "hash of the view's id"];
    let sums = [
        "views and visits by site, page, hour, day, week, month and year; views that were left out, by reason",
        "visitors as sketches, which name nobody",
    ];
    let journal = row(
        "accepted views, pings and leaves",
        "journal in data_dir",
        &views,
        None,
        "they are in a batch and in a checkpoint, usually a minute or two".to_owned(),
    );
    let rest = [
        row(
            "sessions",
            "checkpoint in data_dir",
            &[
                "site",
                "page",
                "time of the last sign",
                visitor,
                "hashes of the ids of views of the last minutes",
            ],
            Some(kept.visit_s),
            "this long after the last sign; ids for 20 minutes at most".to_owned(),
        ),
        row(
            "batches",
            "outbox in data_dir",
            &sums,
            Some(kept.outbox_s),
            "this long after the store has them".to_owned(),
        ),
        row("totals", store, &sums, None, format!("for ever; days of pages for {} days", kept.page_days)),
        row(
            "salts",
            if kept.store == "redis" { "Redis, and salts in data_dir" } else { "salts in data_dir" },
            &["random numbers, one of each site and civil day"],
            Some(48 * 3600),
            "this long after their day; an append file or a backup of Redis may keep one longer".to_owned(),
        ),
    ];
    let journal = Some(journal).filter(|_| kept.has_journal);
    journal.into_iter().chain(rest).collect()
}

fn of_site(site: &Site) -> Value {
    let public = ReadKind::WORDS.into_iter().filter(|(_, kind)| !site.readers.kept.contains(kind));
    json!({
        "site": site.key.as_str(),
        "time_zone": site.calendar.zone.name(),
        "identity": site.identity.word(),
        "stored_in_browser": match site.identity {
            Identity::Browser => "a random id, anew each civil day",
            Identity::Address | Identity::None => "nothing",
        },
        "honour_as": site.filter.honour_as.word(),
        "honour": site.honour.iter().map(|signal| Signal::word(*signal)).collect::<Vec<_>>(),
        "require_consent": site.require_consent,
        "public": public.map(|(word, _)| word).collect::<Vec<_>>(),
    })
}
