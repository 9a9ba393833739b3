//! All totals of a store as rows that `import` reads, each with what it shows and what of that is entered.
//!
//! The longest buckets come first: what is entered of a month is part of what is entered of its year. Of a page's week
//! and year no sum is kept; they are told as the sums of their days and months. Visitors are numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calendar::{Bucket, Period};
use crate::sites::SiteKey;
use crate::totals::batch::entry::Total;
use crate::totals::batch::part::{Entry, HashKind, HashName, sum};
use crate::totals::batch::sketch::Sketch;
use crate::totals::store::dump::Dump;

/// Why it was not written.
type Fault = Box<dyn Error + Send + Sync>;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// With commas.
    #[default]
    Csv,
    /// An object a line.
    Jsonl,
}

/// A row as it is written.
#[derive(Serialize)]
struct Row<'a> {
    site: &'a str,
    total: &'a str,
    period: &'a str,
    bucket: String,
    page: &'a str,
    value: u64,
    entered: i64,
}

/// Writes the totals of one site or all into a file. How many rows.
pub async fn export(from: &impl Dump, site: Option<&str>, format: Format, into: &Path) -> Result<u64, Fault> {
    let mut rows = Rows { format, out: BufWriter::new(File::create(into)?), number: 0 };
    if format == Format::Csv {
        rows.out.write_all(b"site,total,period,bucket,page,value,entered\n")?;
    }
    for key in from.sites().await?.iter().filter(|key| site.is_none_or(|site| site == key.as_str())) {
        export_site(from, key, &mut rows).await?;
    }
    rows.out.flush()?;
    Ok(rows.number)
}

async fn export_site(from: &impl Dump, key: &SiteKey, rows: &mut Rows) -> Result<(), Fault> {
    let (mut buckets, mut hashes, mut visitors) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for name in from.names(key).await? {
        let Some(hash) = HashName::parse(key, &name) else { continue };
        match hash.kind {
            HashKind::Entries | HashKind::Aliases => continue,
            HashKind::Visitors => {
                let bytes = from.sketches(&[(&hash).into()]).await?.pop().unwrap_or(Ok(None))?;
                visitors.push((hash.bucket, Sketch::from_bytes(&bytes.unwrap_or_default())?.estimate()));
            }
            HashKind::Sums | HashKind::Pages => {}
        }
        buckets.insert((hash.bucket.period(), hash.bucket));
        hashes.insert(hash);
    }
    for (period, bucket) in buckets.into_iter().rev() {
        let mut totals = fields(from, &HashName::new(key, bucket, HashKind::Sums)).await?;
        let of_days = visitors.iter().filter(|(day, _)| period != Period::Hour && lies_in(*day, bucket));
        let of_days = of_days.map(|(_, visitors)| visitors).sum();
        if of_days > 0 {
            totals.entry(Total::Visitors.word().to_owned()).or_default().counted = Some(of_days);
        }
        for (total, _) in Total::WORDS {
            totals.get(total).map_or(Ok(()), |kept| rows.add(key, bucket, (total, ""), kept))?;
        }
        let hash = HashName::new(key, bucket, HashKind::Pages);
        let mut pages = if hashes.contains(&hash) { fields(from, &hash).await? } else { BTreeMap::new() };
        for part in hash.summed().iter().filter(|part| **part != hash && hashes.contains(part)) {
            for (page, Kept { counted, .. }) in fields(from, part).await? {
                let Some(counted) = counted else { continue };
                let sum = &mut pages.entry(page).or_default().counted;
                *sum = Some(sum.unwrap_or_default().saturating_add(counted));
            }
        }
        for (page, kept) in &pages {
            rows.add(key, bucket, (Total::Views.word(), page), kept)?;
        }
    }
    Ok(())
}

/// What stands in a field of a hash, and beside it.
#[derive(Default)]
struct Kept {
    counted: Option<u64>,
    entered: i64,
}

