//! The hypervisor's heap: for reading the configuration and for what is set up once per guest. Nothing on the path
//! of a guest's exit or of an interrupt allocates.

use linked_list_allocator::LockedHeap;

/// The heap's size in bytes. It lives in the image's zero-initialized data, so it costs memory and no file.
pub const HEAP_BYTES: usize = 1 << 20;

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: LockedHeap = LockedHeap::empty();

#[repr(align(16))]
struct Memory(core::cell::UnsafeCell<[u8; HEAP_BYTES]>);

#[expect(unsafe_code, reason = "hands a static to the allocator")]
// SAFETY: the bytes are given to the allocator once, by `start`, and never touched in another way.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(core::cell::UnsafeCell::new([0; HEAP_BYTES]));

/// Gives the heap its memory. Only the first call has an effect.
#[expect(unsafe_code, reason = "hands a static to the allocator")]
pub fn start() {
    let mut heap = HEAP.lock();
    if heap.size() == 0 {
        // SAFETY: the static lives for ever, is aligned and is used by nobody else; `size() == 0` says that it was
        // not handed over before.
        unsafe { heap.init(MEMORY.0.get().cast(), HEAP_BYTES) };
    }
}

/// Bytes in use.
pub fn used() -> usize {
    HEAP.lock().used()
}
