use super::pvh::XEN_ELFNOTE_PHYS32_ENTRY;
use super::*;
use alloc::vec;
use alloc::vec::Vec;
use elf::abi::PT_NOTE;

const MEMORY: u64 = 4 << 20;
const KERNEL: u64 = 0x20_0000;
/// Where the kernel of [`Elf`] is linked.
const LINKED: u64 = 0xc020_0000;
const ALIGN: u32 = 1;
const ADDRESSES: u32 = 1 << 16;

/// An ELF image with one segment, and a note for a PVH entry.
#[derive(Clone)]
struct Elf {
    wide: bool,
    machine: u16,
    paddr: u64,
    file: Vec<u8>,
    memsz: u64,
    entry: u64,
    pvh: Option<u32>,
}

impl Elf {
    fn pvh(paddr: u64, memsz: u64, entry: Option<u32>) -> Self {
        Self { wide: true, machine: EM_X86_64, paddr, file: b"code".to_vec(), memsz, entry: 0, pvh: entry }
    }

    fn multiboot(flags: u32, wide: bool) -> Self {
        let mut file = b"head".to_vec();
        file.extend_from_slice(&header(flags, &[]));
        let machine = if wide { EM_X86_64 } else { EM_386 };
        Self { wide, machine, paddr: KERNEL, file, memsz: 0x1001, entry: LINKED + 0x20, pvh: None }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut note = Vec::new();
        if let Some(entry) = self.pvh {
            for word in [4u32, 4, XEN_ELFNOTE_PHYS32_ENTRY as u32] {
                note.extend_from_slice(&word.to_le_bytes());
            }
            note.extend_from_slice(b"Xen\0");
            note.extend_from_slice(&entry.to_le_bytes());
        }
        let (header, program, word) = if self.wide { (64, 56, 8) } else { (52, 32, 4) };
        let mut elf = vec![0x7f, b'E', b'L', b'F', if self.wide { 2 } else { 1 }, 1, 1];
        elf.resize(16, 0);
        let mut field = |value: u64, bytes: usize| elf.extend_from_slice(&value.to_le_bytes()[..bytes]);
        field(ET_EXEC.into(), 2);
        field(self.machine.into(), 2);
        field(1, 4);
        field(self.entry, word);
        field(header as u64, word);
        field(0, word);
        field(0, 4);
        for half in [header, program, 2, 0, 0, 0] {
            field(half as u64, 2);
        }
        let data = (header + 2 * program) as u64;
        let (file, notes) = (self.file.len() as u64, note.len() as u64);
        for (kind, offset, linked, address, filesz, memsz) in
            [(PT_LOAD, data, LINKED, self.paddr, file, self.memsz), (PT_NOTE, data + file, 0, 0, notes, notes)]
        {
            field(kind.into(), 4);
            if self.wide {
                field(0, 4);
            }
            for value in [offset, linked, address, filesz, memsz] {
                field(value, word);
            }
            if !self.wide {
                field(0, 4);
            }
            field(4, word);
        }
        elf.extend_from_slice(&self.file);
        elf.extend_from_slice(&note);
        elf
    }
}

/// A Multiboot header.
fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let mut words = vec![magic, flags, 0u32.wrapping_sub(magic.wrapping_add(flags))];
    words.extend_from_slice(addresses);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn load_with(images: &Images<'_>) -> (Result<Start, LoadError>, Vec<u8>) {
    let mut memory = vec![0u8; MEMORY as usize];
    (load(images, &mut memory, MEMORY), memory)
}

fn load_into(kernel: &[u8]) -> (Result<Start, LoadError>, Vec<u8>) {
    load_with(&Images { kernel, command_line: "hello world", modules: &[] })
}

fn word(memory: &Vec<u8>, at: u64) -> u64 {
    memory.read_u32(GuestPhys::new(at)).unwrap().into()
}

fn text(memory: &[u8], at: u64) -> &[u8] {
    memory[at as usize..].split(|byte| *byte == 0).next().unwrap()
}

const MODULES: [(&str, &[u8]); 2] = [("first", b"some"), ("second.bin", &[0x5a; 5000])];