/// What a hash holds, field by field: of a million pages some 100 MB.
async fn fields(from: &impl Dump, hash: &HashName) -> Result<BTreeMap<String, Kept>, Fault> {
    let (mut held, mut fault) = (BTreeMap::<String, Kept>::new(), None);
    from.each(&hash.into(), |field, text| {
        if let Some(name) = field.strip_prefix('+') {
            match Entry::beside_sum(&text) {
                Ok(entry) => held.entry(name.to_owned()).or_default().entered = entry.amount(),
                Err(error) => fault = Some(error.to_string()),
            }
        } else if !field.starts_with('#') {
            match sum(&text) {
                Some(sum) => held.entry(field).or_default().counted = Some(sum),
                None => fault = Some(format!("{text:?} stands where a sum should")),
            }
        }
    })
    .await?;
    fault.map_or(Ok(held), |fault| Err(fault.into()))
}

/// Rows on their way into a file.
struct Rows {
    format: Format,
    out: BufWriter<File>,
    number: u64,
}

impl Rows {
    fn add(
        &mut self,
        site: &SiteKey,
        bucket: Bucket,
        (total, page): (&str, &str),
        Kept { counted, entered }: &Kept,
    ) -> Result<(), Fault> {
        let (site, period, entered) = (site.as_str(), bucket.period().word(), *entered);
        let value = counted.unwrap_or_default().saturating_add_signed(entered);
        self.number += 1;
        match self.format {
            Format::Csv => {
                let quote = if page.is_empty() { "" } else { "\"" };
                // White space at the end of a cell is nobody's: it is written as in a URL.
                let (page, end) = page.split_at(page.trim_end().len());
                let end: String = end.bytes().map(|byte| format!("%{byte:02X}")).collect();
                let page = format!("{quote}{}{end}{quote}", page.replace('"', "\"\""));
                writeln!(self.out, "{site},{total},{period},{bucket},{page},{value},{entered}")?;
            }
            Format::Jsonl => {
                let row = Row { site, total, period, bucket: bucket.to_string(), page, value, entered };
                serde_json::to_writer(&mut self.out, &row)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}

fn lies_in(part: Bucket, whole: Bucket) -> bool {
    let Some((begins, ends)) = whole.days() else { return true };
    part.days().is_some_and(|(first, last)| begins <= first && last <= ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::batch::part::{Part, SketchPart};
    use crate::totals::store::contract::{Claim, Store};
    use crate::totals::store::tests::{Place, day, hash, part, registers, site, writer};

    const WRITER: &str = "00000000000000aa";

    /// Pages of two days of one week, and what is told of each: counted and entered.
    type Shown = BTreeMap<(String, String, String), (i64, i64)>;

    async fn fill(place: &Place) -> Shown {
        let store = &place.store;
        for today in ["2024-01-08", "2024-01-09"] {
            store.attach(&site(), "UTC", &writer(WRITER), day(today), &Claim::default()).await.unwrap();
        }
        let (mut shown, mut number) = (Shown::new(), 0);
        let mut apply = async |name: &str, sums: &[(&str, u64)], entries: &[(&str, i64)]| {
            number += 1;
            // Of each hash one writer has one part, so that none is held to a marker.
            let by = format!("{number:016x}");
            let entry = |text: &i64| format!("{text} 1 {WRITER}").parse().unwrap();
            let entries = entries.iter().map(|(field, text)| ((*field).into(), entry(text))).collect();
            let part = Part { entries, ..part(name, None, "m1", sums) };
            store.apply(&writer(&by), vec![part], Vec::new()).await.unwrap();
        };
        let mut tell = |total: &str, bucket: &str, page: &str, counted: i64, entered: i64| {
            let row = shown.entry((total.to_owned(), bucket.to_owned(), page.to_owned())).or_default();
            *row = (row.0 + counted, row.1 + entered);
        };
        for (name, first) in [("2024-01-08", 0), ("2024-01-09", 700)] {
            let pages: Vec<String> = (first..first + 1_400).map(|page| format!("/{page}")).collect();
            for some in pages.chunks(700) {
                let sums: Vec<(&str, u64)> = some.iter().map(|page| (page.as_str(), 2)).collect();
                apply(&format!("day:{name}:pages"), &sums, &[]).await;
                for page in some {
                    tell("views", name, page, 2, 0);
                    tell("views", "2024-W02", page, 2, 0);
                }
            }
        }
        let odd = "/a,\"b\";c";
        apply("day:2024-01-09:pages", &[(odd, 1)], &[("+/0", 5), ("+/700", -1), ("+/past", 3)]).await;
        tell("views", "2024-01-09", odd, 1, 0);
        tell("views", "2024-W02", odd, 1, 0);
        for (page, entered) in [("/0", 5), ("/700", -1), ("/past", 3)] {
            tell("views", "2024-01-09", page, 0, entered);
        }
        apply("week:2024-W02:pages", &[], &[("+/0", 7), ("+/weekly", 9)]).await;
        tell("views", "2024-W02", "/0", 0, 7);
        tell("views", "2024-W02", "/weekly", 0, 9);
        let of_all: [(&str, u64); 2] = [("views", 50), ("visits", 20)];
        apply("all", &of_all, &[("+visits", 1_000), ("+visitors", 30)]).await;
        apply("hour:2024-01-09T09+00:00", &[("views", 4)], &[]).await;
        apply("entries", &[], &[("+1.aa", 1)]).await;
        let (sketch, registers) = registers(0..500);
        let sketch_part = SketchPart { name: hash("day:2024-01-09:visitors"), registers };
        store.apply(&writer(WRITER), Vec::new(), vec![sketch_part]).await.unwrap();
        tell("views", "all", "", 50, 0);
        tell("visits", "all", "", 20, 1_000);
        tell("visitors", "all", "", sketch.estimate() as i64, 30);
        tell("visitors", "2024-W02", "", sketch.estimate() as i64, 0);
        tell("visitors", "2024-01-09", "", sketch.estimate() as i64, 0);
        tell("views", "2024-01-09T09+00:00", "", 4, 0);
        shown
    }

    #[tokio::test]
    async fn each_field_is_told_once_with_all_that_it_shows_and_longer_buckets_first() {
        for place in [Place::embedded().await, Place::redis().await] {
            let expected = fill(&place).await;
            let (dump, file) = (place.store.dump().await.unwrap(), place.dir.path().join("rows"));
            let rows = export(&dump, None, Format::Jsonl, &file).await.unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            let (mut told, mut periods) = (Shown::new(), Vec::new());
            for line in text.lines() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let word = |member: &str| row[member].as_str().unwrap().to_owned();
                let number = |member: &str| row[member].as_i64().unwrap();
                assert_eq!(word("site"), "demo");
                let shown = (number("value") - number("entered"), number("entered"));
                let before = told.insert((word("total"), word("bucket"), word("page")), shown);
                assert_eq!(before, None, "twice: {line}");
                periods.push(Period::WORDS.iter().position(|(period, _)| *period == word("period")));
            }
            assert_eq!(told, expected);
            assert_eq!(told.len() as u64, rows);
            assert!(periods.is_sorted_by(|a, b| a >= b));
            export(&dump, Some("demo"), Format::Csv, &file).await.unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("site,total,period,bucket,page,value,entered\ndemo,"), "{text}");
            assert!(text.contains("\ndemo,views,week,2024-W02,\"/a,\"\"b\"\";c\",1,0\n"));
            assert!(text.contains("\ndemo,views,week,2024-W02,\"/0\",9,7\n"));
            assert_eq!(export(&dump, Some("other"), Format::Csv, &file).await.unwrap(), 0);
        }
    }
}
