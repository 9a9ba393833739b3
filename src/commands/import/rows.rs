//! Rows of a CSV or JSON file, as spreadsheets and scripts write them. What a row names is checked by the service.

use std::io::{BufRead, ErrorKind};

use csv::ReaderBuilder;
use serde_json::{Map, Value};

use crate::commands::outcome::Failure;
use crate::totals::Row;

/// The columns, in their usual order. What of a value is entered is for people: the value is all that is shown.
const COLUMNS: [&str; 7] = ["site", "total", "period", "bucket", "page", "value", "entered"];

/// The texts of a row, by columns.
type Cells = [String; COLUMNS.len()];

/// Reads a file's rows one after another, and what is wrong with lines; rows that name no site are of `site`.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn read(
    input: impl BufRead,
    site: Option<&str>,
    mut each: impl FnMut(usize, Result<Row, String>),
) -> Result<(), Failure> {
    let (mut form, mut separator) = (None, None);
    // The line of a JSON list that is open.
    let mut open = None;
    for numbered in lines(input) {
        let (line, text) = numbered?;
        open = open.or_else(|| (form.is_none() && text.trim_start().starts_with('[')).then_some(line));
        open = open.filter(|_| !text.trim_end().ends_with(']'));
        let form = match &form {
            Some(form) => form,
            None => {
                // What some spreadsheets begin with.
                if let Some(told) = text.strip_prefix("sep=") {
                    separator = told.bytes().next();
                    continue;
                }
                match Form::of(&text, separator) {
                    Err(fault) => {
                        each(line, Err(fault));
                        return Ok(());
                    }
                    Ok((of, is_head)) => {
                        let form = form.insert(of);
                        if is_head {
                            continue;
                        }
                        form
                    }
                }
            }
        };
        match form.rows(&text) {
            Err(fault) => each(line, Err(fault)),
            Ok(rows) => rows.into_iter().for_each(|cells| each(line, row(line, cells, site))),
        }
    }
    open.into_iter()
        .for_each(|line| each(line, Err("the list that begins here has no end: ] is missing".into())));
    Ok(())
}

/// The lines of a text file that hold something, by their numbers.
pub fn lines(input: impl BufRead) -> impl Iterator<Item = Result<(usize, String), Failure>> {
    let numbered = input.lines().enumerate().map(|(at, text)| {
        let text = text.map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                let fault = "is not UTF-8: save it as UTF-8 (in a spreadsheet: \"CSV UTF-8\")";
                format!("line {} {fault}", at + 1).into()
            }
            _ => Failure::from(error),
        })?;
        let text = text.trim_start_matches('\u{feff}').trim_end_matches('\r');
        if text.contains('\r') {
            let fault = "has a carriage return in it: save it with the line ends of Windows or of Unix";
            return Err(format!("line {} {fault}", at + 1).into());
        }
        Ok((at + 1, text.to_owned()))
    });
    numbered.filter(|line| line.as_ref().map_or(true, |(_, text)| !text.trim().is_empty()))
}

/// The cells of a line of CSV that stands by itself.
pub fn cells(line: &str) -> Result<Vec<String>, String> {
    split(line, separator(line))
}

/// What is most often in a line of what separates cells.
fn separator(line: &str) -> u8 {
    let often = |separator: &u8| line.bytes().filter(|byte| byte == separator).count();
    b"\t;,".iter().copied().max_by_key(often).unwrap_or(b',')
}

fn row(line: usize, cells: Cells, site: Option<&str>) -> Result<Row, String> {
    let [named, total, period, bucket, page, value, _] = cells;
    let no_number = "is no whole number, or too large: write digits alone, without separators and decimals";
    let value = value.parse().map_err(|_| format!("value {value:?} {no_number}"))?;
    let site = match site {
        Some(site) if !named.is_empty() && named != site => {
            return Err(format!("site {named:?} is not that of --site"));
        }
        None if named.is_empty() => return Err("no site is named: give --site".to_owned()),
        site => site.map_or(named, str::to_owned),
    };
    Ok(Row { line, site, total, period, bucket, page, value })
}

