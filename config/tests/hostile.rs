//! Files that somebody made to do harm: reading them ends, in bounded memory and on a small stack, and without a panic.

use config::{MAXIMUM_BYTES, MAXIMUM_COMPLAINTS, check_members, parse};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What reading may take of the hypervisor's heap, which has 1 MiB.
const HEAP: usize = 512 << 10;
/// The hypervisor's stack; the code of the tests is not optimized and needs a multiple of what the image does.
const STACK: usize = 128 << 10;

thread_local! {
    /// Bytes allocated by this thread, and the most so far.
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (now, most) = ALLOCATED.get();
        let now = now.wrapping_add(layout.size());
        ALLOCATED.set((now, most.max(now)));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let (now, most) = ALLOCATED.get();
        ALLOCATED.set((now.saturating_sub(layout.size()), most));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a file as the hypervisor would, and says how much memory that took, and whether nothing is wrong with it.
fn read(text: &str) -> (usize, bool) {
    let (before, _) = ALLOCATED.get();
    ALLOCATED.set((before, before));
    let good = match parse(text) {
        Ok(config) => {
            assert!(check_members(&config, &["netprobe", "other"]).len() <= MAXIMUM_COMPLAINTS);
            true
        }
        Err(complaints) => {
            assert!((1..=MAXIMUM_COMPLAINTS).contains(&complaints.len()));
            let lines = text.lines().count() as u32 + 1;
            for complaint in &complaints {
                assert!((1..=lines).contains(&complaint.line), "{complaint} of {lines}");
                assert!(complaint.text.len() < 1500, "{complaint}");
            }
            false
        }
    };
    let (_, most) = ALLOCATED.get();
    assert!(most - before <= HEAP, "{} bytes for {text:.200}", most - before);
    (most - before, good)
}

fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap().join().unwrap();
}

#[test]
fn what_grows_without_end_is_refused_or_fits() {
    on_small_stack(|| {
        let mut most = 0;
        for piece in [
            "a",
            ".",
            "a.",
            "[",
            "]",
            "{",
            "}",
            "[[",
            "[a.",
            "{a=",
            "{a.b=",
            "a={",
            "a=[",
            "1,",
            ",",
            "=",
            "\"",
            "'",
            "\"\"\"",
            "'''",
            "\\",
            "#",
            "\n",
            "\r",
            "\r\n",
            " ",
            "a=1\n",
            "[a]\n",
            "[[a]]\n",
            "[[guest]]\n",
            "[guest.a]\n",
            "a.b=1\n",
            "\u{1f600}",
            "\0",
            "0x",
            "1e",
            "1979-01-01T",
            "inf",
            "\"\\u0000\"",
            "[[guest]]\nname=\"a\"\n",
        ] {
            for start in
                ["", "a = ", "a = [", "a = {", "\"", "'''", "[", "[[guest]]\nname = \"", "[[guest]]\ndevices = ["]
            {
                for limit in [MAXIMUM_BYTES, MAXIMUM_BYTES / 2, 1000, 100, 30] {
                    let count = (limit - start.len()) / piece.len();
                    most = most.max(read(&format!("{start}{}", piece.repeat(count))).0);
                }
            }
        }
        // As deep as it goes: tables in tables by dots, in lists and inline tables.
        for dots in 0..40 {
            for depth in 0..12 {
                let path = "a.".repeat(dots) + "a";
                let lists = "[".repeat(depth) + &"]".repeat(depth);
                let tables = format!("{}1{}", "{b=".repeat(depth), "}".repeat(depth));
                for text in
                    [format!("{path}={lists}"), format!("{path}={tables}"), format!("[{path}]\n{path}={tables}")]
                {
                    most = most.max(read(&text).0);
                }
            }
        }
        println!("at most {most} bytes");
        assert!(most > 100_000, "the limits were not reached: {most}");
    });
}

#[test]
fn a_hundred_thousand_random_changes_never_panic() {
    const SEED: u64 = 0x706f_7374_6572_6e31;
    const GOOD: &str = include_str!("../../guests/netprobe.toml");
    const WORDS: [&str; 40] = [
        "[[guest]]",
        "[guest]",
        "[hypervisor]",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\\",
        "\n",
        "\r\n",
        "#",
        " ",
        "name",
        "kernel",
        "initrd",
        "modules",
        "memory_mib",
        "devices",
        "cpus",
        "command_line",
        "debug_exit_port",
        "0x",
        "-1",
        "1_000",
        "99999999999999999999",
        "1e9",
        "true",
        "nan",
        "1979-05-27",
        "\u{feff}",
        "\u{1f600}",
        "\0",
        "\\u0000",
    ];
    println!("seed {SEED:#x}");
    on_small_stack(|| {
        let mut state = SEED;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below.max(1)
        };
        let (mut good, mut bad) = (0, 0);
        for _ in 0..100_000 {
            let mut text: Vec<char> = GOOD.chars().collect();
            for _ in 0..1 + random(4) {
                let at = random(text.len());
                let end = (at + random(12)).min(text.len());
                match random(5) {
                    0 => drop(text.drain(at..end)),
                    1 => drop(text.splice(at..at, WORDS[random(WORDS.len())].chars())),
                    2 => drop(text.splice(at..end, WORDS[random(WORDS.len())].chars())),
                    3 if !text.is_empty() => {
                        text[at] = char::from_u32(random(0x120) as u32).unwrap();
                    }
                    _ => {
                        let copy = text[at..end].to_vec();
                        let to = random(text.len());
                        drop(text.splice(to..to, copy));
                    }
                }
            }
            let text: String = text.into_iter().collect();
            *if read(&text).1 { &mut good } else { &mut bad } += 1;
        }
        println!("{good} still good, {bad} refused");
        assert!(good > 1000 && bad > 10_000, "{good} {bad}");
    });
}
