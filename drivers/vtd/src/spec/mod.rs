//! Layouts of the Intel Virtualization Technology for Directed I/O specification (revision 4.1): which bit is
//! where, and nothing else. Whatever decides or waits is outside this module.

pub mod capability;
pub mod context;
pub mod fault;
pub mod interrupt;
pub mod invalidation;
pub mod page_request;
pub mod pasid;
pub mod registers;
pub mod scalable_capability;
pub mod scalable_context;
pub mod scalable_invalidation;
