//! The qtest protocol: one line a command, one line an answer. Written in QEMU's `system/qtest.c`.
//!
//! Every wait is bounded: a QEMU that hangs, dies or talks nonsense is an error with the command that it was given.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long QEMU may take for one command. It answers in some 25 microseconds; a machine under load is forgiven a lot.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is believed: a page of memory in hexadecimal is 8 KiB.
const MAXIMUM_ANSWER: usize = 1 << 20;
/// How many commands may be without an answer: few enough that their answers fit the socket.
const MAXIMUM_UNANSWERED: usize = 64;
/// How many commands are remembered, to be shown with a failure.
const REMEMBERED: usize = 24;

/// Why a command has no answer.
#[derive(Debug)]
pub enum ProtocolError {
    /// The socket failed.
    Socket {
        /// What was sent.
        command: String,
        /// What the system said.
        error: io::Error,
    },
    /// QEMU closed the socket.
    Closed {
        /// What was sent.
        command: String,
    },
    /// No answer in time.
    Timeout {
        /// What was sent.
        command: String,
    },
    /// QEMU refused the command, or its answer makes no sense.
    Answer {
        /// What was sent.
        command: String,
        /// What came.
        answer: String,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { command, error } => write!(f, "qtest `{command}`: {error}"),
            Self::Closed { command } => write!(f, "qtest `{command}`: QEMU closed the socket"),
            Self::Timeout { command } => write!(f, "qtest `{command}`: no answer in time"),
            Self::Answer { command, answer } => write!(f, "qtest `{command}`: answered `{answer}`"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A client on a connected socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    timeout: Duration,
    /// Whether the socket knows the timeout.
    bounded: bool,
    /// What was read and is no whole line yet.
    pending: Vec<u8>,
    /// Commands that were sent and not answered, the oldest first.
    unanswered: VecDeque<String>,
    history: VecDeque<String>,
    commands: u64,
}

impl Client {
    /// A client that waits at most `timeout` for an answer.
    pub fn new(stream: UnixStream, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            bounded: false,
            pending: Vec::new(),
            unanswered: VecDeque::new(),
            history: VecDeque::new(),
            commands: 0,
        }
    }

    /// How many commands were sent.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The last commands, the oldest first, each with its answer.
    pub fn history(&self) -> impl Iterator<Item = &str> {
        self.history.iter().map(String::as_str)
    }

    /// Sends a command; answers what stands behind `OK`. All that was [posted](Self::post) before is done then.
    ///
    /// # Errors
    /// Every [`ProtocolError`], of the command or of one that was posted.
    pub fn command(&mut self, command: &str) -> Result<String, ProtocolError> {
        self.settle()?;
        self.send(command)?;
        self.answer()
    }

    /// Sends a command whose answer says nothing, and does not wait for it: QEMU takes commands in their order, and whatever
    /// asks it for something waits for all that was posted.
    ///
    /// # Errors
    /// Every [`ProtocolError`], of the command or of one that was posted.
    pub fn post(&mut self, command: &str) -> Result<(), ProtocolError> {
        if self.unanswered.len() == MAXIMUM_UNANSWERED {
            self.settle()?;
        }
        self.send(command)
    }

    /// Waits until all that was posted is done.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn settle(&mut self) -> Result<(), ProtocolError> {
        while !self.unanswered.is_empty() {
            self.answer()?;
        }
        Ok(())
    }

    fn send(&mut self, command: &str) -> Result<(), ProtocolError> {
        self.commands += 1;
        let shown: String = command.chars().take(120).collect();
        let sent = self.write_line(command);
        self.unanswered.push_back(shown.clone());
        sent.map_err(|error| ProtocolError::Socket { command: shown, error })
    }

    fn write_line(&mut self, command: &str) -> io::Result<()> {
        if !self.bounded {
            self.stream.set_write_timeout(Some(self.timeout))?;
            self.stream.set_read_timeout(Some(self.timeout))?;
            self.bounded = true;
        }
        self.stream.write_all(format!("{command}\n").as_bytes())
    }

    /// The answer to the first command that has none.
    fn answer(&mut self) -> Result<String, ProtocolError> {
        let command = self.unanswered.pop_front().unwrap_or_default();
        let outcome = self.wait_for_answer(&command);
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(match &outcome {
            Ok(answer) => format!("{command} -> OK {}", answer.chars().take(120).collect::<String>()),
            Err(error) => error.to_string(),
        });
        outcome
    }

