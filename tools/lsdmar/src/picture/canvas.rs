//! Blocks of drawing that know their size, and how they are put together. Lengths are in pixels.

use std::fmt::Write;

use crate::picture::widths::{BOLD, MONO, OTHER, SANS};

/// Something drawn whose upper left corner is at (0, 0).
pub struct Block {
    pub width: u32,
    pub height: u32,
    pub svg: String,
}

/// The faces of the letters.
#[derive(Clone, Copy, PartialEq)]
pub enum Face {
    Sans,
    Bold,
    Mono,
}

impl Block {
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, svg: String::new() }
    }

    /// Puts another block at this place; what reaches beyond makes this one larger.
    pub fn put(&mut self, x: u32, y: u32, block: &Block) {
        let _ = write!(self.svg, "<g transform=\"translate({x} {y})\">{}</g>", block.svg);
        self.width = self.width.max(x + block.width);
        self.height = self.height.max(y + block.height);
    }

    /// A rectangle with round corners, its looks by style class.
    pub fn rectangle(&mut self, (x, y): (u32, u32), (width, height): (u32, u32), radius: u32, class: &str) {
        let _ = write!(
            self.svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\" class=\"{class}\"/>"
        );
    }

    pub fn line(&mut self, from: (u32, u32), to: (u32, u32), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.svg, "<path d=\"M{x1} {y1}L{x2} {y2}\" class=\"{class}\"/>");
    }

    /// A line of text whose baseline begins at this place. Returns its width.
    pub fn text(&mut self, x: u32, baseline: u32, text: &str, size: u32, face: Face, class: &str) -> u32 {
        let face_class = match face {
            Face::Sans => "s",
            Face::Bold => "b",
            Face::Mono => "m",
        };
        let _ = write!(
            self.svg,
            "<text x=\"{x}\" y=\"{baseline}\" font-size=\"{size}\" class=\"{face_class} {class}\">{}</text>",
            escape(text)
        );
        text_width(text, size, face)
    }

    /// What a viewer tells about the block when pointed at.
    pub fn tooltip(&mut self, text: &str) {
        self.svg = format!("<g><title>{}</title>{}</g>", escape(text), self.svg);
    }
}

/// A small label with a coloured ground.
pub fn pill(text: &str, class: &str) -> Block {
    let width = text_width(text, 11, Face::Bold) + 14;
    let mut block = Block::new(width, 18);
    block.rectangle((0, 0), (width, 18), 9, class);
    block.text(7, 13, text, 11, Face::Bold, &format!("{class}-text"));
    block
}

/// Blocks side by side, wrapped at this width.
pub fn flow(blocks: &[Block], width: u32, gap: u32) -> Block {
    let mut all = Block::new(0, 0);
    let (mut x, mut y, mut row) = (0, 0, 0);
    for block in blocks {
        if x > 0 && x + block.width > width {
            (x, y, row) = (0, y + row + gap, 0);
        }
        all.put(x, y, block);
        x += block.width + gap;
        row = row.max(block.height);
    }
    all
}

/// Text broken into lines at blanks, so that each has at most this width. Longer words are cut.
pub fn wrap(text: &str, width: u32, size: u32, face: Face) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word = shorten(word, width, size, face);
        let line = lines.last_mut().map(std::mem::take).unwrap_or_default();
        let longer = if line.is_empty() { word.clone() } else { format!("{line} {word}") };
        let fits = text_width(&longer, size, face) <= width;
        let (last, next) = if fits { (longer, None) } else { (line, Some(word)) };
        if let Some(place) = lines.last_mut() {
            *place = last;
        }
        lines.extend(next);
    }
    lines
}

/// The text, or its beginning with an ellipsis, so that it has at most this width.
pub fn shorten(text: &str, width: u32, size: u32, face: Face) -> String {
    if text_width(text, size, face) <= width {
        return text.to_string();
    }
    let mut short = String::new();
    for character in text.chars() {
        short.push(character);
        if text_width(&format!("{short}…"), size, face) > width {
            short.pop();
            break;
        }
    }
    short + "…"
}

/// How wide a text is at most.
pub fn text_width(text: &str, size: u32, face: Face) -> u32 {
    let width = |character: char| {
        let index = u32::from(character).checked_sub(u32::from(' ')).and_then(|index| usize::try_from(index).ok());
        let of = |widths: &[u16; 95]| index.and_then(|index| widths.get(index).copied()).unwrap_or(OTHER);
        match face {
            Face::Mono if character.is_ascii() || matches!(character, '–' | '→' | '…' | '·') => MONO,
            Face::Mono => OTHER,
            Face::Sans => of(&SANS),
            Face::Bold => of(&BOLD),
        }
    };
    let thousandths: u32 = text.chars().map(|character| u32::from(width(character))).sum();
    (thousandths * size).div_ceil(1000)
}

/// Text as XML wants it. What XML cannot hold was replaced before (`text::printable`), but a file's name was not.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('·'),
            character if character.is_control() => escaped.push('·'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_shortened_or_wrapped_to_its_width() {
        let text = "reserved regions at 0x48 and 0x68 overlap, and_this_is_one_very_long_word_that_cannot_be_broken";
        for width in [60, 100, 300] {
            assert!(text_width(&shorten(text, width, 12, Face::Sans), 12, Face::Sans) <= width);
            let lines = wrap(text, width, 12, Face::Sans);
            assert!(lines.iter().all(|line| text_width(line, 12, Face::Sans) <= width), "{lines:?}");
        }
        assert_eq!(shorten("short", 300, 12, Face::Mono), "short");
        assert_eq!(wrap("a b", 300, 12, Face::Mono), ["a b"]);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<\\_SB & \"\u{1}\">"), "&lt;\\_SB &amp; &quot;·&quot;&gt;");
    }
}
