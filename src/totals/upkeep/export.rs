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
use crate::totals::store::dump::{Dump, HASHES, STEP, StoredName};

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
    let mut out = BufWriter::new(File::create(into)?);
    if format == Format::Csv {
        out.write_all(b"site,total,period,bucket,page,value,entered\n")?;
    }
    let mut rows = 0;
    for key in from.sites().await?.iter().filter(|key| site.is_none_or(|site| site == key.as_str())) {
        let mut exporter = Exporter { from, key, format, out: &mut out, rows: 0 };
        exporter.site().await?;
        rows += exporter.rows;
    }
    out.flush()?;
    Ok(rows)
}

/// What rows of a bucket are made of.
struct Told {
    bucket: Bucket,
    kind: HashKind,
    /// The bucket's own, and those of its parts.
    hashes: Vec<StoredName>,
    /// Of the bucket's days.
    visitors: u64,
}

struct Exporter<'a, D, W> {
    from: &'a D,
    key: &'a SiteKey,
    format: Format,
    out: &'a mut W,
    rows: u64,
}

impl<D: Dump, W: Write> Exporter<'_, D, W> {
    async fn site(&mut self) -> Result<(), Fault> {
        let (mut buckets, mut paged, mut sketched) = (BTreeSet::new(), Vec::new(), Vec::new());
        for name in self.from.names(self.key).await? {
            let Some(HashName { bucket, kind, .. }) = HashName::parse(self.key, &name) else { continue };
            match kind {
                HashKind::Visitors => sketched.push(bucket),
                HashKind::Pages => paged.push(bucket),
                HashKind::Sums => {}
                HashKind::Entries | HashKind::Aliases => continue,
            }
            buckets.insert((bucket.period(), bucket));
        }
        let mut visitors = Vec::new();
        for some in sketched.chunks(HASHES) {
            let names: Vec<_> = some.iter().map(|day| self.stored(*day, HashKind::Visitors)).collect();
            for (day, bytes) in some.iter().zip(self.from.sketches(&names).await?) {
                visitors.push((*day, Sketch::from_bytes(&bytes?.unwrap_or_default())?.estimate()));
            }
        }
        for (period, bucket) in buckets.into_iter().rev() {
            let of_days = visitors.iter().filter(|(day, _)| period != Period::Hour && lies_in(*day, bucket));
            let visitors = of_days.map(|(_, visitors)| visitors).sum();
            let hashes = vec![self.stored(bucket, HashKind::Sums)];
            self.hashes(&Told { bucket, kind: HashKind::Sums, hashes, visitors }).await?;
            let part = match period {
                Period::Hour => continue,
                Period::Week => Some(Period::Day),
                Period::Year => Some(Period::Month),
                Period::Day | Period::Month | Period::All => None,
            };
            let parts = paged.iter().filter(|of| Some(of.period()) == part && lies_in(**of, bucket));
            let hashes = [bucket].into_iter().chain(parts.copied());
            let hashes = hashes.map(|bucket| self.stored(bucket, HashKind::Pages)).collect();
            self.hashes(&Told { bucket, kind: HashKind::Pages, hashes, visitors: 0 }).await?;
        }
        Ok(())
    }

    fn stored(&self, bucket: Bucket, kind: HashKind) -> StoredName {
        StoredName::from(&HashName::new(self.key, bucket, kind))
    }

    /// Writes a row for each field of some hashes, with the first that has it.
    async fn hashes(&mut self, told: &Told) -> Result<(), Fault> {
        for (at, hash) in told.hashes.iter().enumerate() {
            let mut from = Some(None);
            while let Some(cursor) = from {
                let (fields, next) = self.from.scan(hash, cursor).await?;
                from = next.map(Some);
                let fields = fields.iter().map(|(field, _)| field.as_str());
                // By name: whether its sum is among them. What is entered of a part is not shown with the whole.
                let mut names = BTreeMap::<&str, bool>::new();
                for field in fields.chain((told.visitors > 0).then_some("visitors")) {
                    match field.strip_prefix('+') {
                        Some(name) if at == 0 => *names.entry(name).or_default() |= false,
                        None if !field.starts_with('#') => *names.entry(field).or_default() |= true,
                        _ => {}
                    }
                }
                for some in names.into_iter().collect::<Vec<_>>().chunks(STEP / 2) {
                    self.rows_of(told, at, some).await?;
                }
            }
        }
        Ok(())
    }

    async fn rows_of(&mut self, told: &Told, at: usize, names: &[(&str, bool)]) -> Result<(), Fault> {
        let fields = names.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("+{name}")]);
        let found = self.from.get(&told.hashes, &fields.collect::<Vec<_>>()).await?;
        for (i, (name, has_sum)) in names.iter().enumerate() {
            let texts = |field: usize| found.iter().map(move |hash| hash.get(field).cloned().flatten());
            let sums = texts(2 * i).map(sum_in).collect::<Result<Vec<_>, _>>()?;
            let entered = texts(2 * i + 1).next().flatten();
            // With a hash before, or with its sum.
            let is_told = sums.iter().take(at + usize::from(!has_sum)).any(Option::is_some);
            let is_told = is_told || at > 0 && entered.is_some();
            let is_total = Total::WORDS.iter().any(|(word, _)| word == name);
            if is_told || told.kind == HashKind::Sums && !is_total {
                continue;
            }
            let entered = entered.map(|text| Entry::beside_sum(&text)).transpose()?;
            let entered = entered.and_then(|entry| entry.amount()).unwrap_or_default();
            let counted: u64 = sums.into_iter().flatten().sum();
            match told.kind {
                HashKind::Pages => self.row(told.bucket, ("views", name), counted, entered)?,
                _ if *name == "visitors" => self.row(told.bucket, (name, ""), told.visitors, entered)?,
                _ => self.row(told.bucket, (name, ""), counted, entered)?,
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        bucket: Bucket,
        (total, page): (&str, &str),
        counted: u64,
        entered: i64,
    ) -> Result<(), Fault> {
        let (site, period, value) =
            (self.key.as_str(), bucket.period().word(), counted.saturating_add_signed(entered));
        self.rows += 1;
        match self.format {
            Format::Csv => {
                let quote = if page.is_empty() { "" } else { "\"" };
                let page = format!("{quote}{}{quote}", page.replace('"', "\"\""));
                writeln!(self.out, "{site},{total},{period},{bucket},{page},{value},{entered}")?;
            }
            Format::Jsonl => {
                let row = Row { site, total, period, bucket: bucket.to_string(), page, value, entered };
                serde_json::to_writer(&mut *self.out, &row)?;
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

fn sum_in(text: Option<String>) -> Result<Option<u64>, Fault> {
    let read = |text: String| sum(&text).ok_or_else(|| format!("{text:?} stands where a sum should"));
    Ok(text.map(read).transpose()?)
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
