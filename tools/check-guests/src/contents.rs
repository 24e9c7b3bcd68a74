//! What a file looks like, by its first bytes.

use std::fmt;

/// What a file looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An ELF image.
    Elf,
    /// A Linux kernel with the x86 boot protocol's header.
    BzImage,
    /// It has a Multiboot header.
    Multiboot,
    /// A cpio archive of the "new" forms.
    Cpio,
    /// Compressed by a program that Linux can undo.
    Compressed,
    /// Text.
    Text,
    /// Nothing.
    Empty,
    /// Anything else.
    Other,
}

/// The first bytes of what gzip, bzip2, xz, lzma, lzop, lz4 and zstd write.
const COMPRESSED: [&[u8]; 8] = [
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x5d\0\0",
    b"\x89LZO",
    b"\x02\x21\x4c\x18",
    b"\x04\x22\x4d\x18",
    b"\x28\xb5\x2f\xfd",
];

impl Kind {
    /// Of a file that begins with these bytes.
    pub fn of(beginning: &[u8]) -> Self {
        if beginning.is_empty() {
            Self::Empty
        } else if beginning.starts_with(b"\x7fELF") {
            Self::Elf
        } else if beginning.get(0x202..0x206) == Some(b"HdrS") {
            Self::BzImage
        } else if beginning.chunks_exact(4).any(|word| word == 0x1bad_b002u32.to_le_bytes()) {
            Self::Multiboot
        } else if beginning.starts_with(b"070701") || beginning.starts_with(b"070702") {
            Self::Cpio
        } else if COMPRESSED.iter().any(|magic| beginning.starts_with(magic)) {
            Self::Compressed
        } else if beginning.is_ascii() && !beginning.contains(&0) {
            Self::Text
        } else {
            Self::Other
        }
    }

    /// Whether it may be a kernel.
    pub fn may_be_kernel(self) -> bool {
        matches!(self, Self::Elf | Self::BzImage | Self::Multiboot)
    }

    /// Whether it may be a Linux initrd. Zeros before the archive are legal.
    pub fn may_be_initrd(self) -> bool {
        matches!(self, Self::Cpio | Self::Compressed | Self::Other)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "an ELF image",
            Self::BzImage => "a Linux bzImage",
            Self::Multiboot => "a Multiboot kernel",
            Self::Cpio => "a cpio archive",
            Self::Compressed => "something compressed",
            Self::Text => "text",
            Self::Empty => "an empty file",
            Self::Other => "something else",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_first_bytes() {
        let mut linux = vec![0; 0x300];
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        let mut multiboot = vec![1; 0x1000];
        multiboot[0x40..0x44].copy_from_slice(&0x1bad_b002u32.to_le_bytes());
        for (bytes, kind, kernel, initrd) in [
            (&b""[..], Kind::Empty, false, false),
            (b"\x7fELF\x02", Kind::Elf, true, false),
            (&linux, Kind::BzImage, true, false),
            (&multiboot, Kind::Multiboot, true, false),
            (b"070701000", Kind::Cpio, false, true),
            (b"\x1f\x8b\x08", Kind::Compressed, false, true),
            (b"#!/bin/sh\n", Kind::Text, false, false),
            (b"\0\0\0\x00070701", Kind::Other, false, true),
        ] {
            assert_eq!(Kind::of(bytes), kind);
            assert_eq!((kind.may_be_kernel(), kind.may_be_initrd()), (kernel, initrd), "{kind}");
        }
    }
}