fn column(name: &str) -> Result<usize, String> {
    let at = COLUMNS.iter().position(|column| *column == name);
    at.ok_or_else(|| format!("column {name:?} is none of {}", COLUMNS.join(", ")))
}

/// The objects of a line, also of one of a list.
fn objects(line: &str) -> Result<Vec<Cells>, String> {
    let list = format!("[{}]", line.trim_matches([' ', '\t', '[', ']', ',']));
    let objects: Vec<Map<String, Value>> = serde_json::from_str(&list)
        .map_err(|_| "these are no JSON objects: each is written in one line".to_owned())?;
    let cells = |object: Map<String, Value>| {
        let mut cells = Cells::default();
        for (name, value) in object {
            cells[column(&name)?] = match value {
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string(),
            };
        }
        Ok(cells)
    };
    objects.into_iter().map(cells).collect()
}

fn split(line: &str, separator: u8) -> Result<Vec<String>, String> {
    let line = format!("{line}\n");
    let reader = ReaderBuilder::new().delimiter(separator).has_headers(false).from_reader(line.as_bytes());
    let record = reader.into_records().next().and_then(Result::ok).unwrap_or_default();
    // It is part of what stands in quotes that are not closed.
    if record.iter().any(|cell| cell.ends_with('\n')) {
        return Err("a quote is not closed in its line".to_owned());
    }
    Ok(record.iter().map(|cell| cell.trim().to_owned()).collect())
}

/// How the lines of a file are read.
enum Form {
    Json,
    /// What separates cells, and the column of each.
    Csv(u8, Vec<usize>),
}

impl Form {
    /// Reads the first line. Whether it names the columns.
    fn of(first: &str, told: Option<u8>) -> Result<(Self, bool), String> {
        if first.trim_start().starts_with(['[', '{']) {
            return Ok((Form::Json, false));
        }
        let separator = told.unwrap_or_else(|| separator(first));
        let names: Vec<String> =
            split(first, separator)?.iter().map(|name| name.to_ascii_lowercase()).collect();
        if names.iter().all(|name| column(name).is_err()) {
            return Ok((Form::Csv(separator, (0..6).collect()), false));
        }
        let columns: Vec<usize> = names.iter().map(|name| column(name)).collect::<Result<_, _>>()?;
        if let Some(at) = (0..columns.len()).find(|at| columns[..*at].contains(&columns[*at])) {
            return Err(format!("column {} is there twice", names[at]));
        }
        let missing = ["total", "period", "value"].into_iter().find(|name| names.iter().all(|n| n != name));
        missing.map_or(Ok((Form::Csv(separator, columns), true)), |name| {
            Err(format!("column {name} is missing"))
        })
    }

