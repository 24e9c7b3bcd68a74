//! What a virtual CPU is: virtual machine control in, typed exit out.
