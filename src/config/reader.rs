//! Reads settings one by one and gathers their faults.

use std::time::Duration;

use super::faults::{Complaint, Fault};
use super::settings::{Settings, Value};
use super::values;

/// Reads typed values. A refused one becomes a fault and reads as its default, so that all others are read
/// too.
pub(super) struct ConfigReader {
    pub settings: Settings,
    pub faults: Vec<Fault>,
}

impl ConfigReader {
    pub fn complain(&mut self, key: &str, problem: &str, remedy: &str) {
        let complaint = Complaint { problem: problem.to_owned(), remedy: remedy.to_owned() };
        self.faults.push(self.settings.fault(key, complaint));
    }

    /// Reads a value; one that is refused becomes a fault, and the default is read.
    pub fn read<T>(&mut self, key: &str, read: impl Fn(&Value) -> Result<T, Complaint>) -> T {
        match read(self.settings.value(key)) {
            Ok(value) => value,
            Err(complaint) => {
                self.faults.push(self.settings.fault(key, complaint));
                read(self.settings.default_value(key)).expect("a compiled-in default that can be read")
            }
        }
    }

    pub fn text<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, Complaint>) -> T {
        self.read(key, |value| match value {
            Value::Text(text) => read(text),
            _ => Complaint::err("not a text", "put it in quotes"),
        })
    }

    pub fn list<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, Complaint>) -> Vec<T> {
        self.read(key, |value| match value {
            Value::List(items) => items.iter().map(|item| read(item)).collect(),
            _ => Complaint::err("not a list", "put it in brackets"),
        })
    }

    pub fn number(&mut self, key: &str, least: i64, most: i64) -> usize {
        self.read(key, |value| match value {
            Value::Number(number) => values::number(*number, least, most),
            _ => Complaint::err("not a whole number", "write digits"),
        })
    }

    pub fn flag(&mut self, key: &str) -> bool {
        self.read(key, |value| match value {
            Value::Flag(value) => Ok(*value),
            _ => Complaint::err("not true or false", "write true or false"),
        })
    }

    pub fn duration(&mut self, key: &str, least: &str, most: &str) -> Duration {
        self.text(key, |text| values::duration(text, least, most))
    }

    pub fn size(&mut self, key: &str, least: &str, most: &str) -> u64 {
        self.text(key, |text| values::size(text, least, most))
    }

    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        self.text(key, |text| values::choice(text, choices))
    }
}