    fn wait_for_answer(&mut self, shown: &str) -> Result<String, ProtocolError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let line = self.line(shown, deadline)?;
            // An interrupt line that is intercepted may speak at any time; none is.
            if line.starts_with("IRQ ") {
                continue;
            }
            return match line.strip_prefix("OK") {
                Some(answer) => Ok(answer.trim().to_string()),
                None => Err(ProtocolError::Answer { command: shown.into(), answer: line }),
            };
        }
    }

    /// The next line, without its end.
    fn line(&mut self, shown: &str, deadline: Instant) -> Result<String, ProtocolError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.pending[..end]).trim_end().to_string();
                self.pending.drain(..=end);
                return Ok(line);
            }
            if self.pending.len() > MAXIMUM_ANSWER {
                return Err(ProtocolError::Answer { command: shown.into(), answer: "a line without an end".into() });
            }
            // One read is bounded by the socket. A peer that sends a byte now and then must not keep this going: the
            // deadline is one for the whole answer, which takes twice the time at most.
            if Instant::now() >= deadline {
                return Err(ProtocolError::Timeout { command: shown.into() });
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ProtocolError::Closed { command: shown.into() }),
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ProtocolError::Socket { command: shown.into(), error }),
            }
        }
    }

    /// A command whose answer is a number.
    fn number(&mut self, command: &str) -> Result<u64, ProtocolError> {
        let answer = self.command(command)?;
        let digits = answer.strip_prefix("0x").unwrap_or(&answer);
        u64::from_str_radix(digits, 16).map_err(|_| ProtocolError::Answer { command: command.into(), answer })
    }

    /// One 32-bit access at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`], as for all that follow.
    pub fn read32(&mut self, address: u64) -> Result<u32, ProtocolError> {
        Ok(self.number(&format!("readl {address:#x}"))? as u32)
    }

    /// One 64-bit access at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn read64(&mut self, address: u64) -> Result<u64, ProtocolError> {
        self.number(&format!("readq {address:#x}"))
    }

    /// One 32-bit access at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn write32(&mut self, address: u64, value: u32) -> Result<(), ProtocolError> {
        self.post(&format!("writel {address:#x} {value:#x}"))
    }

    /// One 64-bit access at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn write64(&mut self, address: u64, value: u64) -> Result<(), ProtocolError> {
        self.post(&format!("writeq {address:#x} {value:#x}"))
    }

    /// One access to an I/O port, of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn port_in(&mut self, port: u16, bytes: u16) -> Result<u32, ProtocolError> {
        Ok(self.number(&format!("in{} {port:#x}", width_letter(bytes)))? as u32)
    }

    /// One access to an I/O port, of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn port_out(&mut self, port: u16, bytes: u16, value: u32) -> Result<(), ProtocolError> {
        self.post(&format!("out{} {port:#x} {value:#x}", width_letter(bytes)))
    }

    /// Memory at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, ProtocolError> {
        let command = format!("read {address:#x} {bytes:#x}");
        let answer = self.command(&command)?;
        let digits = answer.strip_prefix("0x").unwrap_or_default().as_bytes();
        let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match pairs.collect::<Option<Vec<u8>>>() {
            Some(found) if found.len() == bytes => Ok(found),
            _ => Err(ProtocolError::Answer { command, answer }),
        }
    }

    /// Memory at a physical address.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), ProtocolError> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.post(&format!("write {address:#x} {:#x} 0x{digits}", bytes.len()))
    }

    /// Fills memory at a physical address with one byte.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn fill(&mut self, address: u64, bytes: u64, value: u8) -> Result<(), ProtocolError> {
        self.post(&format!("memset {address:#x} {bytes:#x} {value:#x}"))
    }

    /// Raises or lowers an input line of a device, by its path in QEMU's object tree.
    ///
    /// # Errors
    /// Every [`ProtocolError`].
    pub fn set_line(&mut self, device: &str, line: u16, level: bool) -> Result<(), ProtocolError> {
        self.command(&format!("set_irq_in {device} unnamed-gpio-in {line} {}", u8::from(level))).map(drop)
    }
}