#[test]
fn a_pvh_kernel_is_loaded_and_told_what_it_has() {
    let kernel = Elf::pvh(KERNEL, 0x1001, Some(0x20_0000)).bytes();
    let (start, memory) = load_with(&Images { kernel: &kernel, command_line: "hello world", modules: &MODULES });
    assert_eq!(start, Ok(Start::Protected { entry: 0x20_0000, rax: 0, information: 0xf_0000 }));
    assert_eq!(&memory[0x20_0000..0x20_0005], b"code\0");
    assert_eq!(word(&memory, 0xf_0000), 0x336e_c578);
    assert_eq!(text(&memory, word(&memory, 0xf_0018)), b"hello world");
    let (map, ranges) = (word(&memory, 0xf_0028), word(&memory, 0xf_0030));
    let long = |at| memory.read_u64(GuestPhys::new(at)).unwrap();
    let ranges: Vec<_> = (0..ranges).map(|n| map + n * 24).map(|at| (long(at), long(at + 8), long(at + 16))).collect();
    assert_eq!(ranges, [(0, 0xf_0000, 1), (0xf_0000, 0x1_0000, 2), (0x10_0000, MEMORY - 0x10_0000, 1)]);
    let (list, modules) = (word(&memory, 0xf_0010), word(&memory, 0xf_000c));
    assert_eq!(modules, 2);
    for (number, (name, data)) in MODULES.into_iter().enumerate() {
        let at = list + number as u64 * 32;
        assert_eq!((long(at), long(at + 8)), ([0x20_2000, 0x20_3000][number], data.len() as u64));
        assert_eq!(&memory[long(at) as usize..][..data.len()], data);
        assert_eq!(text(&memory, long(at + 16)), name.as_bytes());
    }
}

#[test]
fn a_multiboot_kernel_is_loaded_and_told_what_it_has() {
    for wide in [false, true] {
        let kernel = Elf::multiboot(ALIGN, wide).bytes();
        let (start, memory) = load_with(&Images { kernel: &kernel, command_line: "hello world", modules: &MODULES });
        assert_eq!(start, Ok(Start::Protected { entry: 0x20_0020, rax: 0x2bad_b002, information: 0xf_0000 }));
        assert_eq!(&memory[0x20_0000..0x20_0004], b"head");
        let information = |offset: u64| word(&memory, 0xf_0000 + offset);
        assert_eq!((information(0), information(4), information(8)), (0x4d, 640, (MEMORY >> 10) - 1024));
        assert_eq!(text(&memory, information(16)), b"hello world");
        let (mut at, length, mut ranges) = (information(48), information(44), Vec::new());
        let end = at + length;
        while at < end {
            let long = |offset| memory.read_u64(GuestPhys::new(at + offset)).unwrap();
            ranges.push((long(4), long(12), word(&memory, at + 20)));
            at += 4 + word(&memory, at);
        }
        assert_eq!(ranges, [(0, 0xf_0000, 1), (0xf_0000, 0x1_0000, 2), (0x10_0000, MEMORY - 0x10_0000, 1)]);
        assert_eq!(information(20), 2);
        for (number, (name, data)) in MODULES.into_iter().enumerate() {
            let at = information(24) + number as u64 * 16;
            let (from, to) = (word(&memory, at), word(&memory, at + 4));
            assert_eq!((from, to), ([0x20_2000, 0x20_3000][number], from + data.len() as u64));
            assert_eq!(&memory[from as usize..to as usize], data);
            assert_eq!(text(&memory, word(&memory, at + 8)), name.as_bytes());
        }
    }
}

#[test]
fn a_kernel_with_both_is_started_by_pvh() {
    let kernel = Elf { pvh: Some(0x20_0000), ..Elf::multiboot(1 << 2, true) };
    assert!(matches!(load_into(&kernel.bytes()).0, Ok(Start::Protected { rax: 0, .. })));
}

#[test]
fn the_header_is_looked_for_in_8_kib_and_must_be_sound() {
    let place = |offset: usize| {
        let mut kernel = Elf { file: vec![0; 0x3000], memsz: 0x3000, ..Elf::multiboot(0, false) };
        let start = 52 + 2 * 32;
        kernel.file[offset - start..][..12].copy_from_slice(&header(0, &[]));
        kernel.bytes()
    };
    assert!(load_into(&place(8192 - 12)).0.is_ok());
    for offset in [8192 - 8, 8192, 4098] {
        assert_eq!(load_into(&place(offset)).0, Err(LoadError::NoEntry), "{offset}");
    }
    let mut wrong = place(4096);
    wrong[4096 + 8] ^= 1;
    assert_eq!(load_into(&wrong).0, Err(LoadError::NoEntry));
}

