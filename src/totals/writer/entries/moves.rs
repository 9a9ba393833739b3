//! Pages that are shown as others. A move is a register in a hash of its own (`aliases`): its field is the page, its
//! text the page that it is shown as, or empty where it is shown as itself again. So it goes to the store as entries
//! do, and a store that goes back is given it again. What was counted stays where it is: what is shown of a page is
//! the sum of its own and of the pages that are shown as it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use super::enter::{MOST_TOLD, listed};
use super::names::no_page;
use super::record::{self, Record};
use super::weigh::Names;
use chrono::NaiveDate;

use crate::calendar::Bucket;
use crate::ingest::{OTHER, named_page};
use crate::sites::{Aliases, MAX_ERASED, MAX_MOVED, Moved, Site, SiteKey};
use crate::totals::batch::part::{HashKind, HashName, Sums, field_beside};
use crate::totals::delivery::Reason;
use crate::totals::delivery::apply::FlushError;
use crate::totals::store::contract::{Fold, Query, Store, StoreError};
use crate::totals::writer::reads::Bears;
use crate::totals::writer::rows::{Intent, Move, Moving};
use crate::totals::writer::turn::Writer;

fn aliases(site: &SiteKey) -> HashName {
    HashName::new(site, Bucket::All, HashKind::Aliases)
}

impl<S: Store> Writer<S> {
    /// Learns what pages of a site are shown as, where that has changed, and what the hash bears.
    pub async fn learn_aliases(&mut self, site: &SiteKey) -> Result<Bears, StoreError> {
        let query = Query { hash: aliases(site), fields: Vec::new() };
        let found = self.delivery.store.read(&self.delivery.identity.writer, vec![query]).await?;
        let Some(found) = found.into_iter().next() else { return Ok(Bears::new()) };
        let registered = self.delivery.sites.get(site.as_str());
        let known = registered.map(|site| site.pages.aliases.clone());
        if let Some(known) = known.filter(|known| known.revision != found.revision) {
            let aliases = Aliases::new(&self.moved(site).await?, found.revision);
            let is_new = !known.shows_as(&aliases);
            let sites = Arc::new(self.delivery.sites.with_aliases(site, aliases));
            self.delivery.sites = sites.clone();
            self.shared.sites.store(sites);
            if is_new {
                self.shared.tally().forget_past_of(site);
            }
            self.delivery.may_be_back = true;
        }
        Ok(vec![(aliases(site), found.marker)])
    }

    /// What moved. A store that went back has forgotten some of it, until that is brought again.
    async fn moved(&mut self, site: &SiteKey) -> Result<Moved, StoreError> {
        let known = self.moves.entry(site.clone()).or_default();
        record::registers(&self.delivery.store.dump().await?, &aliases(site), |field, entry| {
            let has_room = |page: &&str| known.len() < MAX_MOVED + MAX_ERASED || known.contains_key(*page);
            if let Some(page) = field.strip_prefix('+').filter(has_room) {
                entry.put(known, &page.into());
            }
        })
        .await?;
        Ok(known.iter().map(|(page, entry)| (page.clone(), entry.text.clone())).collect())
    }

    /// Has what the store holds of erased pages become part of `(other)`, wherever they may be in it again: it went
    /// back and was given them, or an instance brought what it had counted before.
    pub async fn fold_erased(&mut self) -> Result<(), FlushError> {
        if !std::mem::take(&mut self.delivery.may_be_back) {
            return Ok(());
        }
        for site in self.delivery.sites.iter().cloned().collect::<Vec<_>>() {
            let erased = site.pages.aliases.beside(OTHER);
            if !erased.is_empty() && !self.delivery.is_held(&site.key) {
                let folded = self.fold_site(&site, erased).await;
                let folded = self.delivery.or_held(&site.key, folded.map_err(FlushError::Store))?;
                if folded.is_some_and(|folded| folded > 0) {
                    self.shared.tally().forget_past_of(&site.key);
                }
            }
        }
        Ok(())
    }

