//! What a case is, and how one runs.

use libtest_mimic::Failed;
use qtest::glue::Hidden;
use qtest::{Bench, Machine, Mode, Options, Program, Qemu, Version, firmware};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use vtd::Levels;

/// A case: a machine, and what to do with it.
pub struct Case {
    /// What it shows.
    pub name: String,
    options: Options,
    needs: Option<(Version, &'static str)>,
    body: Box<dyn Fn(&Machine) + Send + 'static>,
}

/// The edu devices that most machines have: one in each half of the bus, for which scalable mode has two tables.
pub const EDUS: [&str; 2] = ["bus=pcie.0,addr=0x4", "bus=pcie.0,addr=0x14"];

/// A way to run the unit.
#[derive(Clone, Copy)]
pub struct Setting {
    /// QEMU's `aw-bits`: how wide an address the unit takes, 39 or 48.
    pub width: u32,
    /// The depth of second-stage tables.
    pub levels: Levels,
    /// Whether CAP.CM is set. QEMU caches no entry that is not present; what this judges is that the driver's further
    /// invalidations are well-formed, and that nothing depends on their absence.
    pub caching: bool,
    /// By which tables it translates.
    pub mode: Mode,
    hidden: Hidden,
    /// What is hidden, in words.
    pub without: &'static str,
}

impl Setting {
    /// A unit that shows all that it has.
    pub const fn new(width: u32, levels: Levels, caching: bool) -> Self {
        Self { width, levels, caching, mode: Mode::Legacy, hidden: Hidden { cap: 0, ecap: 0 }, without: "" }
    }

    /// In scalable mode.
    pub const fn scalable(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// A 48-bit unit of which the driver is not shown some bits of CAP_REG and ECAP_REG.
    pub const fn without(what: &'static str, cap: u64, ecap: u64) -> Self {
        Self { hidden: Hidden { cap, ecap }, without: what, ..Self::new(48, Levels::Four, false) }
    }
}

/// The ways to which every kind of translation is put: of a 48-bit unit, tables of 3 levels too.
pub const LEGACY: [Setting; 6] = [
    Setting::new(39, Levels::Three, false),
    Setting::new(39, Levels::Three, true),
    Setting::new(48, Levels::Three, false),
    Setting::new(48, Levels::Three, true),
    Setting::new(48, Levels::Four, false),
    Setting::new(48, Levels::Four, true),
];

/// Scalable mode.
pub const SCALABLE: [Setting; 5] = [
    Setting::new(39, Levels::Three, false).scalable(Mode::ScalableSecond),
    Setting::new(48, Levels::Four, false).scalable(Mode::ScalableSecond),
    Setting::new(48, Levels::Four, true).scalable(Mode::ScalableSecond),
    Setting::new(48, Levels::Four, false).scalable(Mode::ScalableFirst),
    Setting::new(48, Levels::Four, true).scalable(Mode::ScalableFirst),
];

/// ECAP.QI and with it ECAP.IR, CAP.PSI, CAP.MAMV, CAP.SLLPS.
pub const NO_QUEUE: Setting = Setting::without("queued invalidation", 0, 1 << 1 | 1 << 3);
/// Domains only.
pub const NO_PAGES: Setting = Setting::without("page-selective invalidation", 1 << 39, 0);
/// One page at a time, or a domain.
pub const NO_MASK: Setting = Setting::without("address masks", 0x3f << 48, 0);
/// 4 KiB pages only.
pub const NO_LARGE: Setting = Setting::without("large pages", 0xf << 34, 0);

impl Setting {
    /// The first address that a table does not translate. Of the first stage, it is the first that is not canonical.
    pub fn end(self) -> u64 {
        match self.mode {
            Mode::ScalableFirst => 1 << (self.levels.width() - 1),
            _ => 1 << self.levels.width(),
        }
    }

    /// A case on a unit of this setting, brought up.
    pub fn case(self, name: &str, body: impl Fn(&mut Bench) + Send + 'static) -> Case {
        self.on_machine(name, move |machine| body(&mut Bench::up_in(machine, self.mode, self.hidden)))
    }

