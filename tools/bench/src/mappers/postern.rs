//! This repository's `paging`, in the format of VT-d's second stage.
#![expect(unsafe_code, reason = "a table is taken down by a call that consumes it, here when it is dropped")]

use super::{By, Mapper};
use crate::arena::Frames;
use addr::{HostPhys, Iova, PageSize};
use paging::{Flush, NeverLoaded, PageTable, Permissions, SecondStage, SecondStageAttributes};
use std::mem::ManuallyDrop;

#[derive(Debug)]
pub struct Postern(ManuallyDrop<PageTable<SecondStage>>);

/// What a processor's tables do not need: the proof is the one that costs nothing, and the tables go back.
fn complete(flush: Flush<Iova>) {
    flush.complete(&NeverLoaded, &mut Frames).expect("nothing has looked at the table");
}

impl Mapper for Postern {
    const NAME: &'static str = "postern";

    fn new() -> Self {
        Self(ManuallyDrop::new(PageTable::new(4, PageSize::Size1G, &mut Frames).expect("there are frames")))
    }

    #[inline(always)]
    fn map(&mut self, _: By, input: u64, host: u64, len: u64) {
        let (input, host) = (Iova::new(input), HostPhys::new(host));
        let attributes = SecondStageAttributes::default();
        complete(self.0.map(&mut Frames, input, host, len, Permissions::READ_WRITE, attributes).expect("it fits"));
    }

    #[inline(always)]
    fn unmap(&mut self, _: By, input: u64, len: u64) {
        complete(self.0.unmap(&mut Frames, Iova::new(input), len).expect("it fits"));
    }

    #[inline(always)]
    fn map_page(&mut self, input: u64, host: u64) {
        self.map(By::Pages4K, input, host, 4096);
    }

    #[inline(always)]
    fn unmap_page(&mut self, input: u64) {
        self.unmap(By::Pages4K, input, 4096);
    }
}

impl Drop for Postern {
    fn drop(&mut self) {
        // SAFETY: this is the only place, and nothing uses it afterwards.
        let table = unsafe { ManuallyDrop::take(&mut self.0) };
        complete(table.destroy(&mut Frames));
    }
}
