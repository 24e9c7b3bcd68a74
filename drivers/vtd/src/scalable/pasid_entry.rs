//! The PASID table entry that says how requests are translated, and what a unit must have for it.

use crate::checks::check_table;
use crate::error::Error;
use crate::spec::capability::{Capabilities, Levels};
use crate::spec::pasid::{Common, FIRST_STAGE, NESTED, PASS_THROUGH, PasidEntry, SECOND_STAGE};
use crate::translation::Translation;
use addr::{DomainId, GuestPhys, HostPhys, PAGE_SIZE};

fn need(present: bool, capability: &'static str) -> Result<(), Error> {
    if present { Ok(()) } else { Err(Error::Unsupported { capability }) }
}

fn check_second_stage(capabilities: Capabilities, table: HostPhys, levels: Levels) -> Result<(), Error> {
    need(capabilities.scalable_second_stage(), "second-stage translation in scalable mode (ECAP.SSTS)")?;
    if !capabilities.supports_levels(levels) {
        return Err(Error::LevelsUnsupported(levels.count()));
    }
    check_table(table)
}

fn check_first_stage(capabilities: Capabilities, levels: Levels) -> Result<(), Error> {
    need(capabilities.first_stage(), "first-stage translation (ECAP.FSTS)")?;
    match capabilities.supports_first_stage_levels(levels) {
        true => Ok(()),
        false => Err(Error::LevelsUnsupported(levels.count())),
    }
}

impl Translation {
    /// The PASID table entry that says it, with everything snooped that the unit can snoop.
    pub(super) fn entry(self, capabilities: Capabilities, domain: DomainId) -> Result<PasidEntry, Error> {
        let common = Common {
            domain,
            page_walk_snoop: capabilities.scalable_page_walk_coherency(),
            page_snoop: capabilities.snoop_control(),
        };
        match self {
            Self::SecondStage { table, levels } => {
                check_second_stage(capabilities, table, levels)?;
                Ok(PasidEntry::second_stage(table, levels, common))
            }
            Self::FirstStage { table, levels } => {
                check_first_stage(capabilities, levels)?;
                check_table(table)?;
                Ok(PasidEntry::first_stage(table, levels, capabilities.second_stage_levels(), common))
            }
            Self::Nested { first, first_levels, second, second_levels } => {
                need(capabilities.nested_translation(), "nested translation (ECAP.NEST)")?;
                check_first_stage(capabilities, first_levels)?;
                check_second_stage(capabilities, second, second_levels)?;
                // Guest-physical page 0 is a page like any other.
                if !first.is_aligned(PAGE_SIZE) || first.as_u64() >> second_levels.width() != 0 {
                    return Err(Error::BadFirstStageTable(first));
                }
                Ok(PasidEntry::nested(first.as_u64(), first_levels, second, second_levels, common))
            }
            Self::PassThrough => {
                need(capabilities.pass_through(), "pass-through (ECAP.PT)")?;
                let levels =
                    if capabilities.scalable_second_stage() { capabilities.second_stage_levels() } else { None };
                Ok(PasidEntry::pass_through(levels, common))
            }
        }
    }

    /// What a present PASID table entry says, if it says something that [`Self::entry`] can.
    pub(super) fn of(entry: PasidEntry) -> Option<Self> {
        match entry.translation_type() {
            SECOND_STAGE => {
                Some(Self::SecondStage { table: entry.second_stage_table(), levels: entry.second_stage_levels()? })
            }
            FIRST_STAGE => Some(Self::FirstStage {
                table: HostPhys::new(entry.first_stage_table()),
                levels: entry.first_stage_levels()?,
            }),
            NESTED => Some(Self::Nested {
                first: GuestPhys::new(entry.first_stage_table()),
                first_levels: entry.first_stage_levels()?,
                second: entry.second_stage_table(),
                second_levels: entry.second_stage_levels()?,
            }),
            PASS_THROUGH => Some(Self::PassThrough),
            _ => None,
        }
    }
}
