//! What was perhaps meant by a word that is none.

use core::fmt;

/// Longest word, in bytes, that is looked at.
const LONGEST: usize = 40;

/// The one of `candidates` that `word` was perhaps meant to be: at most a third of its letters differ, or one is the
/// beginning of the other.
pub fn nearest<'a>(word: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut least = usize::MAX;
    for candidate in candidates {
        let begins = word.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate));
        let distance = distance(word.as_bytes(), candidate.as_bytes());
        // Of several beginnings the nearest too; but a letter or two wrong is the better guess.
        if distance < least && (begins && !candidate.is_empty() || 3 * distance <= candidate.len().max(3)) {
            least = distance;
            best = Some(candidate);
        }
    }
    best
}

/// How many letters must be added, taken away, replaced or exchanged with their neighbour to make `b` of `a`, letters
/// in upper and lower case and the signs `-` and `_` being alike.
fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX / 4;
    }
    let alike = |a: Option<&u8>, b: Option<&u8>| {
        let plain = |byte: &u8| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
        a.map(plain) == b.map(plain)
    };
    // Rows of the table of distances between the beginnings of both: the last but one, the last, and the next.
    let mut rows = [[0usize; LONGEST + 1]; 3];
    let get = |row: &[usize; LONGEST + 1], at: usize| row.get(at).copied().unwrap_or(0);
    rows[1] = core::array::from_fn(|number| number);
    for i in 1..=a.len() {
        let [before, last, _] = rows;
        let mut row = [i; LONGEST + 1];
        for j in 1..=b.len() {
            let cost = usize::from(!alike(a.get(i - 1), b.get(j - 1)));
            let mut value = (get(&last, j) + 1).min(get(&row, j - 1) + 1).min(get(&last, j - 1) + cost);
            if i > 1 && j > 1 && alike(a.get(i - 1), b.get(j - 2)) && alike(a.get(i - 2), b.get(j - 1)) {
                value = value.min(get(&before, j - 2) + 1);
            }
            if let Some(cell) = row.get_mut(j) {
                *cell = value;
            }
        }
        rows = [last, row, row];
    }
    let [_, last, _] = rows;
    get(&last, b.len())
}

/// Prints `; did you mean "..."?` where there is something, else nothing.
pub struct DidYouMean<'a>(pub Option<&'a str>);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |word| write!(f, "; did you mean {word:?}?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_single_mistakes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kernel", "kernel", 0),
            ("kernle", "kernel", 1),
            ("krenel", "kernel", 1),
            ("kernl", "kernel", 1),
            ("keernel", "kernel", 1),
            ("karnel", "kernel", 1),
            ("kernel", "initrd", 6),
            ("Command-Line", "command_line", 0),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
        assert!(distance(&[b'a'; LONGEST], &[b'b'; LONGEST]) == LONGEST);
        assert!(distance(&[b'a'; LONGEST + 1], b"") > 1000);
    }

    #[test]
    fn the_nearest_is_meant_and_nothing_far() {
        let keys = ["name", "kernel", "memory_mib", "modules", "command_line", "devices", "initrd"];
        for (word, expected) in [
            ("memory_mb", Some("memory_mib")),
            ("memory", Some("memory_mib")),
            ("module", Some("modules")),
            ("cmdline", None),
            ("commandline", Some("command_line")),
            ("device", Some("devices")),
            ("nmae", Some("name")),
            ("initramfs", None),
            ("initrd_file", Some("initrd")),
            ("n", None),
            ("", None),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, &mut keys.into_iter()), expected, "{word}");
        }
        assert_eq!(nearest("8086:10d4", &mut ["8086:10d3", "1234:11e8"].into_iter()), Some("8086:10d3"));
    }
}