#[test]
fn what_is_not_offered_is_refused() {
    for flags in [1 << 2, 1 << 3, 1 << 15, 3 | 1 << 2] {
        let (result, _) = load_into(&Elf::multiboot(flags, false).bytes());
        assert_eq!(result, Err(LoadError::MultibootFlags(flags & !3)));
        let mut plain = header(flags | ADDRESSES, &[KERNEL as u32, KERNEL as u32, 0, 0, KERNEL as u32]);
        plain.resize(64, 0);
        assert_eq!(load_into(&plain).0, Err(LoadError::MultibootFlags(flags & !3)));
    }
    for flags in [0, 3, 1 << 17] {
        assert!(load_into(&Elf::multiboot(flags, false).bytes()).0.is_ok());
    }
}

/// A kernel of no format: 8 bytes, the header, and 32 bytes more.
fn plain(addresses: [u32; 5]) -> Vec<u8> {
    let mut image = b"jmp over".to_vec();
    image.extend_from_slice(&header(ALIGN | ADDRESSES, &addresses));
    image.extend_from_slice(&[0x90; 32]);
    image
}

#[test]
fn a_header_with_addresses_says_how_the_image_is_loaded() {
    let at = KERNEL as u32;
    let (start, memory) = load_into(&plain([at + 8, at, 0, 0, at + 4]));
    assert_eq!(start, Ok(Start::Protected { entry: at + 4, rax: 0x2bad_b002, information: 0xf_0000 }));
    assert_eq!(&memory[KERNEL as usize..][..8], b"jmp over");
    assert_eq!(memory[KERNEL as usize + 8 + 32 + 31], 0x90);
    // Only from the header on, and not to the end, with a bss behind which the module comes.
    let images =
        Images { kernel: &plain([at, at, at + 40, at + 0x1001, at]), command_line: "", modules: &MODULES[..1] };
    let (start, memory) = load_with(&images);
    assert!(start.is_ok());
    assert_eq!(word(&memory, KERNEL), 0x1bad_b002);
    assert_eq!((memory[KERNEL as usize + 39], memory[KERNEL as usize + 40]), (0x90, 0));
    assert_eq!(&memory[KERNEL as usize + 0x2000..][..4], b"some");
}

#[test]
fn addresses_that_make_no_sense_are_refused() {
    let at = KERNEL as u32;
    let length = 8 + 32 + 32;
    for addresses in [
        // The header before the beginning, or further behind it than in the image.
        [at - 4, at, 0, 0, at],
        [at + 12, at, 0, 0, at],
        [u32::MAX, 0, 0, 0, at],
        // The end before the beginning, or beyond the image's end; the bss's end before the image's.
        [at + 8, at, at - 4, 0, at],
        [at + 8, at, at + length + 1, 0, at],
        [at + 8, at, 0, at + length - 1, at],
        [at + 8, at, 0, 1, at],
    ] {
        assert_eq!(load_into(&plain(addresses)).0, Err(LoadError::MultibootAddresses), "{addresses:x?}");
    }
    for addresses in [
        [MEMORY as u32, MEMORY as u32, 0, 0, at],
        [at + 8, at, 0, u32::MAX, at],
        [0xe_fff8, 0xe_fff0, 0, 0, at],
        [at + 8, at, 0, 0, MEMORY as u32],
    ] {
        assert!(matches!(load_into(&plain(addresses)).0, Err(LoadError::DoesNotFit { .. })), "{addresses:x?}");
    }
}

#[test]
fn segments_outside_the_guest_or_in_its_rom_are_refused() {
    for (paddr, memsz) in [
        (MEMORY, 4),
        (MEMORY - 4, 5),
        (u64::MAX - 2, 4),
        (0xe_fffd, 4),
        (0xf_fffc, 4),
        (0x20_0000, 3),
        (0x20_0000, u64::MAX),
    ] {
        let (result, _) = load_into(&Elf::pvh(paddr, memsz, Some(0x20_0000)).bytes());
        assert_eq!(result, Err(LoadError::DoesNotFit { address: paddr, bytes: memsz }));
    }
    for paddr in [0, 0xe_fffc, 0x10_0000] {
        assert!(load_into(&Elf::pvh(paddr, 4, Some(0x20_0000)).bytes()).0.is_ok(), "{paddr:#x}");
    }
    let (result, _) = load_into(&Elf::pvh(0x20_0000, 4, Some(MEMORY as u32)).bytes());
    assert!(matches!(result, Err(LoadError::DoesNotFit { .. })));
    let (result, _) = load_into(&Elf::pvh(0x20_0000, 4, None).bytes());
    assert_eq!(result, Err(LoadError::NoEntry));
    let (result, _) = load_into(&Elf { machine: 40, ..Elf::pvh(0x20_0000, 4, Some(0)) }.bytes());
    assert_eq!(result, Err(LoadError::WrongKind));
    let (result, _) = load_into(&Elf { entry: 1 << 32, ..Elf::multiboot(0, true) }.bytes());
    assert_eq!(result, Err(LoadError::DoesNotFit { address: 1 << 32, bytes: 0 }));
}

