//! The options on the kernel command line.

use addr::Iova;

/// What netprobe is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `attack`: misuse the NIC's DMA after it has been used properly.
    pub attack: bool,
    /// `storm`: provoke faults continuously at the end.
    pub storm: bool,
    /// `nmi`: forge non-maskable interrupts by the NIC's DMA.
    pub nmi: bool,
    /// `no-network`: neither DHCP nor pings.
    pub no_network: bool,
    /// `image=ADDRESS`: the host-physical address of the hypervisor's image, which a device that escapes its
    /// translation could reach under the same number.
    pub image: Option<Iova>,
}

/// An option that is not understood: a test that asked for something must not pass without having done it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadOption<'a>(pub &'a str);

impl Options {
    /// Reads options that are separated by white space. The first word may be the path of the kernel: it is passed
    /// over if it contains a slash, as boot loaders put it there.
    pub fn parse(line: &str) -> Result<Self, BadOption<'_>> {
        let mut options = Self::default();
        for (index, word) in line.split_ascii_whitespace().enumerate() {
            match word.split_once('=') {
                None if word == "attack" => options.attack = true,
                None if word == "storm" => options.storm = true,
                None if word == "nmi" => options.nmi = true,
                None if word == "no-network" => options.no_network = true,
                Some(("image", value)) => options.image = Some(Iova::new(number(value).ok_or(BadOption(word))?)),
                _ if index == 0 && word.contains('/') => {}
                _ => return Err(BadOption(word)),
            }
        }
        Ok(options)
    }
}

/// A decimal number, or a hexadecimal one after `0x`; underscores and signs are not numbers.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_by_an_empty_line() {
        assert_eq!(Options::parse("  "), Ok(Options::default()));
    }

    #[test]
    fn every_option_is_understood_in_any_order() {
        let expected =
            Options { attack: true, storm: true, nmi: true, no_network: true, image: Some(Iova::new(0x100_0000)) };
        assert_eq!(Options::parse("storm image=0x1000000 nmi no-network attack"), Ok(expected));
        assert_eq!(Options::parse("attack\tno-network  image=16777216\nstorm nmi"), Ok(expected));
    }

    #[test]
    fn the_path_of_the_kernel_is_passed_over() {
        assert_eq!(Options::parse("/boot/netprobe attack"), Ok(Options { attack: true, ..Options::default() }));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(Options::parse("attack atack"), Err(BadOption("atack")));
        assert_eq!(Options::parse("attack=1"), Err(BadOption("attack=1")));
        for bad in ["image=", "image=0x", "image=+1", "image=0x1_0", "image=0x1ffffffffffffffff", "image"] {
            assert_eq!(Options::parse(bad), Err(BadOption(bad)));
        }
    }
}