    /// A case on a unit of this setting as QEMU starts it; its body brings it up.
    pub fn unprepared_case(self, name: &str, body: impl Fn(&mut Bench) + Send + 'static) -> Case {
        self.on_machine(name, move |machine| {
            let mut bench = Bench::hiding(machine, self.hidden);
            bench.mode = self.mode;
            body(&mut bench);
        })
    }

    fn on_machine(self, name: &str, body: impl Fn(&Machine) + Send + 'static) -> Case {
        let caching = if self.caching { "on" } else { "off" };
        let scalable = match self.mode {
            Mode::Legacy => "",
            Mode::ScalableSecond => ",x-scalable-mode=on",
            Mode::ScalableFirst => ",x-scalable-mode=on,x-flts=on",
        };
        let iommu = format!("aw-bits={},caching-mode={caching}{scalable}", self.width);
        let without = if self.without.is_empty() { "".into() } else { format!(", without {}", self.without) };
        Case::new(format!("{name} ({} levels, {iommu}{without})", self.levels.count()), &iommu, body)
    }
}

impl Case {
    /// A case on a machine whose intel-iommu has these properties, with two edu devices, 00:04.0 and 00:14.0.
    pub fn new(name: impl Into<String>, iommu: &str, body: impl Fn(&Machine) + Send + 'static) -> Self {
        let options = Options { iommu: Some(iommu.into()), devices: EDUS.map(qtest::Edu::option).into() };
        Self { name: name.into(), options, needs: None, body: Box::new(body) }
    }

    /// On a machine with these devices instead.
    pub fn devices(mut self, devices: &[String]) -> Self {
        self.options.devices = devices.into();
        self
    }

    /// On a machine without a unit.
    pub fn without_unit(mut self) -> Self {
        self.options.iommu = None;
        self
    }

    /// Only from this version on, for a reason that completes `it ...`.
    pub fn needs_version(mut self, version: Version, otherwise: &'static str) -> Self {
        self.needs = Some((version, otherwise));
        self
    }

    /// Why `program` cannot judge the case, if it cannot: its intel-iommu lacks a property, or the version is too old.
    pub fn obstacle(&self, program: &Program) -> Option<String> {
        let properties = self.options.iommu.iter().flat_map(|iommu| iommu.split(','));
        let mut names = properties.filter_map(|property| property.split('=').next()).filter(|name| !name.is_empty());
        if let Some(name) = names.find(|name| !program.has_option(name)) {
            return Some(format!("its intel-iommu has no {name}"));
        }
        let (version, otherwise) = self.needs?;
        (program.version < version).then(|| format!("it {otherwise}"))
    }

    /// Runs the case; a failure comes with all that QEMU has to say.
    pub fn run(&self, program: &Program) -> Result<(), Failed> {
        let machine = self.machine(program)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            firmware::configure(&machine);
            (self.body)(&machine);
        }));
        match outcome {
            Ok(()) => {
                LAST.set(Some((program.path.clone(), self.options.clone(), machine)));
                Ok(())
            }
            Err(_) => Err(machine.account().into()),
        }
    }

    /// The machine of the case before, reset, if it is like this one's; else a new one. A start takes ten times as long as
    /// a reset.
    fn machine(&self, program: &Program) -> Result<Machine, String> {
        if let Some((path, options, machine)) = LAST.take()
            && path == program.path
            && options == self.options
            && catch_unwind(AssertUnwindSafe(|| machine.reset())).is_ok()
        {
            return Ok(machine);
        }
        Ok(Machine::new(Qemu::start(program, &self.options)?))
    }
}

thread_local! {
    /// The machine of the last case that passed on this thread.
    static LAST: Cell<Option<(PathBuf, Options, Machine)>> = const { Cell::new(None) };
}

/// Ends the machine that this thread has kept.
pub fn end_machine() {
    drop(LAST.take());
}
