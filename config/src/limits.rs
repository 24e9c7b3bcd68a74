//! What is looked at before a file is read: how much memory and recursion reading it will take.

use crate::Complaint;
use alloc::vec;
use alloc::vec::Vec;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Longest configuration, in bytes. Reading takes 24 times that at once, from the hypervisor's heap of 1 MiB.
pub const MAXIMUM_BYTES: usize = 12 << 10;
/// Most tokens: words, signs, texts, spaces, comments and line ends. Each takes memory of its own; a guest that says
/// all that it can has about 200.
const MAXIMUM_TOKENS: usize = 2048;
/// Most dots outside of texts and comments. Each is a table in a table, and the tables are taken apart by recursion; no
/// key of ours needs one.
const MAXIMUM_DOTS: usize = 32;
/// Most brackets that are open at a time: a list in `[[guest]]` needs two.
const MAXIMUM_DEPTH: usize = 8;

/// Says what is too much.
pub(crate) fn check(text: &str) -> Result<(), Vec<Complaint>> {
    let refuse = |line: u32, what: core::fmt::Arguments<'_>| Err(vec![Complaint::new(line, what)]);
    if text.len() > MAXIMUM_BYTES {
        return refuse(1, format_args!("the file is {} bytes long; the limit is {MAXIMUM_BYTES}", text.len()));
    }
    let (mut tokens, mut dots, mut depth) = (0, 0, 0usize);
    for token in Source::new(text).lex() {
        tokens += 1;
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        let (what, limit) = if tokens > MAXIMUM_TOKENS {
            ("words and signs", MAXIMUM_TOKENS)
        } else if dots > MAXIMUM_DOTS {
            ("dots outside of quotation marks", MAXIMUM_DOTS)
        } else if depth > MAXIMUM_DEPTH {
            ("brackets in each other", MAXIMUM_DEPTH)
        } else {
            continue;
        };
        let line = line_of(text, token.span().start());
        return refuse(line, format_args!("up to here there are more {what} than the limit of {limit}"));
    }
    Ok(())
}

/// The line, from 1, of a place in the file.
pub(crate) fn line_of(text: &str, at: usize) -> u32 {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count() as u32
}
