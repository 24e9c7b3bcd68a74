//! A table of the file, read key by key. What is wrong is noted with its line, and reading goes on with what could
//! have been there: so a person learns of all mistakes at once.

use crate::limits::line_of;
use crate::nearest::nearest;
use crate::{Complaint, DidYouMean, MAXIMUM_COMPLAINTS, Quoted};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file while it is read.
pub(crate) struct Reader<'a> {
    text: &'a str,
    complaints: RefCell<Vec<Complaint>>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> u32 {
        line_of(self.text, at)
    }

    /// Keeps the complaints in the order of the lines.
    fn note(&self, complaint: Complaint) {
        let mut complaints = self.complaints.borrow_mut();
        if complaints.len() < MAXIMUM_COMPLAINTS {
            let at = complaints.iter().take_while(|earlier| earlier.line <= complaint.line).count();
            complaints.insert(at, complaint);
        }
    }
}

/// One table of the file.
pub(crate) struct Section<'a> {
    reader: &'a Reader<'a>,
    table: &'a DeTable<'a>,
    /// Where it begins, for what is missing in it.
    start: usize,
}

/// Reads a file: hands its outermost table to `read`, and gives what that makes of it if there is no complaint.
pub(crate) fn read<T>(text: &str, read: impl FnOnce(&Section<'_>) -> T) -> Result<T, Vec<Complaint>> {
    let reader = Reader { text, complaints: RefCell::default() };
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().unwrap_or_default().start;
        // TOML takes a word that stands alone for a misspelt number, or `true`.
        let word =
            text.as_bytes().get(start).is_some_and(u8::is_ascii_alphabetic) && error.message().starts_with("inv");
        let hint = if word { "; a text must stand in quotation marks" } else { "" };
        vec![Complaint::new(reader.line(start), format_args!("{}{hint}", error.message()))]
    })?;
    let read = read(&Section { reader: &reader, table: document.get_ref(), start: 0 });
    let complaints = reader.complaints.into_inner();
    if complaints.is_empty() { Ok(read) } else { Err(complaints) }
}

impl<'a> Section<'a> {
    /// Notes what is wrong at a place in the file.
    pub fn complain(&self, at: usize, what: fmt::Arguments<'_>) {
        self.complain_at_line(self.reader.line(at), what);
    }

    /// Notes what is wrong in a line.
    pub fn complain_at_line(&self, line: u32, what: fmt::Arguments<'_>) {
        self.reader.note(Complaint::new(line, what));
    }

    /// Notes what is wrong where the table begins.
    pub fn complain_here(&self, what: fmt::Arguments<'_>) {
        self.complain(self.start, what);
    }

    /// Whether anything is wrong so far.
    pub fn has_complaints(&self) -> bool {
        !self.reader.complaints.borrow().is_empty()
    }

    /// The table under `key`.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        self.enter(key, self.table.get(key)?)
    }

    /// The tables under `key` (`[[key]]`).
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        self.list(key).iter().filter_map(|value| self.enter(key, value)).collect()
    }

    /// The text under `key`, and its line.
    pub fn text(&self, key: &str) -> Option<(&'a str, u32)> {
        self.text_of(key, self.table.get(key)?)
    }

    /// The texts under `key`, at most `most`, and their lines.
    pub fn texts(&self, key: &str, most: usize) -> Vec<(&'a str, u32)> {
        let list = self.list(key);
        if let Some(more) = list.get(most) {
            self.complain(more.span().start, format_args!("{key}: at most {most} are possible"));
        }
        list.iter().take(most).filter_map(|value| self.text_of(key, value)).collect()
    }

    /// The number under `key`, from `least` to `most`.
    pub fn number(&self, key: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.table.get(key)?;
        let number = value.get_ref().as_integer().and_then(|it| u64::from_str_radix(it.as_str(), it.radix()).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let span = value.span();
            let text = value.get_ref().as_str();
            let wrong = text.unwrap_or(self.reader.text.get(span.clone()).unwrap_or_default());
            let plain = if text.is_some() { " without quotation marks" } else { "" };
            self.complain(
                span.start,
                format_args!("{key}: a whole number from {least} to {most}{plain} is wanted, not {}", Quoted(wrong)),
            );
        }
        number
    }

    /// The number of an I/O port under `key`.
    pub fn port(&self, key: &str) -> Option<u16> {
        self.number(key, 0, u16::MAX.into()).map(|port| port as u16)
    }

    /// Notes what is wrong with the value of `key`, which is there.
    pub fn complain_of(&self, key: &str, what: fmt::Arguments<'_>) {
        let start = self.table.get(key).map_or(self.start, |value| value.span().start);
        self.complain(start, format_args!("{key}: {what}"));
    }

    /// Notes that `key` is missing, if it is.
    pub fn needs(&self, key: &str) {
        if !self.table.contains_key(key) {
            self.complain_here(format_args!("the key {key:?} is missing here"));
        }
    }

    /// A key that nobody reads is a mistake: most likely a misspelt one.
    pub fn check(&self, keys: &[&str]) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let meant = nearest(name, &mut keys.iter().copied());
            self.complain(
                key.span().start,
                format_args!(
                    "there is no key {} here{}{}{}",
                    Quoted(name),
                    DidYouMean(meant),
                    if meant.is_none() { "; there are: " } else { "" },
                    Keys(if meant.is_none() { keys } else { &[] })
                ),
            );
        }
    }

    fn text_of(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<(&'a str, u32)> {
        let start = value.span().start;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.complain(start, format_args!("{key}: a text in quotation marks is wanted"));
        }
        text.map(|text| (text, self.reader.line(start)))
    }

    fn list(&self, key: &str) -> &'a [Spanned<DeValue<'a>>] {
        let Some(value) = self.table.get(key) else { return &[] };
        match value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::Table(_) => {
                self.complain(value.span().start, format_args!("{key}: a list is wanted: write [[{key}]]"));
                &[]
            }
            _ => {
                self.complain(value.span().start, format_args!("{key}: a list is wanted: put it in [ ]"));
                &[]
            }
        }
    }

    fn enter(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        let start = value.span().start;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.complain(start, format_args!("{key}: a table is wanted, with its keys in lines of their own"));
        }
        table.map(|table| Section { reader: self.reader, table, start })
    }
}

/// Prints names with commas between.
struct Keys<'a>(&'a [&'a str]);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(number, key)| write!(f, "{}{key}", if number == 0 { "" } else { ", " }))
    }
}
