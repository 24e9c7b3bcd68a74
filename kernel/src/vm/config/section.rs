//! A table of the configuration file, read key by key. Every error begins with the line that it is about.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// One table of the file.
pub struct Section<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    /// Where it is, for what is missing in it.
    span: Range<usize>,
}

/// Reads a file, and hands its outermost table to `read`, in which only `keys` may be.
pub fn read<T>(text: &str, keys: &[&str], read: impl FnOnce(&Section<'_>) -> Result<T, String>) -> Result<T, String> {
    let document = DeTable::parse(text).map_err(|error| {
        let what = error.message();
        error.span().map_or_else(|| String::from(what), |span| complaint(text, span, format_args!("{what}")))
    })?;
    let section = Section { text, table: document.get_ref(), span: document.span() };
    section.check(keys)?;
    read(&section)
}

impl<'a> Section<'a> {
    /// The table under `key`, in which only `keys` may be.
    pub fn section(&self, key: &str, keys: &[&str]) -> Result<Option<Section<'a>>, String> {
        self.table.get(key).map(|value| self.enter(key, value, keys)).transpose()
    }

    /// The tables under `key` (`[[key]]`), in each of which only `keys` may be.
    pub fn sections(
        &self,
        key: &str,
        keys: &[&str],
    ) -> Result<impl Iterator<Item = Result<Section<'a>, String>>, String> {
        let values = self.array(key)?;
        Ok(values.into_iter().flatten().map(move |value| self.enter(key, value, keys)))
    }

    /// The text under `key`.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        self.text_of(key, value).map(Some)
    }

    /// The text under `key`, which must be there.
    pub fn needed_text(&self, key: &str) -> Result<&'a str, String> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// The number under `key`, at most `most`.
    pub fn number(&self, key: &str, most: u64) -> Result<Option<u64>, String> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let number = value.get_ref().as_integer().and_then(|it| u64::from_str_radix(it.as_str(), it.radix()).ok());
        let wanted =
            || complaint(self.text, value.span(), format_args!("{key}: a whole number from 0 to {most} is wanted"));
        number.filter(|number| *number <= most).ok_or_else(wanted).map(Some)
    }

    /// The number under `key`, which must be there.
    pub fn needed_number(&self, key: &str, most: u64) -> Result<u64, String> {
        self.number(key, most)?.ok_or_else(|| self.missing(key))
    }

    /// What `parse` makes of each of the texts under `key`; a text of which it makes nothing is no `what`.
    pub fn texts<T>(
        &self,
        key: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<alloc::vec::Vec<T>, String> {
        let values = self.array(key)?.into_iter().flatten();
        let one = |value| {
            let text = self.text_of(key, value)?;
            parse(text).ok_or_else(|| complaint(self.text, value.span(), format_args!("{key}: {text:?} {what}")))
        };
        values.map(one).collect()
    }

    fn text_of(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<&'a str, String> {
        let wanted = || complaint(self.text, value.span(), format_args!("{key}: a text in quotation marks is wanted"));
        value.get_ref().as_str().ok_or_else(wanted)
    }

    fn array(&self, key: &str) -> Result<Option<&'a DeArray<'a>>, String> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let wanted = || complaint(self.text, value.span(), format_args!("{key}: a list is wanted"));
        value.get_ref().as_array().ok_or_else(wanted).map(Some)
    }

    fn enter(&self, key: &str, value: &'a Spanned<DeValue<'a>>, keys: &[&str]) -> Result<Section<'a>, String> {
        let wanted = || complaint(self.text, value.span(), format_args!("{key}: a table is wanted"));
        let table = value.get_ref().as_table().ok_or_else(wanted)?;
        let section = Section { text: self.text, table, span: value.span() };
        section.check(keys)?;
        Ok(section)
    }

    /// A key that nobody reads is a mistake: most likely a misspelt one.
    fn check(&self, keys: &[&str]) -> Result<(), String> {
        let Some(key) = self.table.keys().find(|key| !keys.contains(&key.get_ref().as_ref())) else { return Ok(()) };
        let name = key.get_ref();
        let known = keys.join(", ");
        Err(complaint(self.text, key.span(), format_args!("there is no key {name:?} here; there are: {known}")))
    }

    fn missing(&self, key: &str) -> String {
        complaint(self.text, self.span.clone(), format_args!("the key {key:?} is missing here"))
    }
}

fn complaint(text: &str, span: Range<usize>, what: fmt::Arguments<'_>) -> String {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    format!("line {line}: {what}")
}
