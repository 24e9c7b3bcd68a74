//! Figures of the page tables and of the driver, from one run on the machine that it runs on.
//!
//! Time is compared within the run only: every crate does the same work in turns, and what is printed are medians of
//! ratios. What can be counted is counted: tables, descriptors, register writes.

mod arena;
mod compare;
mod guest;
mod mappers;
mod unit;

use addr::PageSize;
use compare::Work;
use std::process::ExitCode;

const HELP: &str = "\
Figures of the page tables and of the driver.

    cargo run --profile bench -p bench [-- OPTIONS]

    --short              a smaller run: a few rounds, a guest of 4 GiB, 4096 devices, 8192 pages
    --markdown           the tables of the README too
    --only CRATE WORK N  does one work of one crate N times and prints nothing, for a profiler; WORK is one of
                         1g-by-4k, 1g-by-2m, 1g-by-1g, 16m-page-by-page
    --help               this text

Prints lines `bench: NAME KEY=VALUE ...`. Times are nanoseconds; `ratio` is the other crate's time by Postern's, the
median over rounds in which all crates took turns, so that more than 1 is in favour of Postern. The profile `bench` optimizes for speed;
with `--release` all crates are compiled as the image is, for size.";

/// How much is done.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    guest: u64,
    devices: u32,
    pages: u64,
}

const FULL: Extent = Extent { rounds: 101, guest: 1 << 40, devices: 1 << 16, pages: 1 << 18 };
const SHORT: Extent = Extent { rounds: 3, guest: 1 << 32, devices: 1 << 12, pages: 1 << 13 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--help" | "-h"] => println!("{HELP}"),
        ["--only", name, work, times] => {
            let (Some(work), Ok(times)) = (Work::by_name(work), times.parse()) else { return refuse(&arguments) };
            arena::provide(1 << 12);
            if !compare::repeat(name, work, times) {
                let names: Vec<_> = compare::names().collect();
                eprintln!("no crate {name:?}: there are {}", names.join(", "));
                return ExitCode::FAILURE;
            }
        }
        [] => run(FULL, false),
        ["--short"] => run(SHORT, false),
        ["--markdown"] => run(FULL, true),
        ["--short", "--markdown"] | ["--markdown", "--short"] => run(SHORT, true),
        _ => return refuse(&arguments),
    }
    ExitCode::SUCCESS
}

fn refuse(arguments: &[&str]) -> ExitCode {
    eprintln!("{:?} is not understood (see --help)", arguments.join(" "));
    ExitCode::FAILURE
}

fn run(extent: Extent, markdown: bool) {
    arena::provide(1 << 12);
    let works: Vec<_> = Work::ALL.into_iter().map(|work| (work, compare::compare(work, extent.rounds))).collect();
    for (work, rows) in &works {
        print_comparison(*work, rows);
    }
    for pages in [1, 512, extent.pages] {
        let counts = unit::count_unmap(pages);
        let unit::Counts { descriptors, waits, tail_writes, register_writes } = counts;
        println!(
            "bench: unmap pages={pages} descriptors={descriptors} waits={waits} tail_writes={tail_writes} \
             register_writes={register_writes}"
        );
    }
    // The row that the times of other things are compared with.
    let page = works[0].1[0].map;
    let (tables, time) = unit::assign_devices(extent.devices);
    let each = time / f64::from(extent.devices);
    println!(
        "bench: devices count={} tables={tables} ns_per_device={each:.1} ratio_to_4k_page={:.0}",
        extent.devices,
        each / page
    );
    for size in PageSize::LARGEST_FIRST {
        let (tables, time) = guest::build(extent.guest, size);
        let leaves = (extent.guest >> size.shift()) as f64;
        println!(
            "bench: guest gib={} by={size:?} tables={tables} ms={:.3} ns_per_leaf={:.2} ratio_to_4k_page={:.1}",
            extent.guest >> 30,
            time / 1e6,
            time / leaves,
            time / leaves / page
        );
    }
    if markdown {
        print_markdown(&works);
    }
}

fn print_comparison(work: Work, rows: &[compare::Row]) {
    let ours = &rows[0];
    for other in &rows[1..] {
        for (what, own, theirs, ratio) in
            [("map", ours.map, other.map, other.map_ratio), ("unmap", ours.unmap, other.unmap, other.unmap_ratio)]
        {
            println!(
                "bench: {what}-{} postern={} {}={} ratio={ratio:.2}",
                work.name(),
                nanoseconds(own),
                other.name,
                nanoseconds(theirs)
            );
        }
    }
}

fn print_markdown(works: &[(Work, Vec<compare::Row>)]) {
    println!();
    print!("| ns a 4 KiB page (times Postern's) | postern |");
    compare::names().skip(1).for_each(|name| print!(" {name} |"));
    print!("\n|---|---:|");
    compare::names().skip(1).for_each(|_| print!("---:|"));
    println!();
    for (work, rows) in works {
        for what in ["map", "unmap"] {
            print!("| {what} {} |", work.name());
            for (place, row) in rows.iter().enumerate() {
                let (time, ratio) = if what == "map" { (row.map, row.map_ratio) } else { (row.unmap, row.unmap_ratio) };
                match place {
                    0 => print!(" {} |", nanoseconds(time)),
                    _ => print!(" {} (×{ratio:.2}) |", nanoseconds(time)),
                }
            }
            println!();
        }
    }
}

/// A time with three digits that say something.
fn nanoseconds(time: f64) -> String {
    let digits = (2.0 - time.max(1e-9).log10().floor()).clamp(0.0, 7.0) as usize;
    format!("{time:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is measured is done once, so that none of it can stop working unseen; and what is counted does
    /// not depend on the machine.
    #[test]
    fn a_short_run_works_and_counts_what_is_promised() {
        run(Extent { rounds: 1, ..SHORT }, true);
        for pages in [1, 512] {
            let counts = unit::count_unmap(pages);
            assert_eq!((counts.waits, counts.tail_writes), (1, 1), "{pages} pages: {counts:?}");
            assert_eq!(counts.descriptors, 2, "{pages} pages: {counts:?}");
        }
        assert_eq!(unit::assign_devices(1 << 16).0, 257, "a root table and one context table a bus");
        let tables = PageSize::LARGEST_FIRST.map(|size| guest::build(1 << 32, size).0);
        // The root, one table of 1 GiB slots, one for each GiB, one for each 2 MiB.
        assert_eq!(tables, [2, 2 + 4, 2 + 4 + 4 * 512]);
    }
}
