//! A way to a server that breaks: it cuts a connection after so many bytes of what is asked, or of what
//! is answered. Or it holds answers back, and counts what is asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::wait::pause;

/// Its threads end with their connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: AtomicU16,
    cuts: AtomicBool,
    holds: AtomicBool,
    /// Everything that was asked.
    heard: Mutex<Vec<u8>>,
    dice: Mutex<Dice>,
    /// Connections that were cut within what was asked, and within what was answered.
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Proxy {
    /// Leads to a port of this machine. It does not cut yet.
    pub fn to(server: u16, dice: Dice) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, dice) = (AtomicBool::new(false), Mutex::new(dice));
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        let (holds, heard) = (AtomicBool::new(false), Mutex::default());
        let server = AtomicU16::new(server);
        let shared = Arc::new(Shared { server, cuts, holds, heard, dice, asked, answered });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                theirs.lead(&client);
            }
        });
        Proxy { port, shared }
    }

    /// `redis://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Leads to another port from the next connection on.
    pub fn turn_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::Release);
    }

    /// Whether connections made from now on are cut.
    pub fn set_cuts(&self, cuts: bool) {
        self.shared.cuts.store(cuts, Ordering::Release);
    }

    /// Whether answers are held back.
    pub fn set_holds(&self, holds: bool) {
        self.shared.holds.store(holds, Ordering::Release);
    }

    /// How often a command was asked.
    pub fn asked(&self, command: &str) -> usize {
        let heard = self.shared.heard.lock().unwrap();
        heard.windows(command.len()).filter(|some| *some == command.as_bytes()).count()
    }

    /// Connections that were cut within what was asked, and within what was answered.
    pub fn cuts(&self) -> (u64, u64) {
        (self.shared.asked.load(Ordering::Acquire), self.shared.answered.load(Ordering::Acquire))
    }
}

impl Shared {
    fn lead(self: &Arc<Self>, client: &TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.load(Ordering::Acquire)))
        else {
            return;
        };
        let mut after = [u64::MAX; 2];
        if self.cuts.load(Ordering::Acquire) {
            let mut dice = self.dice.lock().unwrap();
            let side = dice.below(2) as usize;
            // Answers are short; and small numbers as often as large ones.
            let most = if side == 0 { 13 } else { 9 };
            let magnitude = dice.below(most);
            after[side] = (1 << magnitude) + dice.below(1 << magnitude);
        }
        for (side, (from, to)) in [(client, &server), (&server, client)].into_iter().enumerate() {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (shared, left) = (self.clone(), after[side]);
            std::thread::spawn(move || {
                if shared.pump(side, &from, &to, left) {
                    [&shared.asked, &shared.answered][side].fetch_add(1, Ordering::AcqRel);
                }
                for end in [from, to] {
                    end.shutdown(Shutdown::Both).ok();
                }
            });
        }
    }

    /// Passes bytes on until one side ends or none are left; whether none were.
    fn pump(&self, side: usize, mut from: &TcpStream, mut to: &TcpStream, mut left: u64) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let some = left.min(length as u64);
            if side == 0 {
                self.heard.lock().unwrap().extend_from_slice(&buffer[..some as usize]);
            }
            while side == 1 && self.holds.load(Ordering::Acquire) {
                pause(Duration::from_millis(2));
            }
            if to.write_all(&buffer[..some as usize]).is_err() {
                return false;
            }
            left -= some;
            if left == 0 {
                return true;
            }
        }
        false
    }
}
