//! PCI configuration space, capabilities, MSI and MSI-X.
#![no_std]
#![forbid(unsafe_code)]