    fn rows(&self, line: &str) -> Result<Vec<Cells>, String> {
        let Form::Csv(separator, columns) = self else { return objects(line) };
        let (found, of) = (split(line, *separator)?, columns.len());
        if found.len() != of {
            let fault = "a value or a page with a separator in it stands in quotes";
            return Err(format!("{} columns instead of {of}: {fault}", found.len()));
        }
        let mut cells = Cells::default();
        columns.iter().zip(found).for_each(|(column, cell)| cells[*column] = cell);
        Ok(vec![cells])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "site,total,period,bucket,page,value\n";

    type Faults = Vec<(usize, String)>;

    fn all(bytes: &[u8], site: Option<&str>) -> Result<(Vec<Row>, Faults), Failure> {
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        read(bytes, site, |line, row| match row {
            Ok(row) => rows.push(row),
            Err(fault) => faults.push((line, fault)),
        })?;
        Ok((rows, faults))
    }

    fn values(text: &str) -> Vec<(usize, String, i64)> {
        let (rows, faults) = all(text.as_bytes(), Some("demo")).unwrap();
        assert_eq!(faults, []);
        rows.into_iter().map(|row| (row.line, row.page, row.value)).collect()
    }

    #[test]
    fn a_spreadsheets_file_and_a_scripts_say_the_same() {
        let expected = [(2, "/a;b".to_owned(), 12), (3, String::new(), 1_316_656)];
        for text in [
            format!("{HEAD}demo,views,all,all,/a;b,12\n,visits,all,,,1316656\n"),
            "\u{feff}Total;Period;Page;Value\r\nviews;all;\"/a;b\";12\r\nvisits;all;;1316656\r\n".to_owned(),
            "total\tperiod\tpage\tvalue\nviews\tall\t/a;b\t 12\nvisits\tall\t\t1316656".to_owned(),
            "[\n{\"total\":\"views\",\"period\":\"all\",\"page\":\"/a;b\",\"value\":12},\n\
             {\"total\":\"visits\",\"period\":\"all\",\"value\":\"1316656\"}]"
                .to_owned(),
            "\n{\"total\":\"views\",\"period\":\"all\",\"page\":\"/a;b\",\"value\":12}\n\
             {\"total\":\"visits\",\"period\":\"all\",\"value\":1316656}\n"
                .to_owned(),
        ] {
            assert_eq!(values(&text), expected, "{text}");
        }
        assert_eq!(values("demo,views,all,,\"/a\"\"b\",+3"), [(1, "/a\"b".to_owned(), 3)]);
        assert_eq!(values("sep=;\ndemo;views;all;;;-3"), [(2, String::new(), -3)]);
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let of = |text: &str, site| {
            let (rows, faults) = all(text.as_bytes(), site).unwrap();
            (rows.len(), faults.into_iter().map(|(line, _)| line).collect::<Vec<_>>())
        };
        let rows = "demo,visits,all,,,1316717\ndemo,visits,all,,,1.316.717\ndemo,visits,all,,,\"1,316,717\"\n\
                    demo,visits,all,,,1,316,717\n\ndemo,visits,all,,,12.0\ndemo,visits,all,,,\n\
                    demo,visits,all,,,99999999999999999999\ndemo,visits,all,,\"/a,1\nother,visits,all,,,1\n\
                    demo,visits,all,,,1 316\ndemo,visits,all,,,\u{664}\n";
        assert_eq!(of(rows, Some("demo")), (1, vec![2, 3, 4, 6, 7, 8, 9, 10, 11, 12]));
        assert_eq!(of(&format!("{HEAD},visits,all,,,1"), None), (0, vec![2]));
        assert_eq!(of("site,total,value\na,visits,1", None), (0, vec![1]));
        assert_eq!(of("site,total,period,sum,value\na,visits,all,1,1", None), (0, vec![1]));
        let json =
            "[{\"total\":\"visits\",\"value\":1.5},\n{\"totals\":1},\n 7,\n{\"value\":[1]},\n{\"value\":1";
        assert_eq!(of(json, Some("demo")), (0, vec![1, 2, 3, 4, 5, 1]), "its end is missing, too");
        for not_text in [&b"\xff\xfes\0"[..], b"demo,visits,all,,,1\n\xff"] {
            assert!(all(not_text, None).is_err());
        }
        assert_eq!(of("", None), (0, vec![]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[{\",;\n\\]}a1:é-]{0,60}") {
            let _ = all(text.as_bytes(), None);
        }
    }

    #[test]
    fn line_ends_of_old_machines_and_columns_that_are_there_twice_are_refused() {
        let text = |failure| match failure {
            Failure::Refused(text) | Failure::Undone(text) | Failure::No(text) => text,
        };
        let said =
            all(format!("{HEAD}demo,views,all,,,1\rdemo,views,all,,,2\r").as_bytes(), None).unwrap_err();
        assert!(text(said).starts_with("line 2 has a carriage return in it"));
        let (rows, faults) = all(b"total,period,value,value\nviews,all,1,2\n", Some("demo")).unwrap();
        assert_eq!((rows.len(), faults), (0, vec![(1, "column value is there twice".to_owned())]));
    }
}
