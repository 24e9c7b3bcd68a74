//! Tests of the crate; the tables are built here, byte by byte.

mod ats;
mod builder;
mod findings;
mod lookups;
mod mutations;
mod oddities;
mod scopes;
mod structures;
mod tables;