    async fn fold_site(&self, site: &Site, erased: &[Arc<str>]) -> Result<u64, StoreError> {
        let dump = self.delivery.store.dump().await?;
        let days = record::read(&dump, &site.key).await?.into_values().filter_map(|record| record.day);
        let (longer, days_of_pages) = self.delivery.hashes_of_pages(site);
        let (mut hashes, mut audits) =
            (BTreeSet::from_iter(longer.into_iter().chain(days_of_pages)), Vec::new());
        for bucket in [Bucket::All].into_iter().chain(days.map(Bucket::Day)) {
            let audit = HashName::new(&site.key, bucket, HashKind::Entries);
            let fields = record::places_of(&dump, &audit, erased).await?;
            // Entered of a time before the first view, too.
            hashes.extend(fields.iter().filter_map(|at| HashName::parse(&site.key, at.split(' ').nth(1)?)));
            audits.push(Fold { hashes: vec![audit], fields, ..Fold::default() });
        }
        let fields = erased.iter().flat_map(|page| [page.clone(), field_beside(page)]).collect();
        let pages = Fold { hashes: hashes.into_iter().collect(), fields, ..Fold::default() };
        let mut folded = 0;
        for fold in [pages].iter().chain(&audits) {
            folded += self.delivery.fold_fields(fold).await?;
        }
        Ok(folded)
    }

    /// Shows pages as others, all that are named or, where anything is wrong with them, none.
    pub async fn move_pages(&mut self, moving: &Moving) -> Result<String, Reason> {
        let site = self.delivery.sites.configured(&moving.site)?.clone();
        let audits = self.look_at([site.key.clone()].into()).await?;
        let mut moved = self.moved(&site.key).await?;
        let (mut steps, mut faults) = (BTreeMap::new(), Vec::new());
        for row in &moving.moves.0 {
            match step(&site, &mut moved, row) {
                Ok(page) => steps.extend(page.map(|page| (page, row.line))),
                Err(fault) => faults.push((row.line, fault)),
            }
        }
        let after = Aliases::new(&moved, 0);
        let to = |page: &Arc<str>| moved.get(page).cloned().unwrap_or_default();
        // What leads to a page that is erased now is erased with it.
        let is_astray = |page: &Arc<str>| match (steps.contains_key(page), after.shown_as(page)) {
            (is_new, Some(end)) => is_new && **end == *OTHER && *to(page) != *OTHER,
            (is_new, None) => !to(page).is_empty() && (is_new || site.pages.aliases.shown_as(page).is_some()),
        };
        let as_what = "itself, as a page that was erased, or over more than 16 moves";
        let line = |page| steps.get(page).copied().unwrap_or_default();
        let astray = moved.keys().filter(|page| is_astray(page));
        faults.extend(astray.map(|page| (line(page), format!("{page} would be shown as {as_what}"))));
        // A full list keeps nobody from having a page erased.
        let is_erasing = moving.moves.0.iter().all(|row| row.to == OTHER);
        let most = MAX_MOVED + if is_erasing { MAX_ERASED } else { 0 };
        if moved.len() > most {
            faults.push((0, format!("more than {most} pages of site {} would have moved", site.key)));
        }
        if !faults.is_empty() {
            return Err(listed(&mut faults).into());
        }
        let (mut said, mut order) = (String::new(), "nothing changes");
        for page in steps.keys().take(MOST_TOLD) {
            let as_what = match &*to(page) {
                "" => ("pages move --undo", "itself".to_owned()),
                OTHER => ("erase", self.what_goes(&site, page).await?),
                to => ("pages move", to.to_owned()),
            };
            order = as_what.0;
            writeln!(said, "{}: {page} is shown as {}", site.key, as_what.1)?;
        }
        if steps.is_empty() {
            return Ok(order.to_owned());
        }
        if moving.intent.dry_run {
            return Ok(said + "nothing is changed: this is a dry run");
        }
        let fields: Vec<_> = steps.keys().map(|page| (field_beside(page), to(page))).collect();
        let stamps = audits.values().flat_map(|audit| audit.keys());
        let (intent, values) = (moving.intent.clone(), fields.len());
        let record = Record { order: order.to_owned(), intent, values, ..Record::default() };
        let (stamp, record) = self.number(&site.key, stamps, record).await?;
        // First of all: who sees that something was entered finds it.
        let mut entries = record::in_parts(&aliases(&site.key), &stamp, &fields);
        entries.extend(record::entered(&site.key, &stamp, &record, &Names::new(), NaiveDate::MIN));
        let said = self.put(entries, said).await?;
        Ok(match order {
            "erase" => format!(
                "{said}\nits name remains in the list of erased pages, and with its views {}",
                self.where_copies_remain()
            ),
            _ => said,
        })
    }

