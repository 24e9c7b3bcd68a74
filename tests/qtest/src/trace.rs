//! What QEMU writes down of itself: one line an event, the event's name first. It is complete up to the last answer, for
//! QEMU writes each line out before it goes on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// QEMU's trace file.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    seen: u64,
}

/// Events, in their order.
#[derive(Clone, Debug, Default)]
pub struct Events(Vec<String>);

impl Trace {
    /// The file need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: 0 }
    }

    /// What has happened since the last call.
    pub fn take(&mut self) -> Events {
        let text = self.read_from(self.seen);
        // A line that is not whole belongs to the next call.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.seen += whole as u64;
        Events(text[..whole].lines().map(String::from).collect())
    }

    /// The whole file.
    pub fn everything(&self) -> String {
        self.read_from(0)
    }

    fn read_from(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut bytes)
        });
        // No file is no event: QEMU makes it with the first one.
        read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Events {
    /// What stands behind the name of each event of this name.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    /// How many events of this name there are.
    pub fn count(&self, name: &str) -> usize {
        self.of(name).count()
    }

    /// The faults of DMA that the unit found, before any compression.
    pub fn dma_faults(&self) -> Vec<DmaFault> {
        let parse = |text| {
            Some(DmaFault {
                source: number(text, "sid")? as u16,
                reason: number(text, "fault")? as u8,
                address: number(text, "addr")?,
                write: number(text, "write")? != 0,
            })
        };
        self.of("vtd_dmar_fault").filter_map(parse).collect()
    }

    /// What was put into the fault recording register, high half first.
    pub fn fault_records(&self) -> Vec<(u64, u64)> {
        self.of("vtd_frr_new").filter_map(|text| Some((number(text, "high")?, number(text, "low")?))).collect()
    }

    /// The interrupts that reached the local APICs: destination and vector.
    pub fn interrupts(&self) -> Vec<(u32, u8)> {
        let parse = |text| Some((number(text, "dest")? as u32, number(text, "vector")? as u8));
        self.of("apic_deliver_irq").filter_map(parse).collect()
    }

    /// The descriptors that the unit took from its queue: type, high half, low half.
    pub fn descriptors(&self) -> Vec<(String, u64, u64)> {
        let parse = |text: &str| {
            let kind = text.strip_prefix("invalidate desc type ")?.split(' ').next()?;
            Some((kind.to_string(), number(text, "high")?, number(text, "low")?))
        };
        self.of("vtd_inv_desc").filter_map(parse).collect()
    }
}

/// An event `vtd_dmar_fault`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaFault {
    /// The source-id.
    pub source: u16,
    /// The fault reason.
    pub reason: u8,
    /// The address that the device used.
    pub address: u64,
    /// Whether it was a write.
    pub write: bool,
}

/// The number behind the word `name`: decimal, or hexadecimal with `0x`.
pub fn number(text: &str, name: &str) -> Option<u64> {
    let mut words = text.split([' ', ',', '(', ')']).filter(|word| !word.is_empty());
    words.find(|word| *word == name)?;
    let word = words.next()?;
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_taken_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut trace = Trace::new(path.clone());
        assert_eq!(trace.take().0.len(), 0, "no file yet");
        let mut file = File::create(path).unwrap();
        write!(file, "vtd_dmar_fault sid 0x20 fault 5 addr 0x1000 write 1\nvtd_frr_").unwrap();
        let expected = DmaFault { source: 0x20, reason: 5, address: 0x1000, write: true };
        assert_eq!(trace.take().dma_faults(), [expected]);
        writeln!(file, "new index 0 high 0x8000000500000020 low 0x1000").unwrap();
        assert_eq!(trace.take().fault_records(), [(0x8000_0005_0000_0020, 0x1000)]);
        assert_eq!(trace.take().0.len(), 0);
    }

    #[test]
    fn an_event_is_found_by_its_whole_name() {
        let lines = ["vtd_inv_desc_wait_sw addr", "vtd_inv_desc invalidate desc type wait high 0x10 low 0x25"];
        let events = Events(lines.map(String::from).into());
        assert_eq!(events.descriptors(), [("wait".to_string(), 0x10, 0x25)]);
        assert_eq!(events.count("vtd_inv_desc"), 1);
    }

    #[test]
    fn numbers_are_found_behind_their_names() {
        let text = "dest 0 dest_mode 1 delivery_mode 2 vector 65 trigger_mode 0";
        assert_eq!((number(text, "dest"), number(text, "vector")), (Some(0), Some(65)));
        assert_eq!(number("(addr 0xfee00010, data 0x0) -> x", "addr"), Some(0xfee0_0010));
        assert_eq!(number(text, "nothing"), None);
    }
}