fn width_letter(bytes: u16) -> char {
    match bytes {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::thread;

    const SHORT: Duration = Duration::from_millis(100);

    /// A client whose peer answers each line by `answer`, until that says `None`.
    fn client(timeout: Duration, mut answer: impl FnMut(&str) -> Option<String> + Send + 'static) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            for line in BufReader::new(theirs).lines() {
                let Some(text) = line.ok().and_then(|line| answer(&line)) else { return };
                if writer.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Client::new(ours, timeout)
    }

    #[test]
    fn commands_and_answers_have_the_protocols_form() {
        let mut client = client(DEFAULT_TIMEOUT, |line| {
            Some(match line {
                "readq 0xfed90008" => "OK 0x00d2008c222f0606\n".into(),
                "writel 0x10 0xff" => "OK\n".into(),
                "inw 0xcfc" => "OK 0x1234\n".into(),
                "outb 0xcf9 0x6" => "OK\n".into(),
                "read 0x1000 0x3" => "OK 0x01abff\n".into(),
                "write 0x1000 0x2 0x00a5" => "OK\n".into(),
                other => format!("FAIL Unknown command '{other}'\n"),
            })
        });
        assert_eq!(client.read64(0xfed9_0008).unwrap(), 0x00d2_008c_222f_0606);
        client.write32(0x10, 0xff).unwrap();
        assert_eq!(client.port_in(0xcfc, 2).unwrap(), 0x1234);
        client.port_out(0xcf9, 1, 6).unwrap();
        assert_eq!(client.read(0x1000, 3).unwrap(), [1, 0xab, 0xff]);
        client.write(0x1000, &[0, 0xa5]).unwrap();
        client.settle().unwrap();
        assert_eq!(client.history().next(), Some("readq 0xfed90008 -> OK 0x00d2008c222f0606"));
        assert!(matches!(client.read32(0), Err(ProtocolError::Answer { .. })));
    }

    #[test]
    fn an_answer_in_pieces_is_one_and_interrupt_lines_are_passed_over() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            for piece in ["IRQ raise 3\nO", "K 0x0000", "002a\nleft over"] {
                theirs.write_all(piece.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            theirs
        });
        let mut client = Client::new(ours, DEFAULT_TIMEOUT);
        assert_eq!(client.read32(0).unwrap(), 0x2a);
        drop(peer.join());
    }

    #[test]
    fn silence_is_a_timeout() {
        let mut client = client(SHORT, |_| Some(String::new()));
        let start = Instant::now();
        assert!(matches!(client.read32(0), Err(ProtocolError::Timeout { .. })));
        assert!(start.elapsed() >= SHORT && start.elapsed() < SHORT * 20);
    }

    #[test]
    fn a_trickle_is_a_timeout_too() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10))
            }
        });
        let mut client = Client::new(ours, SHORT);
        let start = Instant::now();
        assert!(matches!(client.read32(0), Err(ProtocolError::Timeout { .. })));
        assert!(start.elapsed() < SHORT * 20);
    }

    #[test]
    fn a_flood_without_an_end_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || while theirs.write_all(&[b'x'; 65536]).is_ok() {});
        let mut client = Client::new(ours, DEFAULT_TIMEOUT);
        assert!(matches!(client.read32(0), Err(ProtocolError::Answer { .. })));
    }

    #[test]
    fn a_peer_that_goes_is_said() {
        let mut client = client(DEFAULT_TIMEOUT, |_| None);
        assert!(matches!(client.read32(0), Err(ProtocolError::Closed { .. })));
        assert!(client.history().last().unwrap().contains("closed"));
    }

    #[test]
    fn what_is_posted_is_done_in_its_order_before_anything_is_asked() {
        let mut seen = 0;
        let mut client = client(DEFAULT_TIMEOUT, move |line| {
            let expected = format!("writel 0x0 {seen:#x}");
            seen += 1;
            Some(if line == expected { "OK\n".into() } else { format!("OK {:#x}\n", seen - 1) })
        });
        let count = 3 * MAXIMUM_UNANSWERED as u32 + 1;
        (0..count).for_each(|value| client.write32(0, value).unwrap());
        assert_eq!(client.read32(0).unwrap(), count);
    }

    #[test]
    fn what_was_posted_in_vain_is_said_by_the_next_question() {
        let mut client =
            client(DEFAULT_TIMEOUT, |line| Some(if line.starts_with("write") { "FAIL\n" } else { "OK 0x0\n" }.into()));
        client.write32(0x10, 1).unwrap();
        match client.read32(0) {
            Err(ProtocolError::Answer { command, .. }) => assert_eq!(command, "writel 0x10 0x1"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nonsense_is_no_number_and_no_memory() {
        let mut client = client(DEFAULT_TIMEOUT, |_| Some("OK 0xzz\n".into()));
        assert!(matches!(client.read64(0), Err(ProtocolError::Answer { .. })));
        assert!(matches!(client.read(0, 1), Err(ProtocolError::Answer { .. })));
        assert!(matches!(client.read(0, 2), Err(ProtocolError::Answer { .. })));
    }
}