    /// Removes everything that is stored of a site, which begins anew with the next view.
    pub async fn erase_site(&mut self, site: &str, intent: Intent) -> Result<String, Reason> {
        let key = self.delivery.sites.configured(site)?.key.clone();
        self.look_at([key.clone()].into()).await?;
        let (sums, _) = self.reader().sums(&key, &[Bucket::All]).await?;
        let Sums { views, visits, .. } = sums.first().map(|sums| sums.value).unwrap_or_default();
        let said = format!("{key}: {views} views and {visits} visits of all time");
        if intent.dry_run {
            return Ok(format!("{said} would be erased: this is a dry run"));
        }
        self.delivery.erase_site(&key).await?;
        self.go_on(Ok(String::new()), false).await?;
        let record = Record { order: "erase".to_owned(), intent, ..Record::default() };
        let (stamp, record) = self.number(&key, [].iter(), record).await?;
        let entries = record::entered(&key, &stamp, &record, &Names::new(), NaiveDate::MIN);
        let said = self.put(entries, format!("{said} are erased")).await?;
        Ok(format!(
            "{said}\nthey remain {}; another instance on this store holds the site until `footfall store accept-empty`",
            self.where_copies_remain()
        ))
    }

    /// Where what is erased from the store may still be.
    fn where_copies_remain(&self) -> String {
        let hours = self.config.outbox.retention.as_secs() / 3600;
        format!(
            "in the outbox of each instance for {hours} hours, in backups made before, and in Redis' append file until \
             that is rewritten"
        )
    }

    /// What is said of a page that is erased, with those that are shown as it.
    async fn what_goes(&self, site: &Site, page: &Arc<str>) -> Result<String, StoreError> {
        let hash = HashName::new(&site.key, Bucket::All, HashKind::Pages);
        let beside = site.pages.aliases.beside(page);
        let fields: Vec<Arc<str>> = [page].into_iter().chain(beside).cloned().collect();
        let also: String = fields[1..].iter().map(|name| format!(" and of {name}")).collect();
        let found =
            self.delivery.store.read(&self.delivery.identity.writer, vec![Query { hash, fields }]).await?;
        let counted: u64 = found.iter().flat_map(|found| found.sums.iter().flatten()).sum();
        let entries = found.iter().flat_map(|found| found.entries.iter().flatten());
        let entered: i64 = entries.map(|entry| entry.amount()).sum();
        let gone =
            if entered == 0 { String::new() } else { format!(", and {entered} entered ones are gone") };
        Ok(format!("nothing: its {counted} views{also} become part of (other){gone}"))
    }

    /// Lists the pages that are shown as others.
    pub async fn moves(&mut self, site: Option<&str>) -> Result<String, Reason> {
        let mut said = String::new();
        for site in self.named(site)? {
            for (page, to) in self.moved(&site).await?.iter().filter(|(_, to)| !to.is_empty()) {
                writeln!(said, "{site}: {page} is shown as {to}")?;
            }
        }
        Ok(if said.is_empty() { "no page has moved".to_owned() } else { said })
    }
}

/// Adds a move to those before; none where nothing changes.
fn step(site: &Site, moved: &mut Moved, row: &Move) -> Result<Option<Arc<str>>, String> {
    let page_of = |said: &str| named_page(site, said).map_err(|_| no_page(said));
    let page: Arc<str> = page_of(&row.page)?.as_str().into();
    let to: Arc<str> = match &*row.to {
        "" | OTHER => (*row.to).into(),
        said => page_of(said)?.as_str().into(),
    };
    let before = moved.get(&page).filter(|to| !to.is_empty());
    match before {
        None if to.is_empty() => return Err(format!("{page} is shown as itself")),
        Some(before) if *before == to => return Ok(None),
        Some(before) if !to.is_empty() && *to != *OTHER => {
            return Err(format!("{page} is shown as {before}: undo that first"));
        }
        _ => {}
    }
    moved.insert(page.clone(), to);
    Ok(Some(page))
}
