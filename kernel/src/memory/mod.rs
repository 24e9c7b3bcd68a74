//! The machine's memory: frames and who owns each, access to them, and the hypervisor's own mapping.

pub mod address_space;
pub mod frames;
pub mod heap;
pub mod image;
pub mod layout;
pub mod physical;
pub mod tables;

use frames::FrameTable;
use spin::{Mutex, MutexGuard};

static FRAMES: Mutex<Option<FrameTable<'static>>> = Mutex::new(None);

/// Installs the machine's frame table.
pub fn set_frames(table: FrameTable<'static>) {
    *FRAMES.lock() = Some(table);
}

/// The machine's frame table. Held for one operation only, never across a wait or another lock.
pub fn frames() -> FramesGuard {
    FramesGuard(FRAMES.lock())
}

/// The frame table, locked. Before `set_frames` it is a table without a single frame.
pub struct FramesGuard(MutexGuard<'static, Option<FrameTable<'static>>>);

impl FramesGuard {
    /// The table.
    pub fn table(&mut self) -> &mut FrameTable<'static> {
        self.0.get_or_insert_with(|| FrameTable::new(&mut []))
    }
}