#[test]
fn what_comes_beside_the_kernel_must_fit() {
    for kernel in [Elf::pvh(KERNEL, 0x1000, Some(0x20_0000)).bytes(), Elf::multiboot(0, false).bytes()] {
        let all = Images { kernel: &kernel, command_line: "", modules: &[] };
        let too_much = |images: &Images<'_>| assert_eq!(load_with(images).0, Err(LoadError::TooMuch));
        let long = "x".repeat(4096);
        too_much(&Images { command_line: &long, ..all });
        assert!(load_with(&Images { command_line: &long[1..], ..all }).0.is_ok());
        too_much(&Images { modules: &[("m", &[][..]); MAXIMUM_MODULES + 1], ..all });
        assert!(load_with(&Images { modules: &[("m", &[][..]); MAXIMUM_MODULES], ..all }).0.is_ok());
        too_much(&Images { modules: &[(&long[..128], &[])], ..all });
        let large = vec![0; (MEMORY - KERNEL) as usize - 0x1000 + 1];
        let (result, _) = load_with(&Images { modules: &[("m", &large)], ..all });
        assert!(matches!(result, Err(LoadError::DoesNotFit { .. })));
    }
}

#[test]
fn damaged_images_are_errors_and_never_a_panic() {
    let at = KERNEL as u32;
    let images = [
        Elf::pvh(KERNEL, 0x1000, Some(0x20_0000)).bytes(),
        Elf::multiboot(0, false).bytes(),
        plain([at + 8, at, 0, at + 0x1000, at]),
    ];
    for (number, good) in images.iter().enumerate() {
        // The last can be cut to its header.
        let needed = if number == 2 { 40 } else { good.len() - 1 };
        for length in 0..needed {
            assert!(load_into(&good[..length]).0.is_err(), "cut at {length}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = load_into(&bad);
            }
        }
    }
}

#[test]
fn the_reset_vector_stops_the_processor() {
    let (_, memory) = load_into(&Elf::multiboot(0, false).bytes());
    assert_eq!(&memory[0xf_fff0..0xf_fff4], [0xfa, 0xf4, 0xeb, 0xfd]);
}

/// A bzImage of one setup sector and a kernel of 0x300 bytes, which wants to be at 2 MiB and uses 64 KiB at first.
fn bz_image() -> Vec<u8> {
    let mut image = vec![0; 2 * 512 + 0x300];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x201, &[0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &3u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &KERNEL.to_le_bytes());
    put(0x260, &0x1_0000u32.to_le_bytes());
    put(2 * 512, b"kernel");
    image
}

#[test]
fn linux_is_entered_in_64_bit_mode_with_its_ramdisk_and_the_memory_map() {
    let image = bz_image();
    let images = Images { kernel: &image, command_line: "console=ttyS0", modules: &[("initrd", &[0x5a; 5000])] };
    let mut memory = vec![0; MEMORY as usize];
    let start = load(&images, &mut memory, MEMORY).unwrap();
    let Start::Long { entry, information, page_tables, descriptor_table, descriptor_table_limit } = start else {
        panic!("{start:?}")
    };
    assert_eq!((entry, information), (KERNEL + 0x200, 0x7000));
    assert_eq!(&memory[KERNEL as usize..][..6], b"kernel");
    let params = |at: usize| u32::from_le_bytes(memory[0x7000 + at..][..4].try_into().unwrap());
    assert_eq!(&memory[0x7202..0x7206], b"HdrS");
    assert_eq!(memory[0x7210], 0xff);
    let ramdisk = params(0x218) as usize;
    assert_eq!((ramdisk, params(0x21c)), (MEMORY as usize - 8192, 5000));
    assert_eq!(memory[ramdisk..ramdisk + 5000], [0x5a; 5000]);
    assert_eq!(text(&memory, params(0x228).into()), b"console=ttyS0");
    assert_eq!(params(0x70), 0xf_8000);
    let ranges: Vec<_> = (0..memory[0x71e8] as usize)
        .map(|number| 0x2d0 + 20 * number)
        .map(|at| (params(at), params(at + 8), params(at + 16)))
        .collect();
    let expected = [
        (0, 0x9_fc00, 1),
        (0xe_0000 + 0x1_0000, 0x1_0000, 2),
        (0x10_0000, MEMORY as u32 - 0x10_0000, 1),
        (0xfec0_0000, 0x0040_0000, 2),
    ];
    assert_eq!(ranges, expected);
    // Every page of the first 4 GiB leads to itself.
    let entry =
        |table: u64, index: u64| u64::from_le_bytes(memory[(table + index * 8) as usize..][..8].try_into().unwrap());
    let next = |entry: u64| {
        assert_eq!(entry & 0x81, 1);
        entry & !0xfff
    };
    for address in [0u64, 0x20_0000, 0x7fff_ffff, 0xfee0_0000, 0xffff_ffff] {
        let middle = next(entry(page_tables, address >> 39));
        let low = next(entry(middle, address >> 30 & 511));
        let leaf = entry(low, address >> 21 & 511);
        assert_eq!((leaf & 0x83, leaf & !0x1f_ffff), (0x83, address & !0x1f_ffff));
    }
    assert_eq!(entry(descriptor_table, 2), 0x00af_9b00_0000_ffff);
    assert_eq!(entry(descriptor_table, 3), 0x00cf_9300_0000_ffff);
    assert_eq!(descriptor_table_limit, 0x1f);
}

#[test]
fn a_linux_kernel_is_moved_where_it_fits_or_refused() {
    let load_changed = |change: &dyn Fn(&mut Vec<u8>), bytes: u64| {
        let mut image = bz_image();
        change(&mut image);
        let images = Images { kernel: &image, command_line: "", modules: &[("initrd", &[0x5a; 5000])] };
        load(&images, &mut vec![0; bytes as usize], bytes)
    };
    let put = |at: usize, value: u64, bytes: usize| {
        move |image: &mut Vec<u8>| image[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes])
    };
    // It wants to be beyond the memory: as low as its alignment lets it.
    let moved = load_changed(&put(0x258, 1 << 40, 8), MEMORY);
    assert!(matches!(moved, Ok(Start::Long { entry: 0x20_0200, .. })), "{moved:?}");
    let fixed = |image: &mut Vec<u8>| {
        put(0x258, 1 << 40, 8)(image);
        image[0x234] = 0;
    };
    assert!(matches!(load_changed(&fixed, MEMORY), Err(LoadError::DoesNotFit { .. })));
    // In low memory, and over the end of the address space.
    for preferred in [0x1000, u64::MAX - 0x1000] {
        let moved = load_changed(&put(0x258, preferred, 8), MEMORY);
        assert!(matches!(moved, Ok(Start::Long { entry: 0x20_0200, .. })), "{moved:?}");
    }
    assert!(matches!(load_changed(&put(0x260, 0xffff_ffff, 4), MEMORY), Err(LoadError::DoesNotFit { .. })));
    // No room for the ramdisk between the kernel and the end, or where the kernel can read it.
    let tight = KERNEL + 0x1_0000 + 4096;
    assert!(matches!(load_changed(&|_| {}, tight), Err(LoadError::DoesNotFit { bytes: 5000, .. })));
    assert!(matches!(load_changed(&put(0x22c, 0x1000, 4), MEMORY), Err(LoadError::DoesNotFit { bytes: 5000, .. })));
    for (at, value, bytes) in [(0x206, 0x20b, 2), (0x236, 2, 2)] {
        assert!(matches!(load_changed(&put(at, value, bytes), MEMORY), Err(LoadError::LinuxTooOld(_))));
    }
    for alignment in [0, 3] {
        assert_eq!(load_changed(&put(0x230, alignment, 4), MEMORY), Err(LoadError::LinuxHeader));
    }
    assert_eq!(load_changed(&put(0x1f1, 0, 1), MEMORY), Err(LoadError::LinuxHeader), "4 sectors are not there");
    for length in 0x206..2 * 512 + 0x200 {
        assert_eq!(load_changed(&|image| image.truncate(length), MEMORY), Err(LoadError::LinuxHeader), "{length:#x}");
    }
    let two = Images { kernel: &bz_image(), command_line: "", modules: &[("a", &[]), ("b", &[])] };
    assert_eq!(load(&two, &mut vec![0; MEMORY as usize], MEMORY), Err(LoadError::TooMuch));
    let long = "x".repeat(2048);
    let long = Images { kernel: &bz_image(), command_line: &long, modules: &[] };
    assert_eq!(load(&long, &mut vec![0; MEMORY as usize], MEMORY), Err(LoadError::TooMuch));
}
